/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).
///
/// As ``Adam``, but the decay shrinks the weights beside the adaptive step instead of passing through it: p ← p − η·λ·p (for weights
/// alone, see ``FusedOptimizer``), then Adam's step with the gradient as it is.
public final class AdamW<Scalar: TensorScalar>: Adam<Scalar> {
  /// An optimizer of `parameters`; the defaults are PyTorch's.
  ///
  /// - Parameters:
  ///   - parameters: What it moves.
  ///   - learningRate: η, at least 0.
  ///   - beta1: β₁ in 0 ..< 1.
  ///   - beta2: β₂ in 0 ..< 1.
  ///   - epsilon: ε, at least 0.
  ///   - weightDecay: λ, at least 0; not for γ, β and biases.
  public init(
    _ parameters: [Parameter<Scalar>], learningRate: Double = 0.001, beta1: Double = 0.9, beta2: Double = 0.999,
    epsilon: Double = 1e-8, weightDecay: Double = 0.01
  ) {
    super.init(
      parameters, learningRate: learningRate, beta1: beta1, beta2: beta2, epsilon: epsilon, weightDecay: weightDecay,
      decoupled: true)
  }
}
