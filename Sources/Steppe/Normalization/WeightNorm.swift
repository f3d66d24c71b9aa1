/// Weight normalization (Salimans & Kingma 2016, arXiv 1602.07868; Mathematics §9): a layer whose weight is `w = g·v/‖v‖` for each output, its
/// length g and its direction v learned apart.
///
/// ```swift
/// let model = Sequential<Float> {
///   WeightNorm(Conv2D(8, 4, kernel: 3, padding: 1))
///   ReLU()
/// }
/// try model.startWeightNorms(from: images)   // if wanted: outputs of mean 0 and variance 1 for these images
/// ```
///
/// The gradients are `dg = ⟨dw, v⟩/‖v‖` and `dv = g/‖v‖·dw − g·dg/‖v‖²·v`, so that v moves at right angles to itself. At the start g is ‖v‖:
/// the layer computes what it did before. ``Layer/folded()`` leaves a layer with the plain weight.
///
/// A weight vector of zeros has no direction: ``outputShape(for:training:)`` throws a ``LayerError``, and computing stops.
public final class WeightNorm<Scalar: TensorScalar>: Layer {
  /// The layer whose weight is v, and whose bias is this layer's.
  public let layer: any WeightedLayer<Scalar>
  /// The lengths, `[outputs, 1, …]`; without weight decay.
  public let g: Parameter<Scalar>
  /// The directions, of the weight's shape; weight decay applies.
  public var v: Parameter<Scalar> { layer.weight }
  /// The layer's bias.
  public var bias: Parameter<Scalar>? { layer.bias }
  /// The names that ``Layer/save(to:metadata:)`` writes.
  public var keys: NormalizedWeightKeys

  public var name = "" {
    didSet { nameParameters() }
  }

  private let matrix: WeightRows<Scalar>
  /// What a data-dependent start has come to.
  private var start = DataDependentStart.none

  private enum DataDependentStart {
    case none
    case wanted
    case done(LayerError?)
  }

  /// Normalizes the weight of `layer`, which belongs to this one from now on.
  ///
  /// - Parameters:
  ///   - layer: A dense layer or a convolution.
  ///   - keys: The names that files are written with.
  public init<Inner: WeightedLayer>(_ layer: Inner, keys: NormalizedWeightKeys = .parametrizations)
  where Inner.Scalar == Scalar {
    self.layer = layer
    self.keys = keys
    let shape = layer.weight.value.shape
    matrix = WeightRows(shape)
    let v = layer.weight.value.contiguous()
    g = Parameter(
      Tensor(
        shape: [shape[0]] + shape.dropFirst().map { _ in 1 },
        scalars: matrix.dots(v, v).map { Scalar($0.squareRoot()) }), name: "weight_g", decays: false)
    nameParameters()
  }

  private func nameParameters() {
    layer.name = name
    g.name = parameterName(name, "weight_g")
    v.name = parameterName(name, "weight_v")
  }

  public var innerLayers: [any Layer<Scalar>] { [layer] }
  public var parameters: [Parameter<Scalar>] { [g, v] + (bias.map { [$0] } ?? []) }

