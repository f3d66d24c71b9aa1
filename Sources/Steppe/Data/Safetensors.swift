import CZlib

/// The names of the format's types.
private let safetensorsTypes: [(name: String, type: ElementType)] = [
  ("F64", .float64), ("F32", .float32), ("F16", .float16), ("BF16", .bfloat16), ("I64", .int64), ("I32", .int32),
  ("I16", .int16), ("I8", .int8), ("U64", .uint64), ("U32", .uint32), ("U16", .uint16), ("U8", .uint8), ("BOOL", .bool),
]

/// The longest header that the format's own library reads.
private let maximumHeaderLength = 100_000_000
private let metadataKey = "__metadata__"
private let checksumKey = "steppe.crc32"

package func checksum(_ bytes: UnsafeRawBufferPointer, from start: UInt = 0) -> UInt {
  guard let base = bytes.baseAddress else { return start }
  return crc32_z(start, base.assumingMemoryBound(to: UInt8.self), bytes.count)
}

private func checksumText(_ value: UInt) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: 8 - digits.count) + digits
}

/// A safetensors file: named tensors in one mapped file, as PyTorch and others write and read them.
///
/// ```swift
/// let file = try SafetensorsFile("model.safetensors")
/// let weight: Tensor<Float> = try file.tensor(named: "0.weight")
/// ```
///
/// The whole header is checked at the start: types, shapes, and that the tensors' bytes fill the file without gap or
/// overlap.
public struct SafetensorsFile: Sendable {
  /// The file, as it was named by the caller.
  public let path: String
  /// The tensors' names in the header's order.
  public let names: [String]
  /// The texts that the header carries beside the tensors.
  public let metadata: [String: String]
  private let entries: [String: Entry]
  private let file: MappedFile
  private let dataStart: Int

  private struct Entry {
    let type: ElementType
    let shape: [Int]
    /// Counted from the data's start.
    let range: Range<Int>
  }

  /// Maps the file at `path` and checks its header.
  ///
  /// - Throws: ``FileError``: missing, empty, truncated, with trailing bytes, of a wrong format or with an unsupported
  ///   type.
  public init(_ path: String) throws(FileError) {
    file = try MappedFile.nonEmpty(path, expected: "a safetensors file")
    self.path = path
    let bytes = file.bytes
    guard bytes.count >= 8 else {
      throw FileError(
        path: path, kind: .truncated, expected: "8 bytes of header length", found: "\(bytes.count) bytes")
    }
    let claimed = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    guard claimed <= maximumHeaderLength else {
      // Other files' first bytes, read as a length, are far beyond.
      throw FileError(
        path: path, kind: .wrongMagic,
        expected: "a safetensors file, whose header has at most \(maximumHeaderLength) bytes",
        found: "a length of \(claimed)")
    }
    guard claimed <= bytes.count - 8 else {
      throw FileError(
        path: path, kind: .truncated, expected: "\(claimed) bytes of header", found: "\(bytes.count - 8) bytes")
    }
    dataStart = 8 + Int(claimed)
    let header = try Header(
      [UInt8](bytes[8..<dataStart]), path: path, dataByteCount: bytes.count - dataStart)
    names = header.names
    metadata = header.metadata
    entries = header.entries
  }

  /// The shape of the tensor `name`, or nil where there is none.
  public func shape(of name: String) -> [Int]? { entries[name]?.shape }

  /// The type in which the tensor `name` is stored, or nil where there is none.
  public func elementType(of name: String) -> ElementType? { entries[name]?.type }

  /// The tensor `name`, converted to `Scalar`; a view of the mapped file where it is stored so and aligned.
  ///
  /// - Throws: ``FileError`` of kind `noSuchEntry`.
  public func tensor<Scalar: TensorScalar>(
    named name: String, as _: Scalar.Type = Scalar.self
  ) throws(FileError) -> Tensor<Scalar> {
    let entry = try entry(name)
    return Tensor(storage: numbers(entry).storage(), shape: entry.shape)
  }

