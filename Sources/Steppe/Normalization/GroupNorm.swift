/// Group normalization (Wu & He 2018, arXiv 1803.08494; Mathematics §8).
///
/// The channels of each sample fall into groups, and each group is normalized by the mean and the biased variance of its (C/G)·S values,
/// in training and in evaluation alike: `y = (x − μ)/√(σ² + ε)·γ + β` with γ and β for each channel. One group is layer norm over a
/// sample, as many groups as channels are instance norm.
///
/// Input and output are `[N, C, …spatial]`, or `[N, …spatial, C]` with `layout: .channelsLast`.
public final class GroupNorm<Scalar: TensorScalar>: Layer {
  /// G.
  public let groups: Int
  /// C.
  public let channels: Int
  /// ε, added to the variance inside the square root.
  public let epsilon: Double
  /// Whether γ and β are learned.
  public let affine: Bool
  /// Where the channel axis stands.
  public let layout: ChannelPlace
  /// γ, `[C]`, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// β, `[C]`, at the start 0; without weight decay.
  public let beta: Parameter<Scalar>

  public var name = "" {
    didSet {
      gamma.name = parameterName(name, "gamma")
      beta.name = parameterName(name, "beta")
    }
  }

  /// A layer for `channels` channels in `groups` groups.
  ///
  /// - Parameters:
  ///   - groups: G, which divides C.
  ///   - channels: C.
  ///   - epsilon: Added to the variance; 1e-5 by default.
  ///   - affine: Whether γ and β are learned.
  ///   - layout: Where the channel axis stands.
  public init(
    _ groups: Int, _ channels: Int, epsilon: Double = 1e-5, affine: Bool = true, layout: ChannelPlace = .channelsFirst
  ) {
    require(
      groups > 0 && channels > 0 && channels % groups == 0,
      "GroupNorm: expected a number of channels that \(groups) groups divide, got \(channels)")
    require(epsilon >= 0, "GroupNorm: expected an epsilon of at least 0, got \(epsilon)")
    self.groups = groups
    self.channels = channels
    self.epsilon = epsilon
    self.affine = affine
    self.layout = layout
    gamma = Parameter(.ones(shape: [channels]), name: "gamma", decays: false)
    beta = Parameter(.zeros(shape: [channels]), name: "beta", decays: false)
    gamma.isTrainable = affine
    beta.isTrainable = affine
  }

  /// A layer for `channels` channels in 32 groups, the paper's number.
  public convenience init(
    _ channels: Int, epsilon: Double = 1e-5, affine: Bool = true, layout: ChannelPlace = .channelsFirst
  ) {
    self.init(32, channels, epsilon: epsilon, affine: affine, layout: layout)
  }

  public var parameters: [Parameter<Scalar>] { affine ? [gamma, beta] : [] }
  public var state: [StateEntry<Scalar>] {
    affine ? [StateEntry("weight", gamma), StateEntry("bias", beta)] : []
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkChannels(input, channels, layout, title)
    guard channelGrouping(input, groups, channels, layout).valuesPerGroup > 1 else {
      throw LayerError(layer: title, expected: "more than one value in a group of a sample", found: "\(input)")
    }
    return input
  }

  private var kernel: GroupAffine<Scalar> { GroupAffine(gamma: gamma, beta: beta, epsilon: epsilon) }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let (output, _, pullback) = kernel.forward(input, channelGrouping(input.shape, groups, channels, layout))
    return (output, pullback)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return kernel.evaluation()(input, channelGrouping(input.shape, groups, channels, layout))
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { channelSteps(kernel, groups, channels, layout) }
}

func checkChannels(_ input: [Int], _ channels: Int, _ layout: ChannelPlace, _ title: @autoclosure () -> String)
  throws(LayerError)
{
  guard input.count >= 2, input[layout == .channelsFirst ? 1 : input.count - 1] == channels else {
    let wanted = layout == .channelsFirst ? "[N, \(channels), …spatial]" : "[N, …spatial, \(channels)]"
    throw LayerError(layer: title(), expected: "an input of shape \(wanted)", found: "\(input)")
  }
}

func channelGrouping(_ input: [Int], _ groups: Int, _ channels: Int, _ layout: ChannelPlace) -> Grouping {
  let spatial = layout == .channelsFirst ? input[2...] : input[1..<input.count - 1]
  return Grouping(
    samples: input[0], groups: groups, channels: channels / groups, positions: spatial.reduce(1, *), layout: layout)
}

func channelSteps<Scalar: TensorScalar>(
  _ kernel: GroupAffine<Scalar>, _ groups: Int, _ channels: Int, _ layout: ChannelPlace
) -> [InferenceStep<Scalar>] {
  let body = kernel.evaluation()
  return [
    .function { x in
      let axis = layout == .channelsFirst ? 1 : x.rank - 1
      require(
        x.rank >= 2 && x.shape[axis] == channels,
        "FoldedModel: expected \(channels) channels on axis \(axis), got an input of shape \(x.shape)")
      return body(x, channelGrouping(x.shape, groups, channels, layout))
    }
  ]
}
