import CSteppeKernels

/// How far a pass over a file is.
public struct FeatureProgress: Sendable, Hashable {
  /// The bytes that have been read, and all of them.
  public let bytes: Int
  public let totalBytes: Int
  /// The rows that have been read.
  public let rows: Int
}

/// What ``FeatureFile/transform(by:to:inverse:type:onProgress:)`` has written.
public struct FeatureTransformation: Sendable, Hashable {
  /// The rows written.
  public let rows: Int
  /// The rows that were left out for want of a number, and the numbers that were wanting.
  public let dropped: Int
  public let missing: Int
}

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
  private let contents: Contents

  private enum Contents: Sendable {
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

  // MARK: - Fitting

  /// What is known of each feature after one pass over the file.
  ///
  /// - Parameter onProgress: Called some times a second at the most, and at the end; returns whether to go on.
  /// - Throws: ``FileError`` of kind `notFinite` for NaN, infinity or what is missing, named by row and column, `wrongFormat` for text and
  ///   ragged rows, `interrupted` where `onProgress` asks to stop.
  public func statistics(
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws(FileError) -> FeatureStatistics {
    var work: [FeatureMoments] = []
    let summary = try forEachRound(onProgress) { blocks throws(FileError) in
      while work.count < blocks.count { work.append(FeatureMoments(features: features)) }
      let moments = work
      let broken = Parallel.first(of: blocks.count) { part -> FileError? in
        let (block, moments) = (blocks[part], moments[part])
        switch block.values {
        case .float(let x): return moments.add(x, rows: block.rows) ? nil : notFinite(block)
        case .double(let x):
          if missing == .mean {
            moments.add(filling: UnsafeMutablePointer(mutating: x), rows: block.rows)
            return nil
          }
          return moments.add(x, rows: block.rows) ? nil : notFinite(block)
        }
      }
      if let broken { throw broken }
    }
    var statistics = FeatureStatistics(features: features, names: names)
    for part in work { statistics.merge(part.finished()) }
    statistics.count(rows: summary.rows)
    return statistics
  }

  /// The features' covariance after one pass over the file, for ``Whitening``.
  ///
  /// - Throws: As ``statistics(onProgress:)``; ``FileError`` of kind `unsupported` where ``missing`` is `.mean`, which no single pass
  ///   allows.
  public func covariance(
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws(FileError) -> FeatureCovariance {
    guard missing != .mean else {
      throw FileError(
        path: path, kind: .unsupported, expected: "missing numbers to be refused or their rows dropped",
        found: "the mean in their place, which a covariance does not have in one pass")
    }
    var covariance = FeatureCovariance(features: features, names: names)
    try forEachRound(onProgress) { blocks throws(FileError) in
      for block in blocks {
        switch block.values {
        case .float: try covariance.add(block.tensor() as Tensor<Float>, source: path)
        case .double: try covariance.add(block.tensor() as Tensor<Double>, source: path)
        }
      }
    }
    return covariance
  }

  /// Where a block holds what is not finite; nil where its numbers are only too large to be squared.
  private func notFinite(_ block: RowBlock) -> FileError? {
    let range = 0..<block.rows * features
    let found: (index: Int, value: String)? =
      switch block.values {
      case .float(let x): firstNonFinite(x, range: range).map { ($0.index, "\($0.value)") }
      case .double(let x): firstNonFinite(x, range: range).map { ($0.index, "\($0.value)") }
      }
    guard let found else { return nil }
    let (row, column) = found.index.quotientAndRemainder(dividingBy: features)
    let name = names.isEmpty ? "" : " ('\(names[column])')"
    return FileError(
      path: path, kind: .notFinite, expected: "finite features",
      found: "\(found.value) at row \(block.first + row), column \(column)\(name)")
  }

  // MARK: - Transforming

  /// Writes the file's rows as `normalizer` makes them, or, with `inverse`, as they were before; the file appears complete or not at all.
  ///
  /// - Parameters:
  ///   - normalizer: What was fitted on these features, as by ``init(_:for:inverse:format:missing:)``.
  ///   - output: A file whose extension is `.npy`, `[rows, features]`, or `.csv`, under the features' names where they have some.
  ///   - inverse: Whether the rows are to become what they were before.
  ///   - type: 32- or 64-bit floating-point numbers; ``elementType`` by default.
  ///   - onProgress: Called some times a second at the most, and at the end; returns whether to go on.
  /// - Throws: ``FileError`` as ``statistics(onProgress:)``, `outOfRange` where a result is beyond `type`, `cannotWrite`.
  @discardableResult
  public func transform(
    by normalizer: any FeatureNormalizer, to output: String, inverse: Bool = false, type: ElementType? = nil,
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws(FileError) -> FeatureTransformation {
    try normalizer.check(features: features, names: names, inverse: inverse, source: path)
    let type = type ?? elementType
    require(
      type == .float32 || type == .float64, "FeatureFile.transform: expected .float32 or .float64, got .\(type)")
    let isText = output.hasSuffix(".csv")
    guard isText || output.hasSuffix(".npy") else {
      throw FileError(
        path: output, kind: .cannotWrite, expected: "a file with the extension .npy or .csv", found: "another")
    }
    let columns = inverse ? normalizer.inputCount : normalizer.outputCount
    let outputNames = inverse ? normalizer.statistics.names : normalizer.outputNames
    let means = normalizer.statistics.features.map(\.mean)
    var result = FeatureTransformation(rows: 0, dropped: 0, missing: 0)
    try AtomicFile.write(to: output) { file throws(FileError) in
      // The number of rows is known in the end.
      let headerLength = NPY.header(type, shape: [.max, columns]).count
      if isText {
        if !outputNames.isEmpty { try file.write(outputNames.map(CSV.quoted).joined(separator: ",") + "\n") }
      }
      let positions = file.positions
      var rows = 0
      let summary = try forEachRound(onProgress) { blocks throws(FileError) in
        let starts = blocks.indices.map { rows + blocks[..<$0].reduce(0) { $0 + $1.rows } }
        rows += blocks.reduce(0) { $0 + $1.rows }
        var texts = Array(repeating: [UInt8](), count: isText ? blocks.count : 0)
        let failure = texts.withUnsafeMutableBufferPointer { texts in
          // An empty array may have an address.
          let texts = isText ? texts.baseAddress : nil
          return Parallel.first(of: blocks.count) { part -> FileError? in
            let block = blocks[part]
            if missing == .mean, case .double(let x) = block.values {
              fillMissing(UnsafeMutablePointer(mutating: x), rows: block.rows, means)
            }
            do throws(FileError) {
              let numbers = try transformed(block, normalizer, inverse: inverse, type: type, columns)
              if let texts {
                texts[part] = numbers.text()
              } else {
                let start = headerLength + starts[part] * columns * type.byteCount
                try numbers.withBytes { bytes throws(FileError) in try positions.write(bytes, at: start) }
              }
              return nil
            } catch {
              return error
            }
          }
        }
        if let failure { throw failure }
        for text in texts { try file.write(text) }
      }
      if !isText {
        let header = NPY.header(type, shape: [rows, columns], byteCount: headerLength)
        try header.withUnsafeBufferPointer { header throws(FileError) in
          try positions.write(UnsafeRawBufferPointer(header), at: 0)
        }
      }
      result = FeatureTransformation(rows: rows, dropped: summary.dropped, missing: summary.missing)
    }
    return result
  }

  /// Numbers of either type.
  private enum Numbers {
    case float(Tensor<Float>)
    case double(Tensor<Double>)

    func withBytes(_ body: (UnsafeRawBufferPointer) throws(FileError) -> Void) throws(FileError) {
      switch self {
      case .float(let x):
        try x.withUnsafeBufferPointer { x throws(FileError) in try body(UnsafeRawBufferPointer(x)) }
      case .double(let x):
        try x.withUnsafeBufferPointer { x throws(FileError) in try body(UnsafeRawBufferPointer(x)) }
      }
    }

    /// Lines of comma-separated values.
    func text() -> [UInt8] {
      var bytes: [UInt8] = []
      func append(_ columns: Int, _ count: Int, _ number: (Int) -> String) {
        bytes.reserveCapacity(12 * count)
        for index in 0..<count {
          bytes.append(contentsOf: number(index).utf8)
          bytes.append((index + 1) % columns == 0 ? 0x0A : UInt8(ascii: ","))
        }
      }
      switch self {
      case .float(let x): x.withUnsafeBufferPointer { x in append(self.columns, x.count) { x[$0].description } }
      case .double(let x): x.withUnsafeBufferPointer { x in append(self.columns, x.count) { x[$0].description } }
      }
      return bytes
    }

    private var columns: Int {
      switch self {
      case .float(let x): x.shape[1]
      case .double(let x): x.shape[1]
      }
    }
  }

  /// A block's rows as they are written, which must be finite.
  private func transformed(
    _ block: RowBlock, _ normalizer: any FeatureNormalizer, inverse: Bool, type: ElementType, _ columns: Int
  ) throws(FileError) -> Numbers {
    func apply<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
      inverse ? normalizer.inverseTransform(x) : normalizer.transform(x)
    }
    let (numbers, isFinite): (Numbers, Bool)
    switch (block.values, type) {
    case (.float, .float32):
      let y: Tensor<Float> = apply(block.tensor())
      (numbers, isFinite) = (.float(y), y.isAllFinite())
    case (.double, .float32):
      let y: Tensor<Float> = narrowed(apply(block.tensor()))
      (numbers, isFinite) = (.float(y), y.isAllFinite())
    case (.float, _):
      let y: Tensor<Double> = apply(widened(block.tensor()))
      (numbers, isFinite) = (.double(y), y.isAllFinite())
    case (.double, _):
      let y: Tensor<Double> = apply(block.tensor())
      (numbers, isFinite) = (.double(y), y.isAllFinite())
    }
    guard isFinite else {
      throw notFinite(block)
        ?? FileError(
          path: path, kind: .outOfRange, expected: "rows whose results \(type) holds",
          found: "others among rows \(block.first) … \(block.first + block.rows - 1)")
    }
    return numbers
  }

  private func fillMissing(_ x: UnsafeMutablePointer<Double>, rows: Int, _ means: [Double]) {
    for row in 0..<rows {
      for column in 0..<features where x[row * features + column].isNaN { x[row * features + column] = means[column] }
    }
  }

  // MARK: - Reading

  /// Some rows, in memory that is the reader's.
  struct RowBlock {
    /// The number of the first one in the file.
    let first: Int
    let rows: Int
    let values: Values
    fileprivate let features: Int
    /// What keeps them.
    fileprivate let owner: AnyObject

    enum Values {
      case float(UnsafePointer<Float>)
      case double(UnsafePointer<Double>)
    }

    /// `[rows, features]`, of the block's own type.
    func tensor<Scalar: TensorScalar>() -> Tensor<Scalar> {
      let start: UnsafeRawPointer =
        switch values {
        case .float(let x): UnsafeRawPointer(x)
        case .double(let x): UnsafeRawPointer(x)
        }
      let storage = Storage(
        borrowing: start.assumingMemoryBound(to: Scalar.self), count: rows * features, owner: owner)
      return Tensor(storage: storage, shape: [rows, features])
    }
  }

  /// Calls `body` with all rows in order: in each round with a block for each thread at the most.
  @discardableResult
  func forEachRound(
    _ onProgress: (FeatureProgress) -> Bool = { _ in true }, _ body: ([RowBlock]) throws(FileError) -> Void
  ) throws(FileError) -> (rows: Int, dropped: Int, missing: Int) {
    switch contents {
    case .npy(let file): return try forEachRound(of: file, onProgress, body)
    case .csv(let table, let kinds, let order):
      let pass = CSVPass(table, kinds: kinds, missing: missing)
      var pace = Pace()
      while let parts = try pass.next() {
        if !order.isEmpty {
          Parallel.run(parts: parts.count) { parts[$0].reorder(order) }
        }
        try body(
          parts.filter { $0.rows > 0 }.map { part in
            RowBlock(
              first: part.first, rows: part.rows, values: .double(part.numbers.pointer), features: features,
              owner: part.numbers)
          })
        try report(
          onProgress, &pace, bytes: pass.position, totalBytes: table.file.count, rows: pass.rows + pass.dropped)
      }
      return (pass.rows, pass.dropped, pass.missing)
    }
  }

  /// Bytes of an NPY file that a thread takes in a round: several times what a fork and join cost.
  private static let partSize = 4 << 20

  private func forEachRound(
    of file: NPYFile, _ onProgress: (FeatureProgress) -> Bool, _ body: ([RowBlock]) throws(FileError) -> Void
  ) throws(FileError) -> (rows: Int, dropped: Int, missing: Int) {
    let rows = file.shape[0]
    let rowBytes = features * file.elementType.byteCount
    // A page of each column at the least, where they stand one behind the other.
    let height = max(file.isFortranOrder ? 4096 : 1, Self.partSize / rowBytes)
    var pace = Pace()
    var row = 0
    while row < rows {
      let round = min(rows - row, height * Parallel.threadCount)
      let count = (round + height - 1) / height
      let ranges = (0..<count).map { part in
        let range = Parallel.range(part, of: count, count: round)
        return row + range.lowerBound..<row + range.upperBound
      }
      let blocks = ranges.map { range in
        let storage = file.rows(range)
        return RowBlock(
          first: range.lowerBound, rows: range.count, values: storage.values, features: features, owner: storage.owner)
      }
      try body(blocks)
      Parallel.run(parts: count) { file.release(rows: ranges[$0]) }
      row += round
      try report(onProgress, &pace, bytes: row * rowBytes, totalBytes: rows * rowBytes, rows: row)
    }
    return (rows, 0, 0)
  }

  /// When a pass last said how far it is.
  private struct Pace {
    private var last = ContinuousClock.now

    mutating func isDue() -> Bool {
      let now = ContinuousClock.now
      guard now - last >= .milliseconds(50) else { return false }
      last = now
      return true
    }
  }

  private func report(
    _ onProgress: (FeatureProgress) -> Bool, _ pace: inout Pace, bytes: Int, totalBytes: Int, rows: Int
  ) throws(FileError) {
    guard pace.isDue() || bytes == totalBytes else { return }
    guard onProgress(FeatureProgress(bytes: bytes, totalBytes: totalBytes, rows: rows)) else {
      throw FileError(
        path: path, kind: .interrupted, expected: "to be read to its end", found: "the wish to stop after \(rows) rows")
    }
  }
}

/// The same numbers, each rounded to the nearest of 32 bits.
func narrowed(_ x: Tensor<Double>) -> Tensor<Float> {
  let x = x.contiguous()
  let y = Tensor<Float>(uninitialized: x.shape)
  let (from, to) = (x.address, y.address)
  Parallel.ranges(x.count, grain: 4 * Parallel.elementGrain) { range in
    for index in range { to[index] = Float(from[index]) }
  }
  withExtendedLifetime(x) {}
  return y
}

private func widened(_ x: Tensor<Float>) -> Tensor<Double> {
  let x = x.contiguous()
  let y = Tensor<Double>(uninitialized: x.shape)
  let (from, to) = (x.address, y.address)
  for index in 0..<x.count { to[index] = Double(from[index]) }
  withExtendedLifetime(x) {}
  return y
}

extension NPYFile {
  /// What rows are read as: 32 bits where they hold all that the file does.
  fileprivate var rowType: ElementType {
    switch elementType {
    case .bool, .uint8, .int8, .uint16, .int16, .float16, .bfloat16, .float32: .float32
    case .uint32, .int32, .uint64, .int64, .float64: .float64
    }
  }

  /// Some rows, one behind the other: the file's own memory where they stand so in it.
  fileprivate func rows(_ range: Range<Int>) -> (values: FeatureFile.RowBlock.Values, owner: AnyObject) {
    if rowType == .float32 {
      let storage: Storage<Float> = rowStorage(range)
      return (.float(storage.pointer), storage)
    }
    let storage: Storage<Double> = rowStorage(range)
    return (.double(storage.pointer), storage)
  }

  private func rowStorage<Scalar: TensorScalar>(_ rows: Range<Int>) -> Storage<Scalar> {
    let width = shape.dropFirst().reduce(1, *)
    guard isFortranOrder, shape.count > 1 else {
      return numbers[rows.lowerBound * width..<rows.upperBound * width].storage()
    }
    // The part of each run of rows, then the transposed view of them all.
    let columns = Storage<Scalar>(count: rows.count * width)
    Parallel.ranges(width) { range in
      for column in range {
        let start = column * shape[0] + rows.lowerBound
        let part: Storage<Scalar> = numbers[start..<start + rows.count].storage()
        (columns.pointer + column * rows.count).update(from: part.pointer, count: rows.count)
      }
    }
    let strides = fortranStrides.enumerated().map { $0 == 0 ? 1 : $1 / shape[0] * rows.count }
    let view = Tensor(storage: columns, shape: [rows.count] + shape.dropFirst(), strides: strides, offset: 0)
    return view.contiguous().storage
  }

  /// Lets the system have the memory of rows that have been read.
  fileprivate func release(rows: Range<Int>) {
    if isFortranOrder, shape.count > 1 {
      for column in 0..<shape.dropFirst().reduce(1, *) {
        let start = column * shape[0]
        MappedFile.release(numbers[start + rows.lowerBound..<start + rows.upperBound].bytes)
      }
    } else {
      let width = shape.dropFirst().reduce(1, *)
      MappedFile.release(numbers[rows.lowerBound * width..<rows.upperBound * width].bytes)
    }
  }
}