  /// The integers of the tensor `name` in row-major order.
  ///
  /// - Throws: ``FileError`` of kind `noSuchEntry`, or `unsupported` where they are floating-point numbers.
  public func integers(named name: String) throws(FileError) -> [Int] {
    let entry = try entry(name)
    return try numbers(entry).integers(path: "\(path) (\(name))")
  }

  /// Whether ``verifyChecksum()`` has something to compare.
  var hasChecksum: Bool { metadata[checksumKey] != nil }

  /// Compares the CRC-32 of the data with the one that ``SafetensorsWriter`` keeps in the metadata as `steppe.crc32`.
  ///
  /// A file without one, such as PyTorch's, passes.
  ///
  /// - Throws: ``FileError`` of kind `corrupted`.
  public func verifyChecksum() throws(FileError) {
    guard let expected = metadata[checksumKey] else { return }
    let found = checksumText(checksum(data))
    guard found == expected else {
      throw FileError(
        path: path, kind: .corrupted, expected: "data of CRC-32 \(expected)", found: "data of CRC-32 \(found)")
    }
  }

  private var data: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: file.bytes[dataStart...]) }

  private func entry(_ name: String) throws(FileError) -> Entry {
    guard let entry = entries[name] else {
      let list = names.prefix(20).joined(separator: ", ") + (names.count > 20 ? ", …" : "")
      throw FileError(path: path, kind: .noSuchEntry, expected: "a tensor '\(name)'", found: "[\(list)]")
    }
    return entry
  }

  private func numbers(_ entry: Entry) -> NumberArray {
    NumberArray(
      type: entry.type, isBigEndian: false, bytes: UnsafeRawBufferPointer(rebasing: data[entry.range]), owner: file)
  }

  /// The header's JSON, checked against the number of bytes that follow it.
  private struct Header {
    var names: [String] = []
    var metadata: [String: String] = [:]
    var entries: [String: Entry] = [:]

    init(_ text: [UInt8], path: String, dataByteCount: Int) throws(FileError) {
      func failure(_ expected: String, _ found: String, kind: FileError.Kind = .wrongFormat) -> FileError {
        FileError(path: path, kind: kind, expected: expected, found: found)
      }
      let json: JSONValue
      do throws(JSONError) {
        json = try JSONValue(parsing: text)
      } catch {
        throw failure("a JSON header with \(error.expected)", "\(error.found) at header byte \(error.offset)")
      }
      guard text.first == UInt8(ascii: "{"), case .object(let members) = json else {
        throw failure("a JSON object as the header", "another value or a space")
      }
      for member in members {
        if member.key == metadataKey {
          metadata = try Self.metadata(member.value, failure)
        } else {
          names.append(member.key)
          entries[member.key] = try Self.entry(member, failure)
        }
      }
      try checkCoverage(dataByteCount, failure)
    }

    private typealias Failure = (_ expected: String, _ found: String, _ kind: FileError.Kind) -> FileError

    private static func metadata(_ value: JSONValue, _ failure: Failure) throws(FileError) -> [String: String] {
      guard case .object(let members) = value else {
        throw failure("an object of strings as \(metadataKey)", "another value", .wrongFormat)
      }
      var metadata: [String: String] = [:]
      for member in members {
        guard case .string(let text) = member.value else {
          throw failure("a string as metadata '\(member.key)'", "another value", .wrongFormat)
        }
        metadata[member.key] = text
      }
      return metadata
    }

    private static func entry(_ member: JSONValue.Member, _ failure: Failure) throws(FileError) -> Entry {
      let name = member.key
      guard case .object(let fields) = member.value, fields.count == 3,
        case .string(let typeName) = member.value["dtype"],
        let shape = sizes(member.value["shape"]),
        let offsets = sizes(member.value["data_offsets"]), offsets.count == 2, offsets[0] <= offsets[1]
      else {
        throw failure(
          "'\(name)' with a dtype, a shape and two increasing data_offsets, and no more", "something else", .wrongFormat
        )
      }
      guard let type = safetensorsTypes.first(where: { $0.name == typeName })?.type else {
        let known = safetensorsTypes.map(\.name).joined(separator: ", ")
        throw failure("'\(name)' of a type among \(known)", "'\(typeName)'", .unsupported)
      }
      let count = elementCount(shape, bytesPerElement: type.byteCount)
      guard let count, count * type.byteCount == offsets[1] - offsets[0] else {
        let bytes = count.map { "\($0 * type.byteCount)" } ?? "more than all"
        throw failure(
          "\(bytes) bytes for '\(name)' of type \(typeName) and shape \(shape)", "\(offsets[1] - offsets[0]) bytes",
          .wrongFormat)
      }
      return Entry(type: type, shape: shape, range: offsets[0]..<offsets[1])
    }

    /// An array of integers that are not negative.
    private static func sizes(_ value: JSONValue?) -> [Int]? {
      guard case .array(let values) = value else { return nil }
      var sizes: [Int] = []
      for value in values {
        guard case .integer(let size) = value, size >= 0 else { return nil }
        sizes.append(size)
      }
      return sizes
    }

    /// The tensors must follow each other from the data's first byte to its last.
    private func checkCoverage(_ dataByteCount: Int, _ failure: Failure) throws(FileError) {
      var end = 0
      let ordered = names.map { (name: $0, range: entries[$0]!.range) }.sorted {
        ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
      }
      for (name, range) in ordered {
        guard range.lowerBound == end else {
          throw failure("'\(name)' to begin at data byte \(end)", "\(range.lowerBound)", .wrongFormat)
        }
        end = range.upperBound
      }
      guard end == dataByteCount else {
        throw failure(
          "\(end) bytes of data", "\(dataByteCount) bytes", end > dataByteCount ? .truncated : .trailingBytes)
      }
    }
  }
}

