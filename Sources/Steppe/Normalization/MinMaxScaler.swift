/// Shifts and scales each feature so that its range becomes 0 … 1, or another (Mathematics §2).
///
/// ```swift
/// let scaler = try MinMaxScaler.fit(training)
/// let y = scaler.transform(test)               // values beyond the training data's range leave 0 … 1
/// ```
///
/// A constant feature becomes 0, or in another range its lower bound.
public struct MinMaxScaler: FeatureNormalizer, Equatable {
  public let statistics: FeatureStatistics
  /// What the features' ranges become.
  public let range: ClosedRange<Double>
  private let map: FeatureMap
  private let inverse: FeatureMap

  /// The scaling by `statistics`.
  ///
  /// - Throws: ``FileError`` of kind `empty` where there are no rows, `outOfRange` where a range is beyond `Double`.
  public init(
    _ statistics: FeatureStatistics, range: ClosedRange<Double> = 0...1, source: String = "data set"
  ) throws(FileError) {
    require(
      range.lowerBound < range.upperBound && (range.upperBound - range.lowerBound).isFinite,
      "MinMaxScaler: expected a finite range of more than one number, got \(range)")
    try statistics.check(source: source, squares: false)
    self.statistics = statistics
    self.range = range
    let features = statistics.features
    let width = range.upperBound - range.lowerBound
    let lows = features.map(\.minimum)
    let factors = features.map { $0.isConstant ? 0 : width / ($0.maximum - $0.minimum) }
    map = FeatureMap(shift: lows, scale: factors, offset: lows.map { _ in range.lowerBound })
    inverse = FeatureMap(
      shift: lows.map { _ in range.lowerBound }, scale: features.map { ($0.maximum - $0.minimum) / width }, offset: lows
    )
  }

  /// The scaling of rows `[N, …]` whose other axes hold the features.
  ///
  /// - Throws: ``FileError`` for NaN and infinity, named by row and column, and where there are no rows.
  public static func fit<Scalar: TensorScalar>(
    _ x: Tensor<Scalar>, range: ClosedRange<Double> = 0...1, names: [String] = [], source: String = "data set"
  ) throws(FileError) -> MinMaxScaler {
    try MinMaxScaler(featureStatistics(of: x, names: names, source: source), range: range, source: source)
  }

  public var method: FeatureMethod { .minmax }
  public var outputCount: Int { statistics.count }
  public var outputNames: [String] { statistics.names }

  public func transform<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
    map(x.reshaped([featureRows(of: x, inputCount, "MinMaxScaler.transform"), inputCount]))
  }

  public func inverseTransform<Scalar: TensorScalar>(_ y: Tensor<Scalar>) -> Tensor<Scalar> {
    inverse(y.reshaped([featureRows(of: y, inputCount, "MinMaxScaler.inverseTransform"), inputCount]))
  }

  public func layer<Scalar: TensorScalar>(_: Scalar.Type) -> any Layer<Scalar> { FeatureScaling<Scalar>(map) }

  public func save(to path: String) throws(FileError) {
    try FeatureNormalizerFile.write(self, to: path)
  }
}
