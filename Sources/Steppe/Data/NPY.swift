/// Reads and writes NPY files, NumPy's own format, in versions 1.0, 2.0 and 3.0.
///
/// ```swift
/// let x = try NPY.read("features.npy", as: Float.self)
/// try NPY.write(x.mean(axis: 0), to: "means.npy")
/// ```
public enum NPY {
  private static let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)
  /// NumPy itself allows no more axes.
  private static let maximumRank = 64

  /// NumPy's letter and size for each type.
  private static let typeCodes: [String: ElementType] = [
    "b1": .bool, "u1": .uint8, "i1": .int8, "u2": .uint16, "i2": .int16, "u4": .uint32, "i4": .int32, "u8": .uint64,
    "i8": .int64, "f2": .float16, "f4": .float32, "f8": .float64,
  ]

  /// Reads the file at `path` as a tensor of `Scalar`.
  ///
  /// The file is mapped; where it holds `Scalar` in this machine's byte order, the tensor is a view of it that reads
  /// from the disk when it is first touched, so that a file may be larger than memory. Other types and byte orders are
  /// converted. An array in Fortran's order is a transposed view.
  ///
  /// - Throws: ``FileError``: missing, empty, truncated, with trailing bytes, of another format or an unsupported type.
  public static func read<Scalar: TensorScalar>(
    _ path: String, as _: Scalar.Type = Scalar.self
  ) throws(FileError) -> Tensor<Scalar> { try NPYFile(path).tensor() }

  /// Reads the file at `path` as integers in row-major order, with their shape.
  ///
  /// - Throws: ``FileError`` as ``read(_:as:)``; of kind `unsupported` where the file holds floating-point numbers, and
  ///   `outOfRange` where a number does not fit `Int`.
  public static func readIntegers(_ path: String) throws(FileError) -> (values: [Int], shape: [Int]) {
    let file = try NPYFile(path)
    return (try file.integers(), file.shape)
  }

  /// Writes `tensor` in version 1.0; the file appears complete or not at all.
  public static func write<Scalar: TensorScalar>(_ tensor: Tensor<Scalar>, to path: String) throws(FileError) {
    let header = header(.of(Scalar.self), shape: tensor.shape)
    try AtomicFile.write(to: path) { file throws(FileError) in
      try file.write(header)
      try tensor.withUnsafeBufferPointer { scalars throws(FileError) in
        try file.write(UnsafeRawBufferPointer(scalars))
      }
    }
  }

  /// Writes `integers`, of which `shape` (by default a single axis) has as many, as 64-bit integers in version 1.0.
  public static func write(_ integers: [Int], shape: [Int]? = nil, to path: String) throws(FileError) {
    let shape = shape ?? [integers.count]
    require(
      elementCount(shape, bytesPerElement: 8) == integers.count,
      "NPY.write: shape \(shape) does not fit \(integers.count) integers")
    let header = header("<i8", shape: shape)
    try AtomicFile.write(to: path) { file throws(FileError) in
      try file.write(header)
      try integers.withUnsafeBufferPointer { integers throws(FileError) in
        try file.write(UnsafeRawBufferPointer(integers))
      }
    }
  }

  /// Everything before data of `type`, in `byteCount` bytes where that is given.
  static func header(_ type: ElementType, shape: [Int], byteCount: Int? = nil) -> [UInt8] {
    header(type == .float32 ? "<f4" : "<f8", shape: shape, byteCount: byteCount)
  }

  /// Everything before the data, padded so that the data begins at a multiple of 64 bytes.
  private static func header(_ type: String, shape: [Int], byteCount: Int? = nil) -> [UInt8] {
    require(shape.count <= maximumRank, "NPY.write: NumPy allows \(maximumRank) axes, got \(shape.count)")
    // Python writes a tuple of one element with a comma.
    let sizes = shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? "," : "")
    var text = "{'descr': '\(type)', 'fortran_order': False, 'shape': (\(sizes)), }"
    let preamble = magic.count + 4
    let end = byteCount ?? (preamble + text.utf8.count + 1 + 63) / 64 * 64
    text += String(repeating: " ", count: end - preamble - text.utf8.count - 1) + "\n"
    var bytes = magic + [1, 0]
    bytes.append(littleEndian: UInt16(text.utf8.count))
    return bytes + text.utf8
  }

  /// Whether `bytes` begin as an NPY file does.
  static func accepts(_ bytes: UnsafeRawBufferPointer) -> Bool { bytes.starts(with: magic) }

  /// What the header says: the type, the byte order, the order of axes and the shape.
  fileprivate struct Header {
    let type: ElementType
    let isBigEndian: Bool
    let isFortranOrder: Bool
    let shape: [Int]
    /// Where the data begins.
    let byteCount: Int

    init(_ file: MappedFile) throws(FileError) {
      let path = file.path
      let bytes = file.bytes
      guard NPY.accepts(bytes) else {
        let found = bytes.prefix(NPY.magic.count).map(hexadecimal).joined(separator: " ")
        throw FileError(
          path: path, kind: .wrongMagic, expected: "NumPy's magic number 93 4e 55 4d 50 59", found: found)
      }
      guard bytes.count >= 12 else {
        throw FileError(path: path, kind: .truncated, expected: "an NPY header", found: "\(bytes.count) bytes")
      }
      let (start, length): (Int, Int)
      switch (bytes[6], bytes[7]) {
      case (1, 0): (start, length) = (10, Int(bytes[8]) | Int(bytes[9]) << 8)
      case (2, 0), (3, 0):
        (start, length) = (12, Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))))
      default:
        throw FileError(
          path: path, kind: .unsupported, expected: "version 1.0, 2.0 or 3.0", found: "\(bytes[6]).\(bytes[7])")
      }
      guard bytes.count - start >= length else {
        throw FileError(
          path: path, kind: .truncated, expected: "\(length) bytes of header", found: "\(bytes.count - start) bytes")
      }
      byteCount = start + length
      let text = [UInt8](bytes[start..<byteCount])
      let fields: PythonHeader
      do throws(PythonHeader.Failure) {
        fields = try PythonHeader(text)
      } catch {
        throw FileError(
          path: path, kind: .wrongFormat, expected: error.expected,
          found: "\(error.found) at header byte \(error.offset)")
      }
      isFortranOrder = fields.isFortranOrder
      shape = fields.shape
      guard let code = fields.type.first, "<>|=".contains(code),
        let type = NPY.typeCodes[String(fields.type.dropFirst())]
      else {
        throw FileError(
          path: path, kind: .unsupported, expected: "booleans, integers or floating-point numbers of 16 to 64 bits",
          found: "the type '\(fields.type)'")
      }
      self.type = type
      isBigEndian = code == ">"
      guard shape.count <= NPY.maximumRank else {
        throw FileError(
          path: path, kind: .unsupported, expected: "at most \(NPY.maximumRank) axes", found: "\(shape.count)")
      }
    }
  }
}

