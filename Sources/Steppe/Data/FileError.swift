import Glibc

/// What is wrong with a file, or with the data that it holds.
///
/// Its description names the file, what was expected and what came:
/// `train-images.gz: truncated: expected 47040016 bytes, found 1234 bytes`.
public struct FileError: Error, Equatable, CustomStringConvertible {
  /// The ways in which a file can be wrong.
  public enum Kind: String, Sendable, Hashable, CaseIterable {
    /// There is no such file.
    case missing = "missing"
    /// The system refuses to open or read it, or it is no regular file; `found` is the system's reason.
    case notReadable = "not readable"
    /// It has no bytes.
    case empty = "empty"
    /// It ends before what its header announces.
    case truncated = "truncated"
    /// It goes on after what its header announces.
    case trailingBytes = "trailing bytes"
    /// Its first bytes are those of another format.
    case wrongMagic = "wrong magic number"
    /// Its header was written in the opposite byte order.
    case wrongByteOrder = "wrong byte order"
    /// Its header breaks the format's rules.
    case wrongFormat = "wrong format"
    /// The format allows it, and Steppe does not read it.
    case unsupported = "unsupported"
    /// A checksum does not fit, or compressed data cannot be decompressed.
    case corrupted = "corrupted"
    /// It announces or holds more than can be held in memory.
    case tooLarge = "too large"
    /// It has no entry of the name that was asked for.
    case noSuchEntry = "no such entry"
    /// Two things that must agree do not: the numbers of images and labels, or two shapes.
    case mismatch = "mismatch"
    /// A label or another integer lies outside its range.
    case outOfRange = "out of range"
    /// A feature is NaN or infinite.
    case notFinite = "not finite"
    /// The system refuses to write it; `found` is the system's reason, such as a full disk.
    case cannotWrite = "cannot write"
    /// Whoever was told of the progress asked to stop.
    case interrupted = "interrupted"
  }

  /// The file, as it was named by the caller.
  public let path: String
  /// What is wrong, to be told apart by a program.
  public let kind: Kind
  /// What was expected.
  public let expected: String
  /// What came instead.
  public let found: String

  /// An error about the file at `path`.
  public init(path: String, kind: Kind, expected: String, found: String) {
    self.path = path
    self.kind = kind
    self.expected = expected
    self.found = found
  }

  /// One line with the file, the kind, what was expected and what came.
  public var description: String { "\(path): \(kind.rawValue): expected \(expected), found \(found)" }

  /// The system's words for its error `number`.
  static func reason(_ number: Int32) -> String { String(cString: strerror(number)) }
}
