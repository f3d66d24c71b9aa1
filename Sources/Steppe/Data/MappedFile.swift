import Glibc

/// A regular file's bytes, mapped into memory for reading: the system loads each page when it is first touched.
///
/// The mapping lasts as long as the object. A file that another process replaces by renaming stays as it was; one that
/// is truncated in place while mapped ends this process with `SIGBUS`, which is for the host to prevent.
public final class MappedFile: @unchecked Sendable {
  /// The file, as it was named by the caller.
  public let path: String
  /// Its bytes; valid as long as the object.
  package let bytes: UnsafeRawBufferPointer

  /// The number of bytes.
  public var count: Int { bytes.count }

  /// Maps the file at `path`; an empty file maps to no bytes.
  ///
  /// - Throws: ``FileError`` of kind `missing` or `notReadable`, the latter also for folders, devices and pipes.
  public init(_ path: String) throws(FileError) {
    func failure(_ kind: FileError.Kind, _ found: String) -> FileError {
      FileError(path: path, kind: kind, expected: "a readable file", found: found)
    }
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw failure(errno == ENOENT ? .missing : .notReadable, FileError.reason(errno))
    }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw failure(.notReadable, FileError.reason(errno)) }
    switch status.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR: throw failure(.notReadable, "a folder")
    default: throw failure(.notReadable, "a device, pipe or socket")
    }
    self.path = path
    let size = Int(status.st_size)
    guard size > 0 else {
      bytes = UnsafeRawBufferPointer(start: nil, count: 0)
      return
    }
    guard let start = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
      throw failure(.notReadable, FileError.reason(errno))
    }
    bytes = UnsafeRawBufferPointer(start: start, count: size)
  }

  /// Calls `body` with the file's bytes, which are valid during the call.
  public func withUnsafeBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { withExtendedLifetime(self) {} }
    return try body(bytes)
  }

  /// Lets the system have the memory of the bytes at `range`; they are loaded anew where they are touched again.
  func release(_ range: Range<Int>) { Self.release(UnsafeRawBufferPointer(rebasing: bytes[range])) }

  /// Lets the system have the memory of `bytes`, which are a mapped file's.
  static func release(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress, bytes.count > 0 else { return }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let (low, high) = (Int(bitPattern: start) / page * page, Int(bitPattern: start) + bytes.count)
    madvise(UnsafeMutableRawPointer(bitPattern: low), (high - low + page - 1) / page * page, MADV_DONTNEED)
  }

  /// The file's bytes, of which there must be some: `expected` says what they should be.
  static func nonEmpty(_ path: String, expected: String) throws(FileError) -> MappedFile {
    let file = try MappedFile(path)
    if file.count == 0 { throw FileError(path: path, kind: .empty, expected: expected, found: "0 bytes") }
    return file
  }

  deinit {
    if let start = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: start), bytes.count) }
  }
}
