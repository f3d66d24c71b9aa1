/// What a ``Sequential`` runs in training as one: a layer, or neighbours that have one pass over memory each way together. A unit's
/// result is that of its layers one after another, up to rounding; evaluation and checkpoints know layers only.
enum SequentialUnit<Scalar: TensorScalar> {
  case layer(any Layer<Scalar>)
  /// Dense, batch norm, then the identity or ReLU.
  case normalizedDense(DenseBatchNorm<Scalar>)
  /// Batch norm, then ReLU.
  case normalizedReLU(BatchNorm<Scalar>)
  /// x + f(x) whose f ends with a batch norm, then ReLU.
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
    if let dense = head as? Dense<Scalar>, let norm = next as? BatchNorm<Scalar> {
      let isActivated = (layers.dropFirst(2).first as? ActivationLayer<Scalar>)?.activation == .relu
      let unit = DenseBatchNorm(dense: dense, norm: norm, activation: isActivated ? .relu : .identity)
      return (.normalizedDense(unit), isActivated ? 3 : 2)
    }
    if (next as? ActivationLayer<Scalar>)?.activation == .relu {
      if let norm = head as? BatchNorm<Scalar> { return (.normalizedReLU(norm), 2) }
      if let residual = head as? Residual<Scalar>, residual.branch.layers.last is BatchNorm<Scalar> {
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
    case .normalizedReLU(let norm): norm.forward(input, activation: .relu)
    case .residualReLU(let residual): residual.forwardWithReLU(input)
    }
  }

  /// The units one after another.
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

extension Residual {
  /// This layer and a ReLU after it, where the branch ends with a batch norm: its normalization, the sum and the ReLU in one pass.
  func forwardWithReLU(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    guard let norm = branch.layers.last as? BatchNorm<Scalar>, norm.normalizesByBatch else {
      return SequentialUnit.forward([.layer(self), .layer(ReLU())], input)
    }
    let units = SequentialUnit.plan(branch.layers.dropLast())
    let (inner, innerPullback) = SequentialUnit.forward(units, input)
    let (output, normPullback) = norm.forward(inner, residual: input)
    let innerTrains = units.contains(where: \.isTrained)
    let pullback = Pullback<Scalar>(shape: output.shape) { dy, needsInput in
      // What ReLU gave is 0 where what it took was not above 0.
      let gradient = Activation.relu.gradient(output, dy)
      guard let dInner = normPullback.run(gradient, needsInput: needsInput || innerTrains),
        let dx = innerPullback.run(dInner, needsInput: needsInput)
      else { return nil }
      return dx + gradient
    }
    return (output, pullback)
  }
}