/// An NPY file, mapped, with its header read.
struct NPYFile: Sendable {
  let path: String
  let shape: [Int]
  let isFortranOrder: Bool
  let numbers: NumberArray

  init(_ path: String) throws(FileError) { try self.init(MappedFile.nonEmpty(path, expected: "an NPY file")) }

  init(_ file: MappedFile) throws(FileError) {
    path = file.path
    let header = try NPY.Header(file)
    let found = file.count - header.byteCount
    let count = elementCount(header.shape, bytesPerElement: header.type.byteCount)
    let expected = count.map { $0 * header.type.byteCount } ?? .max
    guard found == expected else {
      throw FileError(
        path: path, kind: found < expected ? .truncated : .trailingBytes,
        expected: (count == nil ? "more bytes than fit any file" : "\(expected) bytes")
          + " of \(header.type) data for shape \(header.shape)",
        found: "\(found) bytes")
    }
    shape = header.shape
    isFortranOrder = header.isFortranOrder
    numbers = NumberArray(
      type: header.type, isBigEndian: header.isBigEndian,
      bytes: UnsafeRawBufferPointer(rebasing: file.bytes[header.byteCount...]), owner: file)
  }

  var elementType: ElementType { numbers.type }

  /// The bytes of an array of bytes in row-major order, which their owner keeps alive.
  var rowMajorBytes: (bytes: UnsafeRawBufferPointer, owner: AnyObject)? {
    elementType == .uint8 && !isFortranOrder ? (numbers.bytes, numbers.owner) : nil
  }

