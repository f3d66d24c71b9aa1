/// One step of inference: an immutable value.
public indirect enum InferenceStep<Scalar: TensorScalar>: Sendable {
  /// `f(x·Wᵀ + b)`, W `[outputs, inputs]`, b `[outputs]`. Where W has taken in a normalization over axis 1, which is the last axis of
  /// `[N, C]` alone, `unfolded` are the steps that an input with more axes takes instead; else there are none.
  case dense(
    weight: Tensor<Scalar>, bias: Tensor<Scalar>?, activation: Activation, unfolded: [InferenceStep<Scalar>] = [])
  /// `f(W∗x + b)`, W `[outputs, inputs / groups, rows, columns]`, b `[outputs]`.
  case convolution(
    weight: Tensor<Scalar>, bias: Tensor<Scalar>?, ConvolutionGeometry, activation: Activation)
  /// `f((x − mean)·scale + shift)` for each channel, all `[C]`. Where `isCentred`, no mean is large against its channel's deviation, so
  /// that `x·scale + (shift − mean·scale)` is as good.
  case normalize(
    mean: Tensor<Scalar>, scale: Tensor<Scalar>, shift: Tensor<Scalar>, layout: ChannelPlace, activation: Activation,
    isCentred: Bool = false)
  /// f(x)
  case activation(Activation)
  /// `[N, …]` to `[N, the rest]`.
  case flatten
  /// f(s + b), b the branch's result and s that of the shortcut, x where it has no steps.
  case residual([InferenceStep], shortcut: [InferenceStep] = [], activation: Activation = .identity)
  /// What no other case expresses.
  case function(@Sendable (Tensor<Scalar>) -> Tensor<Scalar>)
}

/// A trained network as an immutable value for inference, made by ``Layer/folded()``: call it from any number of tasks at once.
///
/// Batch norm beside a dense layer has gone into that layer's weights: into the layer before, `W′ = γ·rstd̄·W`,
/// `b′ = β + (b − μ̄)·γ·rstd̄`, or into the layer after it (Mathematics §4). Activations run in the same pass as what they follow.
///
/// Folding costs no accuracy. Into the layer before it leaves the sizes of all that is added as they were. Into the layer after, the mean
/// would go through the product and be taken out behind it, at a rounding of the mean's size: where a mean is large against its
/// deviation the batch norm therefore stays a step of its own, which subtracts first.
///
/// Weights are laid out once, when the value is made, as the kernels of the instruction set in use then read them.
///
/// For inputs with more axes than a matrix a fold also keeps the tensors that it was made of, which it shares with the network as long as
/// that does not train on.
public struct FoldedModel<Scalar: TensorScalar>: Sendable {
  /// What is left to do, in order.
  public let steps: [InferenceStep<Scalar>]

  private let program: [PreparedStep<Scalar>]

  /// Folds `steps`, those of a network in order.
  public init(_ steps: [InferenceStep<Scalar>]) {
    self.steps = Self.fused(steps)
    program = self.steps.map { PreparedStep($0) }
  }

  /// The network's output for `input`, batch axis included.
  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> { Self.run(program, input) }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private static func run(_ program: [PreparedStep<Scalar>], _ input: Tensor<Scalar>) -> Tensor<Scalar> {
    var x = input
    for step in program { x = run(step, x) }
    return x
  }

  private static func run(_ step: PreparedStep<Scalar>, _ x: Tensor<Scalar>) -> Tensor<Scalar> {
    switch step {
    case .dense(_, let unfolded) where x.rank > 2 && !unfolded.isEmpty: return run(unfolded, x)
    case .dense(let dense, _): return dense(x)
    case .residual(let branch, let shortcut, let activation):
      let (change, base) = (run(branch, x), run(shortcut, x))
      require(
        change.shape == base.shape,
        "FoldedModel: expected a branch whose output has the shape \(base.shape), got one of shape \(change.shape)")
      return activatedSum(base, change, activation)
    case .other(let step): return run(step, x)
    }
  }

  private static func run(_ step: InferenceStep<Scalar>, _ x: Tensor<Scalar>) -> Tensor<Scalar> {
    switch step {
    case .normalize(let mean, let scale, let shift, let layout, let activation, _):
      let axis = layout == .channelsFirst ? 1 : x.rank - 1
      require(
        x.rank >= 2 && x.shape[axis] == mean.count,
        "FoldedModel: expected \(mean.count) channels on axis \(axis), got an input of shape \(x.shape)")
      return scaledAndShifted(x, mean: mean, scale: scale, shift: shift, layout: layout, activation: activation)
    case .convolution(let weight, let bias, let geometry, let activation):
      do throws(LayerError) {
        _ = try convolutionShape(
          geometry, inputs: weight.shape[1] * geometry.groups, outputs: weight.shape[0], input: x.shape,
          layer: "FoldedModel")
      } catch { stop(error.description) }
      return convolved(x, weight: weight, bias: bias, geometry, activation: activation)
    case .activation(let activation): return activation(x)
    case .flatten:
      require(x.rank >= 1, "FoldedModel: expected an input with a batch axis, got one of shape \(x.shape)")
      return flattenedRows(x)
    case .function(let body): return body(x)
    case .dense, .residual: stop("FoldedModel: a step that was to be prepared is not")
    }
  }

