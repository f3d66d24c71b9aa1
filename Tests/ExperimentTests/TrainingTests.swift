import Reference
import Steppe
import SteppeExperiments
import Testing

@Suite struct ExperimentTrainingTests {
  /// Images of 8 × 8 with one bright half for each of two classes.
  private func data(count: Int = 320) throws -> ExperimentData {
    var generator = TestGenerator()
    let labels = (0..<count).map { $0 % 2 }
    let pixels = labels.flatMap { label in
      (0..<64).map { Float(($0 / 32 == label ? 1 : 0) + 0.3 * generator.normal()) }
    }
    let all = try Dataset<Float>(features: Tensor(shape: [count, 8, 8], scalars: pixels), labels: labels)
    return try ExperimentData(training: all, test: all.subset(0..<64))
  }

  @Test func percentilesAreThoseOfSortedArrays() {
    var generator = TestGenerator()
    for count in 1...40 {
      let values = (0..<count).map { _ in generator.normal() }
      let sorted = values.sorted()
      #expect(percentile(0, of: values) == sorted[0] && percentile(100, of: values) == sorted[count - 1])
      // At the places of the sorted values themselves, and half way between two of them.
      for index in 0..<count where count > 1 {
        let percent = 100 * Double(index) / Double(count - 1)
        #expect(abs(percentile(percent, of: values) - sorted[index]) < 1e-12)
        guard index + 1 < count else { continue }
        let between = percentile(100 * (Double(index) + 0.5) / Double(count - 1), of: values)
        #expect(abs(between - (sorted[index] + sorted[index + 1]) / 2) < 1e-9)
      }
    }
    #expect(percentile(50, of: []).isNaN && median([3, 1, 2]) == 2 && median([4, 1, 2, 3]) == 2.5)
    #expect(Spread([]) == nil && Spread([2, 8, 3]) == Spread(2, 3, 8))
  }

  @Test func hiddenInputsAreThoseOfTheLastActivation() throws {
    let design = NetworkDesign(body: .dense([12, 11]), nonlinearity: .sigmoid)
    let model = design.model([64], classes: 2, seed: 4)
    let x = try data().training.withFeatureShape([64]).batch(rows: Array(0..<50)).features
    let found = HiddenInputs.percentiles(model, x)
    #expect(found.count == 3 * HiddenInputs.units)
    let inputs = model.layers[2](model.layers[1](model.layers[0](x)))
    for unit in 0..<HiddenInputs.units {
      let values = (0..<50).map { Double(inputs[$0, unit]) }
      for (index, percent) in HiddenInputs.percents.enumerated() {
        #expect(found[3 * unit + index] == percentile(percent, of: values))
      }
    }
    var table = ExperimentTable(
      columns: (0..<HiddenInputs.units).flatMap { unit in
        HiddenInputs.percents.map { HiddenInputs.column(unit, $0) }
      })
    for median in [0.0, 2, 1] {
      table.append((0..<HiddenInputs.units).flatMap { unit in [-1, median * Double(unit), 1] })
    }
    // Unit u's median goes 2u and back by u; the mean of 3u over ten units.
    #expect(HiddenInputs.way(table) { $0[1] } == 3 * 4.5 && HiddenInputs.way(table) { $0[2] - $0[0] } == 0)
  }