  public var state: [StateEntry<Scalar>] {
    let length = keys.names("parametrizations.weight.original0", "weight_g")
    let direction = keys.names("parametrizations.weight.original1", "weight_v")
    return (bias.map { [StateEntry("bias", $0)] } ?? []) + [
      StateEntry(length.key, aliases: length.aliases, g), StateEntry(direction.key, aliases: direction.aliases, v),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    _ = try norms()
    return try layer.outputShape(for: input, training: training)
  }

  /// ‖v‖ for each output.
  private func norms() throws(LayerError) -> [Double] {
    let v = v.value.contiguous()
    let norms = matrix.dots(v, v).map { $0.squareRoot() }
    if let zero = norms.firstIndex(of: 0) {
      throw LayerError(
        layer: title, expected: "weight vectors that are not zero (they are divided by their length)",
        found: "zeros for output \(zero)")
    }
    return norms
  }

  /// The norms, where the weight has them; else the program stops.
  private func checkedNorms() -> [Double] {
    do throws(LayerError) { return try norms() } catch { stop(error.description) }
  }

  /// w = g·v/‖v‖
  public var weight: Tensor<Scalar> { weight(lengths: doubles(g.value), norms: checkedNorms()) }

  private func weight(lengths: [Double], norms: [Double]) -> Tensor<Scalar> {
    let v = v.value.contiguous()
    let result = Tensor<Scalar>(uninitialized: v.shape)
    matrix.combine(v, zip(lengths, norms).map { $0 / $1 }, into: result.address)
    return result
  }

  /// The layer with a plain weight.
  private func plain(_ weight: Tensor<Scalar>) -> any WeightedLayer<Scalar> {
    layer.withWeight(weight, isTrainable: g.isTrainable || v.isTrainable)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    let inner = plain(weight)
    return inner(input)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { plain(weight).inferenceSteps }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    if case .wanted = start { start = .done(startFromData(input)) }
    let (norms, lengths) = (checkedNorms(), doubles(g.value))
    let inner = plain(weight(lengths: lengths, norms: norms))
    let (output, innerPullback) = inner.forward(input)
    let version = v.version
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] dy, needsInput in
      let dx = innerPullback.run(dy, needsInput: needsInput)
      if inner.weight.hasGradient {
        require(
          v.version == version,
          "\(title): expected its pullback before the weight changes, got it after \(v.version - version) changes")
        gather(inner.weight.gradient.contiguous(), lengths: lengths, norms: norms)
        inner.weight.clearGradient()
      }
      return dx
    }
    return (output, pullback)
  }

  /// Adds dg and dv to the gradients.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func gather(_ dw: Tensor<Scalar>, lengths: [Double], norms: [Double]) {
    let direction = v.value.contiguous()
    let dg = zip(matrix.dots(dw, direction), norms).map { $0 / $1 }
    if g.isTrainable {
      g.accumulate { memory, adding in Scalar.kernels.blend_doubles(dg, 1, adding ? 1 : 0, memory, dg.count) }
    }
    guard v.isTrainable else { return }
    let scales = zip(lengths, norms).map { $0 / $1 }
    let along = dg.indices.map { -scales[$0] * dg[$0] / norms[$0] }
    v.accumulate { memory, adding in matrix.combine(dw, scales, direction, along, into: memory, adding: adding) }
  }

  // MARK: The data-dependent start

  /// Makes g = 1/σ[t] and b = −μ[t]/σ[t], with t = v·x/‖v‖ over the batch.
  private func startFromData(_ input: Tensor<Scalar>) -> LayerError? {
    let norms = checkedNorms()
    let inner = plain(weight(lengths: norms.map { _ in 1 }, norms: norms))
    let output = inner(input).contiguous()
    let shape = ChannelShape(shape: output.shape, place: layer.outputPlace)
    let (ones, zeros) = (Tensor<Scalar>.ones(shape: [matrix.rows]), Tensor<Scalar>.zeros(shape: [matrix.rows]))
    let scratch = Tensor<Scalar>(uninitialized: output.shape)
    let moments = ChannelNormalization<Scalar>(shape).forward(
      x: output.address, y: scratch.address, gamma: ones.address, beta: zeros.address, epsilon: 1,
      activation: .identity)
    withExtendedLifetime((output, ones, zeros, scratch)) {}
    let deviations = (0..<matrix.rows).map { moments.variance[$0].squareRoot() }
    // A deviation of the size of the outputs' rounding is none.
    let least = (0..<matrix.rows).map { 8 * Double(Scalar.ulpOfOne) * abs(moments.mean[$0]) }
    if let bad = deviations.indices.first(where: { !(deviations[$0] > least[$0] && deviations[$0].isFinite) }) {
      return LayerError(
        layer: title, expected: "a batch in which every output varies, to start from",
        found: "a deviation of \(deviations[bad]) for output \(bad)")
    }
    g.value = Tensor(shape: g.value.shape, scalars: deviations.map { Scalar(1 / $0) })
    if let bias {
      // The output has the bias in it, which t has not.
      let old = bias.value.scalars
      bias.value = Tensor(deviations.indices.map { Scalar((Double(old[$0]) - moments.mean[$0]) / deviations[$0]) })
    }
    return nil
  }

  /// Whether the next `forward` starts from its batch; afterwards what came of that.
  fileprivate func setStartWanted() { start = .wanted }
  fileprivate func takeStartError() -> LayerError? {
    defer { start = .none }
    if case .done(let error) = start { return error }
    return nil
  }
}

extension Layer {
  /// The data-dependent start of every ``WeightNorm`` in this network (Salimans & Kingma 2016, section 3): lengths and biases by which each
  /// such layer's outputs for `input` have mean 0 and variance 1, over the batch and all positions.
  ///
  /// The layers are started in one pass of `forward`, each by what those before it give then. Directions stay as they are; a layer
  /// without bias keeps its mean. Running statistics of other layers take the batch in, as in training.
  ///
  /// - Throws: ``LayerError`` where `input` does not suit, or an output has no deviation to divide by; then all lengths and biases are
  ///   what they were.
  public func startWeightNorms(from input: Tensor<Scalar>) throws(LayerError) {
    let shape = try outputShape(for: input.shape, training: true)
    require(shape.first != 0, "startWeightNorms: expected a batch, got an input of shape \(input.shape)")
    let layers = everyLayer.compactMap { $0 as? WeightNorm<Scalar> }
    let (generators, before) = (randomGenerators, layers.map { ($0.g.value, $0.bias?.value) })
    for layer in layers { layer.setStartWanted() }
    _ = forward(input)
    randomGenerators = generators
    guard let error = layers.compactMap({ $0.takeStartError() }).first else { return }
    for (layer, (length, bias)) in zip(layers, before) {
      layer.g.value = length
      if let bias { layer.bias!.value = bias }
    }
    throw error
  }
}