/// Collects named tensors and writes them as a safetensors file.
///
/// ```swift
/// var writer = SafetensorsWriter(metadata: ["format": "pt"])
/// writer.add(weight, named: "0.weight")
/// writer.add([1], shape: [], named: "1.num_batches_tracked")
/// try writer.write(to: "model.safetensors")
/// ```
public struct SafetensorsWriter: Sendable {
  /// Texts that the header carries beside the tensors; `steppe.crc32` is added by ``write(to:)``.
  public var metadata: [String: String]
  private var entries: [Entry] = []
  private var names: Set<String> = []

  private struct Entry: Sendable {
    let name: String
    let type: ElementType
    let shape: [Int]
    let contents: Contents
    var byteCount: Int { shape.reduce(type.byteCount, *) }
  }

  private enum Contents: Sendable {
    case floats(Tensor<Float>)
    case doubles(Tensor<Double>)
    case integers([Int64])
    case bytes([UInt8])

    /// Calls `body` with the bytes as they stand in the file, on little-endian machines such as Swift's.
    func withBytes(_ body: (UnsafeRawBufferPointer) throws(FileError) -> Void) throws(FileError) {
      switch self {
      case .floats(let tensor):
        try tensor.withUnsafeBufferPointer { (buffer) throws(FileError) in try body(UnsafeRawBufferPointer(buffer)) }
      case .doubles(let tensor):
        try tensor.withUnsafeBufferPointer { (buffer) throws(FileError) in try body(UnsafeRawBufferPointer(buffer)) }
      case .integers(let values):
        try values.withUnsafeBufferPointer { (buffer) throws(FileError) in try body(UnsafeRawBufferPointer(buffer)) }
      case .bytes(let values):
        try values.withUnsafeBufferPointer { (buffer) throws(FileError) in try body(UnsafeRawBufferPointer(buffer)) }
      }
    }
  }

  /// A writer without tensors.
  public init(metadata: [String: String] = [:]) { self.metadata = metadata }