  @Test(arguments: [Normalization.none, .batch, .noisyBatch, .l1, .lInfinity, .batchRenorm, .group, .layer])
  func normalizationsStartFromTheSameWeights(normalization: Normalization) throws {
    for (body, shape) in [
      (NetworkDesign.Body.dense([8, 8]), [64]), (.convolutional(3, width: 4, halved: false), [1, 8, 8]),
    ] {
      let plain = NetworkDesign(body: body).model(shape, classes: 2, seed: 9)
      func weights(_ model: Sequential<Float>) -> [Tensor<Float>] {
        model.parameters.filter { $0.value.rank >= 2 }.map(\.value)
      }
      for place in [NetworkDesign.Place.before, .after] {
        let design = NetworkDesign(body: body, normalization: normalization, place: place)
        let model = design.model(shape, classes: 2, seed: 9)
        #expect(weights(model) == weights(plain))
        let layers = model.layers
        let activation = try #require(layers.firstIndex { $0 is ActivationLayer<Float> })
        let norm = layers.firstIndex { $0 is BatchNorm<Float> || $0 is GroupNorm<Float> || $0 is BatchRenorm<Float> }
        if let norm { #expect(place == .before ? norm < activation : norm > activation) }
        #expect(layers.contains { $0 is ActivationNoise<Float> } == (normalization == .noisyBatch))
        let images = try data().training.withFeatureShape(shape).batch(rows: Array(0..<8)).features
        #expect(model.forward(images).output.shape == [8, 2] && model(images).shape == [8, 2])
        // A bias is left out where the mean is subtracted right behind it.
        let first = layers.first { $0.parameters.contains { $0.value.rank >= 2 } }
        let isRedundant = place == .before && ![.none, .group, .layer].contains(normalization)
        #expect(first?.parameters.count == (isRedundant ? 1 : 2))
      }
    }
  }

  @Test func trainingsLearnAndRepeat() throws {
    let data = try data()
    let training = Training(
      design: NetworkDesign(body: .convolutional(3, width: 4, halved: false), normalization: .batch), rate: 0.05,
      batchSize: 16, steps: 40, records: 4, testImages: 64, seed: 3)
    let table = try training.table(on: data) { _ in }
    #expect(table.numbers("step") == [10, 20, 30, 40] && table.numbers("accuracy").last! > 0.9)
    #expect(try training.table(on: data) { _ in } == table)
  }

  @Test func divergenceIsKept() throws {
    let training = Training(
      design: NetworkDesign(body: .dense([8, 8])), rate: 1e20, batchSize: 16, steps: 40, records: 4, testImages: 64,
      seed: 3)
    let table = try training.table(on: try data()) { _ in }
    #expect(table.rows.count < 4 && table.numbers("loss").last!.isNaN && table.numbers("accuracy").last!.isNaN)
    let series = Chart("c", title: "", x: .init("x"), y: .init("y"), series: [])
    #expect(series.table.rows.isEmpty)
  }

  @Test func snapshotsBringBackAll() throws {
    let model = NetworkDesign(body: .dense([8]), normalization: .noisyBatch).model([64], classes: 2, seed: 1)
    let before = model.state.map { $0.get() }
    let snapshot = ModelSnapshot<Float>(model)
    let (features, labels) = try data().training.withFeatureShape([64]).batch(rows: Array(0..<32))
    let optimizer = SGD(model.parameters, learningRate: 0.1)
    let first = model.forward(features)
    first.pullback.accumulate(softmaxCrossEntropy(first.output, labels).gradient)
    optimizer.step()
    #expect(zip(model.state, before).contains { $0.get() != $1 })
    snapshot.restore()
    #expect(zip(model.state, before).allSatisfy { $0.get() == $1 })
    #expect(model.forward(features).output == first.output)
  }

  @Test func noiseHasTheStatedMoments() {
    // One channel's draws in each call: its mean and scale over calls, its jitter within one.
    let noise = ActivationNoise<Double>(seed: testSeed)
    let channels = 20_000
    let zeros = Tensor<Double>.zeros(shape: [2, channels])
    let shifts = noise.forward(zeros).output
    // Of mean 0 and variance (2·0.5)²/12 for the channel and (2·0.1)²/12 for the value.
    #expect(abs(shifts.mean()) < 0.01)
    #expect(abs(shifts.variance() - (1.0 / 12 + 0.04 / 12)) < 0.003)
    // Two values of a channel share its mean.
    let pair = shifts.row(0) - shifts.row(1)
    #expect(abs(pair.variance() - 2 * 0.04 / 12) < 0.0005)
    let factors = noise.forward(zeros + 1e6).output / 1e6
    #expect(abs(factors.mean() - 1.125) < 0.003 && abs(factors.variance() - (0.0625 / 12 + 0.01)) < 0.0006)
    #expect(noise.forward(zeros).output != noise.forward(zeros).output)
    #expect(noise(zeros) == zeros)
  }

  @Test func distancesOfRunningAveragesInClosedForm() {
    let truth = (mean: Tensor<Float>([1, -2]), variance: Tensor<Float>([4, 0.25]))
    let same = BatchSizeExperiment.distance([truth], [truth])
    #expect(same == (0, 0))
    // Means off by half a deviation and by two, deviations by factors of e and 1.
    let e2 = Float(Double.e * Double.e)
    let other = (mean: Tensor<Float>([2, -1]), variance: Tensor<Float>([4 * e2, 0.25]))
    let found = BatchSizeExperiment.distance([other], [truth])
    #expect(abs(found.mean - ((0.25 + 4) / 2).squareRoot()) < 1e-6)
    #expect(abs(found.deviation - (1.0 / 2).squareRoot()) < 1e-6)
  }

  @Test func dataThatDoNotSuit() throws {
    let few = try Dataset<Float>(features: .ones(shape: [40, 8, 8]), labels: Array(repeating: 1, count: 40))
    #expect(throws: ExperimentError.self) { try ExperimentData(training: few, test: nil) }
    let many = try Dataset<Float>(features: .ones(shape: [400, 8, 8]), labels: Array(repeating: 1, count: 400))
    let other = try Dataset<Float>(features: .ones(shape: [40, 9, 8]), labels: Array(repeating: 1, count: 40))
    #expect(throws: ExperimentError.self) { try ExperimentData(training: many, test: other) }
    let training = Training(
      design: NetworkDesign(body: .convolutional(3, width: 4, halved: true)), rate: 0.1, batchSize: 16, steps: 1,
      records: 1, testImages: 10, seed: 1)
    let small = try ExperimentData(training: many, test: nil)
    #expect(small.training.count == 320 && small.test.count == 80)
    let error = try #require(throws: ExperimentError.self) { try training.table(on: small) { _ in } }
    #expect(
      error.description == "training images: expected images of at least 16 × 16 pixels, for a convolutional network, "
        + "found shape [8, 8]")
  }
}

extension Double {
  fileprivate static let e = 2.718281828459045
}
