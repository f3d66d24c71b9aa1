import Reference
import Steppe
import Testing

/// What a batch norm keeps, refuses and folds to (SPEC §4); its numbers are in `BatchNormAccuracyTests`.
@Suite struct BatchNormTests {
  let x = Tensor<Double>([[1, 10], [2, 20], [3, 60]])

  @Test func momentumIsTheWeightOfTheNewBatch() {
    let layer = BatchNorm<Double>(2, momentum: 0.25)
    _ = layer.forward(x)
    // Means 2 and 30; unbiased variances 1 and 700.
    #expect(layer.runningMean == Tensor([0.5, 7.5]))
    #expect(layer.runningVariance == Tensor([1, 175.75]))
    _ = layer.forward(x + 4)
    #expect(layer.runningMean == Tensor([1.875, 14.125]))
    #expect(layer.batchesTracked == 2)
  }

  @Test func noMomentumAveragesAllBatchesAlike() {
    let layer = BatchNorm<Double>(2, momentum: nil)
    for shift in [0.0, 3, 9] { _ = layer.forward(x + shift) }
    #expect((layer.runningMean - Tensor([6, 34])).absolute().max() < 1e-14)
    #expect((layer.runningVariance - Tensor([1, 700])).absolute().max() < 1e-12)
  }

  @Test func evaluationIsTheSameForOneRowAsForMany() {
    let layer = BatchNorm<Double>(2)
    for _ in 0..<5 { _ = layer.forward(x) }
    let all = layer(x)
    for row in 0..<3 { #expect(layer(x[row...row]) == all[row...row]) }
    let (mean, variance) = (layer.runningMean, layer.runningVariance)
    let expected = (x - mean) / (variance + 1e-5).squareRoot()
    #expect((all - expected).absolute().max() < 1e-14)
    #expect(layer.batchesTracked == 5 && layer.runningMean == mean, "evaluation changes nothing")
  }

  @Test func withoutTrackingEvaluationUsesTheBatch() {
    let layer = BatchNorm<Double>(2, tracksRunningStatistics: false)
    let (output, _) = layer.forward(x)
    #expect(layer(x) == output && layer.folded()(x) == output)
    #expect(layer.runningMean == .zeros(shape: [2]) && layer.state.map(\.key) == ["weight", "bias"])
  }

  @Test func withoutAffineThereIsNothingToTrain() {
    let layer = BatchNorm<Double>(2, affine: false)
    let (output, pullback) = layer.forward(x)
    pullback(x)
    #expect(layer.parameters.isEmpty && !layer.gamma.hasGradient && !layer.beta.hasGradient)
    #expect(layer.state.map(\.key) == ["running_mean", "running_var", "num_batches_tracked"])
    #expect(output.mean(axis: 0).absolute().max() < 1e-15)
  }

  @Test func aFrozenLayerTrainsNothing() {
    let layer = BatchNorm<Double>(2)
    _ = layer.forward(x)
    layer.gamma.value = Tensor([2, 3])
    layer.isFrozen = true
    let before = layer.runningMean
    let (output, pullback) = layer.forward(x[0...0])
    #expect(output == layer(x[0...0]), "running statistics, also for a batch of one")
    let dx = pullback(Tensor([[1, 1]]))
    let expected = Tensor([2, 3]) / (layer.runningVariance + 1e-5).squareRoot()
    #expect((dx.flattened() - expected).absolute().max() < 1e-14)
    #expect(!layer.gamma.hasGradient && layer.runningMean == before && layer.batchesTracked == 1)
  }

  @Test(arguments: [Double.nan, .infinity, -.infinity])
  func aNonFiniteBatchLeavesTheRunningAverages(_ bad: Double) {
    let layer = BatchNorm<Double>(2)
    _ = layer.forward(x)
    let (mean, variance) = (layer.runningMean, layer.runningVariance)
    var spoiled = x
    spoiled[1, 1] = bad
    let (output, _) = layer.forward(spoiled)
    #expect(!output.isAllFinite() && output[0..., 0].isAllFinite(), "the other channel is untouched")
    #expect(layer.runningMean == mean && layer.runningVariance == variance)
    #expect(layer.skippedBatches == 1 && layer.batchesTracked == 1)
  }

  @Test func aBatchOfOneIsAnErrorThatNamesTheLayer() async throws {
    let model = Sequential<Float> {
      Dense(4, 3, bias: false)
      BatchNorm(3)
    }
    let error = try #require(throws: LayerError.self) { try model.outputShape(for: [1, 4], training: true) }
    #expect(error.layer == "BatchNorm '1'" && error.found == "[1, 3]")
    #expect(error.description.contains("more than one value per channel"))
    #expect(throws: Never.self) { try model.outputShape(for: [1, 4], training: false) }
    // One row with several positions has a variance.
    #expect(throws: Never.self) { try BatchNorm<Float>(3).outputShape(for: [1, 3, 2], training: true) }
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float> { BatchNorm(3) }.forward(.ones(shape: [1, 3]))
    }
    let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(message.contains("BatchNorm '0'") && message.contains("[1, 3]"))
  }

