import CSteppeKernels

/// The covariance of a data set's features, gathered like ``FeatureStatistics``: rows in any chunks, merged in any order.
public struct FeatureCovariance: Sendable, Equatable {
  /// The features one by one.
  public private(set) var statistics: FeatureStatistics
  /// Σ(x − mean)(x − mean)ᵀ, `[features, features]`, and what its rounding lost.
  private var moments: [Double]
  private var lost: [Double]

  /// The covariance of no rows yet, of `features` features.
  public init(features: Int, names: [String] = []) {
    statistics = FeatureStatistics(features: features, names: names)
    moments = Array(repeating: 0, count: features * features)
    lost = moments
  }

  /// The biased covariance, over the number of rows: `[features, features]`; NaN where there are none.
  public var matrix: Tensor<Double> {
    let rows = Double(statistics.rows)
    return Tensor(shape: [statistics.count, statistics.count], scalars: moments.map { $0 / rows })
  }

  /// Takes in rows of shape `[N, …]` whose other axes hold the features.
  ///
  /// - Throws: ``FileError`` of kind `notFinite`, named by row and column, after which the rows before it may have been taken in.
  public mutating func add<Scalar: TensorScalar>(_ x: Tensor<Scalar>, source: String = "data set") throws(FileError) {
    let count = statistics.count
    let rows = featureRows(of: x, count, "FeatureCovariance.add")
    let x = x.contiguous()
    // Blocks that a cache holds, centered by their own means; their products then have no large part in common.
    let height = max(256, (1 << 18) / count)
    for start in stride(from: 0, to: rows, by: height) {
      let length = min(height, rows - start)
      var block = FeatureStatistics(
        names: statistics.names, rows: statistics.rows, moments: statistics.moments.map { _ in FeatureMoment() })
      let view = Tensor(
        storage: x.storage, shape: [length, count], strides: [count, 1], offset: x.offset + start * count)
      try block.add(view, source: source)
      let means = block.features.map(\.mean)
      let centered = Storage<Double>(count: length * count)
      let product = Storage<Double>(count: count * count)
      let (from, to) = (view.address, centered.pointer)
      means.withUnsafeBufferPointer { means in
        let shift = means.baseAddress!
        Parallel.ranges(length, grain: max(1, Parallel.elementGrain / count)) { range in
          Scalar.kernels.feature_center(
            from + range.lowerBound * count, count, range.count, count, shift, to + range.lowerBound * count)
        }
      }
      gemm(
        transposeA: true, m: count, n: count, k: length, a: to, lda: count, b: to, ldb: count, c: product.pointer,
        ldc: count)
      merge(block.moments, count: length, product.pointer, nil)
      withExtendedLifetime((view, centered, product)) {}
    }
  }

  /// Takes in the covariance of other rows of the same features.
  public mutating func merge(_ other: FeatureCovariance) {
    require(
      other.statistics.count == statistics.count && other.statistics.names == statistics.names,
      "FeatureCovariance.merge: expected \(statistics.count) features \(statistics.names), got "
        + "\(other.statistics.count) \(other.statistics.names)")
    other.moments.withUnsafeBufferPointer { moments in
      other.lost.withUnsafeBufferPointer { lost in
        merge(other.statistics.moments, count: other.statistics.rows, moments.baseAddress!, lost.baseAddress!)
      }
    }
  }

  /// M₂ = M₂ₐ + M₂ᵦ + δδᵀ·nₐnᵦ/n
  private mutating func merge(
    _ other: [FeatureMoment], count rows: Int, _ product: UnsafePointer<Double>, _ productLost: UnsafePointer<Double>?
  ) {
    guard rows > 0 else { return }
    let count = statistics.count
    let (first, second) = (Double(statistics.rows), Double(rows))
    let weight = first * (second / (first + second))
    let distance = zip(statistics.moments, other).map {
      first > 0 ? ($1.mean.high - $0.mean.high) + ($1.mean.low - $0.mean.low) : 0
    }
    moments.withUnsafeMutableBufferPointer { moments in
      lost.withUnsafeMutableBufferPointer { lost in
        for row in 0..<count {
          for column in 0..<count {
            let place = row * count + column
            var sum = DoubleDouble(high: moments[place], low: lost[place])
            sum.add(product[place])
            if let productLost { sum.add(productLost[place]) }
            sum.add(distance[row] * distance[column] * weight)
            (moments[place], lost[place]) = (sum.high, sum.low)
          }
        }
      }
    }
    statistics.merge(other)
    statistics.count(rows: rows)
  }
}

/// Turns features into ones that are uncorrelated and have deviation 1: y = W·(x − μ) (Mathematics §2).
///
/// ```swift
/// let whitening = try Whitening.fit(training, method: .zca)
/// let y = whitening.transform(test)
/// ```
///
/// With the covariance C = V·diag(λ)·Vᵀ (LAPACK's `syevd`), W is diag(1/√(λ + ε))·Vᵀ for `.pca`, whose outputs are the principal components
/// with the greatest λ first, and V·diag(1/√(λ + ε))·Vᵀ for `.zca`, which of all whitenings changes the features least (Kessy, Lewin &
/// Strimmer 2018). C is the biased covariance, over n.
///
/// Directions without variance, up to rounding (λ ≤ λ₁·features·2⁻⁵²), as that of a constant feature, become 0: `.pca` leaves them out,
/// and ``rank`` counts the others.
public struct Whitening: FeatureNormalizer, Equatable {
  public let statistics: FeatureStatistics
  public let method: FeatureMethod
  /// ε, added to each variance.
  public let epsilon: Double
  /// The directions that have variance.
  public let rank: Int
  /// The variances λ along the principal components, greatest first.
  public let variances: [Double]
  /// W, `[outputCount, inputCount]`.
  public let matrix: Tensor<Double>
  /// What takes back, `[inputCount, outputCount]`.
  let inverseMatrix: Tensor<Double>

