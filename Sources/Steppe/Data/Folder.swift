import Glibc

/// Folders as files are kept in them.
package enum Folder {
  /// Whether there is a folder at `path`.
  package static func exists(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  /// Makes the folder and those above it where they are missing.
  ///
  /// - Throws: ``FileError`` where that can't be done or the folder takes no files; `purpose` says what it is for, "a folder for runs".
  package static func make(_ path: String, _ purpose: String) throws(FileError) {
    func make(_ path: String) -> Bool {
      if exists(path) { return true }
      let parent = parent(of: path)
      if parent != path, parent != ".", !make(parent) { return false }
      return mkdir(path, 0o777) == 0 || exists(path)
    }
    guard make(path), access(path, W_OK) == 0 else { throw refusal(path, .cannotWrite, purpose) }
  }

  /// The names of what the folder holds.
  package static func names(in path: String, _ purpose: String) throws(FileError) -> [String] {
    guard let stream = opendir(path) else { throw refusal(path, .notReadable, purpose) }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// The folder that holds `path`, by its name alone.
  package static func parent(of path: String) -> String {
    var parts = path.split(separator: "/", omittingEmptySubsequences: false)
    while parts.count > 1, parts.last!.isEmpty { parts.removeLast() }
    let parent = parts.dropLast().joined(separator: "/")
    return parent.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : parent
  }

  private static func refusal(_ path: String, _ kind: FileError.Kind, _ purpose: String) -> FileError {
    FileError(path: path, kind: kind, expected: purpose, found: FileError.reason(errno))
  }
}
