import CSteppeKernels

/// The cross-entropy of class labels under the softmax of `logits`, and its gradient.
///
/// ```swift
/// let (loss, gradient) = softmaxCrossEntropy(model(images), labels)
/// ```
///
/// Row r costs −Σ_c t_c · log softmax(logits[r])_c, where t is 1 at the label and 0 elsewhere. Label smoothing s (Szegedy et al. 2016,
/// arXiv 1512.00567) makes that t = (1 − s)·t + s/C. The gradient is softmax − t. Both are stable for logits of any finite size; a logit
/// of −∞ is a class of probability 0.
///
/// - Parameters:
///   - logits: `[N, C]`, not normalized.
///   - labels: N classes in `0 ..< C`; another label stops the program with its place.
///   - labelSmoothing: s in 0 … 1.
///   - reduction: Whether the N rows are averaged or added up.
/// - Returns: The loss (the mean of no rows is NaN), and its gradient by the logits, `[N, C]`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
public func softmaxCrossEntropy<Scalar: TensorScalar>(
  _ logits: Tensor<Scalar>, _ labels: [Int], labelSmoothing: Scalar = 0, reduction: LossReduction = .mean
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  requireLogits(logits, labelSmoothing)
  require(
    labels.count == logits.shape[0],
    "softmaxCrossEntropy: logits of shape \(logits.shape) need \(logits.shape[0]) labels, got \(labels.count)")
  let classes = logits.shape[1]
  // The kernels read 32 bits.
  let narrow = [Int32](unsafeUninitializedCapacity: labels.count) { buffer, count in
    for (index, label) in labels.enumerated() {
      require(
        label >= 0 && label < classes,
        "softmaxCrossEntropy: label \(label) at index \(index) is outside 0 ..< \(classes)")
      buffer.initializeElement(at: index, to: Int32(label))
    }
    count = labels.count
  }
  return narrow.withUnsafeBufferPointer { narrow in
    crossEntropy(logits, reduction) { rows, x, scale, losses, gradient in
      Scalar.kernels.cross_entropy_classes(
        x, narrow.baseAddress! + rows.lowerBound, Double(labelSmoothing), scale, losses, gradient, rows.count, classes)
    }
  }
}

/// The cross-entropy of distributions over classes under the softmax of `logits`, and its gradient by the logits.
///
/// As the cross-entropy of labels, with t given for each row: soft labels, mixtures, a teacher's answers.
///
/// - Parameters:
///   - logits: `[N, C]`, not normalized.
///   - distributions: `[N, C]`. Rows should sum to 1; where they do not, loss and gradient are those of the formula as it stands.
///   - labelSmoothing: s in 0 … 1, for t = (1 − s)·t + s/C.
///   - reduction: Whether the N rows are averaged or added up.
/// - Returns: The loss (the mean of no rows is NaN), and its gradient by the logits, `[N, C]`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
public func softmaxCrossEntropy<Scalar: TensorScalar>(
  _ logits: Tensor<Scalar>, _ distributions: Tensor<Scalar>, labelSmoothing: Scalar = 0,
  reduction: LossReduction = .mean
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  requireLogits(logits, labelSmoothing)
  require(
    logits.shape == distributions.shape,
    "softmaxCrossEntropy: logits of shape \(logits.shape) and distributions of shape \(distributions.shape) differ")
  let classes = logits.shape[1]
  let targets = distributions.contiguous()
  defer { withExtendedLifetime(targets) {} }
  return crossEntropy(logits, reduction) { rows, x, scale, losses, gradient in
    Scalar.kernels.cross_entropy_distributions(
      x, targets.address + rows.lowerBound * classes, Double(labelSmoothing), scale, losses, gradient, rows.count,
      classes)
  }
}

private func requireLogits<Scalar: TensorScalar>(_ logits: Tensor<Scalar>, _ labelSmoothing: Scalar) {
  require(
    logits.rank == 2 && logits.shape[1] > 0,
    "softmaxCrossEntropy: expected logits of shape [rows, classes], got \(logits.shape)")
  require(
    (0...1).contains(labelSmoothing), "softmaxCrossEntropy: label smoothing \(labelSmoothing) is outside 0 … 1")
}

/// Runs a kernel over blocks of rows: the rows, their logits, the gradient's scale, room for their losses and their gradient.
private func crossEntropy<Scalar: TensorScalar>(
  _ logits: Tensor<Scalar>, _ reduction: LossReduction,
  _ kernel: (
    _ rows: Range<Int>, _ x: UnsafeMutablePointer<Scalar>, _ scale: Double, _ losses: UnsafeMutablePointer<Double>,
    _ gradient: UnsafeMutablePointer<Scalar>
  ) -> Void
) -> (loss: Scalar, gradient: Tensor<Scalar>) {
  let (rows, classes) = (logits.shape[0], logits.shape[1])
  let source = logits.contiguous()
  let gradient = Tensor<Scalar>(uninitialized: logits.shape)
  let (x, dx) = (source.address, gradient.address)
  let scale = reduction.scale(rows)
  let height = max(1, Parallel.exponentialGrain / classes)
  let total = Parallel.sum(blocks: (rows + height - 1) / height) { block in
    let range = block * height..<min(rows, (block + 1) * height)
    let start = range.lowerBound * classes
    return withUnsafeTemporaryAllocation(of: Double.self, capacity: range.count) { losses in
      kernel(range, x + start, scale, losses.baseAddress!, dx + start)
      return losses.reduce(0, +)
    }
  }
  withExtendedLifetime(source) {}
  return (Scalar(total * scale), gradient)
}
