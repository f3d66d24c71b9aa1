/// Batch renormalization (Ioffe 2017, arXiv 1702.03275; Mathematics §5): batch normalization for batches that are small or not drawn independently.
///
/// Training normalizes by the batch and then corrects towards the running averages, by which evaluation normalizes:
/// `x̂ = (x − μ)/σ·r + d`, `y = γ·x̂ + β`, with `σ = √(σ² + ε)`, `r = σ/σ̄` held within 1/r_max … r_max and `d = (μ − μ̄)/σ̄` within
/// ±d_max. r and d are constants to the gradient. With r_max = 1 and d_max = 0 it is ``BatchNorm``; without limits training would
/// compute what evaluation does.
///
/// Input and output are those of ``BatchNorm``, as is what happens to a batch with NaN or infinity. In training a channel needs more than
/// one value.
///
/// **Momentum** is the weight of the new batch, 0.01 as in the paper: the averages must be steadier than batch norm's, since training
/// uses them. They are of the mean and of σ itself, not of the variance.
public final class BatchRenorm<Scalar: TensorScalar>: ChannelStatisticsLayer {
  /// C.
  public let channels: Int
  /// ε, added to the variance inside the square root.
  public let epsilon: Double
  /// The weight of a new batch in the running averages.
  public let momentum: Double
  /// Whether γ and β are learned.
  public let affine: Bool
  /// How far the correction may go, by the number of batches seen.
  public let limits: RenormLimits
  /// Where the channel axis stands.
  public let layout: ChannelPlace

  /// γ, `[C]`, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// β, `[C]`, at the start 0; without weight decay.
  public let beta: Parameter<Scalar>
  /// μ̄, `[C]`, at the start 0.
  public var runningMean: Tensor<Scalar> {
    didSet { checkStatistics(runningMean, "runningMean") }
  }
  /// σ̄, `[C]`, positive, at the start 1.
  public var runningDeviation: Tensor<Scalar> {
    didSet { checkStatistics(runningDeviation, "runningDeviation") }
  }
  /// How many batches the running averages have seen: the step of ``limits``.
  public var batchesTracked = 0
  /// How many batches were left out of the running averages because a statistic was not finite.
  public internal(set) var skippedBatches = 0
  /// A frozen layer trains nothing: `forward` too uses the running averages and leaves them as they are.
  public var isFrozen = false
  var population: ChannelPopulation?
  var tracksRunningStatistics: Bool { true }

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
  ///   - momentum: The weight of the new batch in the running averages; 0.01 by default.
  ///   - affine: Whether γ and β are learned.
  ///   - limits: r_max and d_max by the number of batches seen; the paper's schedule by default.
  ///   - layout: Where the channel axis stands.
  public init(
    _ channels: Int, epsilon: Double = 1e-5, momentum: Double = 0.01, affine: Bool = true,
    limits: RenormLimits = .paper, layout: ChannelPlace = .channelsFirst
  ) {
    require(channels > 0, "BatchRenorm: expected a positive number of channels, got \(channels)")
    require(epsilon >= 0, "BatchRenorm: expected an epsilon of at least 0, got \(epsilon)")
    require((0...1).contains(momentum), "BatchRenorm: expected a momentum in 0 … 1, got \(momentum)")
    self.channels = channels
    self.epsilon = epsilon
    self.momentum = momentum
    self.affine = affine
    self.limits = limits
    self.layout = layout
    gamma = Parameter(.ones(shape: [channels]), name: "gamma", decays: false)
    beta = Parameter(.zeros(shape: [channels]), name: "beta", decays: false)
    gamma.isTrainable = affine
    beta.isTrainable = affine
    runningMean = .zeros(shape: [channels])
    runningDeviation = .ones(shape: [channels])
  }

  /// γ and β; none where ``affine`` is off.
  public var parameters: [Parameter<Scalar>] { affine ? [gamma, beta] : [] }

  public var state: [StateEntry<Scalar>] {
    let learned = affine ? [StateEntry("weight", gamma), StateEntry("bias", beta)] : []
    return learned + [
      StateEntry("running_mean", of: self, \.runningMean), StateEntry("running_std", of: self, \.runningDeviation),
      StateEntry("num_batches_tracked", of: self, \.batchesTracked),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkedShape(input, training: training)
  }

  // MARK: Evaluation

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return scaledAndShifted(input, mean: runningMean, scale: runningScale, shift: beta.value, layout: layout)
  }

