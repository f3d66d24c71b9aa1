/// How a layer's weights start, given its fan-in and fan-out (the values that one output reads, and that one input feeds).
public enum WeightInitialization: Sendable, Equatable {
  /// Normal with deviation √(2 / fanIn), for ReLU and its kin (He et al. 2015, arXiv 1502.01852).
  case heNormal
  /// Uniform in ±√(6 / fanIn) (He et al. 2015).
  case heUniform
  /// Normal with deviation √(2 / (fanIn + fanOut)), for sigmoid and tanh (Glorot & Bengio 2010).
  case glorotNormal
  /// Uniform in ±√(6 / (fanIn + fanOut)) (Glorot & Bengio 2010).
  case glorotUniform
  /// Uniform in ±1/√fanIn, PyTorch's default for its linear layer.
  case torchDefault
  /// Normal with a deviation of one's own.
  case normal(standardDeviation: Double)
  /// All zero.
  case zeros

  func draw<Scalar: TensorScalar>(
    shape: [Int], fanIn: Int, fanOut: Int, using generator: inout RandomGenerator
  ) -> Tensor<Scalar> {
    func normal(_ deviation: Double) -> Tensor<Scalar> {
      .randomNormal(shape: shape, standardDeviation: Scalar(deviation), using: &generator)
    }
    func uniform(_ bound: Double) -> Tensor<Scalar> {
      bound > 0
        ? .randomUniform(shape: shape, in: Scalar(-bound)..<Scalar(bound), using: &generator) : .zeros(shape: shape)
    }
    let (inputs, both) = (Double(max(fanIn, 1)), Double(max(fanIn + fanOut, 1)))
    return switch self {
    case .heNormal: normal((2 / inputs).squareRoot())
    case .heUniform: uniform((6 / inputs).squareRoot())
    case .glorotNormal: normal((2 / both).squareRoot())
    case .glorotUniform: uniform((6 / both).squareRoot())
    case .torchDefault: uniform((1 / inputs).squareRoot())
    case .normal(let deviation): normal(deviation)
    case .zeros: .zeros(shape: shape)
    }
  }
}

/// Where layers draw their start from.
public enum InitializationSeed {
  /// A generator that the layers made in one closure share.
  final class Source: @unchecked Sendable {
    // Task-local, and used only by the task that set it.
    var generator: RandomGenerator
    init(_ generator: RandomGenerator) { self.generator = generator }
  }

  @TaskLocal private static var source: Source?

  /// Runs `body`, in which every new layer draws from the sequence of `seed`: the same seed, the same network.
  ///
  /// `Sequential(seed:)` does this for the layers in its braces. Outside, a layer is drawn from the system's random numbers.
  public static func with<Result>(_ seed: UInt64, _ body: () throws -> Result) rethrows -> Result {
    try $source.withValue(Source(RandomGenerator(seed: seed)), operation: body)
  }

  /// A generator for one layer, the next of the seed's.
  static func next() -> RandomGenerator { source?.generator.split() ?? .unseeded() }
}
