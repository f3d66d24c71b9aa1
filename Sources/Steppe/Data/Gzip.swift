import CZlib
import Glibc

/// Memory of the C library's, which grows while a stream is read into it.
final class HeapBytes: @unchecked Sendable {
  private(set) var bytes: UnsafeMutableRawBufferPointer

  init() { bytes = UnsafeMutableRawBufferPointer(start: nil, count: 0) }

  /// Makes room for `count` bytes and keeps those that are there; false where the system has no such memory.
  func resize(_ count: Int) -> Bool {
    guard let start = realloc(bytes.baseAddress, max(count, 1)) else { return false }
    bytes = UnsafeMutableRawBufferPointer(start: start, count: count)
    return true
  }

  deinit { free(bytes.baseAddress) }
}

/// Decompresses a gzip file of one or more members as it is read; zlib checks each member's length and CRC-32.
final class GzipReader {
  private let path: String
  private let input: UnsafeRawBufferPointer
  private let owner: AnyObject
  private var consumed = 0
  private var isAtEnd = false
  /// zlib keeps a pointer to it, so that it must stay in place.
  private let stream: UnsafeMutablePointer<z_stream>

  /// No compressed byte gives more than this many (the limit of deflate's format).
  static let greatestRatio = 1032

  /// Whether `bytes` begin as a gzip file does.
  static func accepts(_ bytes: UnsafeRawBufferPointer) -> Bool {
    bytes.count >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b
  }

  init(_ file: MappedFile) throws(FileError) {
    path = file.path
    input = file.bytes
    owner = file
    stream = .allocate(capacity: 1)
    stream.initialize(to: z_stream())
    // 16 more than the window's 15 bits: a gzip header and trailer are expected.
    let status = inflateInit2_(stream, 15 + 16, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
    guard status == Z_OK else {
      throw FileError(path: path, kind: .tooLarge, expected: "memory to decompress", found: "zlib's error \(status)")
    }
  }

  deinit {
    inflateEnd(stream)
    stream.deallocate()
  }

  /// Fills `output` from its start as far as there are bytes, and returns how many there were.
  func read(into output: UnsafeMutableRawBufferPointer) throws(FileError) -> Int {
    var produced = 0
    while produced < output.count, !isAtEnd {
      // zlib counts in 32 bits.
      let piece = min(input.count - consumed, 1 << 30)
      let room = min(output.count - produced, 1 << 30)
      stream.pointee.next_in = UnsafeMutablePointer(
        mutating: (input.baseAddress! + consumed).assumingMemoryBound(to: UInt8.self))
      stream.pointee.avail_in = UInt32(piece)
      stream.pointee.next_out = (output.baseAddress! + produced).assumingMemoryBound(to: UInt8.self)
      stream.pointee.avail_out = UInt32(room)
      let status = inflate(stream, Z_NO_FLUSH)
      consumed += piece - Int(stream.pointee.avail_in)
      produced += room - Int(stream.pointee.avail_out)
      switch status {
      case Z_OK, Z_BUF_ERROR:
        if consumed == input.count, stream.pointee.avail_out > 0 {
          throw FileError(
            path: path, kind: .truncated, expected: "a complete gzip stream",
            found: "its end inside a member, after \(input.count) compressed bytes")
        }
      case Z_STREAM_END: try startNextMember()
      default:
        let message = stream.pointee.msg.map { String(cString: $0) } ?? "zlib's error \(status)"
        throw FileError(
          path: path, kind: .corrupted, expected: "an intact gzip stream",
          found: "\(message) near compressed byte \(consumed)")
      }
    }
    return produced
  }

  private func startNextMember() throws(FileError) {
    isAtEnd = consumed == input.count
    guard !isAtEnd else { return }
    guard Self.accepts(UnsafeRawBufferPointer(rebasing: input[consumed...])) else {
      throw FileError(
        path: path, kind: .trailingBytes, expected: "the file's end after the gzip stream",
        found: "\(input.count - consumed) more bytes")
    }
    inflateReset(stream)
  }
}
