import Reference
import Steppe
import SteppeExperiments
import Testing

@Suite struct LinearSurfaceTests {
  /// Features whose Hessian is diagonal with the given curvatures, and the targets of weights (1, 1).
  private func diagonal(_ a: Double, _ b: Double) -> LinearSurface {
    // XᵀX/N = diag(a, b) for the rows (±√(2a), 0), (0, ±√(2b)).
    let (x, y) = ((2 * a).squareRoot(), (2 * b).squareRoot())
    let features = Tensor<Double>([[x, 0], [-x, 0], [0, y], [0, -y]])
    return LinearSurface(features: features, targets: features.matmul(Tensor([[1], [1]])))
  }

  @Test func aQuadraticsCurvaturesAndMinimumAreThoseOfItsHessian() throws {
    var generator = TestGenerator()
    for _ in 0..<50 {
      let (a, b) = (generator.uniform(0.1...10), generator.uniform(0.1...10))
      let surface = diagonal(a, b)
      let (least, greatest) = try surface.curvatures()
      #expect(abs(least - min(a, b)) < 1e-12 && abs(greatest - max(a, b)) < 1e-12)
      #expect(abs(try surface.conditionNumber() - max(a, b) / min(a, b)) < 1e-9)
      #expect(zip(try surface.minimum(), [1, 1]).allSatisfy { abs($0 - $1) < 1e-12 })
      let (u, v) = (generator.normal(), generator.normal())
      let wanted = 0.5 * (a * (u - 1) * (u - 1) + b * (v - 1) * (v - 1))
      #expect(abs(surface.loss([u, v]) - wanted) < 1e-12 * max(1, wanted))
    }
  }

  @Test func gradientDescentShrinksEachDirectionByItsOwnFactor() {
    // w − 1 is multiplied by 1 − rate·curvature at every step.
    let descent = diagonal(4, 0.5).descent(.sgd, rate: 0.3, from: [3, -2], to: 0, limit: 20)
    #expect(descent.steps == 20 && !descent.reached && !descent.diverged)
    for (step, weights) in descent.path.enumerated() {
      let wanted = [2 * power(1 - 0.3 * 4, step), -3 * power(1 - 0.3 * 0.5, step)]
      #expect(zip(weights, wanted).allSatisfy { abs($0 - 1 - $1) < 1e-12 }, "step \(step): \(weights)")
    }
  }

  private func power(_ base: Double, _ exponent: Int) -> Double {
    (0..<exponent).reduce(1) { value, _ in value * base }
  }

  @Test func descentEndsWhereItReachesTheLossOrDiverges() {
    let surface = diagonal(4, 0.5)
    let reaching = surface.descent(.sgd, rate: 0.3, from: [3, -2], to: 1e-3, limit: 1000)
    #expect(reaching.reached && reaching.losses.last! <= 1e-3 && reaching.losses.dropLast().allSatisfy { $0 > 1e-3 })
    #expect(reaching.path.count == reaching.losses.count)
    let diverging = surface.descent(.sgd, rate: 0.6, from: [3, -2], to: 1e-3, limit: 100_000)
    #expect(diverging.diverged && !diverging.reached && diverging.steps < 1000)
  }

  @Test(arguments: DescentMethod.allCases)
  func theBestRateNeedsTheFewestSteps(method: DescentMethod) throws {
    let (surface, start) = (diagonal(9, 1), [3.0, -2])
    let best = try surface.bestDescent(method, from: start, to: 1e-3, limit: 5000)
    #expect(best.reached)
    for rate in try surface.rates(for: method, from: start) {
      let other = surface.descent(method, rate: rate, from: start, to: 1e-3, limit: 5000)
      #expect(!other.reached || other.steps >= best.steps, "rate \(rate)")
    }
    // From a start where nothing arrives in time, the lowest end counts.
    let short = try surface.bestDescent(method, from: [300, -200], to: 1e-9, limit: 3)
    #expect(!short.reached && short.losses.last! < short.losses[0])
  }

  @Test func standardizationLevelsTheExample() throws {
    for seed in 1...5 as ClosedRange<UInt64> {
      let raw = LinearSurface.example(seed: seed)
      let level = raw.standardized()
      #expect(try raw.conditionNumber() > 1e3)
      #expect(try level.conditionNumber() < 2)
      #expect(level.features.mean(axis: 0).scalars.allSatisfy { abs($0) < 1e-12 })
      #expect(level.features.variance(axis: 0).scalars.allSatisfy { abs($0 - 1) < 1e-12 })
      // The least loss is 0 on both, as the targets are exact.
      let (rawMinimum, levelMinimum) = (try raw.minimum(), try level.minimum())
      #expect(raw.loss(rawMinimum) < 1e-18 && level.loss(levelMinimum) < 1e-18)
    }
  }
}
