import CSteppeKernels

/// Scales all gathered gradients down together where their norm is above `maximum` (Pascanu et al. 2013, arXiv 1211.5063).
///
/// The norm is the root of the sum of the squares of all gradients' elements, the same with any number of threads.
/// ``FusedOptimizer/maximumGradientNorm`` does the same within the optimizer's own pass.
///
/// - Parameters:
///   - parameters: Whose gradients; parameters that have gathered nothing count as 0.
///   - maximum: The greatest norm allowed, above 0.
/// - Returns: The norm before clipping. Where it is NaN or infinite the gradients are not usable, and become NaN or 0.
@discardableResult
public func clipGradientNorm<Scalar: TensorScalar>(_ parameters: [Parameter<Scalar>], maximum: Double) -> Double {
  require(maximum > 0 && maximum.isFinite, "clipGradientNorm: expected a finite maximum above 0, got \(maximum)")
  let parameters = distinct(parameters)
  let norm = gradientNorm(parameters)
  let scale = clippingScale(norm, maximum: maximum)
  if scale != 1 {
    changeGradients(parameters) { gradient, count in
      Scalar.kernels.affine(gradient, scale, 0, gradient, count)
    }
  }
  return norm
}

/// Holds every element of the gathered gradients to `−maximum … maximum`; NaN stays NaN.
///
/// - Parameters:
///   - parameters: Whose gradients.
///   - maximum: The greatest magnitude allowed, above 0.
public func clipGradientValue<Scalar: TensorScalar>(_ parameters: [Parameter<Scalar>], maximum: Double) {
  require(maximum > 0 && maximum.isFinite, "clipGradientValue: expected a finite maximum above 0, got \(maximum)")
  changeGradients(parameters) { gradient, count in
    Scalar.kernels.clamp(gradient, -maximum, maximum, gradient, count)
  }
}

/// What gradients of norm `norm` are multiplied by.
func clippingScale(_ norm: Double, maximum: Double) -> Double {
  // A NaN spreads to all gradients, as it would to all parameters after the next step anyway: nothing is hidden.
  norm <= maximum ? 1 : maximum / norm
}

/// The root of the sum of squares of all gathered gradients.
func gradientNorm<Scalar: TensorScalar>(_ parameters: [Parameter<Scalar>]) -> Double {
  let gradients = parameters.filter(\.hasGradient).map { (place: $0.gradientPlace(), count: $0.value.count) }
  // Blocks that do not depend on the thread count: neither does the result.
  let length = 8 * Parallel.elementGrain
  let blocks = gradients.flatMap { gradient in
    stride(from: 0, to: gradient.count, by: length).map { start in
      UnsafeBufferPointer(start: gradient.place.address + start, count: min(length, gradient.count - start))
    }
  }
  let squares = Parallel.sum(blocks: blocks.count) { block in
    Scalar.kernels.reduce(STEPPE_SUM_OF_SQUARES, blocks[block].baseAddress!, blocks[block].count)
  }
  withExtendedLifetime(gradients) {}
  return squares.squareRoot()
}

/// The parameters without repetitions, in order.
func distinct<Scalar: TensorScalar>(_ parameters: [Parameter<Scalar>]) -> [Parameter<Scalar>] {
  var seen: Set<ObjectIdentifier> = []
  return parameters.filter { seen.insert(ObjectIdentifier($0)).inserted }
}

/// Runs a kernel in place over ranges of each gathered gradient.
private func changeGradients<Scalar: TensorScalar>(
  _ parameters: [Parameter<Scalar>], _ kernel: (_ gradient: UnsafeMutablePointer<Scalar>, _ count: Int) -> Void
) {
  for parameter in parameters where parameter.hasGradient {
    let count = parameter.value.count
    // Not an addition: processes that train together have summed the gradients already.
    let gradient = parameter.writableGradient()
    Parallel.ranges(count, grain: Parallel.elementGrain, multiple: 16) { range in
      kernel(gradient + range.lowerBound, range.count)
    }
  }
}
