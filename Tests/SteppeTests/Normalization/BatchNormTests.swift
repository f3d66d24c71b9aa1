import Reference
import Steppe
import Testing

/// What a batch norm keeps, refuses and folds to (Mathematics §4); its numbers are in `BatchNormAccuracyTests`.
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
    let message = errorText(result)
    #expect(message.contains("BatchNorm '0'") && message.contains("[1, 3]"))
  }

  @Test func aWrongChannelCountStopsWithBothShapes() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = BatchNorm<Float>(3)(.ones(shape: [2, 4, 5]))
    }
    let message = errorText(result)
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
    #expect(!holdsNormalization(folded.steps) && folded.steps.count == 4)
  }

  private func holdsNormalization<Scalar>(_ steps: [InferenceStep<Scalar>]) -> Bool {
    steps.contains {
      if case .normalize = $0 { return true }
      if case .residual(let branch, _, _) = $0 { return holdsNormalization(branch) }
      return false
    }
  }

  /// Where a mean lies many deviations off zero, a product that it goes through rounds away what the batch norm is after.
  @Test(arguments: [0, 3, 7, 1e3, 1e6])
  func foldingIntoTheLayerAfterCostsNoAccuracy(_ mean: Double) {
    var generator = TestGenerator("\(#function) \(mean)")
    let (rows, inputs, outputs) = (40, 64, 8)
    let norm = BatchNorm<Float>(inputs)
    norm.gamma.value = Tensor(generator.normals(inputs, mean: 1, deviation: 0.2))
    norm.beta.value = Tensor(generator.normals(inputs))
    norm.runningMean = Tensor(generator.normals(inputs, mean: mean, deviation: 0.1))
    norm.runningVariance = Tensor((0..<inputs).map { _ in Float(generator.uniform(0.9...1.1)) })
    let dense = Dense<Float>(inputs, outputs, seed: 3)
    let x: [Float] = generator.normals(rows * inputs, mean: mean)
    let model = Sequential<Float>([norm, dense])
    let folded = model.folded()
    #expect(holdsNormalization(folded.steps) == (mean > 8))

    let y = folded(Tensor(shape: [rows, inputs], scalars: x)).scalars
    let (gamma, beta, w) = (norm.gamma.value.scalars, norm.beta.value.scalars, dense.weight.value.scalars)
    let (running, variance) = (norm.runningMean.scalars, norm.runningVariance.scalars)
    for row in 0..<rows {
      let z: [Double] = (0..<inputs).map { i in
        let deviation = (Double(variance[i]) + 1e-5).squareRoot()
        let normal = (Double(x[row * inputs + i]) - Double(running[i])) / deviation
        return normal * Double(gamma[i]) + Double(beta[i])
      }
      for output in 0..<outputs {
        let terms = (0..<inputs).map { z[$0] * Double(w[output * inputs + $0]) }
        let error = abs(Double(y[row * outputs + output]) - terms.reduce(0, +))
        #expect(error <= 4e-6 * terms.reduce(0) { $0 + abs($1) }, "mean \(mean), row \(row), output \(output)")
      }
    }
  }

  /// The product has the large mean in it already, folded or not; where the bias brings it, folding takes it out exactly.
  @Test(arguments: [true, false])
  func foldingIntoTheLayerBeforeCostsNoAccuracy(_ meanInBias: Bool) {
    var generator = TestGenerator("\(#function) \(meanInBias)")
    let (rows, inputs, outputs, mean) = (200, 64, 8, 1e6)
    let w: [Float] = generator.normals(outputs * inputs, deviation: 0.125)
    let b: [Float] = generator.normals(outputs, mean: meanInBias ? mean : 0)
    let x: [Float] = generator.normals(rows * inputs, mean: meanInBias ? 0 : mean)
    let norm = BatchNorm<Float>(outputs)
    norm.gamma.value = Tensor(generator.normals(outputs, mean: 1, deviation: 0.2))
    norm.runningMean = Tensor(
      (0..<outputs).map { output in
        let sum = w[output * inputs..<(output + 1) * inputs].reduce(0) { $0 + Double($1) }
        return Float(Double(b[output]) + (meanInBias ? 0 : mean * sum))
      })
    let model = Sequential<Float>([Dense(weight: Tensor(shape: [outputs, inputs], scalars: w), bias: Tensor(b)), norm])
    let folded = model.folded()
    #expect(!holdsNormalization(folded.steps))

    let input = Tensor(shape: [rows, inputs], scalars: x)
    let (plain, after) = (model(input).scalars, folded(input).scalars)
    let (gamma, running) = (norm.gamma.value.scalars, norm.runningMean.scalars)
    var (plainErrors, foldedErrors) = (0.0, 0.0)
    for row in 0..<rows {
      for output in 0..<outputs {
        var sum = Double(b[output]) - Double(running[output])
        for i in 0..<inputs { sum += Double(x[row * inputs + i]) * Double(w[output * inputs + i]) }
        let expected = sum * Double(gamma[output]) / (1 + 1e-5).squareRoot()
        plainErrors += (Double(plain[row * outputs + output]) - expected).squared
        foldedErrors += (Double(after[row * outputs + output]) - expected).squared
      }
    }
    let count = Double(rows * outputs)
    let (unfolded, found) = ((plainErrors / count).squareRoot(), (foldedErrors / count).squareRoot())
    #expect(found <= (meanInBias ? 1e-6 : 1.5 * unfolded), "root mean square \(found), unfolded \(unfolded)")
  }

  /// A batch norm over axis 1 beside a dense layer over the last: one axis in a matrix, two in anything larger.
  @Test func inputsWithMoreAxesGiveWhatTheModelGives() async {
    var generator = RandomGenerator(seed: 4)
    let x = Tensor<Double>.randomNormal(shape: [5, 4, 4], using: &generator)
    let model = Sequential<Double>(seed: 6) {
      BatchNorm(4)
      Dense(4, 4)
      BatchNorm(4)
      Tanh()
      Dense(4, 3)
    }
    for _ in 0..<20 {
      _ = model.forward(.randomNormal(shape: [32, 4], mean: 3, standardDeviation: 2, using: &generator))
    }
    let folded = model.folded()
    #expect(folded.steps.count == 2)
    #expect((folded(x) - model(x)).absolute().max() < 1e-14)
    #expect((folded(x[0]) - model(x[0])).absolute().max() < 1e-13)
    let last = Sequential<Double>(seed: 6) {
      Dense(4, 4)
      BatchNorm(4, layout: .channelsLast)
    }
    #expect((last.folded()(x) - last(x)).absolute().max() < 1e-14)
    // Neither takes axis 1 with another size than the channels'.
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let model = Sequential<Float> {
        Dense(4, 4)
        BatchNorm(4)
      }
      _ = model.folded()(.ones(shape: [5, 3, 4]))
    }
    let message = errorText(result)
    #expect(message.contains("expected 4 channels on axis 1") && message.contains("[5, 3, 4]"))
  }

  @Test func aFoldedBranchMustKeepTheShapeToo() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Residual<Float> { Dense(4, 1) }.folded()(.ones(shape: [2, 4]))
    }
    let message = errorText(result)
    #expect(message.contains("[2, 4]") && message.contains("[2, 1]"))
  }

  @Test func withoutTrackingABatchIsNeededFoldedAndFrozen() async {
    let channels = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = BatchNorm<Float>(3, tracksRunningStatistics: false).folded()(.ones(shape: [2, 4, 5]))
    }
    #expect(errorText(channels).contains("expected 3 channels on axis 1") && errorText(channels).contains("[2, 4, 5]"))
    let one = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = BatchNorm<Float>(3, tracksRunningStatistics: false).folded()(.ones(shape: [1, 3]))
    }
    #expect(errorText(one).contains("two values each") && errorText(one).contains("[1, 3]"))
    let frozen = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let layer = BatchNorm<Float>(3, tracksRunningStatistics: false)
      layer.isFrozen = true
      _ = layer.forward(.ones(shape: [1, 3]))
    }
    #expect(errorText(frozen).contains("more than one value per channel") && errorText(frozen).contains("[1, 3]"))
    let layer = BatchNorm<Double>(2, tracksRunningStatistics: false)
    layer.isFrozen = true
    let output = layer.forward(x).output
    #expect(output == layer(x) && output.mean(axis: 0).absolute().max() < 1e-15)
  }
}

extension Double {
  fileprivate var squared: Double { self * self }
}
