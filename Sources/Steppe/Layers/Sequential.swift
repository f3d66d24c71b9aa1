/// Layers one after another.
///
/// ```swift
/// let model = Sequential<Float>(seed: 1) {
///   Dense(784, 512, bias: false)
///   BatchNorm(512)
///   ReLU()
///   Dense(512, 10)
/// }
/// ```
///
/// The layers are named by their places, `"0"`, `"1"`, …, and inner ones as `"2.0"`: the names of PyTorch's `Sequential`.
public final class Sequential<Scalar: TensorScalar>: Layer {
  /// The layers in order.
  public let layers: [any Layer<Scalar>]

  public var name = "" {
    didSet { nameLayers() }
  }

  /// The layers of a list.
  public init(_ layers: [any Layer<Scalar>]) {
    self.layers = layers
    nameLayers()
  }

  /// The layers in braces; conditions and loops may stand among them.
  ///
  /// - Parameters:
  ///   - seed: Chooses the start of every layer in the braces. Without one an enclosing `Sequential(seed:)` does, or the system.
  ///   - layers: The layers.
  public convenience init(seed: UInt64? = nil, @LayerBuilder<Scalar> _ layers: () -> [any Layer<Scalar>]) {
    self.init(seed.map { InitializationSeed.with($0, layers) } ?? layers())
  }

  private func nameLayers() {
    for (index, layer) in layers.enumerated() { layer.name = parameterName(name, "\(index)") }
  }

  public var innerLayers: [any Layer<Scalar>] { layers }
  public var parameters: [Parameter<Scalar>] { layers.flatMap { $0.parameters } }

  public var state: [StateEntry<Scalar>] {
    layers.enumerated().flatMap { index, layer in layer.state.map { $0.prefixed("\(index)") } }
  }

  public var randomGenerators: [RandomGenerator] {
    get { layers.flatMap { $0.randomGenerators } }
    set {
      var rest = newValue[...]
      for layer in layers {
        let count = layer.randomGenerators.count
        layer.randomGenerators = Array(rest.prefix(count))
        rest = rest.dropFirst(count)
      }
    }
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    var shape = input
    for layer in layers { shape = try layer.outputShape(for: shape, training: training) }
    return shape
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    layers.reduce(input) { $1($0) }
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    SequentialUnit.forward(SequentialUnit.plan(layers[...]), input)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { layers.flatMap { $0.inferenceSteps } }
}

/// What may stand in the braces of ``Sequential`` and ``Residual``.
@resultBuilder
public enum LayerBuilder<Scalar: TensorScalar> {
  /// One layer of the network's scalar type.
  public static func buildExpression<L: Layer>(_ layer: L) -> [any Layer<Scalar>] where L.Scalar == Scalar { [layer] }
  /// A layer whose type is not known in advance.
  public static func buildExpression(_ layer: any Layer<Scalar>) -> [any Layer<Scalar>] { [layer] }
  /// Several layers.
  public static func buildExpression(_ layers: [any Layer<Scalar>]) -> [any Layer<Scalar>] { layers }
  /// The statements in order.
  public static func buildBlock(_ parts: [any Layer<Scalar>]...) -> [any Layer<Scalar>] { parts.flatMap { $0 } }
  /// A loop.
  public static func buildArray(_ parts: [[any Layer<Scalar>]]) -> [any Layer<Scalar>] { parts.flatMap { $0 } }
  /// An `if` without `else`.
  public static func buildOptional(_ part: [any Layer<Scalar>]?) -> [any Layer<Scalar>] { part ?? [] }
  /// The first branch.
  public static func buildEither(first part: [any Layer<Scalar>]) -> [any Layer<Scalar>] { part }
  /// The second branch.
  public static func buildEither(second part: [any Layer<Scalar>]) -> [any Layer<Scalar>] { part }
}
