/// Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167; SPEC §4).
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
public final class BatchNorm<Scalar: TensorScalar>: Layer {
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

  /// γ, `[C]`, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// β, `[C]`, at the start 0; without weight decay.
  public let beta: Parameter<Scalar>
  /// The running mean, `[C]`, at the start 0.
  public var runningMean: Tensor<Scalar> {
    didSet { checkStatistics(runningMean, "runningMean") }
  }
  /// The running unbiased variance, `[C]`, at the start 1.
  public var runningVariance: Tensor<Scalar> {
    didSet { checkStatistics(runningVariance, "runningVariance") }
  }
  /// How many batches the running averages have seen.
  public var batchesTracked = 0
  /// How many batches were left out of the running averages because a statistic was not finite.
  public private(set) var skippedBatches = 0
  /// A frozen layer trains nothing: `forward` too uses the running averages and leaves them as they are.
  public var isFrozen = false

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
  public init(
    _ channels: Int, epsilon: Double = 1e-5, momentum: Double? = 0.1, affine: Bool = true,
    tracksRunningStatistics: Bool = true, layout: ChannelPlace = .channelsFirst
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
    func statistic(_ key: String, _ path: ReferenceWritableKeyPath<BatchNorm, Tensor<Scalar>>) -> StateEntry<Scalar> {
      StateEntry(
        key: key, get: { [self] in .tensor(self[keyPath: path]) },
        set: { [self] in if case .tensor(let value) = $0 { self[keyPath: path] = value } })
    }
    return entries + [
      statistic("running_mean", \.runningMean), statistic("running_var", \.runningVariance),
      StateEntry(
        key: "num_batches_tracked", get: { [self] in .integer(batchesTracked) },
        set: { [self] in if case .integer(let count) = $0 { batchesTracked = count } }),
    ]
  }

