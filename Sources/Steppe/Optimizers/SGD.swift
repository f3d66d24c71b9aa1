import CSteppeKernels

/// Stochastic gradient descent, plain or with momentum (Polyak 1964; Sutskever et al. 2013 in PyTorch's form).
///
/// With g the gradient plus λ·p (for weights alone, see ``FusedOptimizer``):
/// - without momentum: p ← p − η·g;
/// - with momentum μ and dampening τ: v ← μ·v + (1 − τ)·g, v ← g at a parameter's first step; p ← p − η·v;
/// - Nesterov's: p ← p − η·(g + μ·v).
public final class SGD<Scalar: TensorScalar>: FusedOptimizer<Scalar> {
  /// μ.
  public let momentum: Double
  /// τ.
  public let dampening: Double
  /// Whether the gradient is taken as if at the place that the momentum leads to.
  public let nesterov: Bool

  /// An optimizer of `parameters`; the defaults are PyTorch's, with its usual rate.
  ///
  /// - Parameters:
  ///   - parameters: What it moves.
  ///   - learningRate: η, at least 0.
  ///   - momentum: μ in 0 ..< 1; 0 keeps no state.
  ///   - dampening: τ in 0 … 1, needs a momentum.
  ///   - nesterov: Needs a momentum, and no dampening.
  ///   - weightDecay: λ, at least 0; not for γ, β and biases.
  public init(
    _ parameters: [Parameter<Scalar>], learningRate: Double = 0.01, momentum: Double = 0, dampening: Double = 0,
    nesterov: Bool = false, weightDecay: Double = 0
  ) {
    self.momentum = momentum
    self.dampening = dampening
    self.nesterov = nesterov
    super.init(
      parameters, learningRate: learningRate, weightDecay: weightDecay, state: momentum == 0 ? [] : [("momentum", 0)])
    checkFraction("momentum", momentum)
    check("dampening", dampening, (0...1).contains(dampening), "in 0 … 1")
    require(momentum > 0 || dampening == 0, "SGD: dampening \(dampening) needs a momentum")
    require(!nesterov || momentum > 0 && dampening == 0, "SGD: nesterov needs a momentum and no dampening")
  }

  public override var hyperparameters: [String: Double] {
    super.hyperparameters.merging(["momentum": momentum, "dampening": dampening, "nesterov": nesterov ? 1 : 0]) { $1 }
  }

  override func configure(_ settings: inout steppe_optimizer_step, step: Int) {
    settings.momentum = momentum
    settings.dampening = dampening
    settings.nesterov = nesterov
    settings.first = step == 1
  }

  override func apply(
    _ settings: UnsafePointer<steppe_optimizer_step>, value: UnsafeMutablePointer<Scalar>,
    gradient: UnsafeMutablePointer<Scalar>, first: UnsafeMutablePointer<Scalar>?, second: UnsafeMutablePointer<Scalar>?,
    count: Int
  ) {
    Scalar.kernels.sgd(settings, value, gradient, first, count)
  }
}
