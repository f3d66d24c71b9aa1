import CSteppeKernels

/// The mean squared error, and its gradient: the mean of (p − t)² over all elements.
///
/// - Parameters:
///   - prediction: p, of any shape.
///   - target: t, of the prediction's shape.
///   - reduction: Whether the elements' terms are averaged or added up.
/// - Returns: The loss (the mean of no elements is NaN), and its gradient 2·(p − t)/n by the prediction.
public func meanSquaredError<Scalar: TensorScalar>(
  _ prediction: Tensor<Scalar>, _ target: Tensor<Scalar>, reduction: LossReduction = .mean
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  elementwiseLoss("meanSquaredError", prediction, target, reduction) { block in
    let kernels = Scalar.kernels
    kernels.binary(STEPPE_SUBTRACT, block.prediction, 1, block.target, 1, block.gradient, block.count)
    let sum = kernels.reduce(STEPPE_SUM_OF_SQUARES, block.gradient, block.count)
    kernels.affine(block.gradient, 2 * block.scale, 0, block.gradient, block.count)
    return sum
  }
}

/// The mean absolute error (L1), and its gradient: the mean of |p − t| over all elements.
///
/// - Parameters:
///   - prediction: p, of any shape.
///   - target: t, of the prediction's shape.
///   - reduction: Whether the elements' terms are averaged or added up.
/// - Returns: The loss (the mean of no elements is NaN), and its gradient sign(p − t)/n by the prediction, 0 where the two are equal.
public func meanAbsoluteError<Scalar: TensorScalar>(
  _ prediction: Tensor<Scalar>, _ target: Tensor<Scalar>, reduction: LossReduction = .mean
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  elementwiseLoss("meanAbsoluteError", prediction, target, reduction) { block in
    let kernels = Scalar.kernels
    kernels.binary(STEPPE_SUBTRACT, block.prediction, 1, block.target, 1, block.gradient, block.count)
    let sum = kernels.reduce(STEPPE_SUM_OF_ABSOLUTES, block.gradient, block.count)
    kernels.unary(STEPPE_SIGN, block.gradient, block.gradient, block.count)
    kernels.affine(block.gradient, block.scale, 0, block.gradient, block.count)
    return sum
  }
}

/// The Huber loss (Huber 1964), and its gradient: the mean over all elements of r²/2 where |r| ≤ δ and of δ·(|r| − δ/2) elsewhere,
/// r = p − t.
///
/// As PyTorch's `HuberLoss`; its `SmoothL1Loss` is this one over δ.
///
/// - Parameters:
///   - prediction: p, of any shape.
///   - target: t, of the prediction's shape.
///   - delta: δ > 0, where squares give way to absolute values.
///   - reduction: Whether the elements' terms are averaged or added up.
/// - Returns: The loss (the mean of no elements is NaN), and its gradient min(max(r, −δ), δ)/n by the prediction.
public func huber<Scalar: TensorScalar>(
  _ prediction: Tensor<Scalar>, _ target: Tensor<Scalar>, delta: Scalar = 1, reduction: LossReduction = .mean
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  require(delta > 0 && delta.isFinite, "huber: expected a finite delta above 0, got \(delta)")
  return elementwiseLoss("huber", prediction, target, reduction) { block in
    let kernels = Scalar.kernels
    let (rest, held, count) = (block.scratch, block.gradient, block.count)
    kernels.binary(STEPPE_SUBTRACT, block.prediction, 1, block.target, 1, rest, count)
    // With c = min(max(r, −δ), δ), both branches are c·(r − c/2).
    kernels.clamp(rest, -Double(delta), Double(delta), held, count)
    kernels.add_scaled(held, -0.5, rest, count)
    let sum = kernels.dot(held, rest, count)
    kernels.affine(held, block.scale, 0, held, count)
    return sum
  }
}

