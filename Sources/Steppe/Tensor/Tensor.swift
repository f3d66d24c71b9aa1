import CSteppeKernels

/// A dense array of `Float` or `Double` with any number of axes.
///
/// ```swift
/// let x = Tensor<Float>([[1, 2, 3], [4, 5, 6]])
/// let y = (x - x.mean(axis: 0)) / 2       // shapes broadcast as in NumPy
/// print(y.matmul(x.transposed()))         // [2, 2]
/// ```
///
/// A tensor is a value: a copy behaves as a copy, and shares its memory until one of the two is changed. Elements stand in row-major
/// order; `transposed`, slices and `broadcast` are views that copy nothing until they are written, and `reshaped` is one where the
/// memory allows it. Memory comes from ``MemoryPool``. Shapes that do not fit stop the program with both shapes.
///
/// `Tensor` is `Sendable`: several tasks may read one tensor, and each may change its own copy.
public struct Tensor<Scalar: TensorScalar>: Sendable {
  package private(set) var storage: Storage<Scalar>
  /// The number of elements along each axis; empty for a single scalar.
  public private(set) var shape: [Int]
  /// The distance in elements between neighbours along each axis; 0 where one element is repeated.
  package private(set) var strides: [Int]
  package private(set) var offset: Int
  /// Whether the elements stand in row-major order without gaps.
  package private(set) var isContiguous: Bool

  /// The number of elements.
  public var count: Int { shape.reduce(1, *) }

  /// The number of axes.
  public var rank: Int { shape.count }

  /// A view of `storage`.
  package init(storage: Storage<Scalar>, shape: [Int], strides: [Int], offset: Int) {
    self.storage = storage
    self.shape = shape
    self.strides = strides
    self.offset = offset
    isContiguous = Self.isRowMajor(shape: shape, strides: strides)
  }

  /// The first elements of `storage` in row-major order.
  package init(storage: Storage<Scalar>, shape: [Int]) {
    self.storage = storage
    self.shape = shape
    strides = rowMajorStrides(shape)
    offset = 0
    isContiguous = true
  }

  private static func isRowMajor(shape: [Int], strides: [Int]) -> Bool {
    var expected = 1
    for axis in stride(from: shape.count - 1, through: 0, by: -1) where shape[axis] != 1 {
      if strides[axis] != expected { return shape.contains(0) }
      expected *= shape[axis]
    }
    return true
  }
}

/// The strides of a row-major tensor without gaps.
package func rowMajorStrides(_ shape: [Int]) -> [Int] {
  var strides = [Int](repeating: 1, count: shape.count)
  for axis in stride(from: shape.count - 2, through: 0, by: -1) {
    strides[axis] = strides[axis + 1] * shape[axis + 1]
  }
  return strides
}

// MARK: - Making tensors

extension Tensor {
  /// A tensor whose elements `initialize` writes, all of them, in row-major order.
  public init(
    unsafeUninitializedShape shape: [Int],
    initializingWith initialize: (UnsafeMutableBufferPointer<Scalar>) throws -> Void
  ) rethrows {
    let count = checkedCount(shape)
    let storage = Storage<Scalar>(count: count)
    try initialize(UnsafeMutableBufferPointer(start: storage.pointer, count: count))
    self.init(storage: storage, shape: shape)
  }

  /// A tensor of `scalars` in row-major order, as many as `shape` has room for.
  public init(shape: [Int], scalars: [Scalar]) {
    require(
      checkedCount(shape) == scalars.count,
      "Tensor(shape:scalars:): shape \(shape) has room for \(shape.reduce(1, *)) scalars, got \(scalars.count)")
    self.init(unsafeUninitializedShape: shape) { _ = $0.initialize(from: scalars) }
  }

  /// A tensor in which every element is `value`.
  public init(repeating value: Scalar, shape: [Int]) {
    self.init(unsafeUninitializedShape: shape) { buffer in
      guard let base = buffer.baseAddress else { return }
      Parallel.ranges(buffer.count, grain: 4 * Parallel.elementGrain, multiple: 16) { range in
        Scalar.kernels.fill(Double(value), base + range.lowerBound, range.count)
      }
    }
  }

  /// A tensor without axes that holds one scalar.
  public init(_ scalar: Scalar) { self.init(shape: [], scalars: [scalar]) }

  /// A tensor with one axis.
  public init(_ scalars: [Scalar]) { self.init(shape: [scalars.count], scalars: scalars) }

  /// A matrix by its rows, all of one length.
  public init(_ rows: [[Scalar]]) {
    let columns = rows.first?.count ?? 0
    for (index, row) in rows.enumerated() {
      require(row.count == columns, "Tensor: row 0 has \(columns) scalars, row \(index) has \(row.count)")
    }
    self.init(shape: [rows.count, columns], scalars: rows.flatMap { $0 })
  }

