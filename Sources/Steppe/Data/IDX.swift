import Glibc

/// Reads and writes IDX files, the format of MNIST and Fashion-MNIST, plain or compressed by gzip.
///
/// ```swift
/// let images: Tensor<Float> = try IDX.read("train-images-idx3-ubyte.gz").tensor(scale: 1 / 255)
/// let labels = try IDX.read("train-labels-idx1-ubyte.gz").integers()
/// ```
public enum IDX {
  /// The types' codes in the magic number's third byte.
  static let typeCodes: [UInt8: ElementType] = [
    0x08: .uint8, 0x09: .int8, 0x0B: .int16, 0x0C: .int32, 0x0D: .float32, 0x0E: .float64,
  ]

  /// Reads the file at `path`; gzip is recognized by its first bytes, whatever the name.
  ///
  /// Memory is taken as data really comes, never by what the header claims, and at most `limit` bytes (half of the
  /// machine's memory by default) for the decompressed data. A plain file is mapped and takes none.
  ///
  /// - Throws: ``FileError``: missing, empty, truncated, with trailing bytes, of another format or byte order, too
  ///   large, or with a broken gzip stream.
  public static func read(_ path: String, limit: Int? = nil) throws(FileError) -> IDXFile {
    let file = try MappedFile.nonEmpty(path, expected: "an IDX file")
    if GzipReader.accepts(file.bytes) {
      return try readCompressed(file, limit: limit ?? halfOfMemory)
    }
    var position = 0
    let header = try Header(path) { (buffer) throws(FileError) in
      let part = file.bytes[position...].prefix(buffer.count)
      buffer.copyBytes(from: part)
      position += part.count
      return part.count
    }
    let found = file.count - header.byteCount
    guard found >= header.dataByteCount else {
      throw header.shortfall(path, found: found, isSwapped: header.swappedByteCount == found)
    }
    guard found == header.dataByteCount else { throw header.excess(path, "\(found) bytes") }
    return IDXFile(
      path: path, shape: header.shape,
      numbers: header.numbers(UnsafeRawBufferPointer(rebasing: file.bytes[header.byteCount...]), owner: file))
  }

  /// Writes `numbers`, of which `shape` has as many, in the type `type`, uncompressed.
  ///
  /// The file appears complete or not at all. Every number must fit the type, which is one of the format's integers.
  public static func write(
    _ numbers: [Int], shape: [Int], as type: ElementType = .uint8, to path: String
  ) throws(FileError) {
    let code = typeCodes.first { $0.value == type && type.isInteger }?.key
    guard let code else { stop("IDX.write: expected uint8, int8, int16 or int32, got \(type)") }
    require(
      shape.count <= 255 && shape.allSatisfy { 0...Int(UInt32.max) ~= $0 },
      "IDX.write: shape \(shape) has more than 255 axes or a size beyond 32 bits")
    require(
      elementCount(shape, bytesPerElement: type.byteCount) == numbers.count,
      "IDX.write: shape \(shape) does not fit \(numbers.count) numbers")
    var bytes: [UInt8] = [0, 0, code, UInt8(shape.count)]
    for size in shape { bytes.append(bigEndian: UInt32(size)) }
    for number in numbers {
      switch type {
      case .uint8: bytes.append(bigEndian: checked(number, UInt8.self))
      case .int8: bytes.append(bigEndian: checked(number, Int8.self))
      case .int16: bytes.append(bigEndian: checked(number, Int16.self))
      default: bytes.append(bigEndian: checked(number, Int32.self))
      }
    }
    try AtomicFile.write(to: path) { file throws(FileError) in try file.write(bytes) }
  }

  private static func checked<Stored: FixedWidthInteger>(_ number: Int, _: Stored.Type) -> Stored {
    guard let stored = Stored(exactly: number) else { stop("IDX.write: \(number) does not fit \(Stored.self)") }
    return stored
  }

