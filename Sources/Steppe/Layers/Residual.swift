/// A residual block, `a(s(x) + f(x))`: f the layers in braces, s the shortcut, which is x itself or layers too, a an activation (He et al.
/// 2016, arXiv 1512.03385). Both summands must have one shape.
///
/// ```swift
/// Residual(activation: .relu) {
///   Conv2D(16, 32, kernel: 3, stride: 2, padding: 1, bias: false)
///   BatchNorm(32)
///   ReLU()
///   Conv2D(32, 32, kernel: 3, padding: 1, bias: false)
///   BatchNorm(32)
/// } shortcut: {
///   Conv2D(16, 32, kernel: 1, stride: 2, bias: false)
///   BatchNorm(32)
/// }
/// ```
///
/// The branch's layers have the names of a `Sequential` in this place, such as `"3.0.weight"`, the shortcut's stand under `shortcut`, as in
/// `"3.shortcut.0.weight"`. Where the branch ends with a batch norm and the activation is ReLU, or a `ReLU()` follows, training
/// normalizes, adds and activates in one pass.
public final class Residual<Scalar: TensorScalar>: Layer {
  /// f.
  public let branch: Sequential<Scalar>
  /// s; nil for x itself.
  public let shortcut: Sequential<Scalar>?
  /// a.
  public let activation: Activation

  public var name = "" {
    didSet {
      branch.name = name
      shortcut?.name = parameterName(name, "shortcut")
    }
  }

  /// `a(x + f(x))`.
  ///
  /// - Parameters:
  ///   - activation: What the sum goes through.
  ///   - layers: The layers of f.
  public init(activation: Activation = .identity, @LayerBuilder<Scalar> _ layers: () -> [any Layer<Scalar>]) {
    branch = Sequential(layers())
    shortcut = nil
    self.activation = activation
  }

  /// `a(s(x) + f(x))`.
  ///
  /// - Parameters:
  ///   - activation: What the sum goes through.
  ///   - layers: The layers of f.
  ///   - shortcut: The layers of s, such as a projection where f changes the shape.
  public init(
    activation: Activation = .identity, @LayerBuilder<Scalar> _ layers: () -> [any Layer<Scalar>],
    @LayerBuilder<Scalar> shortcut: () -> [any Layer<Scalar>]
  ) {
    branch = Sequential(layers())
    self.shortcut = Sequential(shortcut())
    self.shortcut?.name = "shortcut"
    self.activation = activation
  }

  public var innerLayers: [any Layer<Scalar>] { [branch] + (shortcut.map { [$0] } ?? []) }

  public var parameters: [Parameter<Scalar>] { branch.parameters + (shortcut?.parameters ?? []) }

  public var state: [StateEntry<Scalar>] {
    branch.state + (shortcut?.state.map { $0.prefixed("shortcut") } ?? [])
  }

  public var randomGenerators: [RandomGenerator] {
    get { branch.randomGenerators + (shortcut?.randomGenerators ?? []) }
    set {
      let count = branch.randomGenerators.count
      branch.randomGenerators = Array(newValue.prefix(count))
      shortcut?.randomGenerators = Array(newValue.dropFirst(count))
    }
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    let output = try branch.outputShape(for: input, training: training)
    let expected = try shortcut?.outputShape(for: input, training: training) ?? input
    guard output == expected else {
      throw LayerError(
        layer: title,
        expected: shortcut == nil
          ? "a branch that keeps the shape \(input)" : "a branch whose output has the shortcut's shape \(expected)",
        found: "\(output)")
    }
    return output
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return activatedSum(shortcut?(input) ?? input, branch(input), activation)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    forward(input, activation: activation)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    [.residual(branch.inferenceSteps, shortcut: shortcut?.inferenceSteps ?? [], activation: activation)]
  }

  // MARK: Training

  /// Whether this layer takes in a ReLU that follows it.
  var joinsReLU: Bool { activation == .identity && branch.layers.last is BatchNorm<Scalar> }

