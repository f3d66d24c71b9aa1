/// Spectral normalization (Miyato et al. 2018, arXiv 1802.05957; Mathematics §10): a layer whose weight is `W/σ(W)`, σ the largest singular value
/// of W as a matrix `[outputs, rest]`, so that the layer stretches no input by more than 1.
///
/// ```swift
/// SpectralNorm(Dense(64, 10))
/// ```
///
/// σ is found by power iteration on kept vectors, `u ← Wv/‖Wv‖`, `v ← Wᵀu/‖Wᵀu‖`, `σ = uᵀWv`: several iterations at the start, one in each
/// `forward`, none in evaluation. The order is that of PyTorch's parametrization; its older function begins with v. u and v are constants
/// to the gradient, `dW = (dŴ − ⟨dŴ, Ŵ⟩·u·vᵀ)/σ` with `Ŵ = W/σ`. ``Layer/folded()`` leaves a layer with the plain weight Ŵ.
///
/// A weight of zeros has no direction: ``outputShape(for:training:)`` throws a ``LayerError``, and computing stops.
public final class SpectralNorm<Scalar: TensorScalar>: Layer {
  /// The layer whose weight is W, and whose bias is this layer's.
  public let layer: any WeightedLayer<Scalar>
  /// W, of the weight's shape; weight decay applies.
  public var original: Parameter<Scalar> { layer.weight }
  /// The layer's bias.
  public var bias: Parameter<Scalar>? { layer.bias }
  /// The left singular vector, `[outputs]`, as far as it is known.
  public private(set) var u: Tensor<Scalar>
  /// The right singular vector, `[rest]`.
  public private(set) var v: Tensor<Scalar>
  /// The power iterations of each `forward`.
  public let iterations: Int
  /// The names that ``Layer/save(to:metadata:)`` writes.
  public var keys: NormalizedWeightKeys

  public var name = "" {
    didSet { nameParameters() }
  }

  private let matrix: WeightRows<Scalar>

  /// Normalizes the weight of `layer`, which belongs to this one from now on.
  ///
  /// - Parameters:
  ///   - layer: A dense layer or a convolution.
  ///   - iterations: The power iterations of each `forward`.
  ///   - startIterations: Those at the start, from random vectors.
  ///   - keys: The names that files are written with.
  ///   - seed: Chooses the vectors; without one the enclosing `Sequential(seed:)`'s sequence does, or the system's random numbers.
  public init<Inner: WeightedLayer>(
    _ layer: Inner, iterations: Int = 1, startIterations: Int = 15, keys: NormalizedWeightKeys = .parametrizations,
    seed: UInt64? = nil
  ) where Inner.Scalar == Scalar {
    require(
      iterations >= 0 && startIterations >= 0,
      "SpectralNorm: expected counts of iterations from 0, got \(iterations) and \(startIterations)")
    self.layer = layer
    self.iterations = iterations
    self.keys = keys
    matrix = WeightRows(layer.weight.value.shape)
    var generator = seed.map { RandomGenerator(seed: $0) } ?? InitializationSeed.next()
    u = unit(.randomNormal(shape: [matrix.rows], using: &generator)).vector
    v = unit(.randomNormal(shape: [matrix.columns], using: &generator)).vector
    nameParameters()
    iterate(startIterations)
  }

  private func nameParameters() {
    layer.name = name
    original.name = parameterName(name, "weight_orig")
  }

  public var innerLayers: [any Layer<Scalar>] { [layer] }
  public var parameters: [Parameter<Scalar>] { [original] + (bias.map { [$0] } ?? []) }