  // MARK: Folding

  private typealias Affine = (mean: Tensor<Scalar>, scale: Tensor<Scalar>, shift: Tensor<Scalar>)

  private static func fused(_ steps: [InferenceStep<Scalar>]) -> [InferenceStep<Scalar>] {
    var result: [InferenceStep<Scalar>] = []
    for step in steps {
      var step = step
      if case .residual(let branch, let shortcut, let activation) = step {
        step = .residual(fused(branch), shortcut: fused(shortcut), activation: activation)
      }
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
    case (.dense(let weight, let bias, .identity, let unfolded), .activation(let activation)):
      .dense(
        weight: weight, bias: bias, activation: activation, unfolded: unfolded.isEmpty ? [] : unfolded + [second])
    case (.convolution(let weight, let bias, let geometry, .identity), .activation(let activation)):
      .convolution(weight: weight, bias: bias, geometry, activation: activation)
    case (
      .convolution(let weight, let bias, let geometry, .identity),
      .normalize(let mean, let scale, let shift, let layout, let activation, _)
    ) where mean.count == weight.shape[0] && layout == geometry.layout:
      folded(weight, bias, geometry, into: (mean, scale, shift), activation)
    case (
      .normalize(let mean, let scale, let shift, let layout, .identity, isCentred: true),
      .convolution(let weight, let bias, let geometry, let activation)
    ) where mean.count == weight.shape[1] * geometry.groups && layout == geometry.layout && !geometry.isPadded:
      folded((mean, scale, shift), into: weight, bias, geometry, activation)
    case (.normalize(let mean, let scale, let shift, let layout, .identity, let isCentred), .activation(let activation)):
      .normalize(
        mean: mean, scale: scale, shift: shift, layout: layout, activation: activation, isCentred: isCentred)
    case (.residual(let branch, let shortcut, .identity), .activation(let activation)):
      .residual(branch, shortcut: shortcut, activation: activation)
    case (
      .dense(let weight, let bias, .identity, _), .normalize(let mean, let scale, let shift, _, let activation, _)
    ) where mean.count == weight.shape[0]:
      folded(weight, bias, into: (mean, scale, shift), activation, unfolded: unfolded(first, second))
    case (
      .normalize(let mean, let scale, let shift, _, .identity, isCentred: true),
      .dense(let weight, let bias, let activation, _)
    ) where mean.count == weight.shape[1]:
      folded((mean, scale, shift), into: weight, bias, activation, unfolded: unfolded(first, second))
    default: nil
    }
  }

  /// What an input with more axes than a matrix takes in the place of two neighbours' fold, or none where that serves it too.
  private static func unfolded(
    _ first: InferenceStep<Scalar>, _ second: InferenceStep<Scalar>
  ) -> [InferenceStep<Scalar>] {
    var servesAll = true
    let parts = [first, second].flatMap { step -> [InferenceStep<Scalar>] in
      switch step {
      case .dense(_, _, _, let unfolded) where !unfolded.isEmpty:
        servesAll = false
        return unfolded
      case .normalize(_, _, _, .channelsFirst, _, _):
        servesAll = false
        return [step]
      default: return [step]
      }
    }
    return servesAll ? [] : parts
  }

  /// The layer before: W′ = scale·W, b′ = shift + (b − mean)·scale, in Double.
  private static func folded(
    _ weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?, into norm: Affine, _ activation: Activation,
    unfolded: [InferenceStep<Scalar>]
  ) -> InferenceStep<Scalar> {
    .dense(
      weight: weight * norm.scale.reshaped([norm.scale.count, 1]), bias: foldedBias(bias, into: norm),
      activation: activation, unfolded: unfolded)
  }

  /// The convolution before, likewise.
  private static func folded(
    _ weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?, _ geometry: ConvolutionGeometry, into norm: Affine,
    _ activation: Activation
  ) -> InferenceStep<Scalar> {
    .convolution(
      weight: weight * norm.scale.reshaped([norm.scale.count, 1, 1, 1]), bias: foldedBias(bias, into: norm), geometry,
      activation: activation)
  }

  private static func foldedBias(_ bias: Tensor<Scalar>?, into norm: Affine) -> Tensor<Scalar> {
    let (mean, scale, shift) = (norm.mean.scalars, norm.scale.scalars, norm.shift.scalars)
    let old = bias?.scalars
    return Tensor(
      mean.indices.map { output in
        Scalar(Double(shift[output]) + (Double(old?[output] ?? 0) - Double(mean[output])) * Double(scale[output]))
      })
  }