  /// Adds `tensor`, as `F32` or `F64`, under a name not used yet.
  public mutating func add<Scalar: TensorScalar>(_ tensor: Tensor<Scalar>, named name: String) {
    if let tensor = tensor as? Tensor<Float> {
      add(name, .float32, tensor.shape, .floats(tensor))
    } else if let tensor = tensor as? Tensor<Double> {
      add(name, .float64, tensor.shape, .doubles(tensor))
    }
  }

  /// Adds `integers`, as `I64`, of which `shape` (empty for a single one) has as many, under a name not used yet.
  public mutating func add(_ integers: [Int64], shape: [Int], named name: String) {
    require(
      elementCount(shape, bytesPerElement: 8) == integers.count,
      "SafetensorsWriter.add: '\(name)' of shape \(shape) does not fit \(integers.count) integers")
    add(name, .int64, shape, .integers(integers))
  }

  /// Adds `bytes`, as `U8`, of which `shape` has as many, under a name not used yet.
  public mutating func add(bytes: [UInt8], shape: [Int], named name: String) {
    require(
      elementCount(shape, bytesPerElement: 1) == bytes.count,
      "SafetensorsWriter.add: '\(name)' of shape \(shape) does not fit \(bytes.count) bytes")
    add(name, .uint8, shape, .bytes(bytes))
  }

  /// Writes the file at `path`, which appears complete or not at all.
  ///
  /// The header names the tensors in the order in which they were added. Their bytes stand the widest type first, so
  /// that each is aligned to its type. The metadata gets the CRC-32 of all these bytes as `steppe.crc32`, in eight
  /// hexadecimal digits.
  ///
  /// - Throws: ``FileError`` of kind `cannotWrite`, or `tooLarge` where the header exceeds the format's 100 MB.
  public func write(to path: String) throws(FileError) {
    let stored = entries.indices.sorted {
      (-entries[$0].type.byteCount, $0) < (-entries[$1].type.byteCount, $1)
    }
    var ranges = entries.map { _ in 0..<0 }
    var end = 0
    var sum: UInt = 0
    for index in stored {
      ranges[index] = end..<end + entries[index].byteCount
      end = ranges[index].upperBound
      try entries[index].contents.withBytes { sum = checksum($0, from: sum) }
    }
    let header = header(ranges, checksum: sum)
    guard header.count <= maximumHeaderLength else {
      throw FileError(
        path: path, kind: .tooLarge, expected: "a header of at most \(maximumHeaderLength) bytes",
        found: "\(header.count) bytes")
    }
    var length: [UInt8] = []
    length.append(littleEndian: UInt64(header.count))
    try AtomicFile.write(to: path) { file throws(FileError) in
      try file.write(length)
      try file.write(header)
      for index in stored {
        try entries[index].contents.withBytes { bytes throws(FileError) in try file.write(bytes) }
      }
    }
  }

  /// The header, padded so that the data begins at a multiple of 8 bytes.
  private func header(_ ranges: [Range<Int>], checksum: UInt) -> [UInt8] {
    var texts = metadata
    texts[checksumKey] = checksumText(checksum)
    var members = [
      JSONValue.Member(
        metadataKey, .object(texts.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) }))
    ]
    for (entry, range) in zip(entries, ranges) {
      let typeName = safetensorsTypes.first { $0.type == entry.type }!.name
      members.append(
        .init(
          entry.name,
          .object([
            .init("dtype", .string(typeName)),
            .init("shape", .array(entry.shape.map { .integer($0) })),
            .init("data_offsets", .array([.integer(range.lowerBound), .integer(range.upperBound)])),
          ])))
    }
    var text = Array(JSONValue.object(members).serialized().utf8)
    text += [UInt8](repeating: UInt8(ascii: " "), count: -text.count & 7)
    return text
  }

  private mutating func add(_ name: String, _ type: ElementType, _ shape: [Int], _ contents: Contents) {
    require(
      name != metadataKey && names.insert(name).inserted,
      "SafetensorsWriter.add: the name '\(name)' is taken")
    entries.append(Entry(name: name, type: type, shape: shape, contents: contents))
  }
}
