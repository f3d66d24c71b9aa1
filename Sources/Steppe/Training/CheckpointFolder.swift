import Glibc

/// The folder in which one run keeps its checkpoints, `checkpoint-<step>.safetensors`, held against other runs as long as the object.
package final class CheckpointFolder {
  let path: String
  /// Holds the lock, which ends with the process however that ends.
  private let descriptor: Int32

  /// Makes the folder where it is missing, and removes the temporary files that a killed run left.
  ///
  /// - Parameter checkpoint: The run's last checkpoint; without one in this folder there must be no other run's.
  /// - Throws: ``FileError`` or ``TrainingError/folderInUse(folder:reason:)``.
  init(_ path: String, continuing checkpoint: String?) throws {
    self.path = path
    try Self.make(path)
    descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Self.failure(path, .cannotWrite, FileError.reason(errno)) }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      throw TrainingError.folderInUse(folder: path, reason: "another training is writing to this folder")
    }
    let isOwn = checkpoint.map { Self.isSame(Self.parent(of: $0), path) } ?? false
    if !isOwn, let found = try Self.steps(in: path).max() {
      throw TrainingError.folderInUse(
        folder: path,
        reason: "expected a folder without another run's checkpoints, found checkpoint-\(found).safetensors; "
          + "resume that run or choose another folder")
    }
    for name in try Self.names(in: path) where name.hasPrefix(".steppe-") && name.hasSuffix(".tmp") {
      unlink("\(path)/\(name)")
    }
  }

  deinit {
    guard descriptor >= 0 else { return }
    // A process that is being spawned holds the descriptor for a moment, and with it a lock that is not given back expressly.
    flock(descriptor, LOCK_UN)
    close(descriptor)
  }

  /// The model after the best epoch.
  var bestModel: String { "\(path)/best.safetensors" }

  /// The checkpoint of `step`.
  static func checkpoint(_ step: Int, in path: String) -> String { "\(path)/checkpoint-\(step).safetensors" }

  /// Removes the checkpoints of steps up to `step` but for the last `count`. Later ones can only be those of a run that is being repeated
  /// from here, damaged ones among them; each is replaced when its step comes.
  func removeOld(upTo step: Int, keeping count: Int) throws(FileError) {
    for old in try Self.steps(in: path).filter({ $0 <= step }).sorted().dropLast(count) {
      unlink(Self.checkpoint(old, in: path))
    }
  }

  /// The steps of the checkpoints in a folder.
  package static func steps(in path: String) throws(FileError) -> [Int] {
    let (start, end) = ("checkpoint-", ".safetensors")
    return try names(in: path).compactMap { name in
      guard name.hasPrefix(start), name.hasSuffix(end), name.utf8.count > start.utf8.count + end.utf8.count else {
        return nil
      }
      let digits = name.dropFirst(start.count).dropLast(end.count)
      return digits.allSatisfy { $0.isASCII && $0.isNumber } ? Int(digits) : nil
    }
  }

  package static func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  private static func names(in path: String) throws(FileError) -> [String] {
    guard let stream = opendir(path) else { throw failure(path, .notReadable, FileError.reason(errno)) }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      names.append(
        withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }
    return names
  }

  /// Makes the folder and those above it.
  private static func make(_ path: String) throws(FileError) {
    if isFolder(path) { return }
    let parent = parent(of: path)
    if parent != path, parent != "." { try make(parent) }
    if mkdir(path, 0o777) != 0, !isFolder(path) { throw failure(path, .cannotWrite, FileError.reason(errno)) }
  }

  /// The folder that holds `path`, by its name alone.
  private static func parent(of path: String) -> String {
    var parts = path.split(separator: "/", omittingEmptySubsequences: false)
    while parts.count > 1, parts.last!.isEmpty { parts.removeLast() }
    let parent = parts.dropLast().joined(separator: "/")
    return parent.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : parent
  }

  private static func isSame(_ a: String, _ b: String) -> Bool {
    var (first, second) = (stat(), stat())
    return stat(a, &first) == 0 && stat(b, &second) == 0
      && (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
  }

  private static func failure(_ path: String, _ kind: FileError.Kind, _ reason: String) -> FileError {
    FileError(path: path, kind: kind, expected: "a folder for checkpoints", found: reason)
  }
}
