import CSteppeKernels

// Sums are taken in short blocks whose results are merged in Double: the error stays near one rounding of the result.
extension Tensor {
  /// The sum of all elements.
  public func sum() -> Scalar { Scalar(reduced(STEPPE_SUM)) }
  /// The mean of all elements; NaN where there are none.
  public func mean() -> Scalar { Scalar(reduced(STEPPE_SUM) / Double(count)) }
  /// The product of all elements.
  public func product() -> Scalar { Scalar(reduced(STEPPE_PRODUCT)) }
  /// The least element; NaN where any is NaN. There must be one.
  public func min() -> Scalar {
    require(count > 0, "Tensor.min: shape \(shape) has no elements")
    return Scalar(reduced(STEPPE_REDUCE_MINIMUM))
  }
  /// The greatest element; NaN where any is NaN. There must be one.
  public func max() -> Scalar {
    require(count > 0, "Tensor.max: shape \(shape) has no elements")
    return Scalar(reduced(STEPPE_REDUCE_MAXIMUM))
  }
  /// The mean square distance from the mean: over `count`, or `count − 1` where `unbiased`.
  public func variance(unbiased: Bool = false) -> Scalar {
    let centred = self - mean()
    // The mean's own rounding is taken out again: Σ(x − μ′)² = Σ(x − μ)² + n(μ − μ′)², where μ − μ′ is the mean of what is left.
    let rest = centred.reduced(STEPPE_SUM) / Double(count)
    let total = centred.reduced(STEPPE_SUM_OF_SQUARES) - Double(count) * rest * rest
    return Scalar(Swift.max(total, 0) / Double(unbiased ? count - 1 : count))
  }
  /// The square root of ``variance(unbiased:)``.
  public func standardDeviation(unbiased: Bool = false) -> Scalar { variance(unbiased: unbiased).squareRoot() }
  /// Whether no element is NaN or infinite.
  public func isAllFinite() -> Bool {
    let source = contiguous()
    let x = source.address
    let parts = Parallel.partCount(count, grain: 4 * Parallel.elementGrain)
    let finite = partials(parts) { part in
      let range = Parallel.range(part, of: parts, count: source.count, multiple: 16)
      return Scalar.kernels.all_finite(x + range.lowerBound, range.count) ? 1 : 0
    }
    withExtendedLifetime(source) {}
    return finite.allSatisfy { $0 == 1 }
  }
  /// The place of the greatest element in row-major order, the first of equals; a NaN counts as greatest.
  public func argmax() -> Int {
    require(count > 0, "Tensor.argmax: shape \(shape) has no elements")
    return withUnsafeBufferPointer { Int(Scalar.kernels.index_of_maximum($0.baseAddress!, $0.count)) }
  }

