import Steppe

/// The error surface of a linear model with two weights, L(w) = 1/(2N)·Σ(w·xᵢ − yᵢ)² (Mathematics §1): a bowl whose Hessian XᵀX/N is the same
/// everywhere, so that its condition number κ alone says how well one learning rate suits both directions.
public struct LinearSurface: Sendable {
  /// `[N, 2]`
  public let features: Tensor<Double>
  /// `[N, 1]`
  public let targets: Tensor<Double>

  /// - Parameters:
  ///   - features: `[N, 2]`
  ///   - targets: `[N, 1]`
  public init(features: Tensor<Double>, targets: Tensor<Double>) {
    precondition(
      features.rank == 2 && features.shape[1] == 2 && targets.shape == [features.shape[0], 1],
      "LinearSurface: expected [N, 2] and [N, 1], got \(features.shape) and \(targets.shape)")
    self.features = features
    self.targets = targets
  }

  /// A small and a large feature: x₁ of mean 1 and deviation ½, x₂ of mean 100 and deviation 50, and y = 2·x₁ + 0.04·x₂ without noise, to
  /// which both features contribute alike.
  public static func example(count: Int = 200, seed: UInt64) -> LinearSurface {
    var generator = RandomGenerator(seed: seed)
    let normals = Tensor<Double>.randomNormal(shape: [count, 2], using: &generator)
    let features = normals * Tensor([0.5, 50]) + Tensor([1, 100])
    return LinearSurface(features: features, targets: features.matmul(Tensor([[2], [0.04]])))
  }

  /// The same data with features of mean 0 and deviation 1 (Mathematics §2) and targets of mean 0, which is what the model's bias would learn.
  public func standardized() -> LinearSurface {
    let deviation = features.variance(axis: 0).squareRoot()
    let centered = features - features.mean(axis: 0)
    return LinearSurface(features: centered / deviation, targets: targets - targets.mean(axis: 0))
  }

  /// XᵀX/N: `[2, 2]`.
  public var hessian: Tensor<Double> {
    features.transposed().matmul(features) / Double(features.shape[0])
  }

  /// The least and the greatest eigenvalue of the Hessian, by LAPACK.
  public func curvatures() throws(LinearAlgebraError) -> (least: Double, greatest: Double) {
    let values = try hessian.symmetricEigenvalues()
    return (values[0], values[1])
  }

  /// κ, the greatest curvature over the least.
  public func conditionNumber() throws(LinearAlgebraError) -> Double {
    let (least, greatest) = try curvatures()
    return greatest / least
  }

  /// The weights of the least loss.
  public func minimum() throws(LinearAlgebraError) -> [Double] {
    try features.leastSquares(targets).solution.scalars
  }

  /// L at `weights`.
  public func loss(_ weights: [Double]) -> Double {
    let residual = features.matmul(Tensor(shape: [2, 1], scalars: weights)) - targets
    return (residual * residual).sum() / Double(2 * targets.count)
  }
}
