import Reference
import Steppe
import SteppeExperiments
import Testing

@Suite struct LandscapeProbeTests {
  /// On a quadratic the gradient changes by sη·H·g, and the loss is known everywhere.
  @Test func aQuadraticsMeasuresAreInClosedForm() throws {
    var generator = TestGenerator()
    for _ in 0..<20 {
      let (a, b) = (generator.uniform(0.5...5), generator.uniform(0.5...5))
      let (u, v) = (generator.normal() + 4, generator.normal() + 4)
      let rate = generator.uniform(0.01...0.05)
      // L = ½(a·w₁² + b·w₂²)
      let (p, q) = ((2 * a).squareRoot(), (2 * b).squareRoot())
      let x = Tensor<Double>([[p, 0], [-p, 0], [0, q], [0, -q]])
      let layer = Dense<Double>(weight: Tensor([[u, v]]))
      let found = try #require(
        LandscapeProbe(layer).measure(rate: rate) {
          let (y, pullback) = layer.forward(x)
          let (error, gradient) = meanSquaredError(y, .zeros(shape: [4, 1]))
          pullback.accumulate(gradient * 0.5)
          return error / 2
        })
      func loss(_ factor: Double) -> Double {
        let (r, s) = (u * (1 - factor * rate * a), v * (1 - factor * rate * b))
        return (a * r * r + b * s * s) / 2
      }
      let gradient = (a * a * u * u + b * b * v * v).squareRoot()
      let bent = (a * a * a * a * u * u + b * b * b * b * v * v).squareRoot()
      let losses = [loss(0)] + LandscapeProbe<Double>.factors.map(loss)
      #expect(near(found.loss, losses[0]) && near(found.gradientNorm, gradient))
      #expect(near(found.losses.lowerBound, losses.min()!) && near(found.losses.upperBound, losses.max()!))
      #expect(near(found.gradientChanges.lowerBound, 0.5 * rate * bent))
      #expect(near(found.gradientChanges.upperBound, 4 * rate * bent))
      #expect(near(found.smoothness, bent / gradient))
      #expect(found.shifts.isEmpty)
      #expect(layer.weight.value == Tensor([[u, v]]) && !layer.weight.hasGradient)
    }
  }

  private func near(_ a: Double, _ b: Double) -> Bool { abs(a - b) <= 1e-9 * max(1, abs(b)) }

  /// L = ½(w₂·w₁·x − y)²: the upper weight's gradient before and after the lower one's step.
  @Test func covariateShiftOfTwoWeights() throws {
    let (x, y, lower, upper, rate) = (1.5, 0.7, 0.8, -1.2, 0.1)
    func gradientAbove(_ lower: Double) -> Double { (upper * lower * x - y) * lower * x }
    let stepped = lower - rate * (upper * lower * x - y) * upper * x
    let (before, after) = (gradientAbove(lower), gradientAbove(stepped))
    let found = try #require(measure(lower, upper, x, y, rate: rate, lowerMoves: true))
    #expect(found.shifts.count == 1)
    #expect(near(found.shifts[0].distance, abs(before - after)))
    #expect(near(found.shifts[0].cosine, before * after > 0 ? 1 : -1))
  }

  @Test func thereIsNoShiftWhereLowerLayersStandStill() throws {
    let still = try #require(measure(0.8, -1.2, 1.5, 0.7, rate: 0.1, lowerMoves: false))
    #expect(still.shifts.isEmpty)
    let resting = try #require(measure(0.8, -1.2, 1.5, 0.7, rate: 0, lowerMoves: true))
    #expect(resting.shifts.count == 1 && resting.shifts[0].distance == 0 && resting.shifts[0].cosine == 1)
    #expect(resting.gradientChanges == 0...0 && resting.losses.lowerBound == resting.losses.upperBound)
  }

  private func measure(
    _ lower: Double, _ upper: Double, _ x: Double, _ y: Double, rate: Double, lowerMoves: Bool
  ) -> LandscapeProbe<Double>.Measurement? {
    let first = Dense<Double>(weight: Tensor([[lower]]))
    first.weight.isTrainable = lowerMoves
    let model = Sequential<Double>([first, Dense(weight: Tensor([[upper]]))])
    return LandscapeProbe(model).measure(rate: rate) {
      let (output, pullback) = model.forward(Tensor([[x]]))
      let (error, gradient) = meanSquaredError(output, Tensor([[y]]))
      pullback.accumulate(gradient * 0.5)
      return error / 2
    }
  }

  /// Statistics, weights, generators and the next step are as if nobody had looked.
  @Test func leavesNoTrace() throws {
    func model() -> Sequential<Float> {
      Sequential(seed: 7) {
        Dense(6, 5)
        BatchNorm(5)
        ActivationNoise(seed: 3)
        ReLU()
        Dense(5, 3)
      }
    }
    var generator = RandomGenerator(seed: 5)
    let x = Tensor<Float>.randomNormal(shape: [16, 6], using: &generator)
    let labels = (0..<16).map { $0 % 3 }
    func loss(_ model: Sequential<Float>) -> Double {
      let (scores, pullback) = model.forward(x)
      let (loss, gradient) = softmaxCrossEntropy(scores, labels)
      pullback.accumulate(gradient)
      return Double(loss)
    }
    let (looked, plain) = (model(), model())
    let found = try #require(LandscapeProbe(looked).measure(rate: 0.1) { loss(looked) })
    // The noise of the next step is another, so that even the covariate shift of a small step is not small.
    #expect(found.shifts.allSatisfy { $0.distance > 0 })
    #expect(looked.randomGenerators == plain.randomGenerators)
    for (a, b) in zip(looked.state, plain.state) { #expect(a.get() == b.get(), "\(a.key)") }
    #expect(found.loss == loss(plain) && loss(looked) == found.loss)
    for (a, b) in zip(looked.parameters, plain.parameters) { #expect(a.gradient == b.gradient, "\(a.name)") }
  }

  @Test func whatIsNotFiniteIsNoMeasurement() {
    let layer = Dense<Double>(weight: Tensor([[1, 2]]))
    #expect(LandscapeProbe(layer).measure(rate: 0.1) { .nan } == nil)
    #expect(layer.weight.value == Tensor([[1, 2]]))
  }

  @Test func measuredStepsHoldBothEnds() {
    #expect(LandscapeExperiment.measuredSteps(20, 10) == Array(stride(from: 0, through: 20, by: 2)))
    #expect(LandscapeExperiment.measuredSteps(7, 2) == [0, 3, 7])
  }

  @Test func theDeepLinearNetworkIsLinearWithoutNormalization() {
    let model = LandscapeExperiment.linearModel(.none, .level, seed: 3)
    #expect(model.layers.count == LandscapeExperiment.linearLayers)
    var generator = RandomGenerator(seed: 2)
    let x = Tensor<Double>.randomNormal(shape: [4, 16], using: &generator)
    let y = Tensor<Double>.randomNormal(shape: [4, 16], using: &generator)
    let difference = model(x + y * 3) - model(x) - model(y) * 3
    #expect(difference.norm() < 1e-10 * model(x).norm() + 1e-12)
    #expect(
      LandscapeExperiment.linearModel(.batch, .steep, seed: 3).layers.count == 2 * LandscapeExperiment.linearLayers - 1)
  }
}
