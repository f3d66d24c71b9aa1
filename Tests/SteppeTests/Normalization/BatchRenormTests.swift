import Reference
import Steppe
import Testing

/// Batch renormalization (Mathematics §5) and mean-only batch norm (Mathematics §9).
@Suite struct BatchRenormTests {
  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test func randomShapes() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "renorm \(name) \(testSeed)", to: "renormShapes")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "renormShapes")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        for round in 0..<40 {
          let index = BatchNormAccuracyTests.randomIndex(&generator, round: round)
          for threads in 1...3 {
            Parallel.withThreadCount(threads) {
              Self.check(Float.self, index, mean: 0, deviation: 1, &generator)
              Self.check(Double.self, index, mean: 0, deviation: 1, &generator)
            }
          }
        }
        for (mean, deviation) in [(1e4, 1.0), (1e6, 1), (1, 1e-3), (-1e4, 1)] {
          for index in BatchNormAccuracyTests.schedules {
            Self.check(Float.self, index, mean: mean, deviation: deviation, &generator)
          }
        }
      }
    }
  }

  private static func shape(_ index: ChannelIndex) -> [Int] {
    if index.s == 1 { return [index.n, index.c] }
    return index.channelsLast ? [index.n, index.s, index.c] : [index.n, index.c, index.s]
  }

  static func check<Scalar: TensorScalar>(
    _ type: Scalar.Type, _ index: ChannelIndex, mean: Double, deviation: Double, _ generator: inout TestGenerator
  ) {
    let count = index.n * index.c * index.s
    let x: [Scalar] = generator.normals(count, mean: mean, deviation: deviation)
    let dy: [Scalar] = generator.normals(count)
    let gamma: [Scalar] = generator.normals(index.c, mean: 1, deviation: 0.3)
    let beta: [Scalar] = generator.normals(index.c)
    // Some channels within the limits and some beyond them.
    let runningMean: [Scalar] = generator.normals(index.c, mean: mean, deviation: deviation)
    let runningDeviation = (0..<index.c).map { _ in Scalar(deviation * generator.uniform(0.4...3)) }
    let layout: ChannelPlace = index.channelsLast ? .channelsLast : .channelsFirst
    let layer = BatchRenorm<Scalar>(index.c, limits: .constant(r: 1.5, d: 0.7), layout: layout)
    layer.gamma.value = Tensor(gamma)
    layer.beta.value = Tensor(beta)
    layer.runningMean = Tensor(runningMean)
    layer.runningDeviation = Tensor(runningDeviation)
    let (output, pullback) = layer.forward(Tensor(shape: shape(index), scalars: x))
    let dx = pullback(Tensor(shape: shape(index), scalars: dy))

    let (x64, dy64, gamma64) = (x.map { Double($0) }, dy.map { Double($0) }, gamma.map { Double($0) })
    let settings = RenormSettings(
      runningMean: runningMean.map { Double($0) }, runningDeviation: runningDeviation.map { Double($0) }, rMax: 1.5,
      dMax: 0.7, epsilon: 1e-5)
    let forward = batchRenormForward(x64, index, gamma: gamma64, beta: beta.map { Double($0) }, settings)
    let backward = batchRenormBackward(x64, dy: dy64, index, gamma: gamma64, settings)
    let bound = BatchNormAccuracyTests.bound * Double(Scalar.ulpOfOne) / Double(Float.ulpOfOne)
    let own = Scalar.self == Double.self ? 16 * abs(mean) * Double.ulpOfOne / max(deviation, 3e-3) : 0
    let label = "\(Scalar.self) \(index) mean \(mean) deviation \(deviation)"
    func close(_ a: [Scalar], _ b: [Double], _ bound: Double, _ what: String) {
      BatchNormAccuracyTests.expectClose(a, b, bound, "\(label): \(what)")
    }
    close(output.scalars, forward.y, bound + own, "y")
    let scales = (0..<count).map { place in
      let channel = index.channelsLast || index.s == 1 ? place % index.c : place / index.s % index.c
      return abs(gamma64[channel]) * forward.r[channel] / forward.deviation[channel]
    }
    close(
      zip(dx.scalars, scales).map { Scalar(Double($0) / $1) }, zip(backward.dx, scales).map { $0 / $1 }, bound + own,
      "dx")
    let m = Double(index.n * index.s)
    close(layer.gamma.gradient.scalars, backward.dGamma, 2 * (bound + own) * m.squareRoot() + own * m, "dγ")
    close(layer.beta.gradient.scalars, backward.dBeta, bound * m.squareRoot(), "dβ")
    let blended = zip(settings.runningMean, forward.mean).map { 0.99 * $0 + 0.01 * $1 }
    close(layer.runningMean.scalars, blended, bound, "running mean")
    let deviations = zip(settings.runningDeviation, forward.deviation).map { 0.99 * $0 + 0.01 * $1 }
    close(layer.runningDeviation.scalars, deviations, bound + own, "running deviation")

    let simple = MeanOnlyBatchNorm<Scalar>(index.c, layout: layout)
    simple.bias.value = Tensor(beta)
    let (centred, simplePullback) = simple.forward(Tensor(shape: shape(index), scalars: x))
    let simpleDx = simplePullback(Tensor(shape: shape(index), scalars: dy))
    let wanted = meanOnlyBatchNorm(x64, dy: dy64, index, bias: beta.map { Double($0) })
    close(centred.scalars, wanted.y, bound + own, "mean-only y")
    close(simpleDx.scalars, wanted.dx, bound, "mean-only dx")
    close(simple.bias.gradient.scalars, wanted.dBias, bound * m.squareRoot(), "mean-only db")
    close(simple.runningMean.scalars, wanted.mean.map { 0.1 * $0 }, bound, "mean-only running mean")
  }

  /// r = 1 and d = 0 leave batch norm, to the last bit.
  @Test func withoutCorrectionItIsBatchNorm() {
    var generator = TestGenerator()
    for index in BatchNormAccuracyTests.schedules {
      let layout: ChannelPlace = index.channelsLast ? .channelsLast : .channelsFirst
      let (renorm, norm) = (BatchRenorm<Float>(index.c, layout: layout), BatchNorm<Float>(index.c, layout: layout))
      let gamma: [Float] = generator.normals(index.c, mean: 1)
      for parameter in [renorm.gamma, norm.gamma, renorm.beta, norm.beta] { parameter.value = Tensor(gamma) }
      renorm.runningMean = Tensor(repeating: 4, shape: [index.c])
      let x = Tensor<Float>(shape: Self.shape(index), scalars: generator.normals(index.n * index.c * index.s, mean: 3))
      let ((y, back), (z, normBack)) = (renorm.forward(x), norm.forward(x))
      #expect(y == z && back(x) == normBack(x))
      #expect(renorm.gamma.gradient == norm.gamma.gradient && renorm.beta.gradient == norm.beta.gradient)
    }
  }

  /// Without limits training computes what evaluation does.
  @Test func withoutLimitsItIsEvaluation() {
    var generator = TestGenerator()
    let layer = BatchRenorm<Double>(3, limits: .constant(r: 1e6, d: 1e6))
    layer.runningMean = Tensor(generator.normals(3))
    layer.runningDeviation = Tensor([0.5, 2, 3])
    let x = Tensor<Double>(shape: [7, 3, 2], scalars: generator.normals(42))
    let evaluated = layer(x)
    #expect((layer.forward(x).output - evaluated).absolute().max() < 1e-13)
    layer.isFrozen = true
    let mean = layer.runningMean
    let (frozen, pullback) = layer.forward(x)
    #expect(frozen == layer(x) && layer.runningMean == mean)
    let slope = layer.gamma.value / layer.runningDeviation
    #expect((pullback(.ones(shape: [7, 3, 2])) - slope.reshaped([1, 3, 1])).absolute().max() < 1e-15)
    #expect(!layer.gamma.hasGradient)
  }

  @Test func limitsAreThePapers() {
    let paper = RenormLimits.paper
    #expect(paper(after: 0) == (1, 0) && paper(after: 5000) == (1, 0))
    #expect(paper(after: 15_000).d == 2.5 && paper(after: 22_500).r == 2)
    #expect(paper(after: 25_000).d == 5 && paper(after: 40_000) == (3, 5) && paper(after: 1 << 40) == (3, 5))
  }

  /// r and d are constants to the gradient: where the limits hold them, they are so for central differences too.
  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    for (shape, layout) in [
      ([5, 3], ChannelPlace.channelsFirst), ([3, 2, 4], .channelsFirst), ([3, 4, 2], .channelsLast),
    ] {
      let layer = BatchRenorm<Double>(
        layout == .channelsFirst ? shape[1] : shape.last!, momentum: 0, limits: .constant(r: 1.25, d: 0.5),
        layout: layout)
      layer.gamma.value = Tensor(generator.normals(layer.channels, mean: 1, deviation: 0.5))
      layer.runningMean = Tensor(repeating: -40, shape: [layer.channels])
      layer.runningDeviation = Tensor(repeating: 0.01, shape: [layer.channels])
      checkGradients(layer, inputShape: shape, &generator)
      checkGradients(MeanOnlyBatchNorm<Double>(layer.channels, layout: layout), inputShape: shape, &generator)
    }
  }

  @Test func aSpoiledBatchLeavesTheAverages() {
    let x = Tensor<Float>([[1, 2], [.nan, 5], [3, 4]])
    let layer = BatchRenorm<Float>(2)
    let (mean, deviation) = (layer.runningMean, layer.runningDeviation)
    let output = layer.forward(x).output
    #expect(!output.isAllFinite() && output[0..., 1].isAllFinite())
    #expect(layer.runningMean == mean && layer.runningDeviation == deviation)
    #expect(layer.skippedBatches == 1 && layer.batchesTracked == 0)
    let simple = MeanOnlyBatchNorm<Float>(2)
    #expect(!simple.forward(x).output.isAllFinite() && simple.skippedBatches == 1 && simple.runningMean == mean)
  }

  @Test func oneValuePerChannelIsAnErrorThatNamesTheLayer() throws {
    let model = Sequential<Float> {
      BatchRenorm(3)
      MeanOnlyBatchNorm(3)
    }
    let error = try #require(throws: LayerError.self) { try model.outputShape(for: [1, 3], training: true) }
    #expect(error.layer == "BatchRenorm '0'" && error.description.contains("more than one value per channel"))
    let second = try #require(throws: LayerError.self) {
      try model.layers[1].outputShape(for: [1, 3], training: true)
    }
    #expect(second.layer == "MeanOnlyBatchNorm '1'" && second.found == "[1, 3]")
    #expect(throws: Never.self) { try model.outputShape(for: [1, 3], training: false) }
    #expect(throws: LayerError.self) { try model.outputShape(for: [2, 4], training: true) }
  }

  @Test func foldsIntoTheDenseLayerAndGoesThroughAFile() throws {
    var generator = RandomGenerator(seed: 2)
    func network(_ seed: UInt64) -> Sequential<Double> {
      Sequential(seed: seed) {
        Dense(6, 5)
        BatchRenorm(5)
        ReLU()
        Dense(5, 4, bias: false)
        MeanOnlyBatchNorm(4)
      }
    }
    let model = network(1)
    for _ in 0..<20 { _ = model.forward(.randomNormal(shape: [16, 6], using: &generator)) }
    let x = Tensor<Double>.randomNormal(shape: [9, 6], using: &generator)
    #expect(model.folded().steps.count == 2)
    #expect((model.folded()(x) - model(x)).absolute().max() < 1e-12)
    let folder = TemporaryFolder()
    try model.save(to: folder("model"))
    let other = network(2)
    try other.load(from: folder("model"))
    #expect(other(x) == model(x) && other.forward(x).output == model.forward(x).output)
    #expect(
      other.layers[1].state.map(\.key) == ["weight", "bias", "running_mean", "running_std", "num_batches_tracked"])
    #expect(other.layers[4].state.map(\.key) == ["bias", "running_mean", "num_batches_tracked"])
  }
}
