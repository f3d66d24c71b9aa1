/// The noise of "noisy" batch normalization (Santurkar et al. 2018, arXiv 1805.11604; Mathematics §12): behind a ``BatchNorm`` it makes the
/// distribution of activations unsteady, to see whether training minds.
///
/// Each call of `forward` draws for each channel a mean in ±`mean` and a scale in 1 … `scale`, and around them for each value of its own
/// a shift, uniform within ±`jitter`, and a factor, normal with deviation `jitter`: `y = factor·x + shift`. The noise is constant to the
/// gradient. Evaluation changes nothing.
///
/// Input and output are `[N, C, …spatial]`, or `[N, …spatial, C]` with `layout: .channelsLast`.
public final class ActivationNoise<Scalar: TensorScalar>: Layer {
  /// The largest mean of a channel's shifts.
  public let mean: Double
  /// The largest mean of a channel's factors.
  public let scale: Double
  /// How far a value's own shift lies from its channel's, and the deviation of its own factor.
  public let jitter: Double
  /// Where the channel axis stands.
  public let layout: ChannelPlace
  /// Draws the noise; part of a training checkpoint, so that a resumed run goes on alike.
  public var generator: RandomGenerator
  public var name = ""

  /// A layer whose noise `seed` chooses; without one the enclosing `Sequential(seed:)`'s sequence does, or the system's random numbers.
  public init(
    mean: Double = 0.5, scale: Double = 1.25, jitter: Double = 0.1, layout: ChannelPlace = .channelsFirst,
    seed: UInt64? = nil
  ) {
    require(
      mean >= 0 && scale >= 1 && jitter >= 0,
      "ActivationNoise: expected a mean and a jitter from 0 and a scale from 1, got \(mean), \(jitter) and \(scale)")
    (self.mean, self.scale, self.jitter, self.layout) = (mean, scale, jitter, layout)
    generator = seed.map { RandomGenerator(seed: $0) } ?? InitializationSeed.next()
  }

  public var randomGenerators: [RandomGenerator] {
    get { [generator] }
    set { generator = newValue[0] }
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    guard input.count >= 2 else {
      let wanted = layout == .channelsFirst ? "[N, C, …spatial]" : "[N, …spatial, C]"
      throw LayerError(layer: title, expected: "an input of shape \(wanted)", found: "\(input)")
    }
    return input
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return input
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let axis = layout == .channelsFirst ? 1 : input.rank - 1
    var channelShape = input.shape.map { _ in 1 }
    channelShape[axis] = input.shape[axis]
    let shifts = uniform(channelShape, -mean, mean) + uniform(input.shape, -jitter, jitter)
    let spread = Tensor<Scalar>.randomNormalRuns(
      shape: input.shape, standardDeviation: jitter, using: &generator)
    let factors = uniform(channelShape, 1, scale) + spread
    let pullback = Pullback<Scalar>(shape: input.shape) { dy, needsInput in needsInput ? dy * factors : nil }
    return (input * factors + shifts, pullback)
  }

  private func uniform(_ shape: [Int], _ low: Double, _ high: Double) -> Tensor<Scalar> {
    low < high
      ? .randomUniform(shape: shape, in: Scalar(low)..<Scalar(high), using: &generator)
      : Tensor(repeating: Scalar(low), shape: shape)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { [] }
}
