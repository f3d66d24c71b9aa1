import CSteppeKernels

/// RMSProp (Hinton, Coursera lecture 6e, 2012): each element's gradient over the root of its recent mean square.
///
/// With g the gradient plus λ·p (for weights alone, see ``FusedOptimizer``): G ← α·G + (1 − α)·g²; u = g / (√G + ε);
/// p ← p − η·u, or with momentum μ: b ← μ·b + u; p ← p − η·b.
public final class RMSProp<Scalar: TensorScalar>: FusedOptimizer<Scalar> {
  /// α.
  public let alpha: Double
  /// ε.
  public let epsilon: Double
  /// μ.
  public let momentum: Double

  /// An optimizer of `parameters`; the defaults are PyTorch's.
  ///
  /// - Parameters:
  ///   - parameters: What it moves.
  ///   - learningRate: η, at least 0.
  ///   - alpha: α in 0 ..< 1, the share of the old mean.
  ///   - epsilon: ε, at least 0.
  ///   - momentum: μ in 0 ..< 1; 0 keeps no momentum.
  ///   - weightDecay: λ, at least 0; not for γ, β and biases.
  public init(
    _ parameters: [Parameter<Scalar>], learningRate: Double = 0.01, alpha: Double = 0.99, epsilon: Double = 1e-8,
    momentum: Double = 0, weightDecay: Double = 0
  ) {
    self.alpha = alpha
    self.epsilon = epsilon
    self.momentum = momentum
    super.init(
      parameters, learningRate: learningRate, weightDecay: weightDecay,
      state: momentum == 0 ? [("squares", 0)] : [("squares", 0), ("momentum", 0)])
    checkFraction("alpha", alpha)
    checkFraction("momentum", momentum)
    check("epsilon", epsilon, epsilon >= 0, "at least 0")
  }

  public override var hyperparameters: [String: Double] {
    super.hyperparameters.merging(["alpha": alpha, "epsilon": epsilon, "momentum": momentum]) { $1 }
  }

  override func configure(_ settings: inout steppe_optimizer_step, step: Int) {
    settings.beta2 = alpha
    settings.epsilon = epsilon
    settings.momentum = momentum
  }

  override func apply(
    _ settings: UnsafePointer<steppe_optimizer_step>, value: UnsafeMutablePointer<Scalar>,
    gradient: UnsafeMutablePointer<Scalar>, first: UnsafeMutablePointer<Scalar>?, second: UnsafeMutablePointer<Scalar>?,
    count: Int
  ) {
    Scalar.kernels.rmsprop(settings, value, gradient, first!, second, count)
  }
}
