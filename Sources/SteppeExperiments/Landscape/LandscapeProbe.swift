import Steppe

/// What a training step meets on the error surface (Santurkar et al. 2018, arXiv 1805.11604; Mathematics §12).
///
/// For weights w, the gradient g = ∇L(w) of one batch and a rate η: the loss and the gradient at w − s·η·g for several factors s, and for
/// each layer its gradient before and after the layers below it took their step w − η·g.
public struct LandscapeProbe<Scalar: TensorScalar> {
  /// The multiples of the rate that are looked at.
  public static var factors: [Double] { [0.5, 1, 2, 4] }

  private let model: any Layer<Scalar>
  private let parameters: [Parameter<Scalar>]
  /// Where in ``parameters`` each layer with a weight matrix begins, from the input up.
  private let layers: [Int]

  public init(_ model: any Layer<Scalar>) {
    self.model = model
    let parameters = model.parameters.filter(\.isTrainable)
    layers = parameters.indices.filter { parameters[$0].value.rank >= 2 }
    self.parameters = parameters
  }

  /// What was found at one step.
  public struct Measurement: Sendable, Equatable {
    /// L(w)
    public let loss: Double
    /// The least and the greatest loss along the gradient, L(w) included.
    public let losses: ClosedRange<Double>
    /// The least and the greatest ‖∇L(w) − ∇L(w − sηg)‖₂: gradient predictiveness.
    public let gradientChanges: ClosedRange<Double>
    /// The greatest ‖∇L(w) − ∇L(w − sηg)‖₂ / ‖sηg‖₂: effective β-smoothness.
    public let smoothness: Double
    /// ‖g‖₂
    public let gradientNorm: Double
    /// For each layer above the lowest the internal covariate shift: ‖G − G′‖₂ and the cosine between G and G′, the gradients of its
    /// weights before and after the layers below took their step.
    public let shifts: [(distance: Double, cosine: Double)]

    public static func == (a: Measurement, b: Measurement) -> Bool {
      (a.loss, a.losses, a.gradientChanges, a.smoothness, a.gradientNorm)
        == (b.loss, b.losses, b.gradientChanges, b.smoothness, b.gradientNorm)
        && a.shifts.elementsEqual(b.shifts) { $0 == $1 }
    }
  }

  /// Measures at the model's weights, and leaves the model as it was.
  ///
  /// Where a layer draws noise, the loss along the gradient is that under the same noise; a layer's gradient after the step is that under
  /// the noise of the next step, as training meets it.
  ///
  /// - Parameters:
  ///   - rate: η.
  ///   - loss: Runs the model forward and backward on one batch, gathers its gradients and returns the loss.
  /// - Returns: Nil where a loss or gradient is not finite.
  public func measure(rate: Double, loss: () -> Double) -> Measurement? {
    let start = ModelSnapshot(model)
    defer { start.restore() }
    let origin = parameters.map(\.value)
    let value = loss()
    let noiseOfNextStep = model.randomGenerators
    let gradient = takeGradients()
    let norm = Self.norm(gradient)
    guard value.isFinite, norm.isFinite else { return nil }

    var (losses, changes, smoothness) = ([value], [Double](), 0.0)
    for factor in Self.factors {
      start.restoreGenerators()
      move(0..<parameters.count, from: origin, along: gradient, by: factor * rate)
      losses.append(loss())
      let change = Self.norm(zip(takeGradients(), gradient).map { $0 - $1 })
      changes.append(change)
      if norm > 0, rate > 0 { smoothness = max(smoothness, change / (factor * rate * norm)) }
    }
    guard (losses + changes).allSatisfy(\.isFinite) else { return nil }

    var shifts: [(distance: Double, cosine: Double)] = []
    for layer in layers.dropFirst() {
      model.randomGenerators = noiseOfNextStep
      move(0..<layer, from: origin, along: gradient, by: rate)
      for index in layer..<parameters.count { parameters[index].value = origin[index] }
      _ = loss()
      let (before, after) = (gradient[layer], takeGradients()[layer])
      let shift = Self.shift(before, after)
      guard shift.distance.isFinite else { return nil }
      shifts.append(shift)
    }
    return Measurement(
      loss: value, losses: losses.min()!...losses.max()!, gradientChanges: changes.min()!...changes.max()!,
      smoothness: smoothness, gradientNorm: norm, shifts: shifts)
  }

  private func move(
    _ range: Range<Int>, from origin: [Tensor<Scalar>], along gradient: [Tensor<Scalar>], by distance: Double
  ) {
    for index in range { parameters[index].value = origin[index] - gradient[index] * Scalar(distance) }
  }

  /// The gathered gradients, which are zero afterwards.
  private func takeGradients() -> [Tensor<Scalar>] {
    let gradients = parameters.map(\.gradient)
    for parameter in parameters { parameter.clearGradient() }
    return gradients
  }

  private static func squares(_ tensor: Tensor<Scalar>) -> Double { Double(tensor.squared().sum()) }

  private static func norm(_ tensors: [Tensor<Scalar>]) -> Double {
    tensors.reduce(0) { $0 + squares($1) }.squareRoot()
  }

  /// ‖a − b‖₂ and the cosine of the angle between a and b, 1 where both are the same.
  private static func shift(_ a: Tensor<Scalar>, _ b: Tensor<Scalar>) -> (distance: Double, cosine: Double) {
    let distance = squares(a - b).squareRoot()
    let norms = (squares(a) * squares(b)).squareRoot()
    guard distance > 0 else { return (distance, 1) }
    return (distance, norms > 0 ? Double((a * b).sum()) / norms : 0)
  }
}
