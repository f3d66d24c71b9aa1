import Testing

import Steppe

/// The tests of Sources/Steppe/Training and of the models' files.
@Suite struct TrainingTests {}

/// Two clouds of points around ±1.2 in each of the first two of `width` features.
func twoClasses<Scalar: TensorScalar>(
  _ count: Int, width: Int = 6, seed: UInt64 = 1, as _: Scalar.Type = Scalar.self
) -> Dataset<Scalar> {
  var generator = RandomGenerator(seed: seed)
  var features = Tensor<Scalar>.randomNormal(shape: [count, width], using: &generator).scalars
  let labels = (0..<count).map { _ in generator.index(below: 2) }
  for index in features.indices where index % width < 2 {
    features[index] += labels[index / width] == 1 ? 1.2 : -1.2
  }
  return try! Dataset(features: Tensor(shape: [count, width], scalars: features), labels: labels, classes: 2)
}

/// A network with batch norm and dropout.
func network(_ width: Int = 6, hidden: Int = 16, seed: UInt64 = 3) -> Sequential<Float> {
  Sequential(seed: seed) {
    Dense(width, hidden, bias: false)
    BatchNorm(hidden)
    ReLU()
    Dropout(0.2)
    Residual {
      Dense(hidden, hidden)
      Dropout(0.1)
      Tanh()
    }
    Dense(hidden, 2)
  }
}

/// Data that a test spoils on their way.
struct ChangedSource<Scalar: TensorScalar>: DataSource {
  let base: Dataset<Scalar>
  var classes = 2
  var count: Int { base.count }
  var featureShape: [Int] { base.featureShape }
  let change: (_ rows: [Int], inout Tensor<Scalar>, inout [Int]) throws -> Void

  func batch(rows: [Int]) throws -> (features: Tensor<Scalar>, labels: [Int]) {
    var (features, labels) = base.batch(rows: rows)
    try change(rows, &features, &labels)
    return (features, labels)
  }
}

/// Hands its input on, and from its `after`-th training call on NaN.
final class Poison: Layer {
  var name = ""
  var calls = 0
  let after: Int
  init(after: Int) { self.after = after }
  var inferenceSteps: [InferenceStep<Float>] { [] }
  func callAsFunction(_ input: Tensor<Float>) -> Tensor<Float> { input }
  func forward(_ input: Tensor<Float>) -> (output: Tensor<Float>, pullback: Pullback<Float>) {
    calls += 1
    return (calls > after ? input * .nan : input, Pullback(shape: input.shape) { dy, _ in dy })
  }
}

/// The bytes that `model.save` writes.
func savedBytes(_ model: some Layer<Float>, _ folder: TemporaryFolder) throws -> [UInt8] {
  try model.save(to: folder("saved"))
  return bytes(of: folder("saved"))
}

extension TrainingTests {
  @Suite struct LoopTests {
    @Test func aLoopByHandLearns() throws {
      let (training, test) = (twoClasses(400, as: Float.self), twoClasses(200, seed: 2, as: Float.self))
      let model = Sequential<Float>(seed: 1) {
        Dense(6, 16)
        BatchNorm(16)
        ReLU()
        Dense(16, 2)
      }
      let optimizer = SGD(model.parameters, learningRate: 0.1, momentum: 0.9)
      var sampler = BatchSampler(count: training.count, batchSize: 32, seed: 1)
      for _ in 1...5 {
        while let rows = sampler.next() {
          let (features, labels) = training.batch(rows: rows)
          let (logits, pullback) = model.forward(features)
          pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)
          optimizer.step()
        }
      }
      #expect(try evaluate(model, on: test).accuracy > 0.9)
    }