  // MARK: Shapes

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    let axis = layout == .channelsFirst ? 1 : input.count - 1
    guard input.count >= 2, input[axis] == channels else {
      let wanted = layout == .channelsFirst ? "[N, \(channels), …spatial]" : "[N, …spatial, \(channels)]"
      throw LayerError(layer: title, expected: "an input of shape \(wanted)", found: "\(input)")
    }
    if usesBatch(training: training), ChannelShape(shape: input, place: layout).valuesPerChannel < 2 {
      throw LayerError(
        layer: title,
        expected: training
          ? "more than one value per channel in training (a batch of one has no variance)"
          : "more than one value per channel, since it tracks no running statistics",
        found: "\(input)")
    }
    return input
  }

  private func usesBatch(training: Bool) -> Bool {
    !tracksRunningStatistics || training && !isFrozen
  }

  private func checkStatistics(_ value: Tensor<Scalar>, _ what: String) {
    require(value.shape == [channels], "\(title): expected a \(what) of shape [\(channels)], got \(value.shape)")
  }

  // MARK: Evaluation

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return tracksRunningStatistics
      ? normalizedByRunning(input) : Self.normalizedByBatch(input, gamma.value, beta.value, epsilon, layout).output
  }

  private func normalizedByRunning(
    _ input: Tensor<Scalar>, _ activation: Activation = .identity
  ) -> Tensor<Scalar> {
    let (scale, shift) = runningAffine()
    return scaledAndShifted(
      input, mean: runningMean, scale: scale, shift: shift, layout: layout, activation: activation)
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
  package func forward(
    _ input: Tensor<Scalar>, activation: Activation
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    require(
      activation == .identity || activation == .relu, "\(title): expected a fused identity or ReLU, got \(activation)")
    check(input, training: true)
    if isFrozen, tracksRunningStatistics { return forwardFrozen(input, activation) }
    return forwardByBatch(input, activation)
  }

  /// Whether training normalizes by the batch at hand, not by the running averages.
  package var normalizesByBatch: Bool { usesBatch(training: true) }

  /// max(this layer's output + `residual`, 0) in one pass, where ``normalizesByBatch``, and a pullback that takes the gradient of the
  /// sum: what ReLU's own pullback returns.
  package func forward(
    _ input: Tensor<Scalar>, residual: Tensor<Scalar>
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    require(
      normalizesByBatch && residual.shape == input.shape,
      "\(title): expected a residual of shape \(input.shape) and a layer that is not frozen, got \(residual.shape)")
    return forwardByBatch(input, .relu, residual: residual)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func forwardByBatch(
    _ input: Tensor<Scalar>, _ activation: Activation, residual: Tensor<Scalar>? = nil
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (x, gammaValue, betaValue) = (input.contiguous(), gamma.value, beta.value)
    let (output, moments) = Self.normalizedByBatch(
      x, gammaValue, betaValue, epsilon, layout, activation, residual: residual)
    if tracksRunningStatistics, !isFrozen {
      track(moments, count: ChannelShape(shape: x.shape, place: layout).valuesPerChannel)
    }
    let trains = !isFrozen
    let masked = residual == nil ? activation : .identity
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] gradient, needsInput in
      let (dy, g, b) = (gradient.contiguous(), gammaValue.contiguous(), betaValue.contiguous())
      let dx = needsInput ? Tensor<Scalar>(uninitialized: x.shape) : nil
      let shape = ChannelShape(shape: x.shape, place: layout)
      gatherGradients(trains: trains) { dGamma, dBeta in
        ChannelNormalization<Scalar>(shape, tensors: 2).backward(
          x: x.address, dy: dy.address, dx: dx?.address, gamma: g.address, beta: b.address, moments: moments,
          epsilon: epsilon, activation: masked, dGamma: dGamma, dBeta: dBeta)
      }
      withExtendedLifetime((x, dy, g, b)) {}
      return dx
    }
    return (output, pullback)
  }

  private func forwardFrozen(
    _ input: Tensor<Scalar>, _ activation: Activation
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let scale = runningAffine().scale
    let layout = layout
    let zeros = Tensor<Scalar>.zeros(shape: [channels])
    let output = normalizedByRunning(input, activation)
    let activated = activation == .identity ? nil : output
    let pullback = Pullback<Scalar>(shape: input.shape) { dy, needsInput in
      guard needsInput else { return nil }
      // What ReLU gave is 0 where what it took was not above 0.
      let gradient = activated.map { activation.gradient($0, dy) } ?? dy
      return scaledAndShifted(gradient, mean: zeros, scale: scale, shift: zeros, layout: layout)
    }
    return (output, pullback)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func track(_ moments: ChannelMoments, count m: Int) {
    guard moments.isFinite else {
      skippedBatches += 1
      return
    }
    batchesTracked += 1
    let weight = momentum ?? 1 / Double(batchesTracked)
    let unbiased = Double(m) / Double(m - 1)
    runningMean.withUnsafeMutableBufferPointer {
      Scalar.kernels.blend_doubles(moments.mean, weight, 1 - weight, $0.baseAddress!, channels)
    }
    runningVariance.withUnsafeMutableBufferPointer {
      Scalar.kernels.blend_doubles(moments.variance, weight * unbiased, 1 - weight, $0.baseAddress!, channels)
    }
  }

  // MARK: The kernels' work

  private static func normalizedByBatch(
    _ input: Tensor<Scalar>, _ gamma: Tensor<Scalar>, _ beta: Tensor<Scalar>, _ epsilon: Double,
    _ layout: ChannelPlace, _ activation: Activation = .identity, residual: Tensor<Scalar>? = nil
  ) -> (output: Tensor<Scalar>, moments: ChannelMoments) {
    let (x, g, b, r) = (input.contiguous(), gamma.contiguous(), beta.contiguous(), residual?.contiguous())
    let output = Tensor<Scalar>(uninitialized: x.shape)
    let work = ChannelNormalization<Scalar>(ChannelShape(shape: x.shape, place: layout))
    let moments = work.forward(
      x: x.address, y: output.address, gamma: g.address, beta: b.address, epsilon: epsilon, activation: activation,
      residual: r?.address)
    withExtendedLifetime((x, g, b, r)) {}
    return (output, moments)
  }

  /// Adds what `body` writes to γ's and β's gradients where the layer `trains`.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func gatherGradients(
    trains: Bool, _ body: (_ dGamma: UnsafeMutablePointer<Double>, _ dBeta: UnsafeMutablePointer<Double>) -> Void
  ) {
    let sums = Storage<Double>(count: 2 * channels)
    body(sums.pointer, sums.pointer + channels)
    for (parameter, values) in [(gamma, sums.pointer), (beta, sums.pointer + channels)]
    where trains && parameter.isTrainable {
      parameter.accumulate { memory, adding in
        Scalar.kernels.blend_doubles(values, 1, adding ? 1 : 0, memory, channels)
      }
    }
    withExtendedLifetime(sums) {}
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let layout = layout
    guard tracksRunningStatistics else {
      let (gamma, beta, epsilon) = (gamma.value, beta.value, epsilon)
      return [
        .function { x in
          let axis = layout == .channelsFirst ? 1 : x.rank - 1
          require(
            x.rank >= 2 && x.shape[axis] == gamma.count && x.count >= 2 * gamma.count,
            "FoldedModel: expected \(gamma.count) channels on axis \(axis) with two values each, got \(x.shape)")
          return Self.normalizedByBatch(x, gamma, beta, epsilon, layout).output
        }
      ]
    }
    let (scale, shift) = runningAffine()
    return [
      .normalize(
        mean: runningMean, scale: scale, shift: shift, layout: layout, activation: .identity, isCentred: isCentred)
    ]
  }

  /// Whether no running mean is so large against its deviation that taking it out behind the next layer's product, not before it, would
  /// cost accuracy.
  ///
  /// Behind, a term of the product is rounded at the size of |μ̄|·rstd̄ + |x̂| in place of |x̂|, which is about 1. Up to 8 that costs
  /// about three bits, like what the product's own sum of many terms does; a mean of 10⁶ deviations would leave a digit of Float.
  private var isCentred: Bool {
    zip(runningMean.scalars, runningVariance.scalars).allSatisfy {
      abs(Double($0)) <= 8 * (Double($1) + epsilon).squareRoot()
    }
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