  func tensor<Scalar: TensorScalar>(as _: Scalar.Type = Scalar.self) -> Tensor<Scalar> {
    let storage: Storage<Scalar> = numbers.storage()
    guard isFortranOrder else { return Tensor(storage: storage, shape: shape) }
    return Tensor(storage: storage, shape: shape, strides: fortranStrides, offset: 0)
  }

  /// The integers in row-major order.
  func integers() throws(FileError) -> [Int] {
    let stored = try numbers.integers(path: path)
    guard isFortranOrder, shape.count > 1 else { return stored }
    var result: [Int] = []
    result.reserveCapacity(stored.count)
    forEachOffset(shape: shape, strides: [fortranStrides], range: 0..<stored.count) { result.append(stored[$0[0]]) }
    return result
  }

  var fortranStrides: [Int] { rowMajorStrides(shape.reversed()).reversed() }
}

/// The header's Python dictionary: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, these three keys in
/// any order.
private struct PythonHeader {
  let type: String
  let isFortranOrder: Bool
  let shape: [Int]

  struct Failure: Error {
    let offset: Int
    let expected: String
    let found: String
  }

  init(_ text: [UInt8]) throws(Failure) {
    var scanner = Scanner(text: text)
    var type: String?
    var isFortranOrder: Bool?
    var shape: [Int]?
    try scanner.expect("{")
    while !scanner.skip("}") {
      let start = scanner.position
      let key = try scanner.string()
      try scanner.expect(":")
      switch key {
      case "descr" where type == nil: type = try scanner.string()
      case "fortran_order" where isFortranOrder == nil: isFortranOrder = try scanner.boolean()
      case "shape" where shape == nil: shape = try scanner.tuple()
      default:
        throw Failure(offset: start, expected: "each of 'descr', 'fortran_order' and 'shape' once", found: "'\(key)'")
      }
      if !scanner.skip(",") {
        try scanner.expect("}")
        break
      }
    }
    try scanner.expectEnd()
    guard let type, let isFortranOrder, let shape else {
      throw Failure(
        offset: text.count, expected: "the keys 'descr', 'fortran_order' and 'shape'", found: "fewer of them")
    }
    self.type = type
    self.isFortranOrder = isFortranOrder
    self.shape = shape
  }

  private struct Scanner {
    let text: [UInt8]
    var position = 0

    private func failure(_ expected: String) -> Failure {
      let found = position < text.count ? String(decoding: text[position...].prefix(12), as: UTF8.self) : "its end"
      return Failure(offset: position, expected: expected, found: found)
    }

    private mutating func skipSpace() {
      while position < text.count, [0x20, 0x09, 0x0A, 0x0D].contains(text[position]) { position += 1 }
    }

    /// Whether `word` comes next, which is then behind.
    mutating func skip(_ word: String) -> Bool {
      skipSpace()
      guard text[position...].starts(with: word.utf8) else { return false }
      position += word.utf8.count
      return true
    }

    mutating func expect(_ word: String) throws(Failure) {
      guard skip(word) else { throw failure("'\(word)'") }
    }

    mutating func expectEnd() throws(Failure) {
      skipSpace()
      guard position == text.count else { throw failure("the header's end") }
    }

    mutating func string() throws(Failure) -> String {
      skipSpace()
      guard position < text.count, text[position] == UInt8(ascii: "'") || text[position] == UInt8(ascii: "\"") else {
        throw failure("a string")
      }
      let rest = text[(position + 1)...]
      // No key and no type that is read here has an escaped character.
      guard let end = rest.firstIndex(of: text[position]), let value = String(validating: rest[..<end], as: UTF8.self)
      else { throw failure("a string") }
      position = end + 1
      return value
    }

    mutating func boolean() throws(Failure) -> Bool {
      if skip("True") { return true }
      if skip("False") { return false }
      throw failure("True or False")
    }

    mutating func tuple() throws(Failure) -> [Int] {
      var sizes: [Int] = []
      try expect("(")
      while !skip(")") {
        sizes.append(try integer())
        if !skip(",") {
          try expect(")")
          break
        }
      }
      return sizes
    }

    private mutating func integer() throws(Failure) -> Int {
      skipSpace()
      let digits = text[position...].prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
      guard let value = Int(String(decoding: digits, as: UTF8.self)) else { throw failure("a size") }
      position += digits.count
      // Python 2 wrote long integers with this letter.
      _ = skip("L")
      return value
    }
  }
}
