/// `[N, …]` to `[N, the rest as one axis]`.
public final class Flatten<Scalar: TensorScalar>: Layer {
  public var name = ""

  /// The layer; it has no parameters.
  public init() {}

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    guard !input.isEmpty else {
      throw LayerError(layer: title, expected: "an input with a batch axis", found: "\(input)")
    }
    return [input[0], input.dropFirst().reduce(1, *)]
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return flattenedRows(input)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let output = self(input)
    let shape = input.shape
    return (output, Pullback(shape: output.shape) { dy, _ in dy.reshaped(shape) })
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { [.flatten] }
}

/// `[N, features]` to `[N]` and the shape that the features of one example have, as PyTorch's `Unflatten(1, …)`.
///
/// ```swift
/// Unflatten([1, 28, 28])          // rows of 784 features to images for a convolution
/// ```
public final class Unflatten<Scalar: TensorScalar>: Layer {
  /// The shape of one example.
  public let shape: [Int]
  public var name = ""

  /// A layer that gives examples `shape`, whose sizes must be positive.
  public init(_ shape: [Int]) {
    require(shape.allSatisfy { $0 > 0 }, "Unflatten: expected positive sizes, got \(shape)")
    _ = checkedCount(shape)
    self.shape = shape
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    guard input.count == 2, input[1] == shape.reduce(1, *) else {
      throw LayerError(layer: title, expected: "an input of shape [N, \(shape.reduce(1, *))]", found: "\(input)")
    }
    return [input[0]] + shape
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return input.reshaped([input.shape[0]] + shape)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (output, rows) = (self(input), input.shape)
    return (output, Pullback(shape: output.shape) { dy, _ in dy.reshaped(rows) })
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let shape = shape
    return [
      .function { x in
        require(
          x.rank == 2 && x.shape[1] == shape.reduce(1, *),
          "FoldedModel: Unflatten: expected an input of shape [N, \(shape.reduce(1, *))], got \(x.shape)")
        return x.reshaped([x.shape[0]] + shape)
      }
    ]
  }
}

func flattenedRows<Scalar: TensorScalar>(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
  input.reshaped([input.shape[0], input.shape.dropFirst().reduce(1, *)])
}
