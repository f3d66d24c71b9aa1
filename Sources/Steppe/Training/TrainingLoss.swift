/// What training makes small: a function of scores `[N, C]` and N labels.
public struct TrainingLoss<Scalar: TensorScalar> {
  /// Names the function and its settings; a run is resumed under the same name alone.
  public let name: String
  private let body: (_ scores: Tensor<Scalar>, _ labels: [Int]) -> (loss: Scalar, gradient: Tensor<Scalar>)

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
    self.body = body
  }

  /// The mean loss over the rows, and its gradient by the scores.
  public func callAsFunction(_ scores: Tensor<Scalar>, _ labels: [Int]) -> (loss: Scalar, gradient: Tensor<Scalar>) {
    body(scores, labels)
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