/// The binary cross-entropy of probabilities under the sigmoid of `logits`, and its gradient: the mean over all elements of
/// −t·log σ(x) − (1 − t)·log(1 − σ(x)).
///
/// It is computed as max(x, 0) − x·t + log(1 + exp(−|x|)), stable for logits of any finite size.
///
/// - Parameters:
///   - logits: x, of any shape.
///   - targets: t in 0 … 1, of the logits' shape.
///   - reduction: Whether the elements' terms are averaged or added up.
/// - Returns: The loss (the mean of no elements is NaN), and its gradient (σ(x) − t)/n by the logits.
public func binaryCrossEntropy<Scalar: TensorScalar>(
  logits: Tensor<Scalar>, targets: Tensor<Scalar>, reduction: LossReduction = .mean
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  elementwiseLoss("binaryCrossEntropy", logits, targets, reduction) { block in
    let kernels = Scalar.kernels
    let (x, t, count) = (block.prediction, block.target, block.count)
    let (e, u, term) = (block.scratch, block.scratch + count, block.gradient)
    // e = exp(−|x|)
    kernels.unary(STEPPE_ABSOLUTE, x, e, count)
    kernels.unary(STEPPE_NEGATE, e, e, count)
    kernels.unary(STEPPE_EXPONENTIAL, e, e, count)
    // log(1 + e) keeps all digits of a small e as e · log u / (u − 1) with u = 1 + e rounded, and e itself where u is 1 (Kahan).
    kernels.affine(e, 1, 1, u, count)
    kernels.unary(STEPPE_LOGARITHM, u, term, count)
    kernels.affine(u, 1, -1, u, count)
    kernels.binary(STEPPE_MULTIPLY, term, 1, e, 1, term, count)
    kernels.binary(STEPPE_DIVIDE, term, 1, u, 1, term, count)
    kernels.select(u, term, 1, e, 1, term, count)
    var sum = kernels.reduce(STEPPE_SUM, term, count)
    // max(x, 0) − x·t element by element: apart, their sums would cancel.
    kernels.activate(STEPPE_RELU, 0, x, e, count)
    kernels.binary(STEPPE_MULTIPLY, x, 1, t, 1, u, count)
    kernels.add_scaled(u, -1, e, count)
    sum += kernels.reduce(STEPPE_SUM, e, count)
    kernels.activate(STEPPE_SIGMOID, 0, x, term, count)
    kernels.binary(STEPPE_SUBTRACT, term, 1, t, 1, term, count)
    kernels.affine(term, block.scale, 0, term, count)
    return sum
  }
}

/// A few thousand elements of a loss, in the cache through all its passes.
private struct LossBlock<Scalar: TensorScalar> {
  let prediction: UnsafeMutablePointer<Scalar>
  let target: UnsafeMutablePointer<Scalar>
  /// Where the gradient goes; free for use on the way.
  let gradient: UnsafeMutablePointer<Scalar>
  /// Room for 2 · `count` scalars.
  let scratch: UnsafeMutablePointer<Scalar>
  let count: Int
  /// What the gradient of a sum is multiplied by.
  let scale: Double
}

/// Adds up what `body` returns, the sum of a block's terms, while it writes the gradients.
private func elementwiseLoss<Scalar: TensorScalar>(
  _ name: StaticString, _ prediction: Tensor<Scalar>, _ target: Tensor<Scalar>, _ reduction: LossReduction,
  _ body: (LossBlock<Scalar>) -> Double
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  require(
    prediction.shape == target.shape, "\(name): shapes \(prediction.shape) and \(target.shape) differ")
  let (p, t) = (prediction.contiguous(), target.contiguous())
  let gradient = Tensor<Scalar>(uninitialized: p.shape)
  let (x, y, dx, count) = (p.address, t.address, gradient.address, p.count)
  let scale = reduction.scale(count)
  let length = Parallel.exponentialGrain
  let total = Parallel.sum(blocks: (count + length - 1) / length) { block in
    let range = block * length..<min(count, (block + 1) * length)
    return withUnsafeTemporaryAllocation(of: Scalar.self, capacity: 2 * range.count) { scratch in
      body(
        LossBlock(
          prediction: x + range.lowerBound, target: y + range.lowerBound, gradient: dx + range.lowerBound,
          scratch: scratch.baseAddress!, count: range.count, scale: scale))
    }
  }
  withExtendedLifetime((p, t)) {}
  return (Scalar(total * scale), gradient)
}
