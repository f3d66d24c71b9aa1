/// Layer normalization (Ba, Kiros & Hinton 2016, arXiv 1607.06450; Mathematics §6).
///
/// Each sample is normalized over its trailing axes by its own mean and biased variance, in training and in evaluation alike:
/// `y = (x − μ)/√(σ² + ε)·γ + β`. Input and output are `[N, …, normalizedShape]`; a batch of one is as good as any.
public final class LayerNorm<Scalar: TensorScalar>: Layer {
  /// The trailing axes that are normalized together.
  public let normalizedShape: [Int]
  /// ε, added to the variance inside the square root.
  public let epsilon: Double
  /// Whether γ is learned, and β where ``hasBias``.
  public let affine: Bool
  /// Whether β is learned.
  public let hasBias: Bool
  /// γ, of ``normalizedShape``, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// β, of ``normalizedShape``, at the start 0; without weight decay.
  public let beta: Parameter<Scalar>

  public var name = "" {
    didSet {
      gamma.name = parameterName(name, "gamma")
      beta.name = parameterName(name, "beta")
    }
  }

  /// A layer over the trailing axes `normalizedShape`.
  ///
  /// - Parameters:
  ///   - normalizedShape: The trailing axes' lengths, each positive.
  ///   - epsilon: Added to the variance; 1e-5 by default.
  ///   - affine: Whether γ (and β) are learned.
  ///   - bias: Whether β is learned where γ is.
  public init(_ normalizedShape: [Int], epsilon: Double = 1e-5, affine: Bool = true, bias: Bool = true) {
    requireTrailing(normalizedShape, epsilon: epsilon, "LayerNorm")
    self.normalizedShape = normalizedShape
    self.epsilon = epsilon
    self.affine = affine
    hasBias = affine && bias
    gamma = Parameter(.ones(shape: normalizedShape), name: "gamma", decays: false)
    beta = Parameter(.zeros(shape: normalizedShape), name: "beta", decays: false)
    gamma.isTrainable = affine
    beta.isTrainable = hasBias
  }

  /// A layer over the last axis, of `features` values.
  public convenience init(_ features: Int, epsilon: Double = 1e-5, affine: Bool = true, bias: Bool = true) {
    self.init([features], epsilon: epsilon, affine: affine, bias: bias)
  }

  public var parameters: [Parameter<Scalar>] { (affine ? [gamma] : []) + (hasBias ? [beta] : []) }
  public var state: [StateEntry<Scalar>] {
    (affine ? [StateEntry("weight", gamma)] : []) + (hasBias ? [StateEntry("bias", beta)] : [])
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkTrailing(input, normalizedShape, title)
    return input
  }

  private var kernel: GroupAffine<Scalar> { GroupAffine(gamma: gamma, beta: beta, epsilon: epsilon) }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let (output, _, pullback) = kernel.forward(input, trailingGrouping(input.shape, normalizedShape))
    return (output, pullback)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return kernel.evaluation()(input, trailingGrouping(input.shape, normalizedShape))
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { trailingSteps(kernel, normalizedShape) }
}

/// Root mean square normalization (Zhang & Sennrich 2019, arXiv 1910.07467; Mathematics §6).
///
/// `y = x/√(mean(x²) + ε)·γ` over the trailing axes of each sample: layer norm without the mean and without β, in training and in
/// evaluation alike.
public final class RMSNorm<Scalar: TensorScalar>: Layer {
  /// The trailing axes that are normalized together.
  public let normalizedShape: [Int]
  /// ε, added to the mean square inside the root.
  public let epsilon: Double
  /// Whether γ is learned.
  public let affine: Bool
  /// γ, of ``normalizedShape``, at the start 1; without weight decay.
  public let gamma: Parameter<Scalar>
  /// What the kernels add: zeros that nothing trains.
  private let zero: Parameter<Scalar>

  public var name = "" {
    didSet { gamma.name = parameterName(name, "gamma") }
  }

  /// A layer over the trailing axes `normalizedShape`.
  ///
  /// - Parameters:
  ///   - normalizedShape: The trailing axes' lengths, each positive.
  ///   - epsilon: Added to the mean square; by default the scalar type's epsilon, as in PyTorch.
  ///   - affine: Whether γ is learned.
  public init(_ normalizedShape: [Int], epsilon: Double = Double(Scalar.ulpOfOne), affine: Bool = true) {
    requireTrailing(normalizedShape, epsilon: epsilon, "RMSNorm")
    self.normalizedShape = normalizedShape
    self.epsilon = epsilon
    self.affine = affine
    gamma = Parameter(.ones(shape: normalizedShape), name: "gamma", decays: false)
    zero = Parameter(.zeros(shape: normalizedShape), name: "beta", decays: false)
    gamma.isTrainable = affine
    zero.isTrainable = false
  }

  /// A layer over the last axis, of `features` values.
  public convenience init(_ features: Int, epsilon: Double = Double(Scalar.ulpOfOne), affine: Bool = true) {
    self.init([features], epsilon: epsilon, affine: affine)
  }

  public var parameters: [Parameter<Scalar>] { affine ? [gamma] : [] }
  public var state: [StateEntry<Scalar>] { affine ? [StateEntry("weight", gamma)] : [] }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkTrailing(input, normalizedShape, title)
    return input
  }

  private var kernel: GroupAffine<Scalar> {
    GroupAffine(gamma: gamma, beta: zero, epsilon: epsilon, isCentered: false)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let (output, _, pullback) = kernel.forward(input, trailingGrouping(input.shape, normalizedShape))
    return (output, pullback)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return kernel.evaluation()(input, trailingGrouping(input.shape, normalizedShape))
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { trailingSteps(kernel, normalizedShape) }
}

private func requireTrailing(_ axes: [Int], epsilon: Double, _ title: String) {
  require(
    !axes.isEmpty && axes.allSatisfy { $0 > 0 }, "\(title): expected trailing axes of positive lengths, got \(axes)")
  require(epsilon >= 0, "\(title): expected an epsilon of at least 0, got \(epsilon)")
}

private func checkTrailing(_ input: [Int], _ trailing: [Int], _ title: String) throws(LayerError) {
  guard input.count > trailing.count, Array(input.suffix(trailing.count)) == trailing else {
    let axes = trailing.map(String.init).joined(separator: ", ")
    throw LayerError(layer: title, expected: "an input of shape [N, …, \(axes)]", found: "\(input)")
  }
}

private func trailingGrouping(_ input: [Int], _ trailing: [Int]) -> Grouping {
  Grouping(
    samples: input.dropLast(trailing.count).reduce(1, *), groups: 1, channels: trailing.reduce(1, *), positions: 1)
}

private func trailingSteps<Scalar: TensorScalar>(
  _ kernel: GroupAffine<Scalar>, _ trailing: [Int]
) -> [InferenceStep<Scalar>] {
  let body = kernel.evaluation()
  return [
    .function { x in
      require(
        x.rank > trailing.count && Array(x.shape.suffix(trailing.count)) == trailing,
        "FoldedModel: expected an input that ends with the axes \(trailing), got \(x.shape)")
      return body(x, trailingGrouping(x.shape, trailing))
    }
  ]
}
