import CSteppeKernels

/// A function applied to every element.
public enum Activation: Sendable, Equatable {
  /// x
  case identity
  /// max(x, 0)
  case relu
  /// x above 0, `slope`·x below
  case leakyReLU(slope: Double)
  /// 1/(1 + e⁻ˣ)
  case sigmoid
  /// The hyperbolic tangent.
  case tanh
  /// x·Φ(x), Φ the normal distribution function (Hendrycks & Gimpel 2016, arXiv 1606.08415)
  case gelu
  /// GELU by its tanh approximation (arXiv 1606.08415).
  case geluTanh
  /// x·sigmoid(x) (arXiv 1606.08415)
  case silu

  var kernel: steppe_activation {
    switch self {
    case .identity: STEPPE_IDENTITY
    case .relu: STEPPE_RELU
    case .leakyReLU: STEPPE_LEAKY_RELU
    case .sigmoid: STEPPE_SIGMOID
    case .tanh: STEPPE_TANH
    case .gelu: STEPPE_GELU
    case .geluTanh: STEPPE_GELU_TANH
    case .silu: STEPPE_SILU
    }
  }

  var parameter: Double {
    if case .leakyReLU(let slope) = self { slope } else { 0 }
  }

  /// f(x)
  public func callAsFunction<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
    x.mapped { Scalar.kernels.activate(kernel, parameter, $0, $1, $2) }
  }

  /// dy·f′(x)
  func gradient<Scalar: TensorScalar>(_ x: Tensor<Scalar>, _ dy: Tensor<Scalar>) -> Tensor<Scalar> {
    let (x, dy) = (x.contiguous(), dy.contiguous())
    let dx = Tensor<Scalar>(uninitialized: x.shape)
    let (from, slope, to) = (x.address, dy.address, dx.address)
    Parallel.ranges(x.count, grain: Parallel.elementGrain, multiple: 16) { range in
      let low = range.lowerBound
      Scalar.kernels.activate_backward(kernel, parameter, from + low, slope + low, to + low, range.count)
    }
    withExtendedLifetime((x, dy)) {}
    return dx
  }
}

/// A layer that applies an ``Activation`` to every element of an input of any shape.
public class ActivationLayer<Scalar: TensorScalar>: Layer {
  /// The function.
  public let activation: Activation
  public var name = ""

  /// A layer that applies `activation`.
  public init(_ activation: Activation) { self.activation = activation }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> { activation(input) }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let activation = activation
    return (
      activation(input),
      Pullback(shape: input.shape) { dy, needsInput in needsInput ? activation.gradient(input, dy) : nil }
    )
  }

  public var inferenceSteps: [InferenceStep<Scalar>] { [.activation(activation)] }
}

/// max(x, 0).
public final class ReLU<Scalar: TensorScalar>: ActivationLayer<Scalar> {
  /// The layer; it has no parameters.
  public init() { super.init(.relu) }
}

/// x above 0, `slope`·x below; the default slope is 0.01.
public final class LeakyReLU<Scalar: TensorScalar>: ActivationLayer<Scalar> {
  /// The layer with the given slope below 0.
  public init(slope: Double = 0.01) { super.init(.leakyReLU(slope: slope)) }
}

/// 1/(1 + e⁻ˣ).
public final class Sigmoid<Scalar: TensorScalar>: ActivationLayer<Scalar> {
  /// The layer; it has no parameters.
  public init() { super.init(.sigmoid) }
}

/// The hyperbolic tangent.
public final class Tanh<Scalar: TensorScalar>: ActivationLayer<Scalar> {
  /// The layer; it has no parameters.
  public init() { super.init(.tanh) }
}

/// x·Φ(x), Φ the normal distribution function (arXiv 1606.08415).
public final class GELU<Scalar: TensorScalar>: ActivationLayer<Scalar> {
  /// The exact function, or its tanh approximation.
  public init(approximate: Bool = false) { super.init(approximate ? .geluTanh : .gelu) }
}

/// x·sigmoid(x), also called swish (arXiv 1606.08415).
public final class SiLU<Scalar: TensorScalar>: ActivationLayer<Scalar> {
  /// The layer; it has no parameters.
  public init() { super.init(.silu) }
}