    @Test func theTrainerDoesWhatTheLoopDoes() throws {
      let training = twoClasses(100, as: Float.self)
      let (byHand, trained) = (network(), network())
      let optimizer = SGD(byHand.parameters, learningRate: 0.1, momentum: 0.9)
      var sampler = BatchSampler(count: training.count, batchSize: 16, seed: 5)
      for _ in 1...3 {
        while let rows = sampler.next() {
          let (features, labels) = training.batch(rows: rows)
          let (logits, pullback) = byHand.forward(features)
          pullback.accumulate(softmaxCrossEntropy(logits, labels, labelSmoothing: 0.1).gradient)
          optimizer.step()
        }
      }
      let trainer = Trainer(
        model: trained, optimizer: SGD(trained.parameters, learningRate: 0.1, momentum: 0.9),
        loss: .softmaxCrossEntropy(labelSmoothing: 0.1),
        configuration: TrainingConfiguration(epochs: 3, batchSize: 16, seed: 5))
      try trainer.fit(training: training)
      let folder = TemporaryFolder()
      #expect(try savedBytes(byHand, folder) == savedBytes(trained, folder))
    }

    @Test func theTrainerReportsWhatItDoes() throws {
      let (training, test) = (twoClasses(400, as: Float.self), twoClasses(150, seed: 2, as: Float.self))
      let model = network()
      let trainer = Trainer(
        model: model, optimizer: Adam(model.parameters),
        schedule: CosineDecay(initial: 0.02, final: 0, steps: 65),
        configuration: TrainingConfiguration(epochs: 5, batchSize: 32))
      trainer.configuration.progressInterval = 0
      var seen: [TrainingProgress] = []
      let report = try trainer.fit(training: training, validation: test) {
        seen.append($0)
        return .continue
      }
      #expect(report.outcome == .completed && report.step == 65 && trainer.step == 65)
      #expect(report.checkpoint == nil && report.bestModel == nil && report.bestEpoch != nil)
      #expect(report.history == trainer.history && report.history.map(\.epoch) == [1, 2, 3, 4, 5])
      #expect(seen.count == 65 + 5)
      #expect(seen.compactMap(\.record) == report.history)
      #expect(seen.allSatisfy { $0.totalSteps == 65 && $0.batchesPerEpoch == 13 && $0.epochs == 5 })
      #expect(seen.allSatisfy { $0.samplesPerSecond > 0 && $0.timeLeft >= 0 })
      #expect(seen.last?.timeLeft == 0 && seen.last?.batch == 13)
      #expect(seen[0].step == 1 && seen[0].epoch == 1 && seen[0].batch == 1 && seen[0].learningRate == 0.02)
      #expect(seen[13].record?.epoch == 1 && seen[14].epoch == 2 && seen[14].batch == 1)

      let result = try evaluate(model, on: test)
      let last = try #require(report.history.last)
      #expect(last.validationLoss == result.loss && last.validationAccuracy == result.accuracy)
      #expect(result.accuracy > 0.9)
      #expect(last.trainingLoss < report.history[0].trainingLoss && last.trainingAccuracy > 0.8)
      #expect(last.learningRate < 0.001 && last.seconds > 0)
    }

    @Test func progressIsRareAndEpochEndsAreAlwaysReported() throws {
      let model = network()
      let trainer = Trainer(
        model: model, optimizer: SGD(model.parameters), configuration: TrainingConfiguration(epochs: 3, batchSize: 10))
      trainer.configuration.progressInterval = 3600
      var reports = 0
      try trainer.fit(training: twoClasses(50, as: Float.self)) { progress in
        reports += 1
        #expect(progress.record?.epoch == reports)
        return .continue
      }
      #expect(reports == 3)
      // All epochs are done.
      #expect(try trainer.fit(training: twoClasses(50, as: Float.self)).step == 15)
    }

    @Test func learnsInDouble() throws {
      let training = twoClasses(200, as: Double.self)
      let model = Sequential<Double>(seed: 1) {
        Dense(6, 8)
        ReLU()
        Dense(8, 2)
      }
      let trainer = Trainer(
        model: model, optimizer: AdamW(model.parameters, learningRate: 0.02),
        configuration: TrainingConfiguration(epochs: 5, batchSize: 20))
      let report = try trainer.fit(training: training)
      #expect(report.history.last!.trainingAccuracy > 0.85)
    }

