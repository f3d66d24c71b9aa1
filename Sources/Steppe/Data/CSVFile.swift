import CSteppeKernels

/// What becomes of a number that a table lacks: an empty field, or `NA`, `N/A`, `NaN` or `null`, in any case.
public enum MissingValues: String, Sendable, Hashable, CaseIterable {
  /// It is an error, named by row and column.
  case refuse
  /// Its row is left out.
  case drop
  /// It counts for nothing in the statistics, and is normalized as its feature's mean.
  case mean
}

/// How comma-separated values are to be understood.
public struct CSVFormat: Sendable, Hashable {
  /// What stands between fields.
  public var separator: Character
  /// Whether the first line holds the columns' names; nil where the line itself shall tell, by a field that is no number.
  public var hasHeader: Bool?

  /// Fields between `separator`, one of ``separators``.
  public init(separator: Character = ",", hasHeader: Bool? = nil) {
    require(
      Self.separators.contains(separator),
      "CSVFormat: expected one of \(Self.separators) as separator, got \(separator.debugDescription)")
    self.separator = separator
    self.hasHeader = hasHeader
  }

  /// What may stand between fields.
  public static let separators: [Character] = [",", ";", "\t", "|"]
}

/// A table of comma-separated values (RFC 4180) in a mapped file: what its first line tells.
///
/// Lines end in `\n` or `\r\n`, the last one also with the file; empty ones are no rows. A field in quotes may hold separators, line
/// ends, and quotes that are doubled. A byte order mark is passed over.
package struct CSVFile: Sendable {
  package let path: String
  /// The columns' names; empty where the file has none.
  package let names: [String]
  package let columnCount: Int
  let file: MappedFile
  let separator: UInt8
  /// Where the rows begin.
  let start: Int

  /// - Throws: ``FileError``: the file is missing or empty, its header has a name twice, or it cannot be told whether it has one.
  package init(_ path: String, format: CSVFormat = CSVFormat()) throws(FileError) {
    file = try MappedFile.nonEmpty(path, expected: "a table of comma-separated values")
    self.path = path
    let separator = format.separator.asciiValue!
    self.separator = separator
    var position = file.bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
    // Empty lines are no rows; the header is the first of the others.
    while position < file.count, file.bytes[position] == 0x0A || file.bytes[position] == 0x0D { position += 1 }
    let first = position
    let base = file.bytes.baseAddress!.assumingMemoryBound(to: UInt8.self)
    let end = base + file.count
    var fields: [String] = []
    var areNumbers = true
    while true {
      let stop = steppe_csv_field_end(base + position, end, separator)
      let field = UnsafeRawBufferPointer(rebasing: file.bytes[position..<stop - base])
      fields.append(Self.text(of: field))
      var number = 0.0
      areNumbers = areNumbers && steppe_parse_number(base + position, end, &number) == stop && !field.isEmpty
      position = stop - base
      guard position < file.count, file.bytes[position] == separator else { break }
      position += 1
    }
    withExtendedLifetime(file) {}
    columnCount = fields.count
    if first == file.count {
      throw FileError(path: path, kind: .wrongFormat, expected: "a first line with columns", found: "an empty one")
    }
    if format.hasHeader == nil, areNumbers {
      throw FileError(
        path: path, kind: .wrongFormat,
        expected: "a header of names, or to be told whether the first line is one",
        found: "numbers alone in the first line")
    }
    guard format.hasHeader ?? true else {
      (names, start) = ([], first)
      return
    }
    for (place, name) in fields.enumerated() where name.isEmpty || fields[..<place].contains(name) {
      throw FileError(
        path: path, kind: .wrongFormat, expected: "a name of its own for each column",
        found: name.isEmpty
          ? "none for column \(place)" : "'\(name)' for columns \(fields.firstIndex(of: name)!) and \(place)")
    }
    (names, start) = (fields, position)
  }

  /// The place of the column that is called `name`, or, without names, has that number.
  package func column(_ name: String) throws(FileError) -> Int {
    if let place = names.firstIndex(of: name) { return place }
    if names.isEmpty, let place = Int(name), (0..<columnCount).contains(place) { return place }
    throw FileError(
      path: path, kind: .noSuchEntry, expected: "a column '\(name)'",
      found: names.isEmpty ? "\(columnCount) columns without names" : names.prefix(30).joined(separator: ", "))
  }

  /// The columns `names`, or all, without others: their places in that order, and for each its rank among these places in the file's
  /// order, none where the two orders are the same.
  func selection(_ names: [String]?, without: [String]) throws(FileError) -> (places: [Int], order: [Int]) {
    var places: [Int] = []
    if let names {
      for name in names { places.append(try column(name)) }
    } else {
      places = Array(0..<columnCount)
    }
    for name in without {
      let place = try column(name)
      places.removeAll { $0 == place }
    }
    if let place = places.indices.first(where: { places[..<$0].contains(places[$0]) }) {
      throw FileError(path: path, kind: .mismatch, expected: "each column once", found: "column \(places[place]) twice")
    }
    guard !places.isEmpty else {
      throw FileError(path: path, kind: .mismatch, expected: "at least one column", found: "none")
    }
    let sorted = places.sorted()
    return (places, sorted == places ? [] : places.map { place in sorted.firstIndex(of: place)! })
  }

  /// A field without its quotes.
  static func text(of field: UnsafeRawBufferPointer) -> String {
    guard field.first == UInt8(ascii: "\""), field.count >= 2, field.last == UInt8(ascii: "\"") else {
      return String(decoding: field, as: UTF8.self)
    }
    var bytes: [UInt8] = []
    var isEscape = false
    for byte in field[1..<field.count - 1] {
      // Of two quotes one stays.
      isEscape = byte == UInt8(ascii: "\"") && !isEscape
      if !isEscape { bytes.append(byte) }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// The rows of a table in order, read a round at a time, in which every thread has a part.
///
/// Each part begins behind a line's end, where a row begins unless the line's end stands in quotes. That is only known when the part
/// before has been read to its end: a part that began in the wrong place is then read again. So rows are the same in whatever parts.
package final class CSVPass {
  /// The rows that one thread has read in a round.
  package struct Part {
    /// The number of the first one, counted from the first of the file.
    package fileprivate(set) var first = 0
    /// How many are kept.
    package fileprivate(set) var rows = 0
    /// The numbers of the columns that are numbers, row by row.
    package let numbers: Storage<Double>
    /// For each column that is text a field's place from `origin` on and its length, row by row.
    fileprivate let places: UnsafeMutableBufferPointer<UInt64>?
    fileprivate var origin = 0
    fileprivate var textColumns = 0

    /// Puts each row's numbers into another order.
    func reorder(_ order: [Int]) {
      let x = numbers.pointer
      withUnsafeTemporaryAllocation(of: Double.self, capacity: order.count) { row in
        for start in stride(from: 0, to: rows * order.count, by: order.count) {
          for column in order.indices { row[column] = x[start + order[column]] }
          (x + start).update(from: row.baseAddress!, count: order.count)
        }
      }
    }

    /// The fields of the columns that are text, row by row.
    package func texts(of table: CSVFile) -> [String] {
      guard let places else { return [] }
      return (0..<rows * textColumns).map { index in
        let start = origin + Int(places[2 * index])
        return CSVFile.text(
          of: UnsafeRawBufferPointer(rebasing: table.file.bytes[start..<start + Int(places[2 * index + 1])]))
      }
    }
  }

  /// Where the first row begins that has not been read yet.
  package private(set) var position: Int
  /// The rows so far that were kept, those that were not for want of a number, and the numbers that were wanting.
  package private(set) var rows = 0
  package private(set) var dropped = 0
  package private(set) var missing = 0
  private let table: CSVFile
  private let kinds: [steppe_csv_column]
  private let choice: steppe_csv_missing
  private let partSize: Int
  private var parts: [Part] = []

  /// No row may be longer.
  private static let longestRow = 64 << 20

  /// - Parameters:
  ///   - kinds: What each column is.
  ///   - missing: `.mean` gives NaN in a missing number's place.
  ///   - partSize: The bytes that a thread reads in a round.
  package init(_ table: CSVFile, kinds: [steppe_csv_column], missing: MissingValues, partSize: Int = 1 << 20) {
    self.table = table
    self.kinds = kinds
    self.partSize = partSize
    choice =
      switch missing {
      case .refuse: STEPPE_CSV_REFUSE_MISSING
      case .drop: STEPPE_CSV_DROP_MISSING
      case .mean: STEPPE_CSV_KEEP_MISSING
      }
    position = table.start
  }

  deinit {
    for part in parts { part.places?.deallocate() }
  }

  private var base: UnsafePointer<UInt8> { table.file.bytes.baseAddress!.assumingMemoryBound(to: UInt8.self) }

  /// The next rows; nil behind the last. What a part holds is good until the next call.
  package func next() throws(FileError) -> [Part]? {
    let size = table.file.count
    guard position < size else { return nil }
    let round = min(size - position, partSize * Parallel.threadCount)
    let count = (round + partSize - 1) / partSize
    let begin = position
    while parts.count < count {
      let room = partSize + kinds.count + 1
      let texts = kinds.count { $0 == STEPPE_CSV_TEXT }
      parts.append(
        Part(
          numbers: Storage(count: room), places: texts > 0 ? .allocate(capacity: 2 * room) : nil, textColumns: texts))
    }
    let limits = (0..<count).map { begin + round * ($0 + 1) / count }
    let starts = (0..<count).map { $0 == 0 ? begin : lineStart(at: limits[$0 - 1], before: limits[$0]) }
    let results = UnsafeMutablePointer<steppe_csv_result>.allocate(capacity: count)
    defer { results.deallocate() }
    Parallel.run(parts: count) { (results + $0).initialize(to: read($0, from: starts[$0], to: limits[$0])) }
    for part in 0..<count {
      var result = results[part]
      var start = starts[part]
      if start != position {
        start = position
        result = read(part, from: start, to: max(limits[part], start))
      }
      if result.problem != STEPPE_CSV_NONE { throw problem(result) }
      (parts[part].first, parts[part].rows, parts[part].origin) = (rows + dropped, Int(result.rows), start)
      rows += Int(result.rows)
      dropped += Int(result.dropped)
      missing += Int(result.missing)
      position = result.next - base
    }
    // The part before may still be needed, where a row has begun.
    table.file.release(begin..<position)
    withExtendedLifetime(table) {}
    return Array(parts[..<count])
  }

  /// Where the first line begins from `position` on, or `limit` where none does.
  private func lineStart(at position: Int, before limit: Int) -> Int {
    let bytes = table.file.bytes
    for place in position - 1..<limit where bytes[place] == 0x0A { return place + 1 }
    return limit
  }

  private func read(_ part: Int, from start: Int, to limit: Int) -> steppe_csv_result {
    let end = min(table.file.count, limit + Self.longestRow)
    return kinds.withUnsafeBufferPointer { kinds in
      var format = steppe_csv_format(
        separator: table.separator, missing: choice, columns: kinds.count, kinds: kinds.baseAddress!)
      return withUnsafeTemporaryAllocation(of: steppe_csv_result.self, capacity: 1) { result in
        steppe_csv_parse(
          &format, base + start, base + limit, base + end, end == table.file.count, parts[part].numbers.pointer,
          parts[part].places?.baseAddress, result.baseAddress!)
        return result[0]
      }
    }
  }

  /// What a problem is, of which all rows before have been counted.
  private func problem(_ result: steppe_csv_result) -> FileError {
    let (path, columns) = (table.path, kinds.count)
    let place = result.at! - base
    let row = rows + dropped + Int(result.rows + result.dropped)
    // Lines are what an editor counts.
    let line = 1 + UnsafeRawBufferPointer(rebasing: table.file.bytes[..<place]).count { $0 == 0x0A }
    func failure(_ kind: FileError.Kind, _ expected: String, _ found: String) -> FileError {
      FileError(path: path, kind: kind, expected: expected, found: "\(found) at row \(row), line \(line)")
    }
    func inColumn(_ found: String) -> String {
      let column = Int(result.column)
      return "\(found) in column \(column)" + (table.names.isEmpty ? "" : " ('\(table.names[column])')")
    }
    let stop = steppe_csv_field_end(result.at!, base + table.file.count, table.separator)
    let text = Self.quoted(UnsafeRawBufferPointer(start: result.at!, count: stop - result.at!))
    switch result.problem {
    case STEPPE_CSV_FEW_FIELDS, STEPPE_CSV_MANY_FIELDS:
      let isLast = result.problem == STEPPE_CSV_FEW_FIELDS && isLastRow(place)
      return failure(
        isLast ? .truncated : .wrongFormat, "\(columns) fields in each row",
        "\(result.column)" + (isLast ? " in the last, which no line's end follows," : ""))
    case STEPPE_CSV_NOT_A_NUMBER: return failure(.wrongFormat, "numbers", inColumn(text))
    case STEPPE_CSV_NOT_FINITE: return failure(.notFinite, "finite numbers", inColumn(text))
    case STEPPE_CSV_MISSING_NUMBER:
      return failure(.notFinite, "a number in each field", inColumn("the missing \(text)"))
    case STEPPE_CSV_LONG_ROW:
      return failure(.tooLarge, "rows of at most \(Self.longestRow) bytes", "a longer one")
    default:
      return failure(
        .wrongFormat, "a quoted field that ends with its last quote", inColumn("a field that begins with \(text)"))
    }
  }

  private func isLastRow(_ place: Int) -> Bool {
    var position = place
    let end = base + table.file.count
    while true {
      position = steppe_csv_field_end(base + position, end, table.separator) - base
      guard position < table.file.count else { return true }
      guard table.file.bytes[position] == table.separator else { return false }
      position += 1
    }
  }

  /// The beginning of a field, to be shown.
  private static func quoted(_ field: UnsafeRawBufferPointer) -> String {
    let text = String(decoding: field.prefix(40), as: UTF8.self).map { $0.isNewline ? " " : $0 }
    return "'" + String(text) + (field.count > 40 ? "…'" : "'")
  }
}

extension CSV {
  /// Reads the numbers of the file at `path`, `[rows, columns]`, with the columns' names, empty where it has none.
  ///
  /// - Parameters:
  ///   - path: The file.
  ///   - columns: The columns that are read, by name, or without names by number, in this order; all by default.
  ///   - format: How the file is to be understood.
  ///   - missing: What becomes of missing numbers; `.mean` gives NaN.
  ///   - type: The numbers' type.
  /// - Throws: ``FileError``: the file is missing, empty or ragged, a column is unknown, or a field, named by row and column, no finite
  ///   number.
  public static func read<Scalar: TensorScalar>(
    _ path: String, columns: [String]? = nil, format: CSVFormat = CSVFormat(), missing: MissingValues = .refuse,
    as type: Scalar.Type = Scalar.self
  ) throws(FileError) -> (rows: Tensor<Scalar>, names: [String]) {
    let table = try CSVFile(path, format: format)
    let file = try FeatureFile(table, columns: columns, without: [], missing: missing)
    var numbers: [Double] = []
    try file.forEachRound { blocks throws(FileError) in
      for block in blocks {
        let rows: Tensor<Double> = block.tensor()
        rows.withUnsafeBufferPointer { numbers.append(contentsOf: $0) }
      }
    }
    let rows = Tensor<Double>(shape: [numbers.count / file.features, file.features], scalars: numbers)
    return (rows.converted(), file.names)
  }
}
