/// Labelled examples, from which a training loop takes batches.
///
/// ``Dataset`` conforms; a type of yours may, to train on data that no file of a known format holds.
public protocol DataSource<Scalar> {
  /// The features' type.
  associatedtype Scalar: TensorScalar
  /// The number of examples.
  var count: Int { get }
  /// The shape of one example's features.
  var featureShape: [Int] { get }
  /// The number of classes: every label is in `0 ..< classes`.
  var classes: Int { get }
  /// The examples `rows`, in that order: features of shape `[rows.count] + featureShape`, and a label for each.
  ///
  /// Rows are in `0 ..< count` and may repeat.
  func batch(rows: [Int]) throws -> (features: Tensor<Scalar>, labels: [Int])
  /// The numbers that a regression's outputs shall be for the examples `rows`, `[rows.count, outputs]`; nil, the default, where examples
  /// have classes alone.
  func targets(rows: [Int]) throws -> Tensor<Scalar>?
}

extension DataSource {
  public func targets(rows: [Int]) throws -> Tensor<Scalar>? { nil }
}