  /// The whitening by a covariance.
  ///
  /// - Parameters:
  ///   - covariance: That of the training data.
  ///   - method: `.pca` or `.zca`.
  ///   - components: How many principal components are kept at most; all by default. For `.pca` alone.
  ///   - epsilon: ε, at least 0, which keeps directions of little variance from being blown up.
  ///   - source: What errors name.
  /// - Throws: ``FileError`` where there are no rows or the covariance is beyond `Double`; ``LinearAlgebraError`` of LAPACK.
  public init(
    _ covariance: FeatureCovariance, method: FeatureMethod = .pca, components: Int? = nil, epsilon: Double = 0,
    source: String = "data set"
  ) throws {
    require(method == .pca || method == .zca, "Whitening: expected .pca or .zca, got .\(method)")
    require(epsilon >= 0 && epsilon.isFinite, "Whitening: expected an epsilon of at least 0, got \(epsilon)")
    require(
      components == nil || method == .pca && components! > 0,
      "Whitening: expected a positive number of components, for .pca alone, got \(components ?? 0) for .\(method)")
    statistics = covariance.statistics
    try statistics.check(source: source, squares: true)
    let count = statistics.count
    let eigen = try covariance.matrix.symmetricEigen()
    let values = Array(eigen.values.scalars.reversed())
    let limit = max(values[0], 0) * Double(count) * 0x1p-52
    rank = values.count { $0 > limit }
    variances = values.map { max($0, 0) }
    self.method = method
    self.epsilon = epsilon
    let kept = method == .pca ? min(rank, components ?? rank) : rank
    guard kept > 0 else {
      throw FileError(
        path: source, kind: .mismatch, expected: "at least one feature that is not constant", found: "none")
    }
    // Row j is the j-th component, turned so that its greatest part is positive: LAPACK leaves the sign open.
    let vectors = eigen.vectors.transposed().scalars
    var rows = [Double](), scales = [Double]()
    for component in 0..<kept {
      let row = Array(vectors[(count - 1 - component) * count..<(count - component) * count])
      let greatest = row.max { abs($0) < abs($1) }!
      rows += greatest < 0 ? row.map { -$0 } : row
      scales.append((variances[component] + epsilon).squareRoot())
    }
    let components = Tensor<Double>(shape: [kept, count], scalars: rows)
    let deviations = Tensor<Double>(shape: [kept, 1], scalars: scales)
    let (down, up) = (components / deviations, components * deviations)
    if method == .pca {
      matrix = down
      inverseMatrix = up.transposed().copied()
    } else {
      matrix = components.transposed().matmul(down)
      inverseMatrix = components.transposed().matmul(up)
    }
  }

  init(
    _ statistics: FeatureStatistics, method: FeatureMethod, epsilon: Double, rank: Int, variances: [Double],
    matrix: Tensor<Double>, inverse: Tensor<Double>
  ) {
    self.statistics = statistics
    self.method = method
    self.epsilon = epsilon
    self.rank = rank
    self.variances = variances
    self.matrix = matrix
    inverseMatrix = inverse
  }

  /// The whitening of rows `[N, …]` whose other axes hold the features.
  ///
  /// - Throws: As ``init(_:method:components:epsilon:source:)``; ``FileError`` for NaN and infinity, named by row and column.
  public static func fit<Scalar: TensorScalar>(
    _ x: Tensor<Scalar>, method: FeatureMethod = .pca, components: Int? = nil, epsilon: Double = 0,
    names: [String] = [], source: String = "data set"
  ) throws -> Whitening {
    let features = x.shape.dropFirst().reduce(1, *)
    require(x.rank >= 1 && features > 0, "Whitening.fit: expected rows of features, got a tensor of shape \(x.shape)")
    var covariance = FeatureCovariance(features: features, names: names)
    try covariance.add(x, source: source)
    return try Whitening(covariance, method: method, components: components, epsilon: epsilon, source: source)
  }

  public var outputCount: Int { matrix.shape[0] }
  public var outputNames: [String] {
    method == .zca ? statistics.names : (0..<outputCount).map { "component \($0)" }
  }

  /// x less the mean.
  var center: FeatureMap {
    let means = statistics.features.map(\.mean)
    return FeatureMap(
      shift: means, scale: means.map { _ in 1 }, offset: statistics.moments.map { -$0.mean.low })
  }

  public func transform<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
    let centered = center(x.reshaped([featureRows(of: x, inputCount, "Whitening.transform"), inputCount]))
    return denseForward(centered, weight: matrix.converted(), bias: nil)
  }

  public func inverseTransform<Scalar: TensorScalar>(_ y: Tensor<Scalar>) -> Tensor<Scalar> {
    let rows = featureRows(of: y, outputCount, "Whitening.inverseTransform")
    return denseForward(
      y.reshaped([rows, outputCount]), weight: inverseMatrix.converted(),
      bias: Tensor(statistics.features.map { Scalar($0.mean) }))
  }

  public func layer<Scalar: TensorScalar>(_: Scalar.Type) -> any Layer<Scalar> { FeatureWhitening<Scalar>(self) }

  public func save(to path: String) throws(FileError) { try FeatureNormalizerFile.write(self, to: path) }
}

extension Tensor<Double> {
  /// The same numbers as another scalar type.
  func converted<Other: TensorScalar>(to _: Other.Type = Other.self) -> Tensor<Other> {
    if let same = self as? Tensor<Other> { return same }
    if let narrow = narrowed(self) as? Tensor<Other> { return narrow }
    return Tensor<Other>(shape: shape, scalars: scalars.map { Other($0) })
  }
}
