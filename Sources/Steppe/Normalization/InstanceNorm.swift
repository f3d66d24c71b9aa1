/// Instance normalization (Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022; Mathematics §7).
///
/// Each channel of each sample is normalized by the mean and the biased variance of its own positions. Without running statistics, the
/// default, evaluation does the same; with them it is an affine map for each channel, as in ``BatchNorm``.
///
/// Input and output are `[N, C, …spatial]`, or `[N, …spatial, C]` with `layout: .channelsLast`. One position has no variance: an error,
/// but in evaluation by running statistics.
public final class InstanceNorm<Scalar: TensorScalar>: Layer {
  /// C.
  public let channels: Int
  /// ε, added to the variance inside the square root.
  public let epsilon: Double
  /// The weight of a new batch in the running statistics, as in ``BatchNorm``.
  public let momentum: Double
  /// Whether γ and β are learned.
  public let affine: Bool
  /// Whether running statistics are kept, and used in evaluation.
  public let tracksRunningStatistics: Bool
  /// Where the channel axis stands.
  public let layout: ChannelPlace
  /// γ, `[C]`, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// β, `[C]`, at the start 0; without weight decay.
  public let beta: Parameter<Scalar>
  /// The running mean over samples, `[C]`, at the start 0.
  public private(set) var runningMean: Tensor<Scalar>
  /// The running mean over samples of their unbiased variances, `[C]`, at the start 1.
  public private(set) var runningVariance: Tensor<Scalar>
  /// How many batches the running statistics have seen (PyTorch's layer has the entry and leaves it at 0).
  public private(set) var batchesTracked = 0

  public var name = "" {
    didSet {
      gamma.name = parameterName(name, "gamma")
      beta.name = parameterName(name, "beta")
    }
  }

  /// A layer for `channels` channels.
  ///
  /// - Parameters:
  ///   - channels: C.
  ///   - epsilon: Added to the variance; 1e-5 by default.
  ///   - momentum: The weight of the new batch in the running statistics.
  ///   - affine: Whether γ and β are learned; not by default.
  ///   - tracksRunningStatistics: Whether running statistics are kept for evaluation; not by default.
  ///   - layout: Where the channel axis stands.
  public init(
    _ channels: Int, epsilon: Double = 1e-5, momentum: Double = 0.1, affine: Bool = false,
    tracksRunningStatistics: Bool = false, layout: ChannelPlace = .channelsFirst
  ) {
    require(channels > 0, "InstanceNorm: expected a positive number of channels, got \(channels)")
    require(epsilon >= 0, "InstanceNorm: expected an epsilon of at least 0, got \(epsilon)")
    require((0...1).contains(momentum), "InstanceNorm: expected a momentum in 0 … 1, got \(momentum)")
    self.channels = channels
    self.epsilon = epsilon
    self.momentum = momentum
    self.affine = affine
    self.tracksRunningStatistics = tracksRunningStatistics
    self.layout = layout
    gamma = Parameter(.ones(shape: [channels]), name: "gamma", decays: false)
    beta = Parameter(.zeros(shape: [channels]), name: "beta", decays: false)
    gamma.isTrainable = affine
    beta.isTrainable = affine
    runningMean = .zeros(shape: [channels])
    runningVariance = .ones(shape: [channels])
  }

  public var parameters: [Parameter<Scalar>] { affine ? [gamma, beta] : [] }

  public var state: [StateEntry<Scalar>] {
    let entries = affine ? [StateEntry("weight", gamma), StateEntry("bias", beta)] : []
    guard tracksRunningStatistics else { return entries }
    return entries + [
      StateEntry("running_mean", of: self, \.runningMean), StateEntry("running_var", of: self, \.runningVariance),
      StateEntry("num_batches_tracked", of: self, \.batchesTracked),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkChannels(input, channels, layout, title)
    if training || !tracksRunningStatistics, channelGrouping(input, channels, channels, layout).positions < 2 {
      throw LayerError(
        layer: title, expected: "more than one position (one alone has no variance)", found: "\(input)")
    }
    return input
  }

  private var kernel: GroupAffine<Scalar> { GroupAffine(gamma: gamma, beta: beta, epsilon: epsilon) }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let shape = channelGrouping(input.shape, channels, channels, layout)
    let (output, statistics, pullback) = kernel.forward(input, shape)
    if tracksRunningStatistics, shape.samples > 0 { track(statistics, shape) }
    return (output, pullback)
  }

  /// Moves the running statistics by the samples' mean and mean unbiased variance; a batch that is not finite moves nothing.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func track(_ statistics: Storage<Double>, _ shape: Grouping) {
    var means = [Double](repeating: 0, count: channels)
    var variances = means
    for row in 0..<shape.samples * channels {
      let own = statistics.pointer + 3 * row
      means[row % channels] += (own[0] + own[1]) / Double(shape.samples)
      variances[row % channels] += own[2] / Double(shape.samples)
    }
    guard means.allSatisfy(\.isFinite), variances.allSatisfy(\.isFinite) else { return }
    let unbiased = Double(shape.positions) / Double(shape.positions - 1)
    let (oldMeans, oldVariances, momentum) = (runningMean.scalars, runningVariance.scalars, momentum)
    runningMean = Tensor(
      means.indices.map { Scalar((1 - momentum) * Double(oldMeans[$0]) + momentum * means[$0]) })
    runningVariance = Tensor(
      means.indices.map { Scalar((1 - momentum) * Double(oldVariances[$0]) + momentum * unbiased * variances[$0]) })
    batchesTracked += 1
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    guard tracksRunningStatistics else {
      return kernel.evaluation()(input, channelGrouping(input.shape, channels, channels, layout))
    }
    return scaledAndShifted(input, mean: runningMean, scale: runningScale, shift: beta.value, layout: layout)
  }

  private var runningScale: Tensor<Scalar> { gamma.value / (runningVariance + Scalar(epsilon)).squareRoot() }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    guard tracksRunningStatistics else { return channelSteps(kernel, channels, channels, layout) }
    return [
      .normalize(
        mean: runningMean, scale: runningScale, shift: beta.value, layout: layout, activation: .identity)
    ]
  }
}
