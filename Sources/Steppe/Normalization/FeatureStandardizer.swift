/// Shifts and scales each feature to mean 0 and deviation 1: z = (x − μ)/σ (Mathematics §2).
///
/// ```swift
/// let standardizer = try FeatureStandardizer.fit(training)
/// let z = standardizer.transform(test)
/// ```
///
/// σ is the root of the biased variance, over n. A constant feature has σ = 0: it becomes 0, and stands among
/// ``FeatureStatistics/constantFeatures``. However large a mean is against its deviation, it costs no accuracy: the mean as the scalar type
/// holds it is subtracted first, which is exact for values near it, and what the type could not hold goes into an offset.
public struct FeatureStandardizer: FeatureNormalizer, Equatable {
  public let statistics: FeatureStatistics
  private let map: FeatureMap
  private let inverse: FeatureMap

  /// The standardization by `statistics`.
  ///
  /// - Throws: ``FileError`` of kind `empty` where there are no rows, `outOfRange` where squares of the values are beyond `Double`.
  public init(_ statistics: FeatureStatistics, source: String = "data set") throws(FileError) {
    try statistics.check(source: source, squares: true)
    self.statistics = statistics
    let features = statistics.features
    let means = features.map(\.mean)
    // The mean's own rounding to Double counts where the deviation is as small.
    let rests = zip(statistics.moments, features).map { moment, feature in
      feature.deviation > 0 ? -moment.mean.low / feature.deviation : 0
    }
    map = FeatureMap(shift: means, scale: features.map { $0.deviation > 0 ? 1 / $0.deviation : 0 }, offset: rests)
    inverse = FeatureMap(shift: means.map { _ in 0 }, scale: features.map(\.deviation), offset: means)
  }

  /// The standardization of rows `[N, …]` whose other axes hold the features.
  ///
  /// - Throws: ``FileError`` for NaN and infinity, named by row and column, and where there are no rows.
  public static func fit<Scalar: TensorScalar>(
    _ x: Tensor<Scalar>, names: [String] = [], source: String = "data set"
  ) throws(FileError) -> FeatureStandardizer {
    try FeatureStandardizer(featureStatistics(of: x, names: names, source: source), source: source)
  }

  public var method: FeatureMethod { .standardize }
  public var outputCount: Int { statistics.count }
  public var outputNames: [String] { statistics.names }

  public func transform<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
    map(x.reshaped([featureRows(of: x, inputCount, "FeatureStandardizer.transform"), inputCount]))
  }

  public func inverseTransform<Scalar: TensorScalar>(_ y: Tensor<Scalar>) -> Tensor<Scalar> {
    inverse(y.reshaped([featureRows(of: y, inputCount, "FeatureStandardizer.inverseTransform"), inputCount]))
  }

  public func layer<Scalar: TensorScalar>(_: Scalar.Type) -> any Layer<Scalar> { FeatureScaling<Scalar>(map) }

  /// What takes back as a layer, x = z·σ + μ: as a regression's last one it gives outputs in the target's own units.
  public func inverseLayer<Scalar: TensorScalar>(_: Scalar.Type = Scalar.self) -> FeatureScaling<Scalar> {
    FeatureScaling<Scalar>(inverse)
  }

  public func save(to path: String) throws(FileError) {
    try FeatureNormalizerFile.write(self, to: path)
  }
}

/// The statistics of rows in memory.
func featureStatistics<Scalar: TensorScalar>(
  of x: Tensor<Scalar>, names: [String], source: String
) throws(FileError) -> FeatureStatistics {
  let features = x.shape.dropFirst().reduce(1, *)
  guard x.rank >= 1, features > 0 else {
    throw FileError(
      path: source, kind: .mismatch, expected: "rows of at least one feature", found: "shape \(x.shape)")
  }
  var statistics = FeatureStatistics(features: features, names: names)
  try statistics.add(x, source: source)
  return statistics
}
