import Glibc
import Steppe

/// The folder of a run and what stands in it.
struct RunFolder {
  let path: String

  var model: String { path + "/model.safetensors" }
  var metrics: String { path + "/metrics.jsonl" }
  /// Without extensions.
  var curves: String { path + "/curves" }
  var checkpoints: String { path + "/checkpoints" }

  /// Whether a run has left something here.
  var holdsRun: Bool { [model, metrics, checkpoints].contains { (path: String) in access(path, F_OK) == 0 } }

  /// Makes the folder and those above it where they are missing.
  func create() throws(FileError) { try Self.create(path) }

  /// Makes the folder `path` and those above it where they are missing.
  static func create(_ path: String) throws(FileError) {
    var prefix = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
      prefix += part + "/"
      if mkdir(prefix, 0o777) != 0, errno != EEXIST { throw refusal(path, "a folder that can be made", errno) }
    }
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
      throw FileError(path: path, kind: .cannotWrite, expected: "a folder", found: "another kind of file")
    }
    guard access(path, W_OK) == 0 else { throw refusal(path, "a folder that takes files", errno) }
  }

  /// Holds the folder against other runs as long as the result lives. Only its holder may write here.
  ///
  /// - Throws: ``TrainingError/folderInUse(folder:reason:)`` where another run holds it; ``FileError``.
  func lock() throws -> FolderLock { try FolderLock(path) }

  /// Removes what a run has left; other files stay.
  func clear() throws {
    try CheckpointFolder.clear(checkpoints)
    for path in [model, metrics, curves + ".csv", curves + ".svg", curves + ".png"]
    where unlink(path) != 0 && errno != ENOENT {
      throw Self.refusal(path, "to be removed", errno)
    }
  }

  private static func refusal(_ path: String, _ expected: String, _ number: Int32) -> FileError {
    FileError(path: path, kind: .cannotWrite, expected: expected, found: String(cString: strerror(number)))
  }
}
