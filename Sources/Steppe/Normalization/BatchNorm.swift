/// Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167; Mathematics §4).
///
/// Training normalizes each channel by the mean μ and the biased variance σ² of its m values in the batch, algorithm 1 of the paper:
/// `x̂ = (x − μ)/√(σ² + ε)`, `y = γ·x̂ + β`. The statistics are part of the network: the pullback is the gradient through them,
/// `dx = γ·rstd·(dy − dβ/m − x̂·dγ/m)`. Evaluation normalizes by the running averages, the same affine map for one row as for a thousand.
///
/// Input and output are `[N, C]` or `[N, C, …spatial]` with any number of spatial axes, or `[N, …spatial, C]` with
/// `layout: .channelsLast`. In training a channel needs more than one value.
///
/// **Momentum** is PyTorch's, the weight of the *new* batch: `running ← (1 − momentum)·running + momentum·batch`. Where a text writes
/// `running ← p·running + (1 − p)·batch`, p is 1 − momentum: its 0.9 is `momentum: 0.1` here. The running variance is fed the unbiased
/// variance (over m − 1).
///
/// **A batch with NaN or infinity** gives a non-finite output, but leaves the running averages as they were and is counted in
/// ``skippedBatches``: one bad batch does not spoil a trained network.
public final class BatchNorm<Scalar: TensorScalar>: ChannelStatisticsLayer {
  /// C.
  public let channels: Int
  /// ε, added to the variance inside the square root.
  public let epsilon: Double
  /// The weight of a new batch in the running averages; nil for their cumulative average, each batch weighing alike.
  public let momentum: Double?
  /// Whether γ and β are learned.
  public let affine: Bool
  /// Whether running averages are kept; without, evaluation uses the batch at hand.
  public let tracksRunningStatistics: Bool
  /// Where the channel axis stands.
  public let layout: ChannelPlace
  /// What stands in the deviation's place: ℓ₂ is the deviation itself.
  public let norm: ChannelNorm

  /// γ, `[C]`, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// β, `[C]`, at the start 0; without weight decay.
  public let beta: Parameter<Scalar>
  /// The running mean, `[C]`, at the start 0.
  public var runningMean: Tensor<Scalar> {
    didSet { checkStatistics(runningMean, "runningMean") }
  }
  /// The running unbiased variance, `[C]`, at the start 1; with another norm the running square of that.
  public var runningVariance: Tensor<Scalar> {
    didSet { checkStatistics(runningVariance, "runningVariance") }
  }
  /// How many batches the running averages have seen.
  public var batchesTracked = 0
  /// How many batches were left out of the running averages because a statistic was not finite.
  public internal(set) var skippedBatches = 0
  /// A frozen layer trains nothing: `forward` too uses the running averages and leaves them as they are.
  public var isFrozen = false
  var population: ChannelPopulation?
  /// In training, what makes the statistics those of several processes' batches together; nil for this process's alone.
  package var synchronization: (any ChannelSynchronization)? {
    didSet {
      require(
        synchronization == nil || norm == .l2,
        "\(title): expected a batch norm by ℓ₂, whose statistics merge, to be synchronized, got one by \(norm)")
    }
  }
  var isSynchronized: Bool { synchronization != nil }

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
  ///   - momentum: The weight of the new batch in the running averages (p = 1 − momentum in the other reading); nil averages all
  ///     batches alike. 0.1 by default.
  ///   - affine: Whether γ and β are learned.
  ///   - tracksRunningStatistics: Whether running averages are kept for evaluation.
  ///   - layout: Where the channel axis stands.
  ///   - norm: What stands in the deviation's place. ℓ₁ and ℓ∞ serve experiments (Mathematics §12): they take a pass more each way and are not
  ///     fused with the layers around.
  public init(
    _ channels: Int, epsilon: Double = 1e-5, momentum: Double? = 0.1, affine: Bool = true,
    tracksRunningStatistics: Bool = true, layout: ChannelPlace = .channelsFirst, norm: ChannelNorm = .l2
  ) {
    require(channels > 0, "BatchNorm: expected a positive number of channels, got \(channels)")
    require(epsilon >= 0, "BatchNorm: expected an epsilon of at least 0, got \(epsilon)")
    require(momentum.map { (0...1).contains($0) } ?? true, "BatchNorm: expected a momentum in 0 … 1, got \(momentum!)")
    self.channels = channels
    self.epsilon = epsilon
    self.momentum = momentum
    self.affine = affine
    self.tracksRunningStatistics = tracksRunningStatistics
    self.layout = layout
    self.norm = norm
    gamma = Parameter(.ones(shape: [channels]), name: "gamma", decays: false)
    beta = Parameter(.zeros(shape: [channels]), name: "beta", decays: false)
    gamma.isTrainable = affine
    beta.isTrainable = affine
    runningMean = .zeros(shape: [channels])
    runningVariance = .ones(shape: [channels])
  }

