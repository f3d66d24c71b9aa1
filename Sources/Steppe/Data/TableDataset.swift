import CSteppeKernels

/// What a model is to tell of a table's rows.
public enum TableTask: String, Sendable, Hashable, CaseIterable {
  /// Which of some classes the target is.
  case classify
  /// A number.
  case regress
}

/// The rows of a table of comma-separated values as examples: one column is the target, others are the features.
///
/// ```swift
/// let data = try TableDataset<Float>("table.csv", target: "price", without: ["id"])
/// let standardizer = try FeatureStandardizer.fit(data.features, names: data.featureNames)
/// let model = Sequential<Float> {
///   standardizer.layer()
///   Dense(data.featureNames.count, 64)
///   ReLU()
///   Dense(64, 1)
/// }
/// ```
public struct TableDataset<Scalar: TensorScalar>: DataSource, Sendable {
  /// The features' names, or their columns' numbers where the file has no names.
  public let featureNames: [String]
  /// All features, `[count, features]`.
  public let features: Tensor<Scalar>
  /// The target's name.
  public let targetName: String
  /// What is to be told of a row.
  public let task: TableTask
  /// The names of the classes; none for a regression.
  public let classNames: [String]
  /// The class of each row; 0 for a regression.
  public let labels: [Int]
  /// The number of each row, `[count, 1]`; nil for classes.
  public let targets: Tensor<Scalar>?
  /// The rows that were left out for want of a number.
  public let dropped: Int

  public var count: Int { labels.count }
  public var featureShape: [Int] { [featureNames.count] }
  public var classes: Int { max(classNames.count, 1) }

  /// More are no classes.
  public static var mostClasses: Int { 1000 }

  /// Reads a table.
  ///
  /// - Parameters:
  ///   - path: The file.
  ///   - target: The column of the target, by name, or by number where the file has no names.
  ///   - features: Those of the features, in this order; by default all others.
  ///   - without: Columns that are left out.
  ///   - task: By default `.classify` where the target is text, or whole numbers of at most 20 values; else `.regress`.
  ///   - classNames: The classes, which the target must be of; by default all that there are, numbers by size, texts by the alphabet.
  ///   - format: How the file is to be understood.
  ///   - missing: Whether rows with missing numbers are refused or left out; `.mean` is not for examples.
  /// - Throws: ``FileError``: the file is missing, empty or ragged, a column is unknown, a field of a feature, named by row and column, or
  ///   of a regression's target, no finite number, or a class unknown.
  public init(
    _ path: String, target: String, features: [String]? = nil, without: [String] = [], task: TableTask? = nil,
    classNames: [String]? = nil, format: CSVFormat = CSVFormat(), missing: MissingValues = .refuse
  ) throws(FileError) {
    require(missing != .mean, "TableDataset: expected missing numbers to be refused or their rows dropped, got .mean")
    let table = try CSVFile(path, format: format)
    let place = try table.column(target)
    let (places, order) = try table.selection(features, without: without + [target])
    featureNames = places.map { table.names.isEmpty ? "\($0)" : table.names[$0] }
    targetName = target
    var kinds = Array(repeating: STEPPE_CSV_SKIP, count: table.columnCount)
    for place in places { kinds[place] = STEPPE_CSV_NUMBER }
    kinds[place] = STEPPE_CSV_TEXT
    let pass = CSVPass(table, kinds: kinds, missing: missing)
    var (numbers, texts): ([Double], [String]) = ([], [])
    while let parts = try pass.next() {
      for part in parts where part.rows > 0 {
        if !order.isEmpty { part.reorder(order) }
        numbers.append(contentsOf: UnsafeBufferPointer(start: part.numbers.pointer, count: part.rows * places.count))
        texts += part.texts(of: table)
      }
    }
    guard !texts.isEmpty else {
      throw FileError(path: path, kind: .empty, expected: "at least one row", found: "none")
    }
    dropped = pass.dropped
    self.features = Tensor<Double>(shape: [texts.count, places.count], scalars: numbers).converted()
    func failure(_ row: Int, _ expected: String, _ kind: FileError.Kind = .wrongFormat) -> FileError {
      FileError(
        path: path, kind: kind, expected: "\(expected) in the target's column '\(target)'",
        found: "'\(texts[row].prefix(40))' at row \(row)" + (pass.dropped > 0 ? " of those that are kept" : ""))
    }

    let values = texts.map { Self.number($0) }
    self.task = task ?? (Self.areClasses(values) ? .classify : .regress)
    switch self.task {
    case .regress:
      if let row = values.firstIndex(where: { $0 == nil }) { throw failure(row, "finite numbers") }
      targets = Tensor<Double>(shape: [texts.count, 1], scalars: values.map { $0! }).converted()
      labels = Array(repeating: 0, count: texts.count)
      self.classNames = []
    case .classify:
      if let row = texts.firstIndex(where: { $0.isEmpty }) { throw failure(row, "a class") }
      let names = classNames ?? Self.sorted(Set(texts))
      guard names.count <= Self.mostClasses else {
        throw FileError(
          path: path, kind: .tooLarge,
          expected: "at most \(Self.mostClasses) classes in the target's column '\(target)'",
          found: "\(names.count)")
      }
      let indices = Dictionary(names.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
      labels = try texts.indices.map { row throws(FileError) in
        guard let index = indices[texts[row]] else {
          throw failure(row, "one of the classes \(names.prefix(10).joined(separator: ", "))", .outOfRange)
        }
        return index
      }
      targets = nil
      self.classNames = names
    }
  }

  /// The finite number that a field is, or nil.
  private static func number(_ text: String) -> Double? {
    let bytes = Array(text.utf8)
    return bytes.withUnsafeBufferPointer { bytes in
      guard let base = bytes.baseAddress else { return nil }
      var value = 0.0
      let end = base + bytes.count
      return steppe_parse_number(base, end, &value) == end && value.isFinite ? value : nil
    }
  }

  private static func areClasses(_ values: [Double?]) -> Bool {
    var distinct: Set<Double> = []
    for value in values {
      guard let value else { return true }
      distinct.insert(value)
      if value != value.rounded() || distinct.count > 20 { return values.contains { $0 == nil } }
    }
    return true
  }

  private static func sorted(_ names: Set<String>) -> [String] {
    let numbers = names.map { (name: $0, value: number($0)) }
    guard numbers.allSatisfy({ $0.value != nil }) else { return names.sorted() }
    return numbers.sorted { ($0.value!, $0.name) < ($1.value!, $1.name) }.map(\.name)
  }

  public func batch(rows: [Int]) -> (features: Tensor<Scalar>, labels: [Int]) {
    (Self.gathered(features, rows), rows.map { labels[$0] })
  }

  public func targets(rows: [Int]) -> Tensor<Scalar>? { targets.map { Self.gathered($0, rows) } }

  private static func gathered(_ x: Tensor<Scalar>, _ rows: [Int]) -> Tensor<Scalar> {
    let width = x.shape[1]
    let result = Tensor<Scalar>(uninitialized: [rows.count, width])
    for (index, row) in rows.enumerated() {
      require(0..<x.shape[0] ~= row, "TableDataset.batch: row \(row) is not among the \(x.shape[0]) examples")
      (result.address + index * width).update(from: x.address + row * width, count: width)
    }
    return result
  }
}
