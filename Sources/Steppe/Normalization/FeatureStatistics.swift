/// What is known of a data set's features after one pass over its rows: number, mean, deviation and range of each.
///
/// ```swift
/// var statistics = FeatureStatistics(features: 3)
/// for rows in chunks { try statistics.add(rows) }         // [N, 3] each
/// statistics.merge(ofAnotherMachine)
/// ```
///
/// Rows may come in any chunks, on any threads and merged in any order: the result is that of one pass over all of them, up to rounding
/// (Chan, Golub & LeVeque 1983; Mathematics §2). Sums are kept in twice `Double`'s digits, so that mean and deviation stay within 1e-12 of exact
/// arithmetic at a mean of 1e9 and a deviation of 1e-3 too.
public struct FeatureStatistics: Sendable, Equatable {
  /// One feature's numbers.
  public struct Feature: Sendable, Equatable {
    /// Its name; empty where it has none.
    public let name: String
    /// How many values it has.
    public let count: Int
    /// The mean of its values.
    public let mean: Double
    /// σ, the root of the biased variance Σ(x − mean)²/count; 0 where the feature is constant.
    public let deviation: Double
    /// The least value.
    public let minimum: Double
    /// The greatest value.
    public let maximum: Double
    /// Whether all values are the same: a normalization makes it 0.
    public var isConstant: Bool { minimum == maximum }
  }

  /// The features' names in order; empty where they have none.
  public let names: [String]
  /// The rows that were added.
  public private(set) var rows: Int
  package private(set) var moments: [FeatureMoment]

  /// Statistics of no rows yet.
  ///
  /// - Parameters:
  ///   - features: The number of features in a row.
  ///   - names: Their names, as many; none by default.
  public init(features: Int, names: [String] = []) {
    require(features > 0, "FeatureStatistics: expected at least one feature, got \(features)")
    require(
      names.isEmpty || names.count == features, "FeatureStatistics: \(names.count) names for \(features) features")
    self.init(names: names, rows: 0, moments: Array(repeating: FeatureMoment(), count: features))
  }

  package init(names: [String], rows: Int, moments: [FeatureMoment]) {
    self.names = names
    self.rows = rows
    self.moments = moments
  }

  /// The number of features.
  public var count: Int { moments.count }

  /// Each feature's numbers, in order.
  public var features: [Feature] { moments.indices.map { self[$0] } }

  /// The numbers of the feature `index`.
  public subscript(index: Int) -> Feature {
    let moment = moments[index]
    let isConstant = moment.minimum == moment.maximum
    return Feature(
      name: names.isEmpty ? "" : names[index], count: Int(moment.count), mean: moment.mean.high,
      deviation: isConstant || moment.count == 0 ? 0 : (moment.squares.high / moment.count).squareRoot(),
      minimum: moment.minimum, maximum: moment.maximum)
  }

  /// The places of the features that have one value only, which a normalization makes 0.
  public var constantFeatures: [Int] { moments.indices.filter { moments[$0].minimum == moments[$0].maximum } }

  /// Takes in rows of shape `[N, …]` whose other axes hold the features.
  ///
  /// - Parameters:
  ///   - x: The rows.
  ///   - source: What errors name.
  /// - Throws: ``FileError`` of kind `notFinite` for NaN or infinity, named by row (counted from those added before) and column; nothing
  ///   has changed then.
  public mutating func add<Scalar: TensorScalar>(_ x: Tensor<Scalar>, source: String = "data set") throws(FileError) {
    let rows = featureRows(of: x, count, "FeatureStatistics.add")
    let x = x.contiguous()
    let address = x.address
    let parts = Parallel.partCount(rows, grain: max(1, 4 * Parallel.elementGrain / count))
    let work = (0..<parts).map { _ in FeatureMoments(features: count) }
    let broken = Parallel.first(of: parts) { part in
      let range = Parallel.range(part, of: parts, count: rows)
      let isFinite = work[part].add(address + range.lowerBound * count, rows: range.count)
      return isFinite ? nil : firstNonFinite(address, range: range.lowerBound * count..<range.upperBound * count)
    }
    withExtendedLifetime(x) {}
    if let broken {
      throw notFinite(source, "\(broken.value)", row: self.rows + broken.index / count, broken.index % count)
    }
    for part in work { merge(part.finished()) }
    self.rows += rows
  }

  /// Takes in the statistics of other rows of the same features.
  public mutating func merge(_ other: FeatureStatistics) {
    require(
      other.count == count && other.names == names,
      "FeatureStatistics.merge: expected \(count) features \(names), got \(other.count) \(other.names)")
    merge(other.moments)
    rows += other.rows
  }

  mutating func merge(_ other: [FeatureMoment]) {
    for index in moments.indices { moments[index].merge(other[index]) }
  }

  mutating func count(rows: Int) { self.rows += rows }

  private func notFinite(_ source: String, _ value: String, row: Int, _ column: Int) -> FileError {
    let name = names.isEmpty ? "" : " ('\(names[column])')"
    return FileError(
      path: source, kind: .notFinite, expected: "finite features",
      found: "\(value) at row \(row), column \(column)\(name)")
  }

  /// - Throws: ``FileError`` where there is no normalization by these statistics: there are no rows, or squares beyond `Double`.
  func check(source: String, squares: Bool) throws(FileError) {
    guard rows > 0 else {
      throw FileError(path: source, kind: .empty, expected: "at least one row", found: "none")
    }
    for (index, moment) in moments.enumerated() {
      let name = names.isEmpty ? "column \(index)" : "column '\(names[index])'"
      guard moment.count > 0 else {
        throw FileError(path: source, kind: .empty, expected: "at least one value in \(name)", found: "none")
      }
      let isHeld = moment.mean.high.isFinite && (!squares || moment.squares.high.isFinite)
      guard isHeld, (moment.maximum - moment.minimum).isFinite else {
        throw FileError(
          path: source, kind: .outOfRange, expected: "values in \(name) whose squares Double holds",
          found: "\(moment.minimum) … \(moment.maximum)")
      }
    }
  }
}

/// The rows of a tensor of shape `[N, …]` whose other axes hold `features` values.
func featureRows<Scalar: TensorScalar>(of x: Tensor<Scalar>, _ features: Int, _ operation: StaticString) -> Int {
  require(
    x.rank >= 1 && x.shape.dropFirst().reduce(1, *) == features,
    "\(operation): expected rows of \(features) features, got a tensor of shape \(x.shape)")
  return x.shape[0]
}

/// Where the first NaN or infinity of a range stands.
func firstNonFinite<Scalar: TensorScalar>(
  _ x: UnsafePointer<Scalar>, range: Range<Int>
) -> (index: Int, value: Scalar)? {
  range.first { !x[$0].isFinite }.map { ($0, x[$0]) }
}

extension Parallel {
  /// Runs `body(0)` … `body(parts − 1)` and returns the first result in their order that is not nil.
  static func first<Result>(of parts: Int, _ body: (Int) -> Result?) -> Result? {
    withUnsafeTemporaryAllocation(of: Result?.self, capacity: max(parts, 1)) { results in
      let base = results.baseAddress!
      run(parts: parts) { (base + $0).initialize(to: body($0)) }
      defer { base.deinitialize(count: parts) }
      return results[..<parts].lazy.compactMap { $0 }.first
    }
  }
}