    @Test(arguments: TrainingConfiguration.MonitoredMetric.allCases)
    func stopsEarlyWithoutImprovement(metric: TrainingConfiguration.MonitoredMetric) throws {
      let (training, test) = (twoClasses(60, as: Float.self), twoClasses(40, seed: 2, as: Float.self))
      let model = Sequential<Float>(seed: 1) { Dense(6, 2) }
      // Without a rate nothing improves after the first epoch.
      let trainer = Trainer(
        model: model, optimizer: SGD(model.parameters, learningRate: 0),
        configuration: TrainingConfiguration(epochs: 50, batchSize: 20))
      trainer.configuration.patience = 3
      trainer.configuration.monitoredMetric = metric
      let report = try trainer.fit(training: training, validation: test)
      #expect(report.outcome == .stoppedEarly && report.history.count == 4 && report.bestEpoch == 1)
      // It stays stopped, until its patience is longer.
      #expect(try trainer.fit(training: training, validation: test).outcome == .stoppedEarly)
      trainer.configuration.patience = 5
      #expect(try trainer.fit(training: training, validation: test).history.count == 6)
    }

    @Test func anImprovementMustBeLargeEnough() throws {
      let (training, test) = (twoClasses(60, as: Float.self), twoClasses(40, seed: 2, as: Float.self))
      func epochs(_ minimum: Double) throws -> Int {
        let model = Sequential<Float>(seed: 1) { Dense(6, 2) }
        let trainer = Trainer(
          model: model, optimizer: SGD(model.parameters, learningRate: 0.01),
          configuration: TrainingConfiguration(epochs: 6, batchSize: 20))
        trainer.configuration.patience = 2
        trainer.configuration.minimumImprovement = minimum
        return try trainer.fit(training: training, validation: test).history.count
      }
      #expect(try epochs(0) == 6)
      #expect(try epochs(10) == 3)
    }
  }

  @Suite struct EvaluationTests {
    @Test func countsAsANaiveLoopDoes() throws {
      var generator = RandomGenerator(seed: 9)
      let (count, classes) = (137, 4)
      let scores = Tensor<Float>.randomNormal(shape: [count, classes], using: &generator)
      let labels = (0..<count).map { _ in generator.index(below: 3) }
      let data = try Dataset(features: scores, labels: labels, classes: 3)
      let result = try evaluate({ $0 }, on: data, batchSize: 10)

      var counts = Array(repeating: Array(repeating: 0, count: classes), count: classes)
      var loss = 0.0
      for row in 0..<count {
        let values = scores.row(row).scalars.map(Double.init)
        let prediction = values.indices.max { values[$0] < values[$1] }!
        counts[labels[row]][prediction] += 1
        loss -= values[labels[row]] - logSum(values)
      }
      #expect(result.confusion.counts == counts)
      #expect(abs(result.loss - loss / Double(count)) < 1e-6)
      let correct = (0..<classes).reduce(0) { $0 + counts[$1][$1] }
      #expect(result.accuracy == Double(correct) / Double(count))
      for label in 0..<3 {
        let (positive, given) = (Double(counts[label][label]), Double(counts.reduce(0) { $0 + $1[label] }))
        let actual = Double(counts[label].reduce(0, +))
        #expect(result.confusion.precision(of: label) == positive / given)
        #expect(result.confusion.recall(of: label) == positive / actual)
        let f1 = 2 * (positive / given) * (positive / actual) / (positive / given + positive / actual)
        #expect(abs(result.confusion.f1(of: label) - f1) < 1e-12)
      }
      #expect(result.confusion.recall(of: 3).isNaN)
    }

    private func logSum(_ values: [Double]) -> Double {
      var sum = 0.0
      for value in values { sum += Tensor(value).exp().scalar }
      return Tensor(sum).log().scalar
    }

    @Test func aFoldedModelCountsAlike() throws {
      let data = twoClasses(90, as: Float.self)
      let model = network()
      let (whole, folded) = (try evaluate(model, on: data), try evaluate(model.folded(), on: data, batchSize: 7))
      #expect(whole.confusion == folded.confusion && abs(whole.loss - folded.loss) < 1e-5)
    }

    @Test func printsATable() {
      var matrix = ConfusionMatrix(classes: 2)
      matrix.add(labels: [0, 0, 0, 1], predictions: [0, 0, 1, 0])
      #expect(
        matrix.description == """
           class     0     1 rec.% prec%  F1 %
               0     2     1  66.7  66.7  66.7
               1     1     0   0.0   0.0   0.0
          """)
      #expect(matrix.total == 4 && matrix.correct == 2 && matrix.accuracy == 0.5)
    }
  }
}
