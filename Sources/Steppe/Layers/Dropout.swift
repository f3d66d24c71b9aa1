/// Sets elements to zero with `probability` in training and scales the others by 1/(1 − probability); evaluation changes nothing
/// (Srivastava et al. 2014).
public final class Dropout<Scalar: TensorScalar>: Layer {
  /// The chance of an element to be set to zero.
  public let probability: Double
  /// Draws the masks; part of a training checkpoint, so that a resumed run goes on alike.
  public var generator: RandomGenerator
  public var name = ""

  /// A layer whose masks `seed` chooses; without one the enclosing `Sequential(seed:)`'s sequence does, or the system's random numbers.
  public init(_ probability: Double = 0.5, seed: UInt64? = nil) {
    require((0..<1).contains(probability), "Dropout: expected a probability in 0 ..< 1, got \(probability)")
    self.probability = probability
    generator = seed.map { RandomGenerator(seed: $0) } ?? InitializationSeed.next()
  }

  public var randomGenerators: [RandomGenerator] {
    get { [generator] }
    set { generator = newValue[0] }
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> { input }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    if probability == 0 { return (input, Pullback(shape: input.shape) { dy, _ in dy }) }
    let kept = Tensor<Scalar>.randomBernoulli(shape: input.shape, probability: 1 - probability, using: &generator)
    let mask = kept * Scalar(1 / (1 - probability))
    return (input * mask, Pullback(shape: input.shape) { dy, needsInput in needsInput ? dy * mask : nil })
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { [] }
}
