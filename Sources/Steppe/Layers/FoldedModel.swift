/// One step of inference: an immutable value.
public indirect enum InferenceStep<Scalar: TensorScalar>: Sendable {
  /// `f(x·Wᵀ + b)`, W `[outputs, inputs]`, b `[outputs]`. `matrixOnly` says that W has taken in a normalization over axis 1, which is
  /// the last axis of `[N, C]` alone.
  case dense(weight: Tensor<Scalar>, bias: Tensor<Scalar>?, activation: Activation, matrixOnly: Bool = false)
  /// `f((x − mean)·scale + shift)` for each channel, all `[C]`.
  case normalize(
    mean: Tensor<Scalar>, scale: Tensor<Scalar>, shift: Tensor<Scalar>, layout: ChannelPlace, activation: Activation)
  /// f(x)
  case activation(Activation)
  /// `[N, …]` to `[N, the rest]`.
  case flatten
  /// x plus the steps' result.
  case residual([InferenceStep])
  /// What no other case expresses.
  case function(@Sendable (Tensor<Scalar>) -> Tensor<Scalar>)
}

/// A trained network as an immutable value for inference, made by ``Layer/folded()``: call it from any number of tasks at once.
///
/// Batch norm beside a dense layer has gone into that layer's weights: into the layer before, `W′ = γ·rstd̄·W`,
/// `b′ = β + (b − μ̄)·γ·rstd̄`, or into the layer after it (SPEC §4). Activations run in the same pass as what they follow.
public struct FoldedModel<Scalar: TensorScalar>: Sendable {
  /// What is left to do, in order.
  public let steps: [InferenceStep<Scalar>]

  /// Folds `steps`, those of a network in order.
  public init(_ steps: [InferenceStep<Scalar>]) { self.steps = Self.fused(steps) }

  /// The network's output for `input`, batch axis included.
  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> { Self.run(steps, input) }

  private static func run(_ steps: [InferenceStep<Scalar>], _ input: Tensor<Scalar>) -> Tensor<Scalar> {
    steps.reduce(input) { x, step in
      switch step {
      case .dense(let weight, let bias, let activation, let matrixOnly):
        require(
          x.rank >= 2 && (x.rank == 2 || !matrixOnly) && x.shape.last == weight.shape[1],
          "FoldedModel: expected an input of shape [N, \(matrixOnly ? "" : "…, ")\(weight.shape[1])], got \(x.shape)")
        return denseForward(x, weight: weight, bias: bias, activation: activation)
      case .normalize(let mean, let scale, let shift, let layout, let activation):
        let axis = layout == .channelsFirst ? 1 : x.rank - 1
        require(
          x.rank >= 2 && x.shape[axis] == mean.count,
          "FoldedModel: expected \(mean.count) channels on axis \(axis), got an input of shape \(x.shape)")
        return scaledAndShifted(x, mean: mean, scale: scale, shift: shift, layout: layout, activation: activation)
      case .activation(let activation): return activation(x)
      case .flatten: return flattenedRows(x)
      case .residual(let branch): return x + run(branch, x)
      case .function(let body): return body(x)
      }
    }
  }

  // MARK: Folding

  private typealias Affine = (mean: Tensor<Scalar>, scale: Tensor<Scalar>, shift: Tensor<Scalar>)

  private static func fused(_ steps: [InferenceStep<Scalar>]) -> [InferenceStep<Scalar>] {
    var result: [InferenceStep<Scalar>] = []
    for step in steps {
      var step = step
      if case .residual(let branch) = step { step = .residual(fused(branch)) }
      while let last = result.last, let joined = joined(last, step) {
        result.removeLast()
        step = joined
      }
      result.append(step)
    }
    return result
  }

  /// One step for two neighbours, or nil.
  private static func joined(_ first: InferenceStep<Scalar>, _ second: InferenceStep<Scalar>) -> InferenceStep<Scalar>?
  {
    switch (first, second) {
    case (.dense(let weight, let bias, .identity, let matrixOnly), .activation(let activation)):
      .dense(weight: weight, bias: bias, activation: activation, matrixOnly: matrixOnly)
    case (.normalize(let mean, let scale, let shift, let layout, .identity), .activation(let activation)):
      .normalize(mean: mean, scale: scale, shift: shift, layout: layout, activation: activation)
    case (
      .dense(let weight, let bias, .identity, let matrixOnly),
      .normalize(let mean, let scale, let shift, let layout, let activation)
    ) where mean.count == weight.shape[0]:
      folded(weight, bias, into: (mean, scale, shift), activation, matrixOnly || layout == .channelsFirst)
    case (
      .normalize(let mean, let scale, let shift, let layout, .identity),
      .dense(let weight, let bias, let activation, let matrixOnly)
    ) where mean.count == weight.shape[1]:
      folded((mean, scale, shift), into: weight, bias, activation, matrixOnly || layout == .channelsFirst)
    default: nil
    }
  }

  /// The layer before: W′ = scale·W, b′ = shift + (b − mean)·scale, in Double.
  private static func folded(
    _ weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?, into norm: Affine, _ activation: Activation, _ matrixOnly: Bool
  ) -> InferenceStep<Scalar> {
    let (mean, scale, shift) = (norm.mean.scalars, norm.scale.scalars, norm.shift.scalars)
    let old = bias?.scalars
    let newBias = mean.indices.map { output in
      Scalar(Double(shift[output]) + (Double(old?[output] ?? 0) - Double(mean[output])) * Double(scale[output]))
    }
    return .dense(
      weight: weight * norm.scale.reshaped([mean.count, 1]), bias: Tensor(newBias), activation: activation,
      matrixOnly: matrixOnly)
  }

  /// The layer after: W′ = W·scale by columns, b′ = b + W·(shift − mean·scale), in Double.
  private static func folded(
    _ norm: Affine, into weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?, _ activation: Activation, _ matrixOnly: Bool
  ) -> InferenceStep<Scalar> {
    let (mean, scale, shift) = (norm.mean.scalars, norm.scale.scalars, norm.shift.scalars)
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let (w, old) = (weight.scalars, bias?.scalars)
    let offsets = mean.indices.map { Double(shift[$0]) - Double(mean[$0]) * Double(scale[$0]) }
    let newBias = (0..<outputs).map { output in
      var sum = Double(old?[output] ?? 0)
      for input in 0..<inputs { sum += Double(w[output * inputs + input]) * offsets[input] }
      return Scalar(sum)
    }
    return .dense(
      weight: weight * norm.scale, bias: Tensor(newBias), activation: activation,
      matrixOnly: matrixOnly)
  }
}
