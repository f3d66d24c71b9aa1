import Steppe

/// The examples of a run: what trains, what validates and what tests.
struct Examples {
  let training: any DataSource<Float>
  let validation: (any DataSource<Float>)?
  let test: (any DataSource<Float>)?
  /// The shape of one example as its file has it; the examples themselves are rows.
  let imageShape: [Int]
  /// What features are shifted and scaled by, to be kept with the model.
  let mean: Double
  let deviation: Double
  /// Of a table: all that it holds, and what becomes part of the model.
  var table: TableDataset<Float>?
  var standardizer: FeatureStandardizer?
  var target: FeatureStandardizer?

  /// What is made small: of a regression the mean squared error over the target's variance.
  var loss: TrainingLoss<Float> {
    guard let deviation = target?.statistics[0].deviation else { return .softmaxCrossEntropy() }
    return .meanSquaredError(scale: 1 / (deviation * deviation))
  }

  /// Reads the files that `configuration` names.
  static func read(_ configuration: RunConfiguration) throws -> Examples {
    if let table = configuration.data.table { return try Examples(table, configuration) }
    return try Examples(images: configuration)
  }

  private init(images configuration: RunConfiguration) throws {
    let stored = try configuration.data.trainingExamples(classes: configuration.classes)
    imageShape = stored.featureShape
    let all = stored.asRows
    let test = try configuration.data.testExamples(classes: all.classes)?.asRows
    if let test, test.featureShape != all.featureShape {
      throw Failure(
        "\(configuration.data.test?.images ?? "test images"): expected \(all.featureShape[0]) features in each example, "
          + "as the training images have, found \(test.featureShape[0])")
    }
    let (trained, validated) = try Self.split(all.count, configuration)
    (mean, deviation) = configuration.standardizes ? try Self.moments(of: all, rows: trained) : (0, 1)
    let prepared = all.standardized(mean: mean, deviation: deviation)
    self.test = test?.standardized(mean: mean, deviation: deviation)
    if validated.isEmpty {
      training = prepared
      validation = nil
    } else {
      training = Selection(base: prepared, rows: trained)
      validation = Selection(base: prepared, rows: validated)
    }
  }

  private init(_ selection: TableSelection, _ configuration: RunConfiguration) throws {
    let all = try selection.trainingExamples()
    let (trained, validated) = try Self.split(all.count, configuration)
    table = all
    imageShape = all.featureShape
    test = try selection.testExamples(like: all)
    (mean, deviation) = (0, 1)
    training = Selection(base: all, rows: trained)
    if validated.isEmpty { validation = nil } else { validation = Selection(base: all, rows: validated) }
    if configuration.standardizes {
      standardizer = try FeatureStandardizer.fit(
        all.batch(rows: trained).features, names: all.featureNames, source: selection.path)
    }
    if let targets = all.targets(rows: trained) {
      let target = try FeatureStandardizer.fit(targets, names: [all.targetName], source: selection.path)
      guard target.statistics[0].deviation > 0 else {
        throw Failure(
          "\(selection.path): expected a target '\(all.targetName)' that varies, found \(target.statistics[0].mean) in "
            + "each row")
      }
      self.target = target
    }
  }

  /// Which of `count` examples train, and which validate, drawn at random.
  private static func split(
    _ count: Int, _ configuration: RunConfiguration
  ) throws(Failure) -> (trained: [Int], validated: [Int]) {
    guard configuration.validationFraction > 0 else { return (Array(0..<count), []) }
    let validated = Int((configuration.validationFraction * Double(count)).rounded())
    guard validated >= 1, validated < count else {
      throw Failure(
        "--validation-fraction: expected at least one example to validate and one to train with, found \(validated) "
          + "and \(count - validated)")
    }
    // A stream that no epoch's order uses.
    var generator = RandomGenerator(seed: configuration.seed, stream: .max)
    let order = generator.permutation(count)
    return (order[validated...].sorted(), order[..<validated].sorted())
  }

  /// The mean and the deviation of all features together, merged block by block (Chan, Golub & LeVeque 1983). Where all are the same
  /// number the deviation is 1, so that they become 0.
  private static func moments(of examples: Dataset<Float>, rows: [Int]) throws(Failure) -> (
    mean: Double, deviation: Double
  ) {
    let height = max(1, (1 << 20) / max(1, examples.featureShape[0]))
    // Σ(x − mean)² over the `count` features so far
    var (count, mean, squares) = (0.0, 0.0, 0.0)
    for start in stride(from: 0, to: rows.count, by: height) {
      let block = examples.batch(rows: Array(rows[start..<min(rows.count, start + height)])).features
      guard block.count > 0 else { break }
      // Of the distances from a number near the mean, Float has digits where it has none left of the mean itself.
      let near = count == 0 ? block[0, 0] : Float(mean)
      let rest = block - near
      let size = Double(block.count)
      let distance = Double(near) - mean + Double(rest.mean())
      let share = size / (count + size)
      mean += distance * share
      squares += Double(rest.variance()) * size + distance * distance * count * share
      count += size
    }
    let deviation = (squares / max(count, 1)).squareRoot()
    guard mean.isFinite, deviation.isFinite else {
      throw Failure(
        "training images: expected features whose squares are finite in single precision, found larger ones")
    }
    return (mean, deviation > 0 ? deviation : 1)
  }
}

/// Some examples of a data set.
private struct Selection<Base: DataSource<Float>>: DataSource {
  let base: Base
  let rows: [Int]

  var count: Int { rows.count }
  var featureShape: [Int] { base.featureShape }
  var classes: Int { base.classes }

  func batch(rows: [Int]) throws -> (features: Tensor<Float>, labels: [Int]) {
    try base.batch(rows: rows.map { self.rows[$0] })
  }

  func targets(rows: [Int]) throws -> Tensor<Float>? { try base.targets(rows: rows.map { self.rows[$0] }) }
}
