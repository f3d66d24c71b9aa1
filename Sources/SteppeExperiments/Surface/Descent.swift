import Glibc
import Steppe

/// A rule by which gradient steps are taken, with the field's usual settings; its rate alone is tuned.
public enum DescentMethod: String, CaseIterable, Sendable {
  case sgd = "SGD"
  case momentum = "momentum"
  case adagrad = "Adagrad"
  case rmsProp = "RMSProp"
  case adam = "Adam"

  /// What moves `parameters`: momentum is 0.9, RMSProp's α 0.99, Adam's β 0.9 and 0.999.
  public func optimizer<Scalar: TensorScalar>(
    _ parameters: [Parameter<Scalar>], rate: Double
  ) -> any Optimizer<Scalar> {
    switch self {
    case .sgd: SGD(parameters, learningRate: rate)
    case .momentum: SGD(parameters, learningRate: rate, momentum: 0.9)
    case .adagrad: Adagrad(parameters, learningRate: rate)
    case .rmsProp: RMSProp(parameters, learningRate: rate)
    case .adam: Adam(parameters, learningRate: rate)
    }
  }

  /// The name as files and gnuplot's variables have it.
  public var id: String { rawValue.lowercased() }

  /// The same in every picture.
  public var color: Palette {
    switch self {
    case .sgd: .blue
    case .momentum: .sky
    case .adagrad: .orange
    case .rmsProp: .green
    case .adam: .vermilion
    }
  }

  /// Whether a step's length is the rate itself whatever the gradient's size, so that the rate is a distance in the weights.
  var isAdaptive: Bool { self != .sgd && self != .momentum }
}

/// A way down a ``LinearSurface``, by steps on its whole data.
public struct Descent: Sendable {
  public let method: DescentMethod
  public let rate: Double
  /// The weights before the first step and after each.
  public let path: [[Double]]
  /// The loss at each of them.
  public let losses: [Double]
  /// Whether the loss came down to what was asked for, and so ended the descent.
  public let reached: Bool

  public var steps: Int { losses.count - 1 }
  /// Whether the loss grew beyond all numbers.
  public var diverged: Bool { !losses.last!.isFinite || losses.last! > 1e6 * losses[0] }
}

extension LinearSurface {
  /// Steps from `start` until the loss is at most `loss`, for at most `limit` steps, or until it diverges.
  ///
  /// A dense layer of two weights computes the losses and gradients.
  public func descent(
    _ method: DescentMethod, rate: Double, from start: [Double], to loss: Double, limit: Int
  ) -> Descent {
    let layer = Dense<Double>(weight: Tensor(shape: [1, 2], scalars: start))
    let optimizer = method.optimizer([layer.weight], rate: rate)
    var (path, losses): ([[Double]], [Double]) = ([], [])
    while true {
      let (prediction, pullback) = layer.forward(features)
      let (error, gradient) = meanSquaredError(prediction, targets)
      path.append(layer.weight.value.scalars)
      losses.append(error / 2)
      let reached = error / 2 <= loss
      let result = { Descent(method: method, rate: rate, path: path, losses: losses, reached: reached) }
      if reached || losses.count > limit { return result() }
      if !error.isFinite || error / 2 > 1e6 * losses[0] { return result() }
      pullback.accumulate(gradient * 0.5)
      optimizer.step()
    }
  }

  /// The rates among which ``bestDescent(_:from:to:limit:)`` chooses, four to each factor of ten. SGD's and momentum's stand around
  /// 2/λmax, beyond which SGD diverges; an adaptive rate is a distance, and stands around the way from `start` to the minimum.
  public func rates(for method: DescentMethod, from start: [Double]) throws(LinearAlgebraError) -> [Double] {
    let scale: Double
    if method.isAdaptive {
      let end = try minimum()
      scale = zip(start, end).map { ($0 - $1) * ($0 - $1) }.reduce(0, +).squareRoot()
    } else {
      scale = try 2 / curvatures().greatest
    }
    return (-16...4).map { scale * pow(10, Double($0) / 4) }
  }

  /// The descent that needs the fewest steps among all rates; where none reaches `loss` within `limit` steps, the one that ends lowest.
  /// SGD's and momentum's rates are tried from the greatest down until four in a row, a factor of ten, need more steps.
  public func bestDescent(
    _ method: DescentMethod, from start: [Double], to loss: Double, limit: Int
  ) throws(LinearAlgebraError) -> Descent {
    let rates = try rates(for: method, from: start).reversed()
    // At most of its rates an adaptive method never settles, and a few steps tell which do.
    for bound in method.isAdaptive ? [limit / 100, limit / 10] : [] {
      let best = bestDescent(method, rates: rates, from: start, to: loss, limit: bound)
      if best.reached { return best }
    }
    return bestDescent(method, rates: rates, from: start, to: loss, limit: limit)
  }

  private func bestDescent(
    _ method: DescentMethod, rates: some Sequence<Double>, from start: [Double], to loss: Double, limit: Int
  ) -> Descent {
    var best: Descent?
    var slower = 0
    for rate in rates {
      // What takes longer than the best so far need not go on.
      let bound = best.map { $0.reached ? $0.steps : limit } ?? limit
      let found = descent(method, rate: rate, from: start, to: loss, limit: bound)
      guard let previous = best else {
        best = found
        continue
      }
      let isBetter =
        found.reached
        ? !previous.reached || found.steps < previous.steps
        : !previous.reached && !found.diverged && (previous.diverged || found.losses.last! < previous.losses.last!)
      if isBetter { best = found }
      // Where a step is in proportion to the gradient, still smaller rates are slower still.
      slower = isBetter || !previous.reached ? 0 : slower + 1
      if slower == 4, !method.isAdaptive { break }
    }
    return best!
  }
}