  /// γ and β; none where ``affine`` is off.
  public var parameters: [Parameter<Scalar>] { affine ? [gamma, beta] : [] }

  public var state: [StateEntry<Scalar>] {
    var entries: [StateEntry<Scalar>] = []
    if affine { entries += [StateEntry("weight", gamma), StateEntry("bias", beta)] }
    guard tracksRunningStatistics else { return entries }
    return entries + [
      StateEntry("running_mean", of: self, \.runningMean), StateEntry("running_var", of: self, \.runningVariance),
      StateEntry("num_batches_tracked", of: self, \.batchesTracked),
    ]
  }

  // MARK: Shapes

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkedShape(input, training: training)
  }

  // MARK: Evaluation

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    if tracksRunningStatistics { return normalizedByRunning(input) }
    return Self.normalizedByBatch(input, gamma.value, beta.value, epsilon, layout, norm).output
  }

  private func normalizedByRunning(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    let (scale, shift) = runningAffine()
    return scaledAndShifted(input, mean: runningMean, scale: scale, shift: shift, layout: layout)
  }

  /// γ·rstd̄ and β, for y = (x − μ̄)·scale + shift.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func runningAffine() -> (scale: Tensor<Scalar>, shift: Tensor<Scalar>) {
    let epsilon = epsilon
    let (g, v) = (gamma.value.scalars, runningVariance.scalars)
    let scale = zip(g, v).map { Scalar(Double($0) / (Double($1) + epsilon).squareRoot()) }
    return (Tensor(scale), beta.value)
  }

  // MARK: Training

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    forward(input, activation: .identity)
  }

  /// This layer and an activation after it, the identity or ReLU, in one pass each way: what the two layers give one after another.
  /// `moments` are those of the input's channels where they are known already, which only a layer that ``normalizesByBatch`` asks for.
  func forward(
    _ input: Tensor<Scalar>, activation: Activation, moments: ChannelMoments? = nil
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    require(
      activation == .identity || activation == .relu, "\(title): expected a fused identity or ReLU, got \(activation)")
    check(input, training: true)
    if isFrozen, tracksRunningStatistics {
      let (scale, shift) = runningAffine()
      return frozenForward(input, mean: runningMean, scale: scale, shift: shift, layout: layout, activation)
    }
    if norm != .l2, activation != .identity {
      let (output, normPullback) = forwardByBatch(input, .identity)
      let activated = activation(output)
      let pullback = Pullback<Scalar>(shape: output.shape) { dy, needsInput in
        // What ReLU gave is 0 where what it took was not above 0.
        normPullback.run(activation.gradient(activated, dy), needsInput: needsInput)
      }
      return (activated, pullback)
    }
    return forwardByBatch(input, activation, moments: moments)
  }

  /// Whether training normalizes by the mean and the deviation of the batch at hand: what the layers around can be fused with.
  package var normalizesByBatch: Bool { norm == .l2 && usesBatch(training: true) }

  /// max(this layer's output + `residual`, 0) in one pass, where ``normalizesByBatch``, and a pullback that takes the gradient of the
  /// sum: what ReLU's own pullback returns.
  func forward(
    _ input: Tensor<Scalar>, residual: Tensor<Scalar>, moments: ChannelMoments? = nil
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    require(
      normalizesByBatch && residual.shape == input.shape,
      "\(title): expected a residual of shape \(input.shape) and a layer that is not frozen, got \(residual.shape)")
    return forwardByBatch(input, .relu, residual: residual, moments: moments)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func forwardByBatch(
    _ input: Tensor<Scalar>, _ activation: Activation, residual: Tensor<Scalar>? = nil, moments: ChannelMoments? = nil
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (x, gammaValue, betaValue) = (input.contiguous(), gamma.value, beta.value)
    let synchronization = synchronization
    let (output, moments, values, normWork) = Self.normalizedByBatch(
      x, gammaValue, betaValue, epsilon, layout, norm, activation, residual: residual, synchronization, known: moments)
    require(
      synchronization == nil || values >= 2,
      "\(title): expected more than one value per channel in training, of all processes together, got \(values)")
    if tracksRunningStatistics, !isFrozen { track(moments, count: values) }
    let trains = !isFrozen
    let masked = residual == nil ? activation : .identity
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] gradient, needsInput in
      let (dy, g, b) = (gradient.contiguous(), gammaValue.contiguous(), betaValue.contiguous())
      let dx = needsInput ? Tensor<Scalar>(uninitialized: x.shape) : nil
      let shape = ChannelShape(shape: x.shape, place: layout)
      gatherChannelGradients(gamma, beta, trains: trains) { dGamma, dBeta in
        if let synchronization {
          return synchronizedBackward(
            synchronization, x, dy, dx, g, b, moments, values: values, masked, dGamma: dGamma, dBeta: dBeta)
        }
        ChannelNormalization<Scalar>(shape, tensors: 2).backward(
          x: x.address, dy: dy.address, dx: normWork == nil ? dx?.address : nil, gamma: g.address, beta: b.address,
          moments: moments, epsilon: epsilon, activation: masked, dGamma: dGamma, dBeta: dBeta,
          adjust: { range in
            guard let normWork, let dx else { return }
            normWork.gradient(
              x.address, dy.address, into: dx.address, range, gamma: g.address, moments, epsilon: epsilon,
              dGamma: dGamma, dBeta: dBeta)
          })
      }
      withExtendedLifetime((x, dy, g, b)) {}
      return dx
    }
    return (output, pullback)
  }

  /// The gradients by this process's values in `dGamma` and `dBeta`, and dx through the statistics of all processes' values.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func synchronizedBackward(
    _ synchronization: any ChannelSynchronization, _ x: Tensor<Scalar>, _ dy: Tensor<Scalar>, _ dx: Tensor<Scalar>?,
    _ gamma: Tensor<Scalar>, _ beta: Tensor<Scalar>, _ moments: ChannelMoments, values: Int, _ activation: Activation,
    dGamma: UnsafeMutablePointer<Double>, dBeta: UnsafeMutablePointer<Double>
  ) {
    let shape = ChannelShape(shape: x.shape, place: layout)
    let own = Storage<Double>(count: 2 * channels)
    // What is exchanged lies in one piece, and is the sums over all values while dx is made of them.
    let exchange = {
      for channel in 0..<self.channels {
        own.pointer[channel] = dGamma[channel]
        own.pointer[self.channels + channel] = dBeta[channel]
      }
      let all = Storage<Double>(count: 2 * self.channels)
      all.pointer.update(from: own.pointer, count: all.count)
      synchronization.add(all.pointer, count: all.count)
      for channel in 0..<self.channels {
        dGamma[channel] = all.pointer[channel]
        dBeta[channel] = all.pointer[self.channels + channel]
      }
    }
    if x.count == 0 {
      for channel in 0..<channels { (dGamma[channel], dBeta[channel]) = (0, 0) }
      exchange()
    } else {
      ChannelNormalization<Scalar>(shape, tensors: 2, schedule: .whole(shape)).backward(
        x: x.address, dy: dy.address, dx: dx?.address, gamma: gamma.address, beta: beta.address, moments: moments,
        epsilon: epsilon, activation: activation, values: values, dGamma: dGamma, dBeta: dBeta,
        adjust: { _ in exchange() })
    }
    for channel in 0..<channels {
      (dGamma[channel], dBeta[channel]) = (own.pointer[channel], own.pointer[channels + channel])
    }
    withExtendedLifetime(own) {}
  }

  func track(_ moments: ChannelMoments, count m: Int) {
    guard counts(moments, count: m) else { return }
    let weight = momentum ?? 1 / Double(batchesTracked)
    let unbiased = norm == .l2 ? Double(m) / Double(m - 1) : 1
    move(&runningMean, by: moments.mean, weight: weight)
    move(&runningVariance, by: moments.variance, weight: weight, factor: unbiased)
  }

  // MARK: The kernels' work

  private static func normalizedByBatch(
    _ input: Tensor<Scalar>, _ gamma: Tensor<Scalar>, _ beta: Tensor<Scalar>, _ epsilon: Double,
    _ layout: ChannelPlace, _ norm: ChannelNorm, _ activation: Activation = .identity,
    residual: Tensor<Scalar>? = nil, _ synchronization: (any ChannelSynchronization)? = nil,
    known: ChannelMoments? = nil
  ) -> (output: Tensor<Scalar>, moments: ChannelMoments, values: Int, normWork: ChannelNormWork<Scalar>?) {
    let (x, g, b, r) = (input.contiguous(), gamma.contiguous(), beta.contiguous(), residual?.contiguous())
    let output = Tensor<Scalar>(uninitialized: x.shape)
    let shape = ChannelShape(shape: x.shape, place: layout)
    var values = shape.valuesPerChannel
    if let known {
      ChannelNormalization<Scalar>(shape).forward(
        x: x.address, y: output.address, gamma: g.address, beta: b.address, epsilon: epsilon, activation: activation,
        residual: r?.address, moments: known)
      withExtendedLifetime((x, g, b, r)) {}
      return (output, known, values, nil)
    }
    if let synchronization, x.count == 0 {
      let moments = ChannelMoments(channels: shape.channels)
      values = moments.synchronize(synchronization, count: 0, Scalar.self)
      return (output, moments, values, nil)
    }
    let schedule = synchronization == nil ? nil : ChannelSchedule.whole(shape)
    let work = ChannelNormalization<Scalar>(shape, schedule: schedule)
    let normWork = ChannelNormWork<Scalar>(norm, shape)
    let moments = work.forward(
      x: x.address, y: output.address, gamma: g.address, beta: b.address, epsilon: epsilon, activation: activation,
      residual: r?.address,
      adjust: { range, moments in
        normWork?.measure(x.address, range, moments)
        if let synchronization { values = moments.synchronize(synchronization, count: values, Scalar.self) }
      })
    withExtendedLifetime((x, g, b, r)) {}
    return (output, moments, values, normWork)
  }

  func take(_ population: ChannelPopulation) {
    runningMean = Tensor(population.mean.map { Scalar($0) })
    runningVariance = Tensor(population.variance.map { Scalar($0) })
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let layout = layout
    guard tracksRunningStatistics else {
      let (gamma, beta, epsilon, norm) = (gamma.value, beta.value, epsilon, norm)
      return [
        .function { x in
          let axis = layout == .channelsFirst ? 1 : x.rank - 1
          require(
            x.rank >= 2 && x.shape[axis] == gamma.count && x.count >= 2 * gamma.count,
            "FoldedModel: expected \(gamma.count) channels on axis \(axis) with two values each, got \(x.shape)")
          return Self.normalizedByBatch(x, gamma, beta, epsilon, layout, norm).output
        }
      ]
    }
    let (scale, shift) = runningAffine()
    return [
      .normalize(
        mean: runningMean, scale: scale, shift: shift, layout: layout, activation: .identity,
        isCentred: isCentred(runningMean, deviation: (runningVariance + Scalar(epsilon)).squareRoot()))
    ]
  }
}

/// `f((x − mean)·scale + shift)` for each channel, all `[C]`.
func scaledAndShifted<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, mean: Tensor<Scalar>, scale: Tensor<Scalar>, shift: Tensor<Scalar>, layout: ChannelPlace,
  activation: Activation = .identity
) -> Tensor<Scalar> {
  let (x, m, s, b) = (input.contiguous(), mean.contiguous(), scale.contiguous(), shift.contiguous())
  let output = Tensor<Scalar>(uninitialized: x.shape)
  let (from, by, to) = (m.address, s.address, b.address)
  ChannelNormalization<Scalar>(ChannelShape(shape: x.shape, place: layout)).apply(
    x: x.address, y: output.address, activation: activation
  ) { (from[$0], by[$0], to[$0]) }
  withExtendedLifetime((x, m, s, b)) {}
  return output
}
