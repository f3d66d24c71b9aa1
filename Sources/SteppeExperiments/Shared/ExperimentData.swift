import Steppe

/// The images that networks are trained and tested with, all pixels shifted and scaled to mean 0 and deviation 1 over the training
/// images.
public struct ExperimentData: Sendable {
  public let training: Dataset<Float>
  public let test: Dataset<Float>

  /// - Parameters:
  ///   - training: Images of shape `[rows, columns]` or `[channels, rows, columns]`, or plain rows of features.
  ///   - test: Images of the same shape; without them the last fifth of the training images is kept for that.
  /// - Throws: ``ExperimentError`` where the two do not suit each other, or there are too few to train with.
  public init(training: Dataset<Float>, test: Dataset<Float>?) throws(ExperimentError) {
    if let test {
      guard test.featureShape == training.featureShape else {
        throw ExperimentError(
          "test images", expected: "shape \(training.featureShape), as the training images have",
          found: "\(test.featureShape)")
      }
      guard test.classes <= training.classes else {
        throw ExperimentError(
          "test labels", expected: "\(training.classes) classes, as the training labels have", found: "\(test.classes)")
      }
    }
    let kept = training.count - training.count / 5
    let trained = test == nil ? training.subset(0..<kept) : training
    let tested = test ?? training.subset(kept..<training.count)
    guard trained.count >= Self.leastImages, tested.count > 0 else {
      throw ExperimentError(
        "training images", expected: "at least \(Self.leastImages) to train with and one to test with",
        found: "\(trained.count) and \(tested.count)")
    }
    let sample = trained.batch(rows: Array(0..<min(trained.count, 10_000))).features
    let deviation = Double(sample.standardDeviation())
    let (mean, scale) = (Double(sample.mean()), deviation > 0 ? deviation : 1)
    self.training = trained.standardized(mean: mean, deviation: scale)
    self.test = tested.standardized(mean: mean, deviation: scale)
  }

  /// The largest batch of an experiment.
  static let leastImages = 256

  /// Both sets as rows of features.
  var rows: ExperimentData {
    let shape = [training.featureShape.reduce(1, *)]
    return ExperimentData(training.withFeatureShape(shape), test.withFeatureShape(shape))
  }

  /// Both sets as images `[channels, rows, columns]`.
  ///
  /// - Throws: ``ExperimentError`` where they are no images, or smaller than `side` each way.
  func images(atLeast side: Int) throws(ExperimentError) -> ExperimentData {
    let shape = training.featureShape
    guard shape.count == 2 || shape.count == 3, shape.suffix(2).allSatisfy({ $0 >= side }) else {
      throw ExperimentError(
        "training images", expected: "images of at least \(side) × \(side) pixels, for a convolutional network",
        found: "shape \(shape)")
    }
    let whole = shape.count == 2 ? [1] + shape : shape
    return ExperimentData(training.withFeatureShape(whole), test.withFeatureShape(whole))
  }

  private init(_ training: Dataset<Float>, _ test: Dataset<Float>) {
    (self.training, self.test) = (training, test)
  }
}
