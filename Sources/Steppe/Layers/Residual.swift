/// `x + f(x)`, f the layers in braces, whose output must have the input's shape (He et al. 2016, arXiv 1512.03385).
public final class Residual<Scalar: TensorScalar>: Layer {
  /// f.
  public let branch: Sequential<Scalar>

  public var name = "" {
    didSet { branch.name = name }
  }

  /// The layers of f in braces.
  public init(@LayerBuilder<Scalar> _ layers: () -> [any Layer<Scalar>]) { branch = Sequential(layers()) }

  public var parameters: [Parameter<Scalar>] { branch.parameters }
  public var state: [StateEntry<Scalar>] { branch.state }

  public var randomGenerators: [RandomGenerator] {
    get { branch.randomGenerators }
    set { branch.randomGenerators = newValue }
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    let output = try branch.outputShape(for: input, training: training)
    guard output == input else {
      throw LayerError(layer: title, expected: "a branch that keeps the shape \(input)", found: "\(output)")
    }
    return output
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return input + branch(input)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let (output, pullback) = branch.forward(input)
    return (
      input + output,
      Pullback(shape: output.shape) { dy, needsInput in pullback.run(dy, needsInput: needsInput).map { $0 + dy } }
    )
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { [.residual(branch.inferenceSteps)] }
}
