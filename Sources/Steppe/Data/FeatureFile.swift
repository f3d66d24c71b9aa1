import CSteppeKernels

/// Rows of features in a file, NPY or comma-separated values, that may be larger than memory: they are read in one pass, from a mapped
/// file whose pages go back to the system as soon as they have been used, by all of ``Parallel/threadCount`` threads.
///
/// ```swift
/// let file = try FeatureFile("table.csv", without: ["id"])
/// let standardizer = try FeatureStandardizer(file.statistics())
/// try FeatureFile("new.csv", for: standardizer).transform(by: standardizer, to: "z.npy")
/// ```
///
/// Where the file is one of NPY, its first axis counts the rows and all others together are the features.
public struct FeatureFile: Sendable {
  /// The file, as it was named by the caller.
  public let path: String
  /// The number of features in a row.
  public let features: Int
  /// Their names; empty where the file has none.
  public let names: [String]
  /// The names of the columns that are not read.
  public let omitted: [String]
  /// What becomes of missing numbers; NPY files may have none.
  public let missing: MissingValues
  /// The bytes of its rows.
  public var byteCount: Int {
    switch contents {
    case .npy(let file): file.numbers.bytes.count
    case .csv(let table, _, _): table.file.count - table.start
    }
  }
  /// What the numbers become that are written: 64-bit where the file's own are, and 32-bit else.
  public let elementType: ElementType
  let contents: Contents

  enum Contents: Sendable {
    case npy(NPYFile)
    /// `order` as of ``CSVFile/selection(_:without:)``.
    case csv(CSVFile, kinds: [steppe_csv_column], order: [Int])
  }

  /// - Parameters:
  ///   - path: An NPY file, as its first bytes tell, or else a table of comma-separated values.
  ///   - columns: The columns of a table that are read, in this order, by name, or by number where they have none; all by default.
  ///   - omitted: Columns that are left out.
  ///   - format: How a table is to be understood.
  ///   - missing: What becomes of missing numbers.
  /// - Throws: ``FileError``: the file is missing, empty, truncated or of another format, or has no such column.
  public init(
    _ path: String, columns: [String]? = nil, without omitted: [String] = [], format: CSVFormat = CSVFormat(),
    missing: MissingValues = .refuse
  ) throws(FileError) {
    let file = try MappedFile.nonEmpty(path, expected: "an NPY file or a table of comma-separated values")
    // A file that says that it is of NPY is to be one.
    if NPY.accepts(file.bytes) || path.hasSuffix(".npy") {
      let file = try NPYFile(file)
      guard columns == nil, omitted.isEmpty else {
        throw FileError(
          path: path, kind: .unsupported, expected: "a table with columns to choose from", found: "an NPY file")
      }
      try self.init(file)
    } else {
      try self.init(CSVFile(path, format: format), columns: columns, without: omitted, missing: missing)
    }
  }

  /// The file with the features that `normalizer` was fitted on, or, with `inverse`, that it makes: a table's columns of their names,
  /// wherever they stand.
  ///
  /// - Throws: As ``init(_:columns:without:format:missing:)``; ``FileError`` of kind `mismatch` where the file has other features.
  public init(
    _ path: String, for normalizer: any FeatureNormalizer, inverse: Bool = false, format: CSVFormat = CSVFormat(),
    missing: MissingValues = .refuse
  ) throws(FileError) {
    var file = try FeatureFile(path, format: format, missing: missing)
    let wanted = inverse ? normalizer.outputNames : normalizer.statistics.names
    if !wanted.isEmpty, !file.names.isEmpty {
      if let name = wanted.first(where: { !file.names.contains($0) }) {
        throw FileError(
          path: path, kind: .mismatch, expected: "a column '\(name)', which the normalization was fitted on",
          found: file.names.prefix(30).joined(separator: ", "))
      }
      file = try FeatureFile(path, columns: wanted, format: format, missing: missing)
    }
    let count = inverse ? normalizer.outputCount : normalizer.inputCount
    guard file.features == count else {
      throw FileError(
        path: path, kind: .mismatch,
        expected: "\(count) features, which the normalization \(inverse ? "makes" : "was fitted on")",
        found: "\(file.features)")
    }
    self = file
  }

  private init(_ file: NPYFile) throws(FileError) {
    path = file.path
    guard let features = file.shape.first.map({ _ in file.shape.dropFirst().reduce(1, *) }), features > 0 else {
      throw FileError(
        path: path, kind: .mismatch, expected: "rows of at least one feature", found: "shape \(file.shape)")
    }
    self.features = features
    (names, omitted, missing) = ([], [], .refuse)
    elementType = file.rowType
    contents = .npy(file)
  }

  init(
    _ table: CSVFile, columns: [String]?, without: [String], missing: MissingValues
  ) throws(FileError) {
    let (places, order) = try table.selection(columns, without: without)
    var kinds = Array(repeating: STEPPE_CSV_SKIP, count: table.columnCount)
    for place in places { kinds[place] = STEPPE_CSV_NUMBER }
    path = table.path
    features = places.count
    names = table.names.isEmpty ? [] : places.map { table.names[$0] }
    omitted = table.names.indices.filter { kinds[$0] == STEPPE_CSV_SKIP }.map { table.names[$0] }
    self.missing = missing
    elementType = .float32
    contents = .csv(table, kinds: kinds, order: order)
  }
}
