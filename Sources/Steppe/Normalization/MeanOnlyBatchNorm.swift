import CSteppeKernels

/// Mean-only batch normalization (Salimans & Kingma 2016, arXiv 1602.07868, section 2.3; Mathematics §9): what goes with ``WeightNorm``.
///
/// Training subtracts each channel's mean μ over the batch, `y = x − μ + b`, and the gradient goes through it: `dx = dy − Σdy/m`,
/// `db = Σdy`. Evaluation subtracts the running mean. Nothing is divided, so a weight-normalized layer before it keeps its scale.
///
/// Input, output and momentum are those of ``BatchNorm``, as is what happens to a batch with NaN or infinity. In training a channel needs
/// more than one value.
public final class MeanOnlyBatchNorm<Scalar: TensorScalar>: ChannelStatisticsLayer {
  /// C.
  public let channels: Int
  /// The weight of a new batch in the running mean.
  public let momentum: Double
  /// Where the channel axis stands.
  public let layout: ChannelPlace

  /// b, `[C]`, at the start 0; without weight decay.
  public let bias: Parameter<Scalar>
  /// μ̄, `[C]`, at the start 0.
  public var runningMean: Tensor<Scalar> {
    didSet { checkStatistics(runningMean, "runningMean") }
  }
  /// How many batches the running mean has seen.
  public var batchesTracked = 0
  /// How many batches were left out of the running mean because a channel's mean was not finite.
  public internal(set) var skippedBatches = 0
  /// A frozen layer trains nothing: `forward` too uses the running mean and leaves it as it is.
  public var isFrozen = false
  var population: ChannelPopulation?
  var tracksRunningStatistics: Bool { true }

  /// A factor of 1 for each channel.
  private let ones: Tensor<Scalar>

  public var name = "" {
    didSet { bias.name = parameterName(name, "bias") }
  }

  /// A layer for `channels` channels.
  ///
  /// - Parameters:
  ///   - channels: C.
  ///   - momentum: The weight of the new batch in the running mean; 0.1 by default.
  ///   - layout: Where the channel axis stands.
  public init(_ channels: Int, momentum: Double = 0.1, layout: ChannelPlace = .channelsFirst) {
    require(channels > 0, "MeanOnlyBatchNorm: expected a positive number of channels, got \(channels)")
    require((0...1).contains(momentum), "MeanOnlyBatchNorm: expected a momentum in 0 … 1, got \(momentum)")
    self.channels = channels
    self.momentum = momentum
    self.layout = layout
    bias = Parameter(.zeros(shape: [channels]), name: "bias", decays: false)
    runningMean = .zeros(shape: [channels])
    ones = .ones(shape: [channels])
  }

  public var parameters: [Parameter<Scalar>] { [bias] }

  public var state: [StateEntry<Scalar>] {
    [
      StateEntry("bias", bias), StateEntry("running_mean", of: self, \.runningMean),
      StateEntry("num_batches_tracked", of: self, \.batchesTracked),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkedShape(input, training: training)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return scaledAndShifted(input, mean: runningMean, scale: ones, shift: bias.value, layout: layout)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    // Without a deviation nobody knows whether taking the mean out behind the next layer's product would be accurate.
    [.normalize(mean: runningMean, scale: ones, shift: bias.value, layout: layout, activation: .identity)]
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    return isFrozen
      ? frozenForward(input, mean: runningMean, scale: ones, shift: bias.value, layout: layout) : forwardByBatch(input)
  }

  /// Batch norm with γ = 1, a variance of 1 and ε = 0, to whose dx dγ adds nothing.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func forwardByBatch(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (x, b, ones) = (input.contiguous(), bias.value.contiguous(), ones)
    let shape = ChannelShape(shape: x.shape, place: layout)
    let output = Tensor<Scalar>(uninitialized: x.shape)
    let moments = ChannelNormalization<Scalar>(shape).forward(
      x: x.address, y: output.address, gamma: ones.address, beta: b.address, epsilon: 0, activation: .identity,
      adjust: { range, moments in Double.kernels.fill(1, moments.variance + range.lowerBound, range.count) })
    withExtendedLifetime((x, b)) {}
    if counts(moments, count: shape.valuesPerChannel) { move(&runningMean, by: moments.mean, weight: momentum) }

    let pullback = Pullback<Scalar>(shape: output.shape) { [self] gradient, needsInput in
      let dy = gradient.contiguous()
      let dx = needsInput ? Tensor<Scalar>(uninitialized: x.shape) : nil
      let sums = Storage<Double>(count: 2 * channels)
      let (dGamma, dBias) = (sums.pointer, sums.pointer + channels)
      ChannelNormalization<Scalar>(shape, tensors: 2).backward(
        x: x.address, dy: dy.address, dx: dx?.address, gamma: ones.address, beta: ones.address, moments: moments,
        epsilon: 0, dGamma: dGamma, dBeta: dBias,
        adjust: { range in Double.kernels.fill(0, dGamma + range.lowerBound, range.count) })
      if bias.isTrainable {
        bias.accumulate { memory, adding in Scalar.kernels.blend_doubles(dBias, 1, adding ? 1 : 0, memory, channels) }
      }
      withExtendedLifetime((x, dy, sums)) {}
      return dx
    }
    return (output, pullback)
  }

  func take(_ population: ChannelPopulation) { runningMean = Tensor(population.mean.map { Scalar($0) }) }
}
