import CSteppeKernels

// Operators broadcast as in NumPy: shapes are aligned at their last axes, and an axis of size 1 is repeated.
extension Tensor {
  /// The elementwise sum.
  public static func + (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_ADD, a, b) }
  /// The elementwise difference.
  public static func - (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_SUBTRACT, a, b) }
  /// The elementwise product; see ``matmul(_:transposeLeft:transposeRight:)`` for the matrix product.
  public static func * (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_MULTIPLY, a, b) }
  /// The elementwise quotient.
  public static func / (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_DIVIDE, a, b) }

  /// Every element plus `b`.
  public static func + (a: Tensor, b: Scalar) -> Tensor { a.affine(scale: 1, offset: b) }
  /// Every element plus `a`.
  public static func + (a: Scalar, b: Tensor) -> Tensor { b.affine(scale: 1, offset: a) }
  /// Every element minus `b`.
  public static func - (a: Tensor, b: Scalar) -> Tensor { a.affine(scale: 1, offset: -b) }
  /// `a` minus every element.
  public static func - (a: Scalar, b: Tensor) -> Tensor { b.affine(scale: -1, offset: a) }
  /// Every element times `b`.
  public static func * (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_MULTIPLY, a, Tensor(b)) }
  /// Every element times `a`.
  public static func * (a: Scalar, b: Tensor) -> Tensor { combined(STEPPE_MULTIPLY, Tensor(a), b) }
  /// Every element over `b`.
  public static func / (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_DIVIDE, a, Tensor(b)) }
  /// `a` over every element.
  public static func / (a: Scalar, b: Tensor) -> Tensor { combined(STEPPE_DIVIDE, Tensor(a), b) }
  /// Every element's negative.
  public static prefix func - (a: Tensor) -> Tensor { a.mapped(STEPPE_NEGATE) }

  /// Adds `b`, which must broadcast to this shape, in place.
  public static func += (a: inout Tensor, b: Tensor) { a.combine(STEPPE_ADD, b) }
  /// Subtracts `b` in place.
  public static func -= (a: inout Tensor, b: Tensor) { a.combine(STEPPE_SUBTRACT, b) }
  /// Multiplies by `b` elementwise in place.
  public static func *= (a: inout Tensor, b: Tensor) { a.combine(STEPPE_MULTIPLY, b) }
  /// Divides by `b` elementwise in place.
  public static func /= (a: inout Tensor, b: Tensor) { a.combine(STEPPE_DIVIDE, b) }
  /// Adds `b` to every element in place.
  public static func += (a: inout Tensor, b: Scalar) { a.combine(STEPPE_ADD, Tensor(b)) }
  /// Subtracts `b` from every element in place.
  public static func -= (a: inout Tensor, b: Scalar) { a.combine(STEPPE_SUBTRACT, Tensor(b)) }
  /// Multiplies every element by `b` in place.
  public static func *= (a: inout Tensor, b: Scalar) { a.combine(STEPPE_MULTIPLY, Tensor(b)) }
  /// Divides every element by `b` in place.
  public static func /= (a: inout Tensor, b: Scalar) { a.combine(STEPPE_DIVIDE, Tensor(b)) }

  /// 1 where `a` is less, else 0.
  public static func .< (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_LESS, a, b) }
  /// 1 where `a` is less or equal, else 0.
  public static func .<= (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_LESS_EQUAL, a, b) }
  /// 1 where `a` is greater, else 0.
  public static func .> (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_GREATER, a, b) }
  /// 1 where `a` is greater or equal, else 0.
  public static func .>= (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_GREATER_EQUAL, a, b) }
  /// 1 where the two are equal, else 0.
  public static func .== (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_EQUAL, a, b) }
  /// 1 where the two differ, else 0.
  public static func .!= (a: Tensor, b: Tensor) -> Tensor { combined(STEPPE_NOT_EQUAL, a, b) }
  /// 1 where an element is less than `b`, else 0.
  public static func .< (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_LESS, a, Tensor(b)) }
  /// 1 where an element is at most `b`, else 0.
  public static func .<= (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_LESS_EQUAL, a, Tensor(b)) }
  /// 1 where an element is greater than `b`, else 0.
  public static func .> (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_GREATER, a, Tensor(b)) }
  /// 1 where an element is at least `b`, else 0.
  public static func .>= (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_GREATER_EQUAL, a, Tensor(b)) }
  /// 1 where an element equals `b`, else 0.
  public static func .== (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_EQUAL, a, Tensor(b)) }
  /// 1 where an element differs from `b`, else 0.
  public static func .!= (a: Tensor, b: Scalar) -> Tensor { combined(STEPPE_NOT_EQUAL, a, Tensor(b)) }

  /// The elementwise power.
  public func power(_ exponent: Tensor) -> Tensor { Self.combined(STEPPE_POWER, self, exponent) }
  /// Every element to the power of `exponent`.
  public func power(_ exponent: Scalar) -> Tensor { power(Tensor(exponent)) }
  /// The lesser of each pair; NaN where either is NaN.
  public func minimum(_ other: Tensor) -> Tensor { Self.combined(STEPPE_MINIMUM, self, other) }
  /// The greater of each pair; NaN where either is NaN.
  public func maximum(_ other: Tensor) -> Tensor { Self.combined(STEPPE_MAXIMUM, self, other) }

  /// Every element's absolute value.
  public func absolute() -> Tensor { mapped(STEPPE_ABSOLUTE) }
  /// −1, 0 or 1 by every element's sign.
  public func sign() -> Tensor { mapped(STEPPE_SIGN) }
  /// Every element's square.
  public func squared() -> Tensor { mapped(STEPPE_SQUARE) }
  /// Every element's square root.
  public func squareRoot() -> Tensor { mapped(STEPPE_SQUARE_ROOT) }
  /// One over every element.
  public func reciprocal() -> Tensor { mapped(STEPPE_RECIPROCAL) }
  /// e to the power of every element.
  public func exp() -> Tensor { mapped(STEPPE_EXPONENTIAL) }
  /// Every element's natural logarithm.
  public func log() -> Tensor { mapped(STEPPE_LOGARITHM) }
  /// Every element's sine, in radians.
  public func sin() -> Tensor { mapped(STEPPE_SINE) }
  /// Every element's cosine, in radians.
  public func cos() -> Tensor { mapped(STEPPE_COSINE) }
  /// Every element rounded down.
  public func floor() -> Tensor { mapped(STEPPE_FLOOR) }
  /// Every element rounded up.
  public func ceil() -> Tensor { mapped(STEPPE_CEILING) }
  /// Every element rounded to the nearest integer, halves to the even one.
  public func rounded() -> Tensor { mapped(STEPPE_ROUND) }

  /// Every element held to `low … high`; NaN stays NaN.
  public func clamped(_ low: Scalar, _ high: Scalar) -> Tensor {
    require(low <= high, "Tensor.clamped: low \(low) is above high \(high)")
    return mapped { Scalar.kernels.clamp($0, Double(low), Double(high), $1, $2) }
  }

  /// `scale · x + offset` for every element x.
  public func affine(scale: Scalar, offset: Scalar) -> Tensor {
    mapped { Scalar.kernels.affine($0, Double(scale), Double(offset), $1, $2) }
  }

  /// Adds `scale · other`, of this shape, in place.
  public mutating func add(_ other: Tensor, scale: Scalar) {
    require(shape == other.shape, "Tensor.add(_:scale:): shapes \(shape) and \(other.shape) differ")
    let source = other.contiguous()
    makeWritable()
    let (x, y) = (source.address, address)
    Parallel.ranges(count, grain: Parallel.elementGrain, multiple: 16) { range in
      Scalar.kernels.add_scaled(x + range.lowerBound, Double(scale), y + range.lowerBound, range.count)
    }
    withExtendedLifetime(source) {}
  }

  /// Writes `value` to every element.
  public mutating func fill(_ value: Scalar) {
    if !isUniquelyWritable() { self = Tensor(uninitialized: shape) }
    let y = address
    Parallel.ranges(count, grain: 4 * Parallel.elementGrain, multiple: 16) { range in
      Scalar.kernels.fill(Double(value), y + range.lowerBound, range.count)
    }
  }

  /// `x` where this tensor is not 0, `y` where it is; the three broadcast.
  public func selecting(_ x: Tensor, otherwise y: Tensor) -> Tensor {
    let shape = broadcastShape(
      broadcastShape(self.shape, x.shape, "Tensor.selecting"), y.shape, "Tensor.selecting")
    let operands = [self, x, y].map { $0.broadcast(to: shape).contiguous() }
    let result = Tensor(uninitialized: shape)
    let (mask, yes, no, out) = (operands[0].address, operands[1].address, operands[2].address, result.address)
    Parallel.ranges(result.count, grain: Parallel.elementGrain, multiple: 16) { range in
      let low = range.lowerBound
      Scalar.kernels.select(mask + low, yes + low, 1, no + low, 1, out + low, range.count)
    }
    withExtendedLifetime(operands) {}
    return result
  }

  /// Every element through `transform`, one at a time: for what has no method of its own, since each call costs a few nanoseconds.
  public func map(_ transform: (Scalar) throws -> Scalar) rethrows -> Tensor {
    let source = contiguous()
    return try Tensor(unsafeUninitializedShape: shape) { buffer in
      for index in buffer.indices { buffer.initializeElement(at: index, to: try transform(source.address[index])) }
    }
  }

  /// Whether the shapes and all elements are equal; a NaN equals nothing.
  public func isElementwiseEqual(to other: Tensor) -> Bool {
    shape == other.shape && (self .!= other).max(orEmpty: 0) == 0
  }
}

