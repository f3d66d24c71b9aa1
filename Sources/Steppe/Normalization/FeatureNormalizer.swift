/// A normalization of a data set's features (Mathematics §2): fitted on training data, applied to any rows with the same features.
///
/// ```swift
/// let standardizer = try FeatureStandardizer.fit(training)             // [N, features]
/// let x = standardizer.transform(test)                                 // mean 0, deviation 1 by the training data
/// try standardizer.save(to: "scaler.safetensors")
/// let model = Sequential<Float> {
///   standardizer.layer()                                               // or as the network's first layer
///   Dense(13, 64)
/// }
/// ```
///
/// ``FeatureStandardizer``, ``MinMaxScaler`` and ``Whitening`` conform.
public protocol FeatureNormalizer: Sendable {
  /// Number, mean, deviation and range of each feature that it was fitted on.
  var statistics: FeatureStatistics { get }
  /// What is done, by name.
  var method: FeatureMethod { get }
  /// The values that a row becomes.
  var outputCount: Int { get }
  /// Their names; empty where the features have none.
  var outputNames: [String] { get }

  /// Normalized rows, `[N, outputCount]`, of rows `[N, …]` whose other axes hold the features.
  func transform<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar>
  /// The rows `[N, features]` that become `[N, outputCount]`; what the normalization took away, as constant features, is at its mean.
  func inverseTransform<Scalar: TensorScalar>(_ y: Tensor<Scalar>) -> Tensor<Scalar>
  /// The normalization as the first layer of a network: without parameters, its numbers part of the network's checkpoint.
  func layer<Scalar: TensorScalar>(_ type: Scalar.Type) -> any Layer<Scalar>
  /// Writes it to a safetensors file with a checksum, which ``featureNormalizer(from:)`` reads.
  func save(to path: String) throws(FileError)
}

/// The normalizations of ``FeatureNormalizer``.
public enum FeatureMethod: String, Sendable, Hashable, CaseIterable {
  /// ``FeatureStandardizer``.
  case standardize
  /// ``MinMaxScaler``.
  case minmax
  /// ``Whitening`` along the principal components.
  case pca
  /// ``Whitening`` that stays as near to the features as it can.
  case zca
}

extension FeatureNormalizer {
  /// The number of features in a row.
  public var inputCount: Int { statistics.count }

  /// The normalization as the first layer of a network of `Float`, or of the type that its place asks for.
  public func layer<Scalar: TensorScalar>() -> any Layer<Scalar> { layer(Scalar.self) }

  /// Throws where rows of these features are not what it was fitted on.
  ///
  /// - Parameters:
  ///   - count: The number of features.
  ///   - names: Their names in order; empty where they have none, which fits any.
  ///   - inverse: Whether they are to be what the normalization makes.
  ///   - source: What the error names.
  /// - Throws: ``FileError`` of kind `mismatch` with what was expected and what came.
  public func check(
    features count: Int, names: [String] = [], inverse: Bool = false, source: String
  ) throws(FileError) {
    let (wanted, what) = inverse ? (outputCount, "makes") : (inputCount, "was fitted on")
    guard count == wanted else {
      throw FileError(
        path: source, kind: .mismatch, expected: "\(wanted) features, which the normalization \(what)",
        found: "\(count)")
    }
    let own = inverse ? outputNames : statistics.names
    guard !own.isEmpty, !names.isEmpty, let place = own.indices.first(where: { own[$0] != names[$0] }) else { return }
    throw FileError(
      path: source, kind: .mismatch,
      expected: "'\(own[place])' as column \(place), which the normalization \(what)",
      found: "'\(names[place])'")
  }
}

/// y = (x − shift)·scale + offset for each feature, in Double: the numbers of an affine normalization.
struct FeatureMap: Sendable, Equatable {
  /// The number that is subtracted first, which is exact near it.
  var shift: [Double]
  var scale: [Double]
  var offset: [Double]

  /// The map to and from one scalar type: a shift that the type cannot hold is rounded, and the rest goes into the offset.
  func rounded<Scalar: TensorScalar>(
    to _: Scalar.Type
  ) -> (shift: Tensor<Scalar>, scale: Tensor<Scalar>, offset: Tensor<Scalar>) {
    let near = shift.map { held(Scalar($0)) }
    let rest = shift.indices.map { held(Scalar(offset[$0] - (shift[$0] - Double(near[$0])) * scale[$0])) }
    return (Tensor(near), Tensor(scale.map { held(Scalar($0)) }), Tensor(rest))
  }

  /// A number of Double's in a narrower type, the largest one where it is beyond.
  private func held<Scalar: TensorScalar>(_ x: Scalar) -> Scalar {
    x.isFinite ? x : (x > 0 ? .greatestFiniteMagnitude : -.greatestFiniteMagnitude)
  }

  func callAsFunction<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
    let (shift, scale, offset) = rounded(to: Scalar.self)
    return scaledAndShifted(x, mean: shift, scale: scale, shift: offset, layout: .channelsLast)
  }
}