  /// The batch norm that the branch ends with, where its normalization, the sum and a ReLU are one pass.
  private var fusedNorm: BatchNorm<Scalar>? {
    let norm = branch.layers.last as? BatchNorm<Scalar>
    return norm?.normalizesByBatch == true ? norm : nil
  }

  /// This layer with `activation` in the place of its own.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(
    _ input: Tensor<Scalar>, activation: Activation
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let (base, basePullback) = forwardShortcut(input)
    let (output, branchPullback) = forwardBranch(input, base, activation)
    let pullback = Pullback<Scalar>(shape: output.shape) { dy, needsInput in
      let (gradient, dBranch) = branchPullback(dy, needsInput)
      let dBase = basePullback.map { $0.run(gradient, needsInput: needsInput) } ?? gradient
      guard needsInput, let dBranch, let dBase else { return nil }
      return dBranch + dBase
    }
    return (output, pullback)
  }

  /// The shortcut's output, and its pullback where it has layers.
  private func forwardShortcut(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>?) {
    guard let shortcut else { return (input, nil) }
    let (output, pullback) = shortcut.forward(input)
    return (output, pullback)
  }

  private typealias BranchPullback = (
    _ dy: Tensor<Scalar>, _ needsInput: Bool
  ) -> (sum: Tensor<Scalar>, input: Tensor<Scalar>?)

  /// The activation of the sum with `base`, and what takes its gradient to that of the sum and, by way of the branch, to that of the input.
  private func forwardBranch(
    _ input: Tensor<Scalar>, _ base: Tensor<Scalar>, _ activation: Activation
  ) -> (output: Tensor<Scalar>, pullback: BranchPullback) {
    guard activation == .relu, let norm = fusedNorm else {
      let (inner, pullback) = branch.forward(input)
      // What ReLU gave is 0 where what it took was not above 0: other activations need what they took.
      let kept = activation == .relu ? activatedSum(base, inner, .relu) : base + inner
      return (
        activation == .relu || activation == .identity ? kept : activation(kept),
        { dy, needsInput in
          let gradient = activation == .identity ? dy : activation.gradient(kept, dy)
          return (gradient, pullback.run(gradient, needsInput: needsInput))
        }
      )
    }
    let convolution = branch.layers.dropLast().last as? Conv2D<Scalar>
    let units = SequentialUnit.plan(branch.layers.dropLast(convolution == nil ? 1 : 2))
    let (inner, innerPullback) = SequentialUnit.forward(units, input)
    let (output, normPullback) =
      convolution.map { ConvolutionBatchNorm(convolution: $0, norm: norm).forward(inner, residual: base) }
      ?? norm.forward(inner, residual: base)
    let innerTrains = units.contains(where: \.isTrained)
    return (
      output,
      { dy, needsInput in
        let gradient = Activation.relu.gradient(output, dy)
        let dInner = normPullback.run(gradient, needsInput: needsInput || innerTrains)
        return (gradient, dInner.flatMap { innerPullback.run($0, needsInput: needsInput) })
      }
    )
  }
}

/// f(a + b) for tensors of one shape, ReLU in one pass.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
func activatedSum<Scalar: TensorScalar>(
  _ a: Tensor<Scalar>, _ b: Tensor<Scalar>, _ activation: Activation
) -> Tensor<Scalar> {
  guard activation == .relu else { return activation == .identity ? a + b : activation(a + b) }
  let (x, r) = (a.contiguous(), b.contiguous())
  let output = Tensor<Scalar>(uninitialized: x.shape)
  let (from, and, to) = (x.address, r.address, output.address)
  Parallel.ranges(x.count, grain: Parallel.elementGrain, multiple: 16) { range in
    let low = range.lowerBound
    Scalar.kernels.run_normalize_residual(
      from + low, and + low, to + low, range.count, 1, range.count, 0, 1, 0, false, false)
  }
  withExtendedLifetime((x, r)) {}
  return output
}
