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

func flattenedRows<Scalar: TensorScalar>(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
  input.reshaped([input.shape[0], input.shape.dropFirst().reduce(1, *)])
}