  /// Sums along `axes`, which are dropped, or kept with size 1 where `keepingAxes`.
  public func sum(axes: [Int], keepingAxes: Bool = false) -> Tensor { reduced(STEPPE_SUM, axes, keepingAxes) }
  /// Sums along `axis`.
  public func sum(axis: Int, keepingAxes: Bool = false) -> Tensor { sum(axes: [axis], keepingAxes: keepingAxes) }
  /// Means along `axes`.
  public func mean(axes: [Int], keepingAxes: Bool = false) -> Tensor {
    let size = axes.reduce(1) { $0 * shape[checkedAxis($1, "mean")] }
    return sum(axes: axes, keepingAxes: keepingAxes) / Scalar(size)
  }
  /// Means along `axis`.
  public func mean(axis: Int, keepingAxes: Bool = false) -> Tensor { mean(axes: [axis], keepingAxes: keepingAxes) }
  /// Products along `axis`.
  public func product(axis: Int, keepingAxes: Bool = false) -> Tensor { reduced(STEPPE_PRODUCT, [axis], keepingAxes) }
  /// The least along `axis`, which must have elements; NaN where any is NaN.
  public func min(axis: Int, keepingAxes: Bool = false) -> Tensor {
    require(shape[checkedAxis(axis, "min")] > 0, "Tensor.min: axis \(axis) of shape \(shape) has no elements")
    return reduced(STEPPE_REDUCE_MINIMUM, [axis], keepingAxes)
  }
  /// The greatest along `axis`, which must have elements; NaN where any is NaN.
  public func max(axis: Int, keepingAxes: Bool = false) -> Tensor {
    require(shape[checkedAxis(axis, "max")] > 0, "Tensor.max: axis \(axis) of shape \(shape) has no elements")
    return reduced(STEPPE_REDUCE_MAXIMUM, [axis], keepingAxes)
  }
  /// The mean square distance from the mean along `axes`: over their size n, or n − 1 where `unbiased`.
  public func variance(axes: [Int], unbiased: Bool = false, keepingAxes: Bool = false) -> Tensor {
    let size = axes.reduce(1) { $0 * shape[checkedAxis($1, "variance")] }
    let centred = self - mean(axes: axes, keepingAxes: true)
    // As above, the rounding of the mean is taken out again.
    let rest = centred.mean(axes: axes, keepingAxes: keepingAxes)
    let total = centred.reduced(STEPPE_SUM_OF_SQUARES, axes, keepingAxes) - rest.squared() * Scalar(size)
    return total.maximum(Tensor(0)) / Scalar(unbiased ? size - 1 : size)
  }
  /// The variance along `axis`.
  public func variance(axis: Int, unbiased: Bool = false, keepingAxes: Bool = false) -> Tensor {
    variance(axes: [axis], unbiased: unbiased, keepingAxes: keepingAxes)
  }
  /// The square root of the variance along `axis`.
  public func standardDeviation(axis: Int, unbiased: Bool = false, keepingAxes: Bool = false) -> Tensor {
    variance(axis: axis, unbiased: unbiased, keepingAxes: keepingAxes).squareRoot()
  }
  /// The places of the greatest along the last axis, one for each of the rows before it; the first of equals, NaN as greatest.
  public func argmaxOfRows() -> [Int] {
    require(rank > 0 && shape[rank - 1] > 0, "Tensor.argmaxOfRows: shape \(shape) has no rows with elements")
    let columns = shape[rank - 1]
    return withUnsafeBufferPointer { buffer in
      guard let base = buffer.baseAddress, !buffer.isEmpty else { return [] }
      return (0..<buffer.count / columns).map { Int(Scalar.kernels.index_of_maximum(base + $0 * columns, columns)) }
    }
  }
}

// MARK: - How

extension Tensor {
  func max(orEmpty value: Scalar) -> Scalar { count == 0 ? value : max() }

  /// All elements to one.
  package func reduced(_ operation: steppe_reduction) -> Double {
    let source = contiguous()
    let x = source.address
    let parts = Parallel.partCount(count, grain: 2 * Parallel.elementGrain)
    let results = partials(parts) { part in
      let range = Parallel.range(part, of: parts, count: source.count, multiple: 16)
      return Scalar.kernels.reduce(operation, x + range.lowerBound, range.count)
    }
    withExtendedLifetime(source) {}
    return results.dropFirst().reduce(results[0]) { merged(operation, $0, $1) }
  }

  private func partials(_ parts: Int, _ body: (Int) -> Double) -> [Double] {
    [Double](unsafeUninitializedCapacity: parts) { buffer, count in
      // The address, so that the parts write side by side without a conflict that the compiler could see.
      let base = buffer.baseAddress!
      Parallel.run(parts: parts) { (base + $0).initialize(to: body($0)) }
      count = parts
    }
  }

