import Reference
import Steppe
import Testing

/// Batch norm by ℓ₁ and ℓ∞, and the noise of "noisy" batch norm (Mathematics §12).
@Suite struct ChannelNormTests {
  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test func randomShapes() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "norms \(name) \(testSeed)", to: "channelNorms")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "channelNorms")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        for norm in [ChannelNorm.l1, .lInfinity] {
          for round in 0..<30 {
            let index = BatchNormAccuracyTests.randomIndex(&generator, round: round)
            for threads in 1...3 {
              Parallel.withThreadCount(threads) {
                Self.check(Float.self, index, norm, mean: 0, deviation: 1, &generator)
                Self.check(Double.self, index, norm, mean: 0, deviation: 1, &generator)
              }
            }
          }
          for (mean, deviation) in [(1e4, 1.0), (1, 1e-3)] {
            for index in BatchNormAccuracyTests.schedules {
              Self.check(Float.self, index, norm, mean: mean, deviation: deviation, &generator)
            }
          }
        }
      }
    }
  }

  static func check<Scalar: TensorScalar>(
    _ type: Scalar.Type, _ index: ChannelIndex, _ norm: ChannelNorm, mean: Double, deviation: Double,
    _ generator: inout TestGenerator
  ) {
    let count = index.n * index.c * index.s
    let x: [Scalar] = generator.normals(count, mean: mean, deviation: deviation)
    let dy: [Scalar] = generator.normals(count)
    let gamma: [Scalar] = generator.normals(index.c, mean: 1, deviation: 0.3)
    let beta: [Scalar] = generator.normals(index.c)
    let layer = BatchNorm<Scalar>(index.c, layout: index.channelsLast ? .channelsLast : .channelsFirst, norm: norm)
    layer.gamma.value = Tensor(gamma)
    layer.beta.value = Tensor(beta)
    let shape =
      index.s == 1
      ? [index.n, index.c] : index.channelsLast ? [index.n, index.s, index.c] : [index.n, index.c, index.s]
    let (output, pullback) = layer.forward(Tensor(shape: shape, scalars: x))
    let dx = pullback(Tensor(shape: shape, scalars: dy))
    let gamma64 = gamma.map { Double($0) }
    let wanted = normBatchNorm(
      x.map { Double($0) }, dy: dy.map { Double($0) }, index, greatest: norm == .lInfinity, gamma: gamma64,
      beta: beta.map { Double($0) }, epsilon: 1e-5)
    let bound = BatchNormAccuracyTests.bound * Double(Scalar.ulpOfOne) / Double(Float.ulpOfOne)
    // A sum of m absolute values in double, which no wider type takes up for Double's own, is off by about √m roundings.
    let m = Double(index.n * index.s)
    let own =
      Scalar.self == Double.self
      ? (16 * abs(mean) / max(deviation, 3e-3) + m.squareRoot() / 4) * Double.ulpOfOne : 0
    let label = "\(norm) \(Scalar.self) \(index) mean \(mean) deviation \(deviation)"
    func close(_ a: [Scalar], _ b: [Double], _ bound: Double, _ what: String) {
      BatchNormAccuracyTests.expectClose(a, b, bound, "\(label): \(what)")
    }
    close(output.scalars, wanted.y, bound + own, "y")
    // dx in units of γ·ρ; where one value has all of dγ, in units of that.
    let scales = (0..<count).map { place in
      let channel = index.channelsLast || index.s == 1 ? place % index.c : place / index.s % index.c
      return abs(gamma64[channel]) / (wanted.square[channel] + 1e-5).squareRoot()
    }
    close(
      zip(dx.scalars, scales).map { Scalar(Double($0) / $1) }, zip(wanted.dx, scales).map { $0 / $1 },
      (bound + own) * (norm == .lInfinity ? m.squareRoot() : 1), "dx")
    close(layer.gamma.gradient.scalars, wanted.dGamma, (bound + own) * m.squareRoot() + own * m, "dγ")
    close(layer.beta.gradient.scalars, wanted.dBeta, bound * m.squareRoot(), "dβ")
    close(layer.runningMean.scalars, wanted.mean.map { 0.1 * $0 }, bound, "running mean")
    close(layer.runningVariance.scalars, wanted.square.map { 0.9 + 0.1 * $0 }, bound + own, "running square")
  }

  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    for norm in [ChannelNorm.l1, .l2, .lInfinity] {
      for (shape, layout) in [
        ([5, 3], ChannelPlace.channelsFirst), ([3, 2, 4], .channelsFirst), ([3, 4, 2], .channelsLast),
      ] {
        let channels = layout == .channelsFirst ? shape[1] : shape.last!
        let layer = BatchNorm<Double>(channels, layout: layout, norm: norm)
        layer.gamma.value = Tensor(generator.normals(channels, mean: 1, deviation: 0.5))
        checkGradients(layer, inputShape: shape, &generator)
      }
    }
  }

  /// What a network fuses for ℓ₂ it runs one after another for other norms.
  @Test func networksRunThem() {
    // Always the same values: at some, a central difference steps over a kink of ReLU or of a norm.
    var generator = TestGenerator(fixed: "networksRunThem")
    for norm in [ChannelNorm.l1, .lInfinity] {
      let network = Sequential<Double>(seed: 4) {
        Dense(6, 5, bias: false)
        BatchNorm(5, norm: norm)
        ReLU()
        Residual {
          Dense(5, 5)
          BatchNorm(5, norm: norm)
        }
        ReLU()
        BatchNorm(5, norm: norm)
        ReLU()
      }
      let x = Tensor<Double>(shape: [9, 6], scalars: generator.normals(54))
      let (y, _) = network.forward(x)
      #expect(y == network.layers.reduce(x) { $1.forward($0).output })
      checkGradients(network, inputShape: [7, 6], &generator)
      #expect((network.folded()(x) - network(x)).absolute().max() < 1e-12)
      #expect(throws: LayerError.self) { try network.reestimateStatistics(over: [x]) }
    }
  }

  /// Values of the same greatest size share the gradient; a constant channel gives β.
  @Test func tiesAndConstants() {
    let layer = BatchNorm<Float>(1, norm: .lInfinity)
    let (y, pullback) = layer.forward(Tensor([[-1], [1], [0], [-1], [1]]))
    #expect((y.scalars[0] + 1).magnitude < 1e-5 && y.scalars[2] == 0)
    let dx = pullback(Tensor([[0], [1], [0], [0], [0]])).scalars
    // z = dy − dγ·sign/4 with dγ = 1, less its mean.
    let wanted: [Float] = [0.25, 0.75, 0, 0.25, -0.25].map { $0 - 0.2 }
    for (a, b) in zip(dx, wanted) { #expect(abs(a - b) < 1e-4) }
    for norm in [ChannelNorm.l1, .lInfinity] {
      let layer = BatchNorm<Float>(2, norm: norm)
      layer.beta.value = Tensor([1, 2])
      let (y, pullback) = layer.forward(Tensor(repeating: 3.7, shape: [5, 2]))
      #expect(y == Tensor<Float>([1, 2]).reshaped([1, 2]).broadcast(to: [5, 2]))
      #expect(pullback(.ones(shape: [5, 2])).absolute().max() <= 1e-3)
      let spoiled = layer.forward(Tensor([[1, 2], [.nan, 3], [4, 5]])).output
      #expect(!spoiled.isAllFinite() && spoiled[0..., 1].isAllFinite() && layer.skippedBatches == 1)
    }
  }

  @Test func noiseIsOfTheChannelsAndOfTheValues() {
    let layer = ActivationNoise<Double>(seed: 3)
    let x = Tensor<Double>.zeros(shape: [4000, 3])
    let (first, second) = (layer.forward(x).output, layer.forward(x).output)
    #expect(first != second && layer(x) == x)
    let (means, deviations) = (first.mean(axis: 0), first.standardDeviation(axis: 0))
    #expect(means.absolute().max() <= 0.6 && means.scalars[0] != means.scalars[1])
    // Uniform in ±0.1.
    #expect((deviations - 0.1 / 3.0.squareRoot()).absolute().max() < 2e-3)
    let ones = layer.forward(.ones(shape: [4000, 3])).output
    #expect(ones.mean(axis: 0).min() >= 0.45 && ones.mean(axis: 0).max() <= 1.8)
    var generator = TestGenerator()
    let start = layer.generator
    checkGradients(layer, inputShape: [4, 3, 2], &generator) { layer.generator = start }
    layer.generator = start
    let again = layer.forward(x).output
    layer.generator = start
    #expect(layer.forward(x).output == again)
    #expect(ActivationNoise<Double>(mean: 0, scale: 1, jitter: 0).forward(x).output == x)
    #expect(throws: LayerError.self) { try layer.outputShape(for: [3], training: true) }
  }
}