  /// The layer after: W′ = W·scale by columns, b′ = b + W·(shift − mean·scale), in Double.
  private static func folded(
    _ norm: Affine, into weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?, _ activation: Activation,
    unfolded: [InferenceStep<Scalar>]
  ) -> InferenceStep<Scalar> {
    let newBias = foldedBias(norm, into: weight, bias) { _, input in input }
    return .dense(weight: weight * norm.scale, bias: newBias, activation: activation, unfolded: unfolded)
  }

  /// The convolution after, likewise, where there is no padding: zeros would have to become what the normalization maps to 0.
  private static func folded(
    _ norm: Affine, into weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?, _ geometry: ConvolutionGeometry,
    _ activation: Activation
  ) -> InferenceStep<Scalar> {
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let (taps, groupOutputs) = (geometry.kernel.rows * geometry.kernel.columns, outputs / geometry.groups)
    let newBias = foldedBias(norm, into: weight, bias) { $0 / groupOutputs * inputs + $1 / taps }
    let grouped = weight.reshaped([geometry.groups, groupOutputs, inputs, taps])
    let scaled = grouped * norm.scale.reshaped([geometry.groups, 1, inputs, 1])
    return .convolution(weight: scaled.reshaped(weight.shape), bias: newBias, geometry, activation: activation)
  }

  /// b′ for weights [outputs, …], where `channel` tells the input channel that a weight of an output takes.
  private static func foldedBias(
    _ norm: Affine, into weight: Tensor<Scalar>, _ bias: Tensor<Scalar>?,
    _ channel: (_ output: Int, _ place: Int) -> Int
  ) -> Tensor<Scalar> {
    let (mean, scale, shift) = (norm.mean.scalars, norm.scale.scalars, norm.shift.scalars)
    let (outputs, length) = (weight.shape[0], weight.count / max(1, weight.shape[0]))
    let (w, old) = (weight.scalars, bias?.scalars)
    let offsets = mean.indices.map { Double(shift[$0]) - Double(mean[$0]) * Double(scale[$0]) }
    return Tensor(
      (0..<outputs).map { output in
        var sum = Double(old?[output] ?? 0)
        for place in 0..<length { sum += Double(w[output * length + place]) * offsets[channel(output, place)] }
        return Scalar(sum)
      })
  }
}

/// An inference step as it runs: weights in the kernels' layout.
private indirect enum PreparedStep<Scalar: TensorScalar>: Sendable {
  case dense(PreparedDense<Scalar>, unfolded: [PreparedStep])
  case residual([PreparedStep], shortcut: [PreparedStep], Activation)
  case other(InferenceStep<Scalar>)

  init(_ step: InferenceStep<Scalar>) {
    switch step {
    case .dense(let weight, let bias, let activation, let unfolded):
      self = .dense(
        PreparedDense(weight: weight, bias: bias, activation: activation), unfolded: unfolded.map { PreparedStep($0) })
    case .residual(let branch, let shortcut, let activation):
      self = .residual(branch.map { PreparedStep($0) }, shortcut: shortcut.map { PreparedStep($0) }, activation)
    default: self = .other(step)
    }
  }
}

/// `f(x·Wᵀ + b)` with W laid out, or as it was where OpenBLAS multiplies. A class, since in a layer of a few microseconds it counts that
/// one reference is taken and not one for each array inside.
private final class PreparedDense<Scalar: TensorScalar>: Sendable {
  let weight: Tensor<Scalar>
  let inputs: Int
  let outputs: Int
  let bias: Tensor<Scalar>?
  let activation: Activation
  let packed: PackedMatrix<Scalar>?

  init(weight: Tensor<Scalar>, bias: Tensor<Scalar>?, activation: Activation) {
    self.weight = weight
    self.bias = bias?.contiguous()
    self.activation = activation
    let w = weight.contiguous()
    (outputs, inputs) = (w.shape[0], w.shape[1])
    packed =
      MatrixProduct<Scalar>.usesKernels && w.count > 0
      ? PackedMatrix(w.address, ldb: inputs, transposed: true, depth: inputs, columns: outputs) : nil
    withExtendedLifetime(w) {}
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    let shape = input.shape
    require(
      shape.count >= 2 && shape.last == inputs,
      "FoldedModel: expected an input of shape [N, …, \(inputs)], got \(shape)")
    guard let packed else { return denseForward(input, weight: weight, bias: bias, activation: activation) }
    let x = input.contiguous()
    let output = Tensor<Scalar>(uninitialized: shape.count == 2 ? [shape[0], outputs] : shape.dropLast() + [outputs])
    packed.multiply(
      x.address, lda: inputs, rows: x.count / inputs, bias: bias?.address, activation: activation,
      into: output.address, ldc: outputs)
    withExtendedLifetime((x, bias)) {}
    return output
  }
}
