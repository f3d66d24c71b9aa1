import Steppe

/// A plane through a model's parameters along two directions, as the pictures of loss surfaces are drawn (Li et al. 2018, arXiv 1712.09913).
///
/// A random direction is normal noise, with the row of each unit or filter scaled to the norm of its own weights: networks whose weights
/// differ in size alone, which ReLU and normalization hide, then look alike. Vectors (biases, γ, β) stay where they are.
public struct LossPlane<Scalar: TensorScalar> {
  private let model: any Layer<Scalar>
  private let matrices: [Parameter<Scalar>]
  private let origin: [Tensor<Scalar>]
  private let first: [Tensor<Scalar>]
  private let second: [Tensor<Scalar>]

  /// Any two directions, around `model` as it is: for each of its ``weights(of:)`` a tensor of the same shape.
  public init(_ model: any Layer<Scalar>, first: [Tensor<Scalar>], second: [Tensor<Scalar>]) {
    self.model = model
    matrices = Self.matrices(model)
    origin = matrices.map(\.value)
    for direction in [first, second] {
      precondition(
        direction.map(\.shape) == origin.map(\.shape),
        "LossPlane: expected directions of shapes \(origin.map(\.shape)), got \(direction.map(\.shape))")
    }
    (self.first, self.second) = (first, second)
  }

  /// Random directions drawn from `generator`, around `model` as it is.
  public init(_ model: any Layer<Scalar>, using generator: inout RandomGenerator) {
    let first = Self.randomDirection(model, using: &generator)
    self.init(model, first: first, second: Self.randomDirection(model, using: &generator))
  }

  /// What a direction moves: all parameters but vectors.
  public static func weights(of model: any Layer<Scalar>) -> [Tensor<Scalar>] { matrices(model).map(\.value) }

  /// A random direction.
  public static func randomDirection(
    _ model: any Layer<Scalar>, using generator: inout RandomGenerator
  ) -> [Tensor<Scalar>] {
    weights(of: model).map { direction(like: $0, &generator) }
  }

  private static func matrices(_ model: any Layer<Scalar>) -> [Parameter<Scalar>] {
    model.parameters.filter { $0.value.rank >= 2 }
  }

  /// Normal noise of the shape of `weight`, each of whose rows has the norm of the weight's.
  private static func direction(like weight: Tensor<Scalar>, _ generator: inout RandomGenerator) -> Tensor<Scalar> {
    let rows = weight.reshaped([weight.shape[0], -1])
    let noise = Tensor<Scalar>.randomNormal(shape: rows.shape, using: &generator)
    func norms(_ x: Tensor<Scalar>) -> Tensor<Scalar> { x.squared().sum(axes: [1], keepingAxes: true).squareRoot() }
    return (noise * (norms(rows) / norms(noise))).reshaped(weight.shape)
  }

  /// `loss` of the model at each of `steps`² places −`reach` … `reach` along the two directions: row by row, the first direction along
  /// the row. The model is afterwards what it was.
  public func losses(
    reach: Double, steps: Int, progress: (Double) throws -> Void, _ loss: (any Layer<Scalar>) -> Double
  ) rethrows -> [(first: Double, second: Double, loss: Double)] {
    defer { for (parameter, value) in zip(matrices, origin) { parameter.value = value } }
    let places = Self.places(reach: reach, steps: steps)
    var result: [(first: Double, second: Double, loss: Double)] = []
    for b in places {
      for a in places {
        for (index, parameter) in matrices.enumerated() {
          parameter.value = origin[index] + first[index] * Scalar(a) + second[index] * Scalar(b)
        }
        result.append((a, b, loss(model)))
        try progress(Double(result.count) / Double(steps * steps))
      }
    }
    return result
  }

  /// `steps` places of equal distance from −`reach` to `reach`; 0 is one of them where `steps` is odd.
  package static func places(reach: Double, steps: Int) -> [Double] {
    (0..<steps).map { steps == 1 ? 0 : reach * (Double(2 * $0) / Double(steps - 1) - 1) }
  }
}
