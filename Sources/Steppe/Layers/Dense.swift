/// A fully connected layer, `y = x·Wᵀ + b`.
///
/// Input `[N, …, inputs]`, output `[N, …, outputs]`. The weight is `[outputs, inputs]`, as PyTorch's `Linear` has it. Before a
/// normalization that subtracts the mean a bias is redundant: `Dense(784, 512, bias: false)`.
public final class Dense<Scalar: TensorScalar>: WeightedLayer {
  /// The features of one input row.
  public let inputs: Int
  /// The features of one output row.
  public let outputs: Int
  /// W, `[outputs, inputs]`; weight decay applies.
  public let weight: Parameter<Scalar>
  /// b, `[outputs]`; without weight decay. Nil without bias.
  public let bias: Parameter<Scalar>?

  public var name = "" {
    didSet {
      weight.name = parameterName(name, "weight")
      bias?.name = parameterName(name, "bias")
    }
  }

  /// A layer whose weight is drawn by `initialization` and whose bias is zero.
  ///
  /// - Parameters:
  ///   - inputs: The size of the input's last axis.
  ///   - outputs: The size of the output's last axis.
  ///   - bias: Whether there is a bias.
  ///   - initialization: How W starts.
  ///   - seed: Chooses W; without one the enclosing `Sequential(seed:)`'s sequence does, or the system's random numbers.
  public init(
    _ inputs: Int, _ outputs: Int, bias: Bool = true, initialization: WeightInitialization = .heNormal,
    seed: UInt64? = nil
  ) {
    require(inputs > 0 && outputs > 0, "Dense: expected positive sizes, got \(inputs) inputs and \(outputs) outputs")
    self.inputs = inputs
    self.outputs = outputs
    var generator = seed.map { RandomGenerator(seed: $0) } ?? InitializationSeed.next()
    weight = Parameter(
      initialization.draw(shape: [outputs, inputs], fanIn: inputs, fanOut: outputs, using: &generator), name: "weight",
      decays: true)
    self.bias = bias ? Parameter(.zeros(shape: [outputs]), name: "bias", decays: false) : nil
  }

  /// A layer with the given weight `[outputs, inputs]` and bias `[outputs]`.
  public init(weight: Tensor<Scalar>, bias: Tensor<Scalar>? = nil) {
    require(
      weight.rank == 2 && weight.count > 0,
      "Dense: expected a weight of shape [outputs, inputs], both positive, got \(weight.shape)")
    require(
      bias == nil || bias!.shape == [weight.shape[0]],
      "Dense: expected a bias of shape [\(weight.shape[0])] beside a weight \(weight.shape), got \(bias?.shape ?? [])")
    inputs = weight.shape[1]
    outputs = weight.shape[0]
    self.weight = Parameter(weight, name: "weight", decays: true)
    self.bias = bias.map { Parameter($0, name: "bias", decays: false) }
  }

  private init(sharing weight: Parameter<Scalar>, _ bias: Parameter<Scalar>?) {
    (outputs, inputs) = (weight.value.shape[0], weight.value.shape[1])
    self.weight = weight
    self.bias = bias
  }

  public var outputPlace: ChannelPlace { .channelsLast }

  public func withWeight(_ weight: Parameter<Scalar>) -> Dense { Dense(sharing: weight, bias) }

  public var parameters: [Parameter<Scalar>] { [weight] + (bias.map { [$0] } ?? []) }

  public var state: [StateEntry<Scalar>] {
    [StateEntry("weight", weight)] + (bias.map { [StateEntry("bias", $0)] } ?? [])
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    guard input.count >= 2, input.last == inputs else {
      throw LayerError(layer: title, expected: "an input of shape [N, …, \(inputs)]", found: "\(input)")
    }
    return input.dropLast() + [outputs]
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return denseForward(input, weight: weight.value, bias: bias?.value)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let input = input.contiguous()
    let output = denseForward(input, weight: weight.value, bias: bias?.value)
    let version = weight.version
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] gradient, needsInput in
      let dy = gradient.contiguous()
      let rows = dy.count / outputs
      if weight.isTrainable { gatherWeightGradient(dy, input, rows: rows) }
      if let bias, bias.isTrainable { bias.accumulate(dy.reshaped([rows, outputs]).sum(axis: 0)) }
      return needsInput ? inputGradient(dy, rows: rows, shape: input.shape, version: version) : nil
    }
    return (output, pullback)
  }

  /// Adds dW = dyᵀ·x, straight into the gradient's memory; dy and x are contiguous.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func gatherWeightGradient(_ dy: Tensor<Scalar>, _ x: Tensor<Scalar>, rows: Int) {
    weight.accumulate { memory, adding in
      gemm(
        transposeA: true, m: outputs, n: inputs, k: rows, a: dy.address, lda: outputs, b: x.address, ldb: inputs,
        beta: adding ? 1 : 0, c: memory, ldc: inputs)
    }
    withExtendedLifetime((dy, x)) {}
  }

  /// dx = dy·W of the given shape, by the weight as it was at `version`; dy is contiguous.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func inputGradient(_ dy: Tensor<Scalar>, rows: Int, shape: [Int], version: Int) -> Tensor<Scalar> {
    require(
      weight.version == version,
      "\(title): expected its pullback before the weight changes, got it after \(weight.version - version) changes")
    let (w, dx) = (weight.value.contiguous(), Tensor<Scalar>(uninitialized: shape))
    gemm(
      m: rows, n: inputs, k: outputs, a: dy.address, lda: outputs, b: w.address, ldb: inputs, c: dx.address,
      ldc: inputs)
    withExtendedLifetime((w, dy)) {}
    return dx
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    [.dense(weight: weight.value, bias: bias?.value, activation: .identity)]
  }
}

/// `f(x·Wᵀ + b)` with x `[…, inputs]`, W `[outputs, inputs]` and b `[outputs]`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
func denseForward<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, weight: Tensor<Scalar>, bias: Tensor<Scalar>?, activation: Activation = .identity
) -> Tensor<Scalar> {
  let (outputs, inputs) = (weight.shape[0], weight.shape[1])
  let x = input.contiguous()
  let w = weight.contiguous()
  let b = bias?.contiguous()
  let rows = x.shape.dropLast().reduce(1, *)
  let output = Tensor<Scalar>(uninitialized: x.shape.dropLast() + [outputs])
  gemm(
    transposeB: true, m: rows, n: outputs, k: inputs, a: x.address, lda: inputs, b: w.address, ldb: inputs,
    c: output.address, ldc: outputs, bias: b?.address, activation: activation)
  withExtendedLifetime((x, w, b)) {}
  return output
}

/// `"1.gamma"`, or `"gamma"` for a layer that stands alone.
func parameterName(_ layer: String, _ parameter: String) -> String {
  layer.isEmpty ? parameter : "\(layer).\(parameter)"
}
