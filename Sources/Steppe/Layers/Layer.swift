/// A part of a network.
///
/// `forward` trains: it returns the output and the pullback that takes the gradient of the output to that of the input, gathering each
/// parameter's gradient on the way. A call evaluates: it changes nothing and, up to rounding, gives one row the same answer alone as
/// among a thousand.
/// There is no train or evaluate switch.
///
/// Layers are references without locks, for one task at a time; ``folded()`` gives the value that tasks share.
///
/// A layer of your own implements `name`, `forward`, `callAsFunction` and `inferenceSteps`; the rest has defaults for a layer without
/// parameters.
public protocol Layer<Scalar>: AnyObject {
  associatedtype Scalar: TensorScalar

  /// The layer's place in its network, such as `"1"` or `"2.0"`: containers set it, messages show it.
  var name: String { get set }

  /// Training: the output for `input`, and its pullback.
  func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>)

  /// Evaluation: the output for `input`.
  func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar>

  /// What training moves.
  var parameters: [Parameter<Scalar>] { get }

  /// What a checkpoint holds, by PyTorch's names relative to this layer, in PyTorch's order.
  var state: [StateEntry<Scalar>] { get }

  /// The generators that training draws from, such as a dropout's: a training checkpoint holds them. A layer takes back as many as it
  /// gives.
  var randomGenerators: [RandomGenerator] { get set }

  /// The layers that this one is made of, such as those of a ``Sequential``; none for a layer of its own.
  var innerLayers: [any Layer<Scalar>] { get }

  /// The shape that `input` gives, batch axis included.
  ///
  /// - Throws: ``LayerError`` where the layer cannot take `input`, in training or in evaluation.
  func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int]

  /// What ``folded()`` makes of this layer.
  var inferenceSteps: [InferenceStep<Scalar>] { get }
}

extension Layer {
  public var parameters: [Parameter<Scalar>] { [] }
  public var state: [StateEntry<Scalar>] { [] }
  public var randomGenerators: [RandomGenerator] {
    get { [] }
    set {}
  }
  public var innerLayers: [any Layer<Scalar>] { [] }
  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] { input }

  /// An immutable, `Sendable` value that computes what this layer computes in evaluation, with every batch norm that stands beside a
  /// dense layer folded into that layer's weights.
  ///
  /// The result equals the layer's own up to rounding. Later training does not change it.
  public func folded() -> FoldedModel<Scalar> { FoldedModel(inferenceSteps) }

  /// This layer and all within it.
  package var everyLayer: [any Layer<Scalar>] { [self] + innerLayers.flatMap { $0.everyLayer } }

  /// How a message names this layer, as in `BatchNorm '1'`.
  package var title: String { name.isEmpty ? typeName : "\(typeName) '\(name)'" }

  /// The name of its type without what it is generic over.
  var typeName: String { String("\(Self.self)".prefix { $0 != "<" }) }

  /// Stops where `input` does not suit: shapes within a program are the programmer's.
  package func check(_ input: Tensor<Scalar>, training: Bool) { check(shape: input.shape, training: training) }

  /// Stops where an input of `shape` would not suit.
  func check(shape: [Int], training: Bool) {
    do throws(LayerError) { _ = try outputShape(for: shape, training: training) } catch {
      stop(error.description)
    }
  }
}

/// Takes the gradient of a layer's output to the gradient of its input.
///
/// It may be called more than once, but before the parameters change: a layer whose gradient needs a weight that has changed stops.
public struct Pullback<Scalar: TensorScalar> {
  private let body: (_ gradient: Tensor<Scalar>, _ needsInput: Bool) -> Tensor<Scalar>?
  private let shape: [Int]

  /// - Parameters:
  ///   - shape: The output's shape, which gradients must have.
  ///   - body: Gathers the parameters' gradients and returns the input's, or nil where that is not needed.
  public init(shape: [Int], _ body: @escaping (_ gradient: Tensor<Scalar>, _ needsInput: Bool) -> Tensor<Scalar>?) {
    self.shape = shape
    self.body = body
  }

  /// Adds to each parameter's gradient and returns the gradient of the input.
  @discardableResult
  public func callAsFunction(_ gradient: Tensor<Scalar>) -> Tensor<Scalar> { run(gradient, needsInput: true)! }

  /// Adds to each parameter's gradient alone: cheaper where the input is data, whose gradient nobody wants.
  public func accumulate(_ gradient: Tensor<Scalar>) { _ = run(gradient, needsInput: false) }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  package func run(_ gradient: Tensor<Scalar>, needsInput: Bool) -> Tensor<Scalar>? {
    require(
      gradient.shape == shape, "Pullback: expected a gradient of the output's shape \(shape), got \(gradient.shape)")
    return body(gradient, needsInput)
  }

  /// This pullback's and then that of the layer before, which may have something to train.
  func then(_ before: Pullback, trains: Bool) -> Pullback {
    Pullback(shape: shape) { dy, needsInput in
      guard let dz = run(dy, needsInput: needsInput || trains) else { return nil }
      return before.run(dz, needsInput: needsInput)
    }
  }
}

/// One tensor or number of a layer that checkpoints hold.
public struct StateEntry<Scalar: TensorScalar> {
  /// What an entry holds.
  public enum Value: Equatable {
    /// Values of the model's scalar type.
    case tensor(Tensor<Scalar>)
    /// A whole number, stored as a 64-bit integer without axes.
    case integer(Int)
  }

  /// PyTorch's name, such as `"1.running_mean"`.
  public let key: String
  /// Other names under which a file may hold the entry in the place of ``key``.
  public let aliases: [String]
  /// Reads the entry.
  public let get: () -> Value
  /// Writes the entry; the value has the kind and shape that `get` returns.
  public let set: (Value) -> Void

  /// An entry by its accessors.
  public init(
    key: String, aliases: [String] = [], get: @escaping () -> Value, set: @escaping (Value) -> Void
  ) {
    self.key = key
    self.aliases = aliases
    self.get = get
    self.set = set
  }

  package init(_ key: String, aliases: [String] = [], _ parameter: Parameter<Scalar>) {
    self.init(
      key: key, aliases: aliases, get: { .tensor(parameter.value) },
      set: { value in
        guard case .tensor(let tensor) = value else { stop("StateEntry '\(key)': expected a tensor") }
        parameter.value = tensor
      })
  }

  package func prefixed(_ prefix: String) -> StateEntry {
    StateEntry(key: "\(prefix).\(key)", aliases: aliases.map { "\(prefix).\($0)" }, get: get, set: set)
  }
}

/// A layer that cannot take an input.
public struct LayerError: Error, Equatable, CustomStringConvertible {
  /// The layer, as in `BatchNorm '1'`.
  public let layer: String
  /// What the layer takes.
  public let expected: String
  /// What came.
  public let found: String

  /// An error of `layer`.
  public init(layer: String, expected: String, found: String) {
    self.layer = layer
    self.expected = expected
    self.found = found
  }

  public var description: String { "\(layer): expected \(expected), got \(found)" }
}