  @Test func aWrongChannelCountStopsWithBothShapes() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = BatchNorm<Float>(3)(.ones(shape: [2, 4, 5]))
    }
    let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(message.contains("[N, 3, …spatial]") && message.contains("[2, 4, 5]"))
  }

  @Test func anyNumberOfSpatialAxesInBothLayouts() {
    var generator = RandomGenerator(seed: 3)
    let x = Tensor<Double>.randomNormal(shape: [2, 3, 4, 5, 6], using: &generator)
    let first = BatchNorm<Double>(3)
    let last = BatchNorm<Double>(3, layout: .channelsLast)
    let flat = BatchNorm<Double>(3)
    let y = first.forward(x).output
    let z = last.forward(x.transposed([0, 2, 3, 4, 1])).output.transposed([0, 4, 1, 2, 3])
    #expect((y - z).absolute().max() < 1e-13)
    #expect((y.reshaped([2, 3, 120]) - flat.forward(x.reshaped([2, 3, 120])).output).absolute().max() < 1e-14)
  }

  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    for (shape, layout) in [
      ([5, 3], ChannelPlace.channelsFirst), ([3, 2, 4], .channelsFirst), ([3, 4, 2], .channelsLast),
    ] {
      let layer = BatchNorm<Double>(layout == .channelsFirst ? shape[1] : shape.last!, layout: layout)
      layer.gamma.value = Tensor(generator.normals(layer.channels, mean: 1, deviation: 0.5))
      checkGradients(layer, inputShape: shape, &generator)
    }
  }

  @Test func foldingBeforeAndAfterADenseLayerChangesNothing() {
    var generator = RandomGenerator(seed: 11)
    let model = Sequential<Double>(seed: 5) {
      BatchNorm(6)
      Dense(6, 8)
      BatchNorm(8)
      ReLU()
      Dense(8, 8, bias: false)
      BatchNorm(8, affine: false)
      Sigmoid()
      Residual {
        Dense(8, 8)
        BatchNorm(8)
        GELU()
      }
      Dropout(0.3)
      Dense(8, 3)
    }
    for _ in 0..<20 {
      _ = model.forward(.randomNormal(shape: [32, 6], mean: 3, standardDeviation: 2, using: &generator))
    }
    let folded = model.folded()
    let x = Tensor<Double>.randomNormal(shape: [9, 6], mean: 3, standardDeviation: 2, using: &generator)
    #expect((folded(x) - model(x)).absolute().max() < 1e-12)
    func holdsNormalization(_ steps: [InferenceStep<Double>]) -> Bool {
      steps.contains {
        if case .normalize = $0 { return true }
        if case .residual(let branch) = $0 { return holdsNormalization(branch) }
        return false
      }
    }
    #expect(!holdsNormalization(folded.steps) && folded.steps.count == 4)
  }
}
