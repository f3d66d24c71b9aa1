import Glibc

/// The folder in which one run keeps its checkpoints, `checkpoint-<step>.safetensors`, held against other runs as long as the object.
package final class CheckpointFolder {
  let path: String
  private let lock: FolderLock

  /// Makes the folder where it is missing, and removes the temporary files that a killed run left.
  ///
  /// - Parameter checkpoint: The run's last checkpoint; without one in this folder there must be no other run's.
  /// - Throws: ``FileError`` or ``TrainingError/folderInUse(folder:reason:)``.
  init(_ path: String, continuing checkpoint: String?) throws {
    self.path = path
    try Folder.make(path, Self.purpose)
    lock = try FolderLock(path)
    let isOwn = checkpoint.map { Self.isSame(Folder.parent(of: $0), path) } ?? false
    if !isOwn, let found = try Self.steps(in: path).max() {
      throw TrainingError.folderInUse(
        folder: path,
        reason: "expected a folder without another run's checkpoints, found checkpoint-\(found).safetensors; "
          + "resume that run or choose another folder")
    }
    for name in try Self.temporaryFiles(in: path) { unlink(name) }
  }

  /// Removes what a run has left in a folder, its checkpoints, best model and temporary files; other files stay.
  ///
  /// - Throws: ``FileError``; ``TrainingError/folderInUse(folder:reason:)`` where the run is still going on.
  package static func clear(_ path: String) throws {
    guard Folder.exists(path) else { return }
    let lock = try FolderLock(path)
    defer { withExtendedLifetime(lock) {} }
    let files = try steps(in: path).map { checkpoint($0, in: path) } + temporaryFiles(in: path) + [bestModel(in: path)]
    for file in files where unlink(file) != 0 && errno != ENOENT {
      throw FileError(path: file, kind: .cannotWrite, expected: "to be removed", found: FileError.reason(errno))
    }
  }

  /// What a killed run left of files that it was writing.
  private static func temporaryFiles(in path: String) throws(FileError) -> [String] {
    try names(in: path).filter { $0.hasPrefix(".steppe-") && $0.hasSuffix(".tmp") }.map { "\(path)/\($0)" }
  }

  /// The model after the best epoch.
  static func bestModel(in path: String) -> String { "\(path)/best.safetensors" }

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
      // As this step's checkpoint is written: not `007`, which is somebody else's.
      return Int(digits).flatMap { $0 >= 0 && "\($0)" == digits ? $0 : nil }
    }
  }

  private static func names(in path: String) throws(FileError) -> [String] { try Folder.names(in: path, purpose) }

  private static let purpose = "a folder for checkpoints"

  private static func isSame(_ a: String, _ b: String) -> Bool {
    var (first, second) = (stat(), stat())
    return stat(a, &first) == 0 && stat(b, &second) == 0
      && (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
  }
}