  private static var halfOfMemory: Int { sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) / 2 }

  private static func readCompressed(_ file: MappedFile, limit: Int) throws(FileError) -> IDXFile {
    let reader = try GzipReader(file)
    let header = try Header(file.path) { (buffer) throws(FileError) in try reader.read(into: buffer) }
    let expected = header.dataByteCount
    let (product, overflow) = file.count.multipliedReportingOverflow(by: GzipReader.greatestRatio)
    let possible = overflow ? Int.max : product
    guard expected <= possible else {
      throw header.shortfall(
        file.path, found: "at most \(possible) bytes in \(file.count) compressed ones",
        isSwapped: header.swappedByteCount.map { $0 <= possible } ?? false)
    }
    guard expected <= limit else {
      throw FileError(
        path: file.path, kind: .tooLarge, expected: "at most \(limit) bytes of data", found: "\(expected) bytes")
    }
    let data = HeapBytes()
    var count = 0
    // Twice what has come each time: the header's claim alone takes no memory.
    var room = min(expected, max(1 << 16, 4 * file.count))
    while count < expected {
      guard data.resize(room) else {
        throw FileError(path: file.path, kind: .tooLarge, expected: "memory for the data", found: "\(room) bytes")
      }
      count += try reader.read(into: UnsafeMutableRawBufferPointer(rebasing: data.bytes[count...]))
      guard count == room else {
        throw header.shortfall(file.path, found: count, isSwapped: header.swappedByteCount == count)
      }
      room = min(expected, 2 * room)
    }
    var extra: UInt8 = 0
    let more = try withUnsafeMutableBytes(of: &extra) { (byte) throws(FileError) in try reader.read(into: byte) }
    guard more == 0 else { throw header.excess(file.path, "more") }
    return IDXFile(
      path: file.path, shape: header.shape, numbers: header.numbers(UnsafeRawBufferPointer(data.bytes), owner: data))
  }

  /// The magic number and the sizes.
  private struct Header {
    let type: ElementType
    let shape: [Int]
    /// Of the header itself.
    let byteCount: Int
    let dataByteCount: Int

    /// Reads it by `read`, which fills a buffer as far as there are bytes.
    init(
      _ path: String, _ read: (UnsafeMutableRawBufferPointer) throws(FileError) -> Int
    ) throws(FileError) {
      func bytes(_ count: Int, _ name: String) throws(FileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = try bytes.withUnsafeMutableBufferPointer { buffer throws(FileError) in
          try read(UnsafeMutableRawBufferPointer(buffer))
        }
        guard found == count else {
          throw FileError(
            path: path, kind: .truncated, expected: "\(count) bytes of \(name)", found: "\(found) bytes")
        }
        return bytes
      }
      let magic = try bytes(4, "IDX magic number")
      guard magic[0] == 0, magic[1] == 0, let type = IDX.typeCodes[magic[2]] else {
        let isReversed = magic[2] == 0 && magic[3] == 0 && IDX.typeCodes[magic[1]] != nil
        throw FileError(
          path: path, kind: isReversed ? .wrongByteOrder : .wrongMagic,
          expected: "an IDX magic number: 00 00, a type 08 … 0e, the number of axes",
          found: magic.map(hexadecimal).joined(separator: " "))
      }
      byteCount = 4 + 4 * Int(magic[3])
      let sizes = try bytes(byteCount - 4, "axis sizes")
      shape = (0..<Int(magic[3])).map { axis in
        sizes[4 * axis..<4 * axis + 4].reduce(0) { $0 << 8 | Int($1) }
      }
      self.type = type
      // What overflows here is more than any file has.
      dataByteCount = elementCount(shape, bytesPerElement: type.byteCount).map { $0 * type.byteCount } ?? Int.max
    }

    /// The bytes of data if the sizes were little-endian.
    var swappedByteCount: Int? {
      let shape = shape.map { Int(UInt32($0).byteSwapped) }
      return elementCount(shape, bytesPerElement: type.byteCount).map { $0 * type.byteCount }
    }

    func numbers(_ bytes: UnsafeRawBufferPointer, owner: AnyObject) -> NumberArray {
      NumberArray(type: type, isBigEndian: true, bytes: bytes, owner: owner)
    }

    func shortfall(_ path: String, found: Int, isSwapped: Bool) -> FileError {
      shortfall(path, found: "\(found) bytes", isSwapped: isSwapped)
    }

    func shortfall(_ path: String, found: String, isSwapped: Bool) -> FileError {
      let count = dataByteCount == .max ? "more bytes than fit any file" : "\(dataByteCount) bytes"
      return FileError(
        path: path, kind: isSwapped ? .wrongByteOrder : .truncated,
        expected: "\(count) of \(type) data for shape \(shape)", found: found)
    }

    func excess(_ path: String, _ found: String) -> FileError {
      FileError(
        path: path, kind: .trailingBytes, expected: "\(dataByteCount) bytes of \(type) data for shape \(shape)",
        found: found)
    }
  }
}

/// What an IDX file holds.
public struct IDXFile: Sendable {
  /// The file, as it was named by the caller.
  public let path: String
  /// The sizes of its axes.
  public let shape: [Int]
  let numbers: NumberArray

  /// The type of its numbers.
  public var elementType: ElementType { numbers.type }

  /// The numbers' bytes as they stand in the file, the most significant first.
  public var bytes: [UInt8] { withExtendedLifetime(numbers.owner) { Array(numbers.bytes) } }

  /// The numbers, each multiplied by `scale`.
  public func tensor<Scalar: TensorScalar>(scale: Double = 1, as _: Scalar.Type = Scalar.self) -> Tensor<Scalar> {
    let values = Tensor<Scalar>(storage: numbers.storage(), shape: shape)
    return scale == 1 ? values : values * Scalar(scale)
  }

  /// The numbers as integers, such as labels.
  ///
  /// - Throws: ``FileError`` of kind `unsupported` where they are floating-point numbers.
  public func integers() throws(FileError) -> [Int] { try numbers.integers(path: path) }
}

/// Two hexadecimal digits.
func hexadecimal(_ byte: UInt8) -> String { String(byte >> 4, radix: 16) + String(byte & 15, radix: 16) }

extension [UInt8] {
  /// Appends the bytes of `number`, the most significant first.
  package mutating func append(bigEndian number: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: number.bigEndian) { append(contentsOf: $0) }
  }

  /// Appends the bytes of `number`, the least significant first.
  package mutating func append(littleEndian number: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: number.littleEndian) { append(contentsOf: $0) }
  }
}