  public var state: [StateEntry<Scalar>] {
    let weight = keys.names("parametrizations.weight.original", "weight_orig")
    let left = keys.names("parametrizations.weight.0._u", "weight_u")
    let right = keys.names("parametrizations.weight.0._v", "weight_v")
    return (bias.map { [StateEntry("bias", $0)] } ?? []) + [
      StateEntry(weight.key, aliases: weight.aliases, original),
      StateEntry(left.key, aliases: left.aliases, of: self, \.u),
      StateEntry(right.key, aliases: right.aliases, of: self, \.v),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    let w = original.value.contiguous()
    if !matrix.dots(w, w).contains(where: { $0 != 0 }) { throw zeroWeight }
    return try layer.outputShape(for: input, training: training)
  }

  private var zeroWeight: LayerError {
    LayerError(
      layer: title, expected: "a weight that is not zero (it is divided by its largest singular value)", found: "zeros")
  }

  // MARK: σ

  /// The largest singular value of W as u and v have it, uᵀWv.
  public var sigma: Scalar {
    let image = product(transposed: false, v)
    let sum = Scalar.kernels.dot(image.address, u.address, matrix.rows)
    withExtendedLifetime(image) {}
    return Scalar(sum)
  }

  /// Moves u and v by power iterations; they stay where the weight is zero.
  public func iterate(_ count: Int = 1) {
    for _ in 0..<count {
      let left = unit(product(transposed: false, v))
      guard left.length != 0 else { return }
      let right = unit(product(transposed: true, left.vector))
      guard right.length != 0 else { return }
      (u, v) = (left.vector, right.vector)
    }
  }

  /// W·x or Wᵀ·x.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func product(transposed: Bool, _ x: Tensor<Scalar>) -> Tensor<Scalar> {
    let (w, x) = (original.value.contiguous(), x.contiguous())
    let result = Tensor<Scalar>(uninitialized: [transposed ? matrix.columns : matrix.rows])
    gemv(
      transpose: transposed, rows: matrix.rows, columns: matrix.columns, a: w.address, lda: matrix.columns,
      x: x.address, y: result.address)
    withExtendedLifetime((w, x)) {}
    return result
  }

  // MARK: The layer

  /// Ŵ = W/σ
  public var weight: Tensor<Scalar> { weight(by: checkedSigma()) }

  private func checkedSigma() -> Double {
    let sigma = Double(sigma)
    if sigma == 0 { stop(zeroWeight.description) }
    return sigma
  }

  private func weight(by sigma: Double) -> Tensor<Scalar> {
    let w = original.value.contiguous()
    let result = Tensor<Scalar>(uninitialized: w.shape)
    matrix.combine(w, Array(repeating: 1 / sigma, count: matrix.rows), into: result.address)
    return result
  }

  /// The layer with a plain weight.
  private func plain(_ weight: Tensor<Scalar>) -> any WeightedLayer<Scalar> {
    layer.withWeight(weight, isTrainable: original.isTrainable)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    let inner = plain(weight)
    return inner(input)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { plain(weight).inferenceSteps }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    iterate(iterations)
    let (sigma, u, v) = (checkedSigma(), u, v)
    let inner = plain(weight(by: sigma))
    let (output, innerPullback) = inner.forward(input)
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] dy, needsInput in
      let dx = innerPullback.run(dy, needsInput: needsInput)
      if inner.weight.hasGradient {
        gather(inner.weight.gradient.contiguous(), inner.weight.value, sigma, u, v)
        inner.weight.clearGradient()
      }
      return dx
    }
    return (output, pullback)
  }

  /// Adds dW to the gradient.
  private func gather(
    _ dw: Tensor<Scalar>, _ weight: Tensor<Scalar>, _ sigma: Double, _ u: Tensor<Scalar>, _ v: Tensor<Scalar>
  ) {
    let along = matrix.dots(dw, weight).reduce(0, +)
    let scales = Array(repeating: 1 / sigma, count: matrix.rows)
    let back = doubles(u).map { -along * $0 / sigma }
    original.accumulate { memory, adding in matrix.combine(dw, scales, v, back, into: memory, adding: adding) }
  }
}

/// A vector of length 1 in the direction of `x`, and the length of `x`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
private func unit<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> (vector: Tensor<Scalar>, length: Double) {
  let length = Scalar.kernels.dot(x.address, x.address, x.count).squareRoot()
  let result = Tensor<Scalar>(uninitialized: x.shape)
  Scalar.kernels.affine(x.address, 1 / length, 0, result.address, x.count)
  withExtendedLifetime(x) {}
  return (result, length)
}
