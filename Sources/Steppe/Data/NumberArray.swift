/// The type of the numbers in a data file.
public enum ElementType: String, Sendable, Hashable, CaseIterable {
  case bool, uint8, int8, uint16, int16, uint32, int32, uint64, int64, float16, bfloat16, float32, float64

  /// Bytes that one number takes.
  public var byteCount: Int {
    switch self {
    case .bool, .uint8, .int8: 1
    case .uint16, .int16, .float16, .bfloat16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    }
  }

  /// Whether the numbers are integers or truth values.
  public var isInteger: Bool {
    switch self {
    case .float16, .bfloat16, .float32, .float64: false
    default: true
    }
  }

  /// The file's type for a tensor's scalars.
  static func of<Scalar: TensorScalar>(_: Scalar.Type) -> ElementType {
    Scalar.self == Float.self ? .float32 : .float64
  }
}

/// The elements in `shape`, or nil where a size is negative or their number, any stride or `bytesPerElement` of each
/// overflows.
func elementCount(_ shape: [Int], bytesPerElement: Int) -> Int? {
  // An axis of size 0 must not hide others that overflow, for strides are products of some of the sizes.
  var bound = bytesPerElement
  for size in shape {
    guard size >= 0 else { return nil }
    let (product, overflow) = bound.multipliedReportingOverflow(by: max(size, 1))
    if overflow { return nil }
    bound = product
  }
  return shape.contains(0) ? 0 : bound / bytesPerElement
}

/// Numbers as they stand in a file: their type, their byte order, and whose memory they are in.
struct NumberArray: @unchecked Sendable {
  let type: ElementType
  let isBigEndian: Bool
  let bytes: UnsafeRawBufferPointer
  /// What keeps `bytes` alive and unchanged.
  let owner: AnyObject

  var count: Int { bytes.count / type.byteCount }

  /// Some of the numbers.
  subscript(range: Range<Int>) -> NumberArray {
    let bytes = UnsafeRawBufferPointer(
      rebasing: bytes[range.lowerBound * type.byteCount..<range.upperBound * type.byteCount])
    return NumberArray(type: type, isBigEndian: isBigEndian, bytes: bytes, owner: owner)
  }

  /// The numbers converted to `Scalar`; the file's own memory where they are that already.
  func storage<Scalar: TensorScalar>(as _: Scalar.Type = Scalar.self) -> Storage<Scalar> {
    let isNative = !isBigEndian && type == .of(Scalar.self)
    if isNative, let start = bytes.baseAddress, Int(bitPattern: start) % MemoryLayout<Scalar>.alignment == 0 {
      return Storage(borrowing: start.assumingMemoryBound(to: Scalar.self), count: count, owner: owner)
    }
    let result = Storage<Scalar>(count: count)
    // Code that is generic over the scalar is not specialized for callers outside; these two branches are.
    if let target = result.pointer as? UnsafeMutablePointer<Float> {
      convert(to: target)
    } else if let target = result.pointer as? UnsafeMutablePointer<Double> {
      convert(to: target)
    }
    return result
  }

  @inline(__always)
  private func convert<Scalar: TensorScalar>(to target: UnsafeMutablePointer<Scalar>) {
    switch type {
    case .bool: forEach(UInt8.self) { target[$0] = $1 == 0 ? 0 : 1 }
    case .uint8: forEach(UInt8.self) { target[$0] = Scalar($1) }
    case .int8: forEach(UInt8.self) { target[$0] = Scalar(Int8(bitPattern: $1)) }
    case .uint16: forEach(UInt16.self) { target[$0] = Scalar($1) }
    case .int16: forEach(UInt16.self) { target[$0] = Scalar(Int16(bitPattern: $1)) }
    case .uint32: forEach(UInt32.self) { target[$0] = Scalar($1) }
    case .int32: forEach(UInt32.self) { target[$0] = Scalar(Int32(bitPattern: $1)) }
    case .uint64: forEach(UInt64.self) { target[$0] = Scalar($1) }
    case .int64: forEach(UInt64.self) { target[$0] = Scalar(Int64(bitPattern: $1)) }
    case .float16: forEach(UInt16.self) { target[$0] = Scalar(Float16(bitPattern: $1)) }
    case .bfloat16: forEach(UInt16.self) { target[$0] = Scalar(Float(bitPattern: UInt32($1) << 16)) }
    case .float32: forEach(UInt32.self) { target[$0] = Scalar(Float(bitPattern: $1)) }
    case .float64: forEach(UInt64.self) { target[$0] = Scalar(Double(bitPattern: $1)) }
    }
  }

  /// The numbers as `Int`; `path` names the file in errors.
  func integers(path: String) throws(FileError) -> [Int] {
    guard type.isInteger else {
      throw FileError(path: path, kind: .unsupported, expected: "integers", found: "numbers of type \(type)")
    }
    var result = [Int](repeating: 0, count: count)
    result.withUnsafeMutableBufferPointer { result in
      guard let target = result.baseAddress else { return }
      switch type {
      case .bool: forEach(UInt8.self) { target[$0] = $1 == 0 ? 0 : 1 }
      case .uint8: forEach(UInt8.self) { target[$0] = Int($1) }
      case .int8: forEach(UInt8.self) { target[$0] = Int(Int8(bitPattern: $1)) }
      case .uint16: forEach(UInt16.self) { target[$0] = Int($1) }
      case .int16: forEach(UInt16.self) { target[$0] = Int(Int16(bitPattern: $1)) }
      case .uint32: forEach(UInt32.self) { target[$0] = Int($1) }
      case .int32: forEach(UInt32.self) { target[$0] = Int(Int32(bitPattern: $1)) }
      default: forEach(UInt64.self) { target[$0] = Int(truncatingIfNeeded: $1) }
      }
    }
    if type == .uint64, let index = result.firstIndex(where: { $0 < 0 }) {
      let found = "\(UInt(bitPattern: result[index])) at index \(index)"
      throw FileError(path: path, kind: .outOfRange, expected: "integers up to \(Int.max)", found: found)
    }
    return result
  }

  /// Calls `body` with the index and bits of every number, in ranges that run at the same time.
  @inline(__always)
  private func forEach<Bits: FixedWidthInteger & BitwiseCopyable>(_: Bits.Type, _ body: (Int, Bits) -> Void) {
    Parallel.ranges(count, grain: 4 * Parallel.elementGrain, multiple: 16) { range in
      // One loop for each byte order, so that neither asks at every number.
      if isBigEndian {
        for index in range { body(index, Bits(bigEndian: load(index))) }
      } else {
        for index in range { body(index, Bits(littleEndian: load(index))) }
      }
    }
  }

  @inline(__always)
  private func load<Bits: FixedWidthInteger & BitwiseCopyable>(_ index: Int) -> Bits {
    bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Bits>.size, as: Bits.self)
  }
}