  /// A tensor with three axes by its matrices, all of one shape.
  public init(_ matrices: [[[Scalar]]]) {
    let parts = matrices.map { Tensor($0) }
    require(!parts.isEmpty, "Tensor: no matrices, so no shape")
    self = Tensor.stacked(parts)
  }

  /// Zeros.
  public static func zeros(shape: [Int]) -> Tensor { Tensor(repeating: 0, shape: shape) }

  /// Ones.
  public static func ones(shape: [Int]) -> Tensor { Tensor(repeating: 1, shape: shape) }

  /// Zeros of this tensor's shape.
  public static func zeros(like other: Tensor) -> Tensor { zeros(shape: other.shape) }

  /// The identity matrix.
  public static func identity(_ size: Int) -> Tensor {
    var result = zeros(shape: [size, size])
    result.withUnsafeMutableBufferPointer { buffer in
      for index in 0..<size { buffer[index * (size + 1)] = 1 }
    }
    return result
  }

  /// `start`, `start + step`, … below (for a negative step above) `end`.
  public static func range(from start: Scalar = 0, to end: Scalar, by step: Scalar = 1) -> Tensor {
    require(step != 0, "Tensor.range: the step is 0")
    let count = Swift.max(0, Int(((end - start) / step).rounded(.up)))
    return Tensor((0..<count).map { start + Scalar($0) * step })
  }

  /// `count` evenly spaced values from `start` to `end`, both included.
  public static func linearSpace(from start: Scalar, to end: Scalar, count: Int) -> Tensor {
    require(count >= 0, "Tensor.linearSpace: count \(count) is negative")
    return Tensor((0..<count).map { count == 1 ? start : start + (end - start) * Scalar($0) / Scalar(count - 1) })
  }

  /// Room for a result that a kernel writes.
  @inline(__always)
  package init(uninitialized shape: [Int]) {
    self.init(storage: Storage(count: checkedCount(shape)), shape: shape)
  }
}

/// The elements in `shape`, which must have no negative size and no more elements than an address space could hold: whoever counts
/// their bytes, and rounds them up, does not overflow.
package func checkedCount(_ shape: [Int]) -> Int {
  var count = 1
  for size in shape {
    require(size >= 0, "Tensor: shape \(shape) has a negative size")
    let (product, overflow) = count.multipliedReportingOverflow(by: size)
    require(!overflow, "Tensor: shape \(shape) has more elements than memory")
    count = product
  }
  require(count <= 1 << 57, "Tensor: shape \(shape) has more elements than memory")
  return count
}

// MARK: - Memory

extension Tensor {
  /// The elements in row-major order.
  public var scalars: [Scalar] { withUnsafeBufferPointer { Array($0) } }

  /// The one element of a tensor that has just one.
  public var scalar: Scalar {
    require(count == 1, "Tensor.scalar: shape \(shape) has \(count) elements, not 1")
    return storage.pointer[offset]
  }

