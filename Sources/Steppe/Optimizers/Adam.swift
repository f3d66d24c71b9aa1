import CSteppeKernels
import Glibc

/// Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1).
///
/// With g the gradient plus λ·p (for weights alone, see ``FusedOptimizer``) at a parameter's t-th step:
/// m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; p ← p − η·(m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε).
///
/// ``AdamW`` has the better weight decay.
public class Adam<Scalar: TensorScalar>: FusedOptimizer<Scalar> {
  /// β₁.
  public let beta1: Double
  /// β₂.
  public let beta2: Double
  /// ε.
  public let epsilon: Double
  private let decoupled: Bool

  /// An optimizer of `parameters`; the defaults are the paper's and PyTorch's.
  ///
  /// - Parameters:
  ///   - parameters: What it moves.
  ///   - learningRate: η, at least 0.
  ///   - beta1: β₁ in 0 ..< 1.
  ///   - beta2: β₂ in 0 ..< 1.
  ///   - epsilon: ε, at least 0.
  ///   - weightDecay: λ, at least 0, added to the gradient as λ·p (L2); not for γ, β and biases.
  public convenience init(
    _ parameters: [Parameter<Scalar>], learningRate: Double = 0.001, beta1: Double = 0.9, beta2: Double = 0.999,
    epsilon: Double = 1e-8, weightDecay: Double = 0
  ) {
    self.init(
      parameters, learningRate: learningRate, beta1: beta1, beta2: beta2, epsilon: epsilon, weightDecay: weightDecay,
      decoupled: false)
  }

  init(
    _ parameters: [Parameter<Scalar>], learningRate: Double, beta1: Double, beta2: Double, epsilon: Double,
    weightDecay: Double, decoupled: Bool
  ) {
    self.beta1 = beta1
    self.beta2 = beta2
    self.epsilon = epsilon
    self.decoupled = decoupled
    super.init(
      parameters, learningRate: learningRate, weightDecay: weightDecay,
      state: [("first_moment", 0), ("second_moment", 0)])
    checkFraction("beta1", beta1)
    checkFraction("beta2", beta2)
    check("epsilon", epsilon, epsilon >= 0, "at least 0")
  }

  public override var hyperparameters: [String: Double] {
    super.hyperparameters.merging(["beta1": beta1, "beta2": beta2, "epsilon": epsilon]) { $1 }
  }

  override func configure(_ settings: inout steppe_optimizer_step, step: Int) {
    settings.beta1 = beta1
    settings.beta2 = beta2
    settings.epsilon = epsilon
    settings.bias_correction1 = 1 - pow(beta1, Double(step))
    settings.bias_correction2 = 1 - pow(beta2, Double(step))
    settings.decoupled = decoupled
  }

  override func apply(
    _ settings: UnsafePointer<steppe_optimizer_step>, value: UnsafeMutablePointer<Scalar>,
    gradient: UnsafeMutablePointer<Scalar>, first: UnsafeMutablePointer<Scalar>?, second: UnsafeMutablePointer<Scalar>?,
    count: Int
  ) {
    Scalar.kernels.adam(settings, value, gradient, first!, second!, count)
  }
}