  private func merged(_ operation: steppe_reduction, _ a: Double, _ b: Double) -> Double {
    switch operation {
    case STEPPE_PRODUCT: a * b
    case STEPPE_REDUCE_MINIMUM: a.isNaN || b.isNaN ? .nan : Swift.min(a, b)
    case STEPPE_REDUCE_MAXIMUM: a.isNaN || b.isNaN ? .nan : Swift.max(a, b)
    default: a + b
    }
  }

  private func reduced(_ operation: steppe_reduction, _ axes: [Int], _ keepingAxes: Bool) -> Tensor {
    let places = Set(axes.map { checkedAxis($0, "reduction") })
    require(places.count == axes.count, "Tensor reduction: axes \(axes) name one twice")
    var result = contiguous()
    // Neighbouring axes go in one pass, the last first; later passes only add up what squares were taken of.
    var operation = operation
    var axis = rank - 1
    while axis >= 0 {
      guard places.contains(axis) else {
        axis -= 1
        continue
      }
      var first = axis
      while first > 0, places.contains(first - 1) { first -= 1 }
      result = result.reducedBlock(operation, first...axis)
      if operation == STEPPE_SUM_OF_SQUARES || operation == STEPPE_SUM_OF_ABSOLUTES { operation = STEPPE_SUM }
      axis = first - 1
    }
    // No axes: the elements themselves, through the operation.
    if places.isEmpty, operation == STEPPE_SUM_OF_SQUARES { result = squared() }
    if keepingAxes { return result }
    return result.reshaped(shape.indices.filter { !places.contains($0) }.map { shape[$0] })
  }

  /// One pass over neighbouring axes of a contiguous tensor; they stay with size 1.
  private func reducedBlock(_ operation: steppe_reduction, _ axes: ClosedRange<Int>) -> Tensor {
    let outer = shape[..<axes.lowerBound].reduce(1, *)
    let size = shape[axes].reduce(1, *)
    let inner = shape[(axes.upperBound + 1)...].reduce(1, *)
    var newShape = shape
    for axis in axes { newShape[axis] = 1 }
    let result = Tensor(uninitialized: newShape)
    if result.count == 0 { return result }
    let (x, y) = (address, result.address)
    if inner == 1 {
      if outer == 1 {
        y[0] = Scalar(reduced(operation))
        return result
      }
      Parallel.ranges(outer, grain: Swift.max(1, Parallel.elementGrain / Swift.max(size, 1))) { range in
        Scalar.kernels.reduce_rows(
          operation, x + range.lowerBound * size, size, range.count, size, y + range.lowerBound)
      }
    } else if outer > 1 {
      Parallel.ranges(outer, grain: Swift.max(1, Parallel.elementGrain / Swift.max(size * inner, 1))) { range in
        for block in range {
          Scalar.kernels.reduce_columns(operation, x + block * size * inner, inner, size, inner, y + block * inner)
        }
      }
    } else if inner >= 64 * Parallel.threadCount || size < inner {
      Parallel.ranges(inner, grain: Swift.max(64, Parallel.elementGrain / Swift.max(size, 1)), multiple: 64) { range in
        Scalar.kernels.reduce_columns(operation, x + range.lowerBound, inner, size, range.count, y + range.lowerBound)
      }
    } else {
      // Many short rows: each part reduces its own, and the parts' results are reduced once more.
      let parts = Parallel.partCount(size, grain: Swift.max(1, Parallel.elementGrain / inner))
      let partial = Tensor(uninitialized: [parts, inner])
      let z = partial.address
      Parallel.run(parts: parts) { part in
        let range = Parallel.range(part, of: parts, count: size)
        Scalar.kernels.reduce_columns(
          operation, x + range.lowerBound * inner, inner, range.count, inner, z + part * inner)
      }
      let again = operation == STEPPE_SUM_OF_SQUARES || operation == STEPPE_SUM_OF_ABSOLUTES ? STEPPE_SUM : operation
      Scalar.kernels.reduce_columns(again, z, inner, parts, inner, y)
      withExtendedLifetime(partial) {}
    }
    return result
  }
}
