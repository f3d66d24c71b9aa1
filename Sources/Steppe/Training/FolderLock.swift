import Glibc

/// A folder held against other runs, in this process or another, as long as the object lives.
package final class FolderLock {
  /// Holds the lock, which ends with the process however that ends.
  private let descriptor: Int32

  /// Takes the lock of a folder.
  ///
  /// - Throws: ``FileError`` where the folder can't be opened; ``TrainingError/folderInUse(folder:reason:)`` where it is held.
  package init(_ path: String) throws {
    descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw FileError(path: path, kind: .cannotWrite, expected: "a folder to hold", found: FileError.reason(errno))
    }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      throw TrainingError.folderInUse(folder: path, reason: "another training is writing to this folder")
    }
  }

  deinit {
    guard descriptor >= 0 else { return }
    // A process that is being spawned holds the descriptor for a moment, and with it a lock that is not given back expressly.
    flock(descriptor, LOCK_UN)
    close(descriptor)
  }
}