extension Tensor: Equatable {
  /// Whether the shapes and all elements are equal; a NaN equals nothing.
  public static func == (a: Tensor, b: Tensor) -> Bool { a.isElementwiseEqual(to: b) }
}

// MARK: - How

extension Tensor {
  func mapped(_ operation: steppe_unary) -> Tensor {
    mapped { Scalar.kernels.unary(operation, $0, $1, $2) }
  }

  /// A kernel over ranges of all elements: source, target, count.
  func mapped(_ kernel: (UnsafePointer<Scalar>, UnsafeMutablePointer<Scalar>, Int) -> Void) -> Tensor {
    let source = contiguous()
    let result = Tensor(uninitialized: shape)
    let (x, y) = (source.address, result.address)
    Parallel.ranges(count, grain: Parallel.elementGrain, multiple: 16) { range in
      kernel(x + range.lowerBound, y + range.lowerBound, range.count)
    }
    withExtendedLifetime(source) {}
    return result
  }

  static func combined(_ operation: steppe_binary, _ a: Tensor, _ b: Tensor) -> Tensor {
    let shape = broadcastShape(a.shape, b.shape, "Tensor \(operatorName(operation))")
    let result = Tensor(uninitialized: shape)
    write(operation, a, b, to: result.address, shape: shape)
    return result
  }