  /// Calls `body` with the elements in row-major order; a view is copied first.
  public func withUnsafeBufferPointer<Result, Failure: Error>(
    _ body: (UnsafeBufferPointer<Scalar>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let source = contiguous()
    defer { withExtendedLifetime(source) {} }
    return try body(UnsafeBufferPointer(start: source.storage.pointer + source.offset, count: source.count))
  }

  /// Calls `body` with the elements in row-major order, to be changed.
  public mutating func withUnsafeMutableBufferPointer<Result, Failure: Error>(
    _ body: (UnsafeMutableBufferPointer<Scalar>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    makeWritable()
    return try body(UnsafeMutableBufferPointer(start: storage.pointer + offset, count: count))
  }

  /// The same elements in row-major order without gaps; itself where they already are.
  package func contiguous() -> Tensor { isContiguous ? self : copied() }

  /// The elements' address, for a contiguous tensor that the caller keeps alive.
  @inline(__always)
  package var address: UnsafeMutablePointer<Scalar> {
    assert(isContiguous)
    return storage.pointer + offset
  }

  /// A contiguous copy in storage of its own.
  package func copied() -> Tensor {
    let result = Tensor(uninitialized: shape)
    // γ and β, which a pullback holds while the optimizer moves them, are copied in each step.
    if isContiguous, count < Parallel.elementGrain {
      result.address.update(from: address, count: count)
    } else {
      result.copyElements(from: self)
    }
    return result
  }

  /// Storage that nobody else holds and elements in row-major order, so that they can be changed in place.
  package mutating func makeWritable() {
    if !(isContiguous && storage.isWritable && isKnownUniquelyReferenced(&storage)) { self = copied() }
  }

  /// Whether this is the only holder of contiguous memory, so that a result may be written over it.
  package mutating func isUniquelyWritable() -> Bool {
    isContiguous && storage.isWritable && isKnownUniquelyReferenced(&storage)
  }

  /// Writes the elements of `source`, a view of this shape, into this contiguous tensor's fresh memory.
  private func copyElements(from source: Tensor) {
    copyStrided(
      shape: shape, from: source.storage.pointer + source.offset, strides: source.strides, to: storage.pointer + offset,
      strides: strides)
  }
}

/// Copies a block of `shape` between two layouts.
package func copyStrided<Scalar: TensorScalar>(
  shape: [Int], from source: UnsafePointer<Scalar>, strides sourceStrides: [Int],
  to target: UnsafeMutablePointer<Scalar>,
  strides targetStrides: [Int]
) {
  guard !shape.contains(0) else { return }
  let block = coalesced(shape: shape, strides: [sourceStrides, targetStrides])
  let (shape, from, to) = (block.shape, block.strides[0], block.strides[1])
  guard let inner = shape.last else {
    target[0] = source[0]
    return
  }
  // A matrix against its transpose goes by tiles; everything else row by row.
  if shape.count >= 2, from[shape.count - 1] != 1, to[shape.count - 1] == 1, from[shape.count - 2] == 1 {
    let rows = shape[shape.count - 2]
    let outer = Array(shape.dropLast(2))
    let matrices = outer.reduce(1, *)
    if matrices == 1 {
      // The target's rows are the source's columns; cut so that each part writes whole cache lines.
      Parallel.ranges(rows, grain: max(16, Parallel.elementGrain / max(inner, 1)), multiple: 16) { range in
        Scalar.kernels.transpose(
          source + range.lowerBound, from[shape.count - 1], target + range.lowerBound * to[shape.count - 2],
          to[shape.count - 2], inner, range.count)
      }
    } else {
      Parallel.ranges(matrices, grain: max(1, Parallel.elementGrain / max(rows * inner, 1))) { range in
        forEachOffset(shape: outer, strides: [from, to], range: range) { offsets in
          Scalar.kernels.transpose(
            source + offsets[0], from[shape.count - 1], target + offsets[1], to[shape.count - 2], inner, rows)
        }
      }
    }
    return
  }
  let outer = Array(shape.dropLast())
  let rows = outer.reduce(1, *)
  if rows == 1 {
    Parallel.ranges(inner, grain: Parallel.elementGrain, multiple: 16) { range in
      Scalar.kernels.copy_strided(
        source + range.lowerBound * from[shape.count - 1], from[shape.count - 1],
        target + range.lowerBound * to[shape.count - 1], to[shape.count - 1], range.count)
    }
    return
  }
  Parallel.ranges(rows, grain: max(1, Parallel.elementGrain / inner)) { range in
    forEachOffset(shape: outer, strides: [from, to], range: range) { offsets in
      Scalar.kernels.copy_strided(
        source + offsets[0], from[shape.count - 1], target + offsets[1], to[shape.count - 1], inner)
    }
  }
}

/// The same iteration with axes of size 1 dropped and neighbours that run on merged, in every one of `strides`.
package func coalesced(shape: [Int], strides: [[Int]]) -> (shape: [Int], strides: [[Int]]) {
  var sizes: [Int] = []
  var steps = strides.map { _ in [Int]() }
  for axis in shape.indices where shape[axis] != 1 {
    let runsOn = !sizes.isEmpty && strides.indices.allSatisfy { steps[$0].last! == strides[$0][axis] * shape[axis] }
    if runsOn {
      sizes[sizes.count - 1] *= shape[axis]
      for operand in strides.indices { steps[operand][sizes.count - 1] = strides[operand][axis] }
    } else {
      sizes.append(shape[axis])
      for operand in strides.indices { steps[operand].append(strides[operand][axis]) }
    }
  }
  return (sizes, steps)
}

/// Calls `body` with the operands' offsets at each index of `shape` whose row-major number is in `range`.
package func forEachOffset(shape: [Int], strides: [[Int]], range: Range<Int>, _ body: ([Int]) -> Void) {
  var index = [Int](repeating: 0, count: shape.count)
  var rest = range.lowerBound
  for axis in stride(from: shape.count - 1, through: 0, by: -1) {
    index[axis] = rest % shape[axis]
    rest /= shape[axis]
  }
  var offsets = strides.map { steps in zip(index, steps).reduce(0) { $0 + $1.0 * $1.1 } }
  for _ in range {
    body(offsets)
    var axis = shape.count - 1
    while axis >= 0 {
      index[axis] += 1
      for operand in strides.indices { offsets[operand] += strides[operand][axis] }
      if index[axis] < shape[axis] { break }
      for operand in strides.indices { offsets[operand] -= strides[operand][axis] * shape[axis] }
      index[axis] = 0
      axis -= 1
    }
  }
}
