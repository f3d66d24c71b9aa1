/// What training makes small: a function of scores `[N, C]` and N labels, or of outputs and the numbers that they shall be.
public struct TrainingLoss<Scalar: TensorScalar> {
  /// Names the function and its settings; a run is resumed under the same name alone.
  public let name: String
  private let body: Body

  private enum Body {
    case labels((_ scores: Tensor<Scalar>, _ labels: [Int]) -> (loss: Scalar, gradient: Tensor<Scalar>))
    case targets((_ outputs: Tensor<Scalar>, _ targets: Tensor<Scalar>) -> (loss: Scalar, gradient: Tensor<Scalar>))
  }

  /// Whether outputs are compared with the data source's targets, as in a regression, and not with its labels.
  public var usesTargets: Bool { if case .targets = body { true } else { false } }

  /// A loss of one's own.
  ///
  /// - Parameters:
  ///   - name: Tells it, and its settings, apart from others.
  ///   - body: Returns the mean loss over the rows, and its gradient by the scores.
  public init(
    name: String,
    _ body: @escaping (_ scores: Tensor<Scalar>, _ labels: [Int]) -> (loss: Scalar, gradient: Tensor<Scalar>)
  ) {
    self.name = name
    self.body = .labels(body)
  }

  private init(name: String, body: Body) {
    self.name = name
    self.body = body
  }

  /// A loss of one's own for a regression: of outputs against the ``DataSource/targets(rows:)``, which have the same shape.
  public static func ofTargets(
    name: String,
    _ body: @escaping (_ outputs: Tensor<Scalar>, _ targets: Tensor<Scalar>) -> (loss: Scalar, gradient: Tensor<Scalar>)
  ) -> TrainingLoss { TrainingLoss(name: name, body: .targets(body)) }

  /// The mean loss over the rows, and its gradient by the scores.
  public func callAsFunction(_ scores: Tensor<Scalar>, _ labels: [Int]) -> (loss: Scalar, gradient: Tensor<Scalar>) {
    guard case .labels(let body) = body else { stop("TrainingLoss '\(name)': expected targets, got labels") }
    return body(scores, labels)
  }

  /// The loss of the examples `rows` of a data source that nobody vouches for.
  func callAsFunction(
    _ outputs: Tensor<Scalar>, _ labels: [Int], of data: any DataSource<Scalar>, rows: [Int]
  ) throws -> (loss: Scalar, gradient: Tensor<Scalar>) {
    guard case .targets(let body) = body else { return self(outputs, labels) }
    let targets = try data.targets(rows: rows)
    guard let targets, targets.shape == outputs.shape, targets.isAllFinite() else {
      throw TrainingError.invalidData(
        expected: "finite targets of the outputs' shape \(outputs.shape)",
        found: targets.map { $0.shape == outputs.shape ? "others" : "targets of shape \($0.shape)" } ?? "none")
    }
    return body(outputs, targets)
  }

  /// The mean of (p − t)² over the rows, times `scale`: with one over the targets' variance it is the share of it that is not explained.
  public static func meanSquaredError(scale: Double = 1) -> TrainingLoss {
    require(scale > 0 && scale.isFinite, "TrainingLoss: expected a positive scale, got \(scale)")
    return ofTargets(name: "mean squared error, scale \(scale)") { outputs, targets in
      let (loss, gradient) = Steppe.meanSquaredError(outputs, targets)
      return (loss * Scalar(scale), gradient * Scalar(scale))
    }
  }

  /// The cross-entropy of the labels under the softmax of the scores, with `labelSmoothing` in 0 … 1.
  public static func softmaxCrossEntropy(labelSmoothing: Double = 0) -> TrainingLoss {
    require(
      (0...1).contains(labelSmoothing), "TrainingLoss: expected label smoothing in 0 … 1, got \(labelSmoothing)")
    return TrainingLoss(name: "softmax cross-entropy, label smoothing \(labelSmoothing)") {
      Steppe.softmaxCrossEntropy($0, $1, labelSmoothing: Scalar(labelSmoothing))
    }
  }
}
