import CSteppeKernels

extension Tensor {
  /// exp(xᵢ) / Σⱼ exp(xⱼ) along the last axis.
  ///
  /// The greatest element is subtracted first, so that no exponential overflows.
  public func softmax() -> Tensor { softmax(logarithm: false) }

  /// The natural logarithm of ``softmax()`` along the last axis: xᵢ − log Σⱼ exp(xⱼ), exact where the softmax itself underflows.
  public func logSoftmax() -> Tensor { softmax(logarithm: true) }

  private func softmax(logarithm: Bool) -> Tensor {
    require(rank > 0, "Tensor.\(logarithm ? "logSoftmax" : "softmax"): a scalar has no axis")
    let source = contiguous()
    let result = Tensor(uninitialized: shape)
    let columns = shape[rank - 1]
    if result.count == 0 { return result }
    let (x, y) = (source.address, result.address)
    Parallel.ranges(count / columns, grain: Swift.max(1, Parallel.exponentialGrain / columns)) { range in
      let start = range.lowerBound * columns
      Scalar.kernels.softmax_rows(logarithm, x + start, columns, y + start, columns, range.count, columns)
    }
    withExtendedLifetime(source) {}
    return result
  }
}

extension Parallel {
  /// ``elementGrain`` for passes that take an exponential of each element.
  static let exponentialGrain = elementGrain / 4
}
