import Reference
import Steppe
import Testing

/// Running statistics re-estimated over a data set (Mathematics §4).
@Suite struct StatisticsReestimationTests {
  /// Statistics of all rows in one go, compensated.
  private func population(_ x: [Double], columns: Int) -> (mean: [Double], variance: [Double]) {
    let index = ChannelIndex(n: x.count / columns, c: columns, s: 1, channelsLast: true)
    let ones = [Double](repeating: 1, count: columns)
    let (_, mean, variance) = batchNormForward(x, index, gamma: ones, beta: ones, epsilon: 1e-5)
    let m = Double(index.n)
    return (mean, variance.map { $0 * m / (m - 1) })
  }

  @Test func aFirstLayerGetsTheDataSetsHoweverItIsCut() throws {
    var generator = TestGenerator()
    let (rows, columns) = (1003, 5)
    let x: [Double] = generator.normals(rows * columns, mean: 1e5, deviation: 3)
    let features = Tensor(shape: [rows, columns], scalars: x)
    let data = try Dataset(features: features, labels: Array(repeating: 0, count: rows))
    let wanted = population(x, columns: columns)
    // A batch's mean of 1e5 is rounded by up to 1e-11, which moves a variance of 9 by up to 2·3·1e-11.
    // Each of up to 500 merges rounds the mean.
    let (bound, meanBound) = (1e-11, 1e-14)
    for batchSize in [2, 7, 256, 1003, 5000] {
      let norm = BatchNorm<Double>(columns)
      norm.batchesTracked = 3
      try norm.reestimateStatistics(on: data, batchSize: batchSize)
      BatchNormAccuracyTests.expectClose(norm.runningMean.scalars, wanted.mean, meanBound, "mean by \(batchSize)")
      BatchNormAccuracyTests.expectClose(norm.runningVariance.scalars, wanted.variance, bound, "\(batchSize)")
      #expect(norm.batchesTracked == 3)
    }
    let (renorm, simple) = (BatchRenorm<Double>(columns), MeanOnlyBatchNorm<Double>(columns))
    try renorm.reestimateStatistics(on: data, batchSize: 100)
    try simple.reestimateStatistics(on: data, batchSize: 100)
    BatchNormAccuracyTests.expectClose(renorm.runningMean.scalars, wanted.mean, meanBound, "renorm's mean")
    let deviations = wanted.variance.map { ($0 + 1e-5).squareRoot() }
    BatchNormAccuracyTests.expectClose(renorm.runningDeviation.scalars, deviations, bound, "renorm's deviation")
    BatchNormAccuracyTests.expectClose(simple.runningMean.scalars, wanted.mean, meanBound, "mean-only's mean")
  }

  /// One batch through a network: what a layer that takes each batch whole would keep.
  @Test func everyLayerOfANetwork() throws {
    func network(momentum: Double) -> Sequential<Double> {
      Sequential(seed: 3) {
        Dense(4, 6)
        BatchNorm(6, momentum: momentum)
        ReLU()
        Dropout(0.5)
        Residual {
          Dense(6, 6)
          BatchNorm(6, momentum: momentum)
        }
        BatchNorm(6, momentum: momentum)
      }
    }
    var generator = RandomGenerator(seed: 8)
    let x = Tensor<Double>.randomNormal(shape: [40, 4], using: &generator)
    let (whole, model) = (network(momentum: 1), network(momentum: 0.1))
    let before = model.randomGenerators
    _ = whole.forward(x)
    try model.reestimateStatistics(over: [x])
    #expect(model.randomGenerators == before)
    for (a, b) in zip(whole.state, model.state) where a.key.contains("running") {
      guard case .tensor(let wanted) = a.get(), case .tensor(let found) = b.get() else {
        Issue.record("\(a.key) is no tensor")
        continue
      }
      #expect((wanted - found).absolute().max() < 1e-13, "\(a.key)")
    }
    #expect(!model.parameters.contains { $0.hasGradient })
  }

  /// Batch renorm's corrections lead to the averages that are replaced: what it passes on meanwhile must not depend on them.
  @Test func renormPassesOnWhatItsNewStatisticsGive() throws {
    func network(_ norm: () -> any Layer<Double>) -> Sequential<Double> {
      Sequential([Dense<Double>(4, 6, seed: 1), norm(), ReLU<Double>(), Dense<Double>(6, 6, seed: 2), norm()])
    }
    var generator = RandomGenerator(seed: 8)
    let x = Tensor<Double>.randomNormal(shape: [40, 4], mean: 3, using: &generator)
    let renorm = network { BatchRenorm<Double>(6, limits: .constant(r: 3, d: 5)) }
    let norm = network { BatchNorm<Double>(6) }
    #expect((renorm.forward(x).output - norm.forward(x).output).absolute().max() > 0.1)
    for model in [renorm, norm] { try model.reestimateStatistics(over: [x]) }
    #expect((renorm(x) - norm(x)).absolute().max() < 1e-12)
  }

  @Test func whatIsWrongThrowsAndChangesNothing() throws {
    let model = Sequential<Float> {
      BatchNorm(2)
      BatchNorm(2)
    }
    (model.layers[1] as? BatchNorm<Float>)?.isFrozen = true
    let before = model.state.map { $0.get() }
    let good = Tensor<Float>([[1, 2], [3, 4]])
    let none = try #require(throws: LayerError.self) { try model.reestimateStatistics(over: []) }
    #expect(none.layer == "BatchNorm '0'" && none.found == "none")
    let spoiled = try #require(throws: LayerError.self) {
      try model.reestimateStatistics(over: [good, Tensor([[1, .nan], [3, 4]])])
    }
    #expect(spoiled.expected == "finite statistics")
    #expect(throws: LayerError.self) { try model.reestimateStatistics(over: [good, .ones(shape: [1, 2])]) }
    #expect(throws: LayerError.self) { try model.reestimateStatistics(over: [good, .ones(shape: [2, 3])]) }
    #expect(model.state.map { $0.get() } == before)
    try model.reestimateStatistics(over: [good])
    #expect(model.state[2].get() == .tensor(Tensor([2, 3])))
    #expect(model.state[7].get() == before[7], "the second is frozen")
  }

  @Test func partsMergeInAnyOrder() {
    let parts: [[Double]] = [[1, 2, 3], [10, 20], [-5, 7, 9, 11]]
    var (forwards, backwards) = (ChannelPopulation(channels: 1), ChannelPopulation(channels: 1))
    func part(_ values: [Double]) -> ChannelPopulation {
      var result = ChannelPopulation(channels: 1)
      for value in values { result.merge(ChannelPopulation(count: 1, mean: [value], squares: [0])) }
      return result
    }
    for values in parts { forwards.merge(part(values)) }
    for values in parts.reversed() { backwards.merge(part(values)) }
    let wanted = population(parts.flatMap { $0 }, columns: 1)
    for found in [forwards, backwards] {
      #expect(found.count == 9 && abs(found.mean[0] - wanted.mean[0]) < 1e-14)
      #expect(abs(found.variance[0] - wanted.variance[0]) < 1e-12)
    }
  }
}
