/// What a model makes of labelled data.
public struct Evaluation: Sendable, Equatable {
  /// The mean loss over the examples.
  public let loss: Double
  /// How often examples of each class were given each class.
  public let confusion: ConfusionMatrix
  /// The share of the examples that were classified rightly.
  public var accuracy: Double { confusion.accuracy }
}

/// Runs `model` in evaluation over all of `data`, and counts.
///
/// - Parameters:
///   - model: Gives each example scores, `[N, C]`, the greatest of which is its class; C is at least the data's number of classes.
///   - data: What it is given, in order.
///   - batchSize: How many examples at a time, at least 1; the result does not depend on it up to rounding.
///   - loss: What is averaged over the examples.
/// - Throws: ``LayerError`` where the model can't take the features, ``TrainingError`` where data or scores are not as above, and
///   whatever `data` throws.
public func evaluate<Scalar: TensorScalar>(
  _ model: any Layer<Scalar>, on data: any DataSource<Scalar>, batchSize: Int = 1000,
  loss: TrainingLoss<Scalar> = .softmaxCrossEntropy()
) throws -> Evaluation {
  _ = try model.outputShape(for: [min(batchSize, data.count)] + data.featureShape, training: false)
  return try evaluate({ model($0) }, on: data, batchSize: batchSize, loss: loss)
}

/// Runs `model` over all of `data`, and counts, as for a ``Layer``.
public func evaluate<Scalar: TensorScalar>(
  _ model: FoldedModel<Scalar>, on data: any DataSource<Scalar>, batchSize: Int = 1000,
  loss: TrainingLoss<Scalar> = .softmaxCrossEntropy()
) throws -> Evaluation {
  try evaluate({ model($0) }, on: data, batchSize: batchSize, loss: loss)
}

/// Calls `scores` with all of `data`'s features, batch by batch, and counts, as for a ``Layer``.
public func evaluate<Scalar: TensorScalar>(
  _ scores: (_ features: Tensor<Scalar>) throws -> Tensor<Scalar>, on data: any DataSource<Scalar>,
  batchSize: Int = 1000, loss: TrainingLoss<Scalar> = .softmaxCrossEntropy()
) throws -> Evaluation {
  guard batchSize >= 1 else {
    throw TrainingError.invalidSetting(name: "batchSize", expected: "at least 1", found: "\(batchSize)")
  }
  guard data.count >= 1 else { throw TrainingError.invalidData(expected: "at least one example", found: "none") }
  let sums = try evaluationSums(scores, on: data, rows: 0..<data.count, batchSize: batchSize, loss: loss)
  return Evaluation(loss: sums.loss / Double(data.count), confusion: sums.confusion)
}

/// The sum of the losses of the examples `rows`, and their counts.
func evaluationSums<Scalar: TensorScalar>(
  _ scores: (_ features: Tensor<Scalar>) throws -> Tensor<Scalar>, on data: any DataSource<Scalar>, rows: Range<Int>,
  batchSize: Int, loss: TrainingLoss<Scalar>
) throws -> (loss: Double, confusion: ConfusionMatrix) {
  var confusion = ConfusionMatrix(classes: data.classes)
  var sum = 0.0
  for low in stride(from: rows.lowerBound, to: rows.upperBound, by: batchSize) {
    let batch = Array(low..<min(low + batchSize, rows.upperBound))
    let (features, labels) = try checkedBatch(of: data, rows: batch)
    let scores = try checkedScores(try scores(features), rows: batch.count, classes: data.classes)
    sum += Double(try loss(scores, labels, of: data, rows: batch).loss) * Double(batch.count)
    if confusion.classes < scores.shape[1] { confusion = confusion.widened(to: scores.shape[1]) }
    confusion.add(labels: labels, predictions: scores.argmaxOfRows())
  }
  return (sum, confusion)
}

/// The batch `rows` of a data source that nobody vouches for.
func checkedBatch<Scalar: TensorScalar>(
  of data: any DataSource<Scalar>, rows: [Int]
) throws -> (features: Tensor<Scalar>, labels: [Int]) {
  let (features, labels) = try data.batch(rows: rows)
  guard features.shape == [rows.count] + data.featureShape, labels.count == rows.count else {
    throw TrainingError.invalidData(
      expected: "a batch of shape \([rows.count] + data.featureShape) and \(rows.count) labels",
      found: "\(features.shape) and \(labels.count) labels")
  }
  if let index = labels.firstIndex(where: { !(0..<data.classes).contains($0) }) {
    throw TrainingError.invalidData(
      expected: "labels in 0 ..< \(data.classes)", found: "\(labels[index]) in row \(rows[index])")
  }
  return (features, labels)
}

/// A model's scores, which must be `[rows, C]` with C at least `classes`.
func checkedScores<Scalar: TensorScalar>(
  _ scores: Tensor<Scalar>, rows: Int, classes: Int
) throws(TrainingError) -> Tensor<Scalar> {
  guard scores.rank == 2, scores.shape[0] == rows, scores.shape[1] >= classes else {
    throw .invalidData(
      expected: "a model that gives scores of shape [\(rows), \(classes) or more], one for each class",
      found: "\(scores.shape)")
  }
  return scores
}
