import Glibc

/// A file in the making, which appears under its name complete or not at all.
///
/// ```swift
/// try AtomicFile.write(to: "scores.csv") { file throws(FileError) in
///   try file.write("row,score\n")
/// }
/// ```
public struct AtomicFile: ~Copyable {
  private let path: String
  private let descriptor: Int32
  private var buffer: [UInt8] = []
  private static let bufferSize = 1 << 16

  /// Writes the file at `path` by `body`.
  ///
  /// The bytes go to a temporary file in the same folder, which is synchronized with the disk and then takes the name;
  /// then the folder is synchronized. Until then the old file stays as it was, and after any failure too; the temporary
  /// file is removed. A new file has mode 0644 less the process's umask, a replaced one keeps its mode. A symbolic link
  /// is followed. A device or pipe is written in place.
  ///
  /// - Throws: ``FileError`` of kind `cannotWrite` with the system's reason; whatever `body` throws.
  public static func write(
    to path: String, _ body: (inout AtomicFile) throws(FileError) -> Void
  ) throws(FileError) {
    var status = stat()
    let exists = stat(path, &status) == 0
    switch status.st_mode & S_IFMT {
    case _ where !exists: try replace(path, reportedAs: path, mode: nil, body)
    case S_IFDIR: throw failure(path, expected: "the name of a file", found: "a folder")
    case S_IFREG: try replace(resolved(path), reportedAs: path, mode: status.st_mode & 0o777, body)
    default: try writeInPlace(path, body)
    }
  }

  /// Appends `bytes`.
  public mutating func write(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
    if buffer.count + bytes.count > Self.bufferSize { try flush() }
    if bytes.count >= Self.bufferSize {
      try writeNow(bytes)
    } else {
      buffer.append(contentsOf: bytes)
    }
  }

  /// Appends `bytes`.
  public mutating func write(_ bytes: [UInt8]) throws(FileError) {
    // `withUnsafeBytes` would lose the type of the error.
    try bytes.withUnsafeBufferPointer { bytes throws(FileError) in try write(UnsafeRawBufferPointer(bytes)) }
  }

  /// Appends `text` in UTF-8.
  public mutating func write(_ text: String) throws(FileError) { try write(Array(text.utf8)) }

  /// Where to write at places of the file's own, from several threads at once: for files, not for devices.
  var positions: FilePositions { FilePositions(path: path, descriptor: descriptor) }

  // MARK: - Steps

  private init(path: String, descriptor: Int32) {
    self.path = path
    self.descriptor = descriptor
  }

  private static func failure(_ path: String, expected: String, found: String) -> FileError {
    FileError(path: path, kind: .cannotWrite, expected: expected, found: found)
  }

  /// The file that the links of `path` lead to.
  private static func resolved(_ path: String) -> String {
    guard let name = realpath(path, nil) else { return path }
    defer { free(name) }
    return String(cString: name)
  }

  private static func replace(
    _ target: String, reportedAs path: String, mode: mode_t?, _ body: (inout AtomicFile) throws(FileError) -> Void
  ) throws(FileError) {
    let slash = target.utf8.lastIndex(of: UInt8(ascii: "/"))
    let folder = slash.map { target[...$0] } ?? "./"
    let temporary = "\(folder).steppe-\(String(UInt64.random(in: 0 ... .max), radix: 16)).tmp"
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode_t(0o644))
    guard descriptor >= 0 else {
      throw failure(path, expected: "a folder \(folder) that takes new files", found: FileError.reason(errno))
    }
    do throws(FileError) {
      if let mode { fchmod(descriptor, mode) }
      try fill(path, descriptor, synchronizing: true, body)
      if rename(temporary, target) != 0 {
        throw failure(path, expected: "to take the name", found: FileError.reason(errno))
      }
    } catch {
      unlink(temporary)
      throw error
    }
    try synchronizeFolder(String(folder), of: path)
  }

  private static func writeInPlace(
    _ path: String, _ body: (inout AtomicFile) throws(FileError) -> Void
  ) throws(FileError) {
    let descriptor = open(path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw failure(path, expected: "a device or pipe that takes bytes", found: FileError.reason(errno))
    }
    try fill(path, descriptor, synchronizing: false, body)
  }

  /// Lets `body` write to `descriptor`, which is closed at the end in any case.
  private static func fill(
    _ path: String, _ descriptor: Int32, synchronizing: Bool, _ body: (inout AtomicFile) throws(FileError) -> Void
  ) throws(FileError) {
    var file = AtomicFile(path: path, descriptor: descriptor)
    do throws(FileError) {
      try body(&file)
      try file.flush()
      if synchronizing, retried({ fsync(descriptor) }) != 0 {
        throw failure(path, expected: "the disk to take the file", found: FileError.reason(errno))
      }
    } catch {
      close(descriptor)
      throw error
    }
    // Some network file systems report a full disk only here; an interrupted close has closed all the same.
    if close(descriptor) != 0, errno != EINTR {
      throw failure(path, expected: "the disk to take the file", found: FileError.reason(errno))
    }
  }

  /// Makes the new name last through a power failure, where the file system can.
  private static func synchronizeFolder(_ folder: String, of path: String) throws(FileError) {
    let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    // A folder may allow writing and forbid reading: then nothing can be synchronized.
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    if retried({ fsync(descriptor) }) != 0, errno != EINVAL {
      throw failure(path, expected: "the disk to take the file's name", found: FileError.reason(errno))
    }
  }

  private mutating func flush() throws(FileError) {
    let pending = buffer
    buffer.removeAll(keepingCapacity: true)
    try pending.withUnsafeBufferPointer { bytes throws(FileError) in try writeNow(UnsafeRawBufferPointer(bytes)) }
  }

  /// Writes all of `bytes`; the system takes at most 2 GiB at a time, and less when it likes.
  private func writeNow(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
    try Self.writeAll(bytes, path) { Glibc.write(descriptor, $0.baseAddress, $0.count) }
  }

  /// Calls `write` with what is left of `bytes` until nothing is.
  fileprivate static func writeAll(
    _ bytes: UnsafeRawBufferPointer, _ path: String, _ write: (UnsafeRawBufferPointer) -> Int
  ) throws(FileError) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let part = UnsafeRawBufferPointer(rebasing: rest)
      let written = retried { write(part) }
      guard written > 0 else {
        throw failure(
          path, expected: "room for \(bytes.count) bytes", found: FileError.reason(written == 0 ? ENOSPC : errno))
      }
      rest = rest.dropFirst(written)
    }
  }

  /// The call's result, made again as long as a signal interrupts it.
  private static func retried<Count: SignedInteger>(_ call: () -> Count) -> Count {
    while true {
      let result = call()
      if result >= 0 || errno != EINTR { return result }
    }
  }
}

/// The places of a file in the making, for threads that write their parts of it.
struct FilePositions: Sendable {
  fileprivate let path: String
  fileprivate let descriptor: Int32

  /// Writes `bytes` from `offset` on, counted from the file's beginning.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileError) {
    try AtomicFile.writeAll(bytes, path) { rest in
      pwrite(descriptor, rest.baseAddress, rest.count, offset + bytes.count - rest.count)
    }
  }
}