  mutating func combine(_ operation: steppe_binary, _ other: Tensor) {
    let shape = broadcastShape(shape, other.shape, "Tensor \(Self.operatorName(operation))=")
    require(
      shape == self.shape,
      "Tensor \(Self.operatorName(operation))=: shape \(other.shape) does not broadcast to \(self.shape)")
    makeWritable()
    Self.write(operation, self, other, to: address, shape: shape)
  }

  /// Writes a op b, broadcast to `shape`, to contiguous memory.
  private static func write(
    _ operation: steppe_binary, _ a: Tensor, _ b: Tensor, to target: UnsafeMutablePointer<Scalar>, shape: [Int]
  ) {
    if shape.contains(0) { return }
    if a.isContiguous, b.isContiguous, a.shape == b.shape {
      run(operation, a.address, 1, b.address, 1, target, a.count)
    } else {
      let (x, y) = (a.innerContiguous().broadcast(to: shape), b.innerContiguous().broadcast(to: shape))
      let block = coalesced(shape: shape, strides: [x.strides, y.strides, rowMajorStrides(shape)])
      let (from, other) = (x.storage.pointer + x.offset, y.storage.pointer + y.offset)
      guard let inner = block.shape.last else { return run(operation, from, 0, other, 0, target, 1) }
      let steps = block.strides.map { $0.last! }
      let outer = Array(block.shape.dropLast())
      let rows = outer.reduce(1, *)
      if rows == 1 {
        run(operation, from, steps[0], other, steps[1], target, inner)
      } else {
        let outerStrides = block.strides.map { Array($0.dropLast()) }
        Parallel.ranges(rows, grain: Swift.max(1, Parallel.elementGrain / inner)) { range in
          forEachOffset(shape: outer, strides: outerStrides, range: range) { offsets in
            Scalar.kernels.binary(
              operation, from + offsets[0], steps[0], other + offsets[1], steps[1], target + offsets[2], inner)
          }
        }
      }
      withExtendedLifetime((x, y)) {}
    }
    withExtendedLifetime((a, b)) {}
  }

  private static func run(
    _ operation: steppe_binary, _ x: UnsafePointer<Scalar>, _ xStep: Int, _ y: UnsafePointer<Scalar>, _ yStep: Int,
    _ z: UnsafeMutablePointer<Scalar>, _ count: Int
  ) {
    Parallel.ranges(count, grain: Parallel.elementGrain, multiple: 16) { range in
      let low = range.lowerBound
      Scalar.kernels.binary(operation, x + low * xStep, xStep, y + low * yStep, yStep, z + low, range.count)
    }
  }

  /// Itself where its last axis advances by 1 or repeats, which is what the kernels take; else a contiguous copy.
  private func innerContiguous() -> Tensor {
    guard let axis = shape.lastIndex(where: { $0 != 1 }) else { return self }
    return strides[axis] == 1 || strides[axis] == 0 ? self : copied()
  }

  private static func operatorName(_ operation: steppe_binary) -> String {
    switch operation {
    case STEPPE_ADD: "+"
    case STEPPE_SUBTRACT: "-"
    case STEPPE_MULTIPLY: "*"
    case STEPPE_DIVIDE: "/"
    case STEPPE_POWER: "power"
    case STEPPE_MINIMUM: "minimum"
    case STEPPE_MAXIMUM: "maximum"
    case STEPPE_LESS: ".<"
    case STEPPE_LESS_EQUAL: ".<="
    case STEPPE_GREATER: ".>"
    case STEPPE_GREATER_EQUAL: ".>="
    case STEPPE_EQUAL: ".=="
    default: ".!="
    }
  }
}
