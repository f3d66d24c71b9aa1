import Steppe

/// The examples of a run: what trains, what validates and what tests.
struct Examples {
  let training: any DataSource<Float>
  let validation: (any DataSource<Float>)?
  let test: Dataset<Float>?
  /// The shape of one example as its file has it; the examples themselves are rows.
  let imageShape: [Int]
  /// What features are shifted and scaled by, to be kept with the model.
  let mean: Double
  let deviation: Double

  /// Reads the files that `configuration` names.
  init(_ configuration: RunConfiguration) throws {
    let stored = try configuration.data.trainingExamples(classes: configuration.classes)
    imageShape = stored.featureShape
    let all = stored.asRows
    let test = try configuration.data.testExamples(classes: all.classes)?.asRows
    if let test, test.featureShape != all.featureShape {
      throw Failure(
        "\(configuration.data.test?.images ?? "test images"): expected \(all.featureShape[0]) features in each example, "
          + "as the training images have, found \(test.featureShape[0])")
    }
    var (order, validated) = (Array(0..<all.count), 0)
    if configuration.validationFraction > 0 {
      validated = Int((configuration.validationFraction * Double(all.count)).rounded())
      guard validated >= 1, validated < all.count else {
        throw Failure(
          "--validation-fraction: expected at least one example to validate and one to train with, found \(validated) "
            + "and \(all.count - validated)")
      }
      // A stream that no epoch's order uses.
      var generator = RandomGenerator(seed: configuration.seed, stream: .max)
      order = generator.permutation(all.count)
    }
    let trained = order[validated...].sorted()
    (mean, deviation) = configuration.standardizes ? try Self.moments(of: all, rows: trained) : (0, 1)
    let prepared = all.standardized(mean: mean, deviation: deviation)
    self.test = test?.standardized(mean: mean, deviation: deviation)
    if validated > 0 {
      training = Selection(base: prepared, rows: trained)
      validation = Selection(base: prepared, rows: order[..<validated].sorted())
    } else {
      training = prepared
      validation = nil
    }
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
private struct Selection: DataSource {
  let base: Dataset<Float>
  let rows: [Int]

  var count: Int { rows.count }
  var featureShape: [Int] { base.featureShape }
  var classes: Int { base.classes }

  func batch(rows: [Int]) -> (features: Tensor<Float>, labels: [Int]) { base.batch(rows: rows.map { self.rows[$0] }) }
}