  /// γ/σ̄
  private var runningScale: Tensor<Scalar> { gamma.value / runningDeviation }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    [
      .normalize(
        mean: runningMean, scale: runningScale, shift: beta.value, layout: layout, activation: .identity,
        isCentred: isCentred(runningMean, deviation: runningDeviation))
    ]
  }

  // MARK: Training

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    if isFrozen {
      return frozenForward(input, mean: runningMean, scale: runningScale, shift: beta.value, layout: layout)
    }
    return forwardByBatch(input)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func forwardByBatch(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let x = input.contiguous()
    let shape = ChannelShape(shape: x.shape, place: layout)
    let output = Tensor<Scalar>(uninitialized: x.shape)
    let correction = RenormCorrection<Scalar>(channels: channels)
    let (g, b) = (gamma.value.contiguous(), beta.value.contiguous())
    let (mean, deviation) = (runningMean.contiguous(), runningDeviation.contiguous())
    // Where statistics are gathered, what is passed on must not depend on the averages that they replace.
    let (rMax, dMax) = population == nil ? limits(after: batchesTracked) : (1, 0)
    let moments = ChannelNormalization<Scalar>(shape).forward(
      x: x.address, y: output.address, gamma: correction.gamma, beta: correction.beta, epsilon: epsilon,
      activation: .identity,
      adjust: { range, moments in
        let first = range.lowerBound
        var part = moments.part(range, fold: 1, values: Double(shape.valuesPerChannel), epsilon: epsilon)
        Scalar.kernels.channel_renormalize(
          &part, g.address + first, b.address + first, mean.address + first, deviation.address + first, rMax, dMax,
          correction.r + first, correction.d + first, correction.gamma + first, correction.beta + first)
      })
    withExtendedLifetime((x, g, b, mean, deviation)) {}
    track(moments, count: shape.valuesPerChannel)

    let trains = !isFrozen
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] gradient, needsInput in
      let dy = gradient.contiguous()
      let dx = needsInput ? Tensor<Scalar>(uninitialized: x.shape) : nil
      gatherChannelGradients(gamma, beta, trains: trains) { dGamma, dBeta in
        ChannelNormalization<Scalar>(shape, tensors: 2).backward(
          x: x.address, dy: dy.address, dx: dx?.address, gamma: correction.gamma, beta: correction.beta,
          moments: moments, epsilon: epsilon, dGamma: dGamma, dBeta: dBeta)
        // What was found is Σdy·x̂ with batch norm's x̂; this layer's is x̂·r + d.
        for channel in 0..<channels {
          dGamma[channel] = correction.r[channel] * dGamma[channel] + correction.d[channel] * dBeta[channel]
        }
      }
      withExtendedLifetime((x, dy, correction)) {}
      return dx
    }
    return (output, pullback)
  }

  private func track(_ moments: ChannelMoments, count: Int) {
    guard counts(moments, count: count) else { return }
    let deviations = (0..<channels).map { (moments.variance[$0] + epsilon).squareRoot() }
    move(&runningMean, by: moments.mean, weight: momentum)
    move(&runningDeviation, by: deviations, weight: momentum)
  }

  func take(_ population: ChannelPopulation) {
    runningMean = Tensor(population.mean.map { Scalar($0) })
    runningDeviation = Tensor(population.variance.map { Scalar(($0 + epsilon).squareRoot()) })
  }
}

/// r and d of a batch, and γ·r and β + γ·d, by which batch norm's x̂ becomes y; a value for each channel.
private final class RenormCorrection<Scalar: TensorScalar> {
  private let numbers: Storage<Double>
  private let coefficients: Storage<Scalar>
  private let channels: Int

  init(channels: Int) {
    numbers = Storage(count: 2 * channels)
    coefficients = Storage(count: 2 * channels)
    self.channels = channels
  }

  var r: UnsafeMutablePointer<Double> { numbers.pointer }
  var d: UnsafeMutablePointer<Double> { numbers.pointer + channels }
  var gamma: UnsafeMutablePointer<Scalar> { coefficients.pointer }
  var beta: UnsafeMutablePointer<Scalar> { coefficients.pointer + channels }
}

/// How far ``BatchRenorm`` may correct a batch: r_max and d_max, each by the number of batches that the running averages have seen.
public struct RenormLimits: Sendable, Equatable {
  /// A number that rises in a straight line.
  public struct Ramp: Sendable, Equatable {
    /// The number up to batch `begin`.
    public let from: Double
    /// The number from batch `end` on.
    public let to: Double
    /// The batch at which the rise begins.
    public let begin: Int
    /// The batch at which it ends.
    public let end: Int

    /// `from` up to batch `begin`, `to` from batch `end` on, and a straight line between.
    public init(from: Double, to: Double, begin: Int, end: Int) {
      require(begin <= end, "RenormLimits: expected a rise that ends at or after batch \(begin), got batch \(end)")
      (self.from, self.to, self.begin, self.end) = (from, to, begin, end)
    }

    /// The number for the batch that comes after `batches` others.
    public func callAsFunction(after batches: Int) -> Double {
      if batches >= end { return to }
      return batches <= begin ? from : from + (to - from) * Double(batches - begin) / Double(end - begin)
    }
  }

  /// r_max, at least 1.
  public let r: Ramp
  /// d_max, at least 0.
  public let d: Ramp

  /// Limits that rise.
  public init(r: Ramp, d: Ramp) {
    require(min(r.from, r.to) >= 1, "RenormLimits: expected an r_max of at least 1, got \(r.from) … \(r.to)")
    require(min(d.from, d.to) >= 0, "RenormLimits: expected a d_max of at least 0, got \(d.from) … \(d.to)")
    self.r = r
    self.d = d
  }

  /// The same limits throughout.
  public static func constant(r: Double, d: Double) -> RenormLimits {
    RenormLimits(r: Ramp(from: r, to: r, begin: 0, end: 0), d: Ramp(from: d, to: d, begin: 0, end: 0))
  }

  /// The paper's: batch norm for 5000 batches, then r_max rises to 3 at batch 40 000 and d_max to 5 at batch 25 000.
  public static let paper = RenormLimits(
    r: Ramp(from: 1, to: 3, begin: 5000, end: 40_000), d: Ramp(from: 0, to: 5, begin: 5000, end: 25_000))

  /// r_max and d_max for the batch that comes after `batches` others.
  public func callAsFunction(after batches: Int) -> (r: Double, d: Double) { (r(after: batches), d(after: batches)) }
}
