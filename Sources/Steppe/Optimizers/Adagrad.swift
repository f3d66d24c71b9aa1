import CSteppeKernels

/// Adagrad (Duchi, Hazan & Singer 2011): each element's rate falls with the squares that its gradients have summed to.
///
/// With g the gradient plus λ·p (for weights alone, see ``FusedOptimizer``): G ← G + g²; p ← p − η·g / (√G + ε).
public final class Adagrad<Scalar: TensorScalar>: FusedOptimizer<Scalar> {
  /// ε.
  public let epsilon: Double

  /// An optimizer of `parameters`; the defaults are PyTorch's.
  ///
  /// - Parameters:
  ///   - parameters: What it moves.
  ///   - learningRate: η, at least 0.
  ///   - epsilon: ε, at least 0.
  ///   - initialAccumulator: What G holds at the start, at least 0.
  ///   - weightDecay: λ, at least 0; not for γ, β and biases.
  public init(
    _ parameters: [Parameter<Scalar>], learningRate: Double = 0.01, epsilon: Double = 1e-10,
    initialAccumulator: Double = 0, weightDecay: Double = 0
  ) {
    self.epsilon = epsilon
    super.init(
      parameters, learningRate: learningRate, weightDecay: weightDecay, state: [("squares", initialAccumulator)])
    check("epsilon", epsilon, epsilon >= 0, "at least 0")
    check("initialAccumulator", initialAccumulator, initialAccumulator >= 0, "at least 0")
  }

  public override var hyperparameters: [String: Double] {
    super.hyperparameters.merging(["epsilon": epsilon]) { $1 }
  }

  override func configure(_ settings: inout steppe_optimizer_step, step: Int) { settings.epsilon = epsilon }

  override func apply(
    _ settings: UnsafePointer<steppe_optimizer_step>, value: UnsafeMutablePointer<Scalar>,
    gradient: UnsafeMutablePointer<Scalar>, first: UnsafeMutablePointer<Scalar>?, second: UnsafeMutablePointer<Scalar>?,
    count: Int
  ) {
    Scalar.kernels.adagrad(settings, value, gradient, first!, count)
  }
}
