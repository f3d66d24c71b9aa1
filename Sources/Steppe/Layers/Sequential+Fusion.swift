/// What a ``Sequential`` runs in training as one: a layer, or neighbours that have one pass over memory each way together. A unit's
/// result is that of its layers one after another, up to rounding; evaluation and checkpoints know layers only.
enum SequentialUnit<Scalar: TensorScalar> {
  case layer(any Layer<Scalar>)
  /// Dense, batch norm, then the identity or ReLU.
  case normalizedDense(DenseBatchNorm<Scalar>)
  /// Conv2D, batch norm, then the activation, the identity or ReLU.
  case normalizedConvolution(ConvolutionBatchNorm<Scalar>, Activation)
  /// Batch norm, then ReLU.
  case normalizedReLU(BatchNorm<Scalar>)
  /// A residual block without an activation of its own whose branch ends with a batch norm, then ReLU.
  case residualReLU(Residual<Scalar>)

  /// The units of a list of layers, in order: at each place the longest.
  static func plan(_ layers: ArraySlice<any Layer<Scalar>>) -> [SequentialUnit] {
    var units: [SequentialUnit] = []
    var rest = layers
    while !rest.isEmpty {
      let (unit, length) = first(of: rest)
      units.append(unit)
      rest = rest.dropFirst(length)
    }
    return units
  }

  /// The longest unit at the begin of `layers`, and how many layers it takes.
  private static func first(of layers: ArraySlice<any Layer<Scalar>>) -> (SequentialUnit, Int) {
    let (head, next) = (layers.first!, layers.dropFirst().first)
    if let norm = next as? BatchNorm<Scalar> {
      let isActivated = (layers.dropFirst(2).first as? ActivationLayer<Scalar>)?.activation == .relu
      let (activation, length) = (isActivated ? Activation.relu : .identity, isActivated ? 3 : 2)
      if let dense = head as? Dense<Scalar> {
        return (.normalizedDense(DenseBatchNorm(dense: dense, norm: norm, activation: activation)), length)
      }
      if let convolution = head as? Conv2D<Scalar> {
        return (.normalizedConvolution(ConvolutionBatchNorm(convolution: convolution, norm: norm), activation), length)
      }
    }
    if (next as? ActivationLayer<Scalar>)?.activation == .relu {
      if let norm = head as? BatchNorm<Scalar> { return (.normalizedReLU(norm), 2) }
      if let residual = head as? Residual<Scalar>, residual.joinsReLU {
        return (.residualReLU(residual), 2)
      }
    }
    return (.layer(head), 1)
  }

  /// Whether one of its layers has something to train.
  var isTrained: Bool {
    let layers: [any Layer<Scalar>] =
      switch self {
      case .layer(let layer): [layer]
      case .normalizedDense(let unit): [unit.dense, unit.norm]
      case .normalizedConvolution(let unit, _): [unit.convolution, unit.norm]
      case .normalizedReLU(let norm): [norm]
      case .residualReLU(let residual): [residual]
      }
    return layers.contains { $0.parameters.contains(where: \.isTrainable) }
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    switch self {
    case .layer(let layer): layer.forward(input)
    case .normalizedDense(let unit): unit.forward(input)
    case .normalizedConvolution(let unit, let activation): unit.forward(input, activation: activation)
    case .normalizedReLU(let norm): norm.forward(input, activation: .relu)
    case .residualReLU(let residual): residual.forward(input, activation: .relu)
    }
  }

  /// The units one after another.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  static func forward(
    _ units: [SequentialUnit], _ input: Tensor<Scalar>
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    var value = input
    var pullbacks: [Pullback<Scalar>] = []
    pullbacks.reserveCapacity(units.count)
    for unit in units {
      let (output, pullback) = unit.forward(value)
      value = output
      pullbacks.append(pullback)
    }
    // Below the first unit with parameters no gradient serves anyone but the caller.
    let firstTrained = units.enumerated().first { $1.isTrained }?.offset ?? units.count
    let pullback = Pullback<Scalar>(shape: value.shape) { gradient, needsInput in
      var gradient = gradient
      for (index, pullback) in pullbacks.enumerated().reversed() {
        if !needsInput, index < firstTrained { return nil }
        guard let next = pullback.run(gradient, needsInput: needsInput || index > firstTrained) else { return nil }
        gradient = next
      }
      return gradient
    }
    return (value, pullback)
  }
}
