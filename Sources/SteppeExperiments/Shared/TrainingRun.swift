import Steppe

/// A network in training: its weights move by one batch at a time.
struct TrainingRun {
  let model: Sequential<Float>
  let optimizer: any Optimizer<Float>
  private let examples: Dataset<Float>
  private var sampler: BatchSampler

  /// A fresh network. All runs of a seed see the same batches in the same order.
  init(
    _ design: NetworkDesign, _ method: DescentMethod, rate: Double, batchSize: Int, on examples: Dataset<Float>,
    seed: UInt64
  ) {
    model = design.model(examples.featureShape, classes: examples.classes, seed: seed)
    optimizer = method.optimizer(model.parameters, rate: rate)
    self.examples = examples
    sampler = BatchSampler(count: examples.count, batchSize: batchSize, dropLast: true, seed: seed)
  }

  mutating func nextBatch() -> (features: Tensor<Float>, labels: [Int]) {
    // An epoch's end is no batch.
    let rows = sampler.next() ?? sampler.next()
    precondition(rows != nil, "TrainingRun: expected at least \(sampler.batchSize) examples, got \(examples.count)")
    return examples.batch(rows: rows!)
  }

  /// One step on the next batch, whose mean loss is returned.
  mutating func step() -> Double {
    let (features, labels) = nextBatch()
    let (scores, pullback) = model.forward(features)
    let (loss, gradient) = softmaxCrossEntropy(scores, labels)
    pullback.accumulate(gradient)
    optimizer.step()
    return Double(loss)
  }
}

/// A training whose way is kept: how right the network is along it.
package struct Training: Sendable {
  package var design: NetworkDesign
  package var optimizer: DescentMethod
  package var rate: Double
  package var batchSize: Int
  package var steps: Int
  /// How often on the way, at equal distances, the network is tested.
  package var records: Int
  /// The test images that it is then tested with.
  package var testImages: Int
  package var seed: UInt64
  /// What else is looked at then, by the names of the columns for it.
  var probe: Probe?

  struct Probe: Sendable {
    let columns: [String]
    let measure: @Sendable (Sequential<Float>, ExperimentData) -> [Double]
  }

  package init(
    design: NetworkDesign, optimizer: DescentMethod = .momentum, rate: Double, batchSize: Int, steps: Int, records: Int,
    testImages: Int, seed: UInt64
  ) {
    (self.design, self.optimizer, self.rate, self.batchSize) = (design, optimizer, rate, batchSize)
    (self.steps, self.records, self.testImages, self.seed) = (steps, records, testImages, seed)
  }

  /// The way as a table: steps, the mean loss of the training batches since the last record, the accuracy on the test images. Where the loss
  /// or a weight is no longer finite, training has diverged: the last record's numbers are then NaN.
  package func table(on data: ExperimentData, progress: (Double) throws -> Void) throws -> ExperimentTable {
    let data = try design.data(data)
    var run = TrainingRun(design, optimizer, rate: rate, batchSize: batchSize, on: data.training, seed: seed)
    let test = data.test.subset(0..<min(testImages, data.test.count))
    var table = ExperimentTable(columns: ["step", "loss", "accuracy"] + (probe?.columns ?? []))
    var done = 0
    for record in 1...records {
      let end = steps * record / records
      guard end > done else { continue }
      var (sum, count) = (0.0, end - done)
      while done < end {
        sum += run.step()
        done += 1
        if !sum.isFinite {
          count = 0
          break
        }
        if done % 16 == 0 { try progress(Double(done) / Double(steps)) }
      }
      guard count > 0, run.model.parameters.allSatisfy({ $0.value.isAllFinite() }) else {
        table.append([done] + [Double](repeating: .nan, count: table.columns.count - 1))
        break
      }
      let accuracy = try evaluate(run.model, on: test).accuracy
      table.append([done, sum / Double(count), accuracy] + (probe?.measure(run.model, data) ?? []))
      try progress(Double(done) / Double(steps))
    }
    return table
  }

  func cost(_ data: ExperimentData) -> Double {
    let testing = 0.4 * design.stepCost(data.training.featureShape, batchSize: min(testImages, data.test.count))
    return Double(steps) * design.stepCost(data.training.featureShape, batchSize: batchSize) + Double(records) * testing
  }
}
