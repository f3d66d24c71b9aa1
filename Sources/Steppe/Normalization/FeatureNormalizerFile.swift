/// A fitted normalization as a safetensors file: what it is in the metadata, its numbers as 64-bit floats, and a checksum over them.
enum FeatureNormalizerFile {
  private static let metadataKey = "steppe.features"
  private static let version = 1
  /// The names of each feature's moments, `[features]` each.
  private static let moments: [(name: String, path: WritableKeyPath<FeatureMoment, Double> & Sendable)] = [
    ("count", \.count), ("mean", \.mean.high), ("mean_rest", \.mean.low), ("squares", \.squares.high),
    ("squares_rest", \.squares.low), ("minimum", \.minimum), ("maximum", \.maximum),
  ]

  static func write(_ normalizer: any FeatureNormalizer, to path: String) throws(FileError) {
    let statistics = normalizer.statistics
    var members: [JSONValue.Member] = [
      .init("version", .integer(version)), .init("method", .string(normalizer.method.rawValue)),
      .init("rows", .integer(statistics.rows)), .init("names", .array(statistics.names.map { .string($0) })),
    ]
    var matrices: [(String, Tensor<Double>)] = []
    if let scaler = normalizer as? MinMaxScaler {
      members += [.init("low", .number(scaler.range.lowerBound)), .init("high", .number(scaler.range.upperBound))]
    } else if let whitening = normalizer as? Whitening {
      members += [.init("epsilon", .number(whitening.epsilon)), .init("rank", .integer(whitening.rank))]
      matrices = [
        ("variances", Tensor(whitening.variances)), ("weight", whitening.matrix), ("inverse", whitening.inverseMatrix),
      ]
    }
    var writer = SafetensorsWriter(metadata: [metadataKey: JSONValue.object(members).serialized()])
    for (name, path) in moments { writer.add(Tensor(statistics.moments.map { $0[keyPath: path] }), named: name) }
    for (name, matrix) in matrices { writer.add(matrix, named: name) }
    try writer.write(to: path)
  }

  static func read(_ path: String) throws(FileError) -> any FeatureNormalizer {
    let file = try SafetensorsFile(path)
    try file.verifyChecksum()
    func failure(_ expected: String, _ found: String, _ kind: FileError.Kind = .wrongFormat) -> FileError {
      FileError(path: path, kind: kind, expected: expected, found: found)
    }
    guard let text = file.metadata[metadataKey], let json = try? JSONValue(parsing: Array(text.utf8)) else {
      throw failure("a fitted normalization of features", "a safetensors file without '\(metadataKey)'")
    }
    guard case .integer(let found)? = json["version"], found == version else {
      throw failure("format \(version)", "\(json["version"]?.serialized() ?? "none")", .unsupported)
    }
    guard case .string(let name)? = json["method"], let method = FeatureMethod(rawValue: name) else {
      throw failure("one of \(FeatureMethod.allCases.map(\.rawValue))", "\(json["method"]?.serialized() ?? "none")")
    }
    guard case .integer(let rows)? = json["rows"], rows > 0, rows <= 1 << 53 else {
      throw failure("a number of rows from 1", "\(json["rows"]?.serialized() ?? "none")")
    }
    func numbers(_ name: String, shape: [Int]) throws(FileError) -> Tensor<Double> {
      guard file.shape(of: name) == shape, file.elementType(of: name) == .float64 else {
        throw failure("'\(name)' of shape \(shape)", "\(file.shape(of: name).map { "\($0)" } ?? "none")", .mismatch)
      }
      // A copy of its own: the file may change later.
      let tensor: Tensor<Double> = try file.tensor(named: name).copied()
      guard tensor.isAllFinite() else { throw failure("finite numbers as '\(name)'", "others", .notFinite) }
      return tensor
    }
    guard let count = file.shape(of: "mean")?.first, count > 0 else {
      throw failure("'mean' of at least one feature", "\(file.shape(of: "mean").map { "\($0)" } ?? "none")", .mismatch)
    }
    var names: [String] = []
    if case .array(let values)? = json["names"] {
      for case .string(let name) in values { names.append(name) }
      guard values.count == names.count, names.isEmpty || names.count == count else {
        throw failure("\(count) names", "\(values.count)", .mismatch)
      }
    }
    var features = Array(repeating: FeatureMoment(), count: count)
    for (name, path) in moments {
      let values = try numbers(name, shape: [count]).scalars
      for index in 0..<count { features[index][keyPath: path] = values[index] }
    }
    for (index, feature) in features.enumerated() {
      guard feature.count >= 1, feature.count <= Double(rows), feature.count == feature.count.rounded(),
        feature.squares.high >= 0, feature.minimum <= feature.maximum,
        (feature.minimum...feature.maximum).contains(feature.mean.high)
      else { throw failure("possible moments of feature \(index)", "\(feature)", .outOfRange) }
    }
    let statistics = FeatureStatistics(names: names, rows: rows, moments: features)
    switch method {
    case .standardize: return try FeatureStandardizer(statistics, source: path)
    case .minmax:
      guard let low = json["low"]?.double, let high = json["high"]?.double, low < high, (high - low).isFinite else {
        throw failure("a range 'low' … 'high'", "another")
      }
      return try MinMaxScaler(statistics, range: low...high, source: path)
    case .pca, .zca:
      guard let epsilon = json["epsilon"]?.double, epsilon >= 0, case .integer(let rank)? = json["rank"],
        (0...count).contains(rank), let outputs = file.shape(of: "weight")?.first, (1...count).contains(outputs),
        method == .pca || outputs == count
      else { throw failure("a whitening with 'epsilon', 'rank' and 'weight'", "another") }
      return Whitening(
        statistics, method: method, epsilon: epsilon, rank: rank,
        variances: try numbers("variances", shape: [count]).scalars,
        matrix: try numbers("weight", shape: [outputs, count]),
        inverse: try numbers("inverse", shape: [count, outputs]))
    }
  }

  /// A file's normalization, which must be of one type.
  static func read<Normalizer: FeatureNormalizer>(_ path: String, as _: Normalizer.Type) throws(FileError) -> Normalizer
  {
    let found = try read(path)
    guard let normalizer = found as? Normalizer else {
      throw FileError(
        path: path, kind: .mismatch, expected: "a \(Normalizer.self)", found: "the method \(found.method)")
    }
    return normalizer
  }
}

/// Reads the normalization that ``FeatureNormalizer/save(to:)`` wrote, whichever it is.
///
/// - Throws: ``FileError``: the file is missing, damaged, or none of a normalization.
public func featureNormalizer(from path: String) throws(FileError) -> any FeatureNormalizer {
  try FeatureNormalizerFile.read(path)
}

extension FeatureStandardizer {
  /// Reads a file that ``save(to:)`` wrote.
  ///
  /// - Throws: ``FileError``: the file is missing, damaged, or of another normalization.
  public init(from path: String) throws(FileError) { self = try FeatureNormalizerFile.read(path, as: Self.self) }
}

extension MinMaxScaler {
  /// Reads a file that ``save(to:)`` wrote.
  ///
  /// - Throws: ``FileError``: the file is missing, damaged, or of another normalization.
  public init(from path: String) throws(FileError) { self = try FeatureNormalizerFile.read(path, as: Self.self) }
}

extension Whitening {
  /// Reads a file that ``save(to:)`` wrote.
  ///
  /// - Throws: ``FileError``: the file is missing, damaged, or of another normalization.
  public init(from path: String) throws(FileError) { self = try FeatureNormalizerFile.read(path, as: Self.self) }
}
