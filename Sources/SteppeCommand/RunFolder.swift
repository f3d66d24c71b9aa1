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
  func create() throws(FileError) { try Folder.make(path, "a folder for a run") }

  /// Holds the folder against other runs as long as the result lives. Only its holder may write here.
  ///
  /// - Throws: ``TrainingError/folderInUse(folder:reason:)`` where another run holds it; ``FileError``.
  func lock() throws -> FolderLock { try FolderLock(path) }

  /// Removes what a run has left; other files stay.
  func clear() throws {
    try CheckpointFolder.clear(checkpoints)
    for path in [model, metrics, curves + ".csv", curves + ".svg", curves + ".png"]
    where unlink(path) != 0 && errno != ENOENT {
      throw FileError(
        path: path, kind: .cannotWrite, expected: "to be removed", found: String(cString: strerror(errno)))
    }
  }
}
