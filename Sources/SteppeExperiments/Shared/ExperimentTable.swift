import Steppe

/// Numbers and names in rows under named columns, as CSV.
public struct ExperimentTable: Equatable, Sendable {
  public let columns: [String]
  /// Each as many fields as there are columns, without commas, quotes or line ends.
  public private(set) var rows: [[String]] = []

  public init(columns: [String]) { self.columns = columns }

  /// Adds a row. Numbers are written so that they read back the same.
  public mutating func append(_ fields: [any CustomStringConvertible]) {
    let row = fields.map(\.description)
    precondition(
      row.count == columns.count && !row.joined().contains { ",\"\n\r".contains($0) },
      "ExperimentTable: expected \(columns.count) plain fields, got \(row)")
    rows.append(row)
  }

  /// The field of `column` in each row.
  public func fields(_ column: String) -> [String] {
    let index = columns.firstIndex(of: column)!
    return rows.map { $0[index] }
  }

  /// The numbers of `column`; a field that is no number is NaN.
  public func numbers(_ column: String) -> [Double] { fields(column).map { Double($0) ?? .nan } }

  /// The rows in which `column` says `value`.
  public func filtered(_ column: String, _ value: some CustomStringConvertible) -> ExperimentTable {
    let index = columns.firstIndex(of: column)!
    var result = self
    result.rows = rows.filter { $0[index] == value.description }
    return result
  }

  /// All rows but the first.
  func dropFirst() -> ExperimentTable {
    var result = self
    result.rows = Array(rows.dropFirst())
    return result
  }

  /// Puts the file in place as a whole.
  public func write(to path: String) throws(FileError) {
    try AtomicFile.write(to: path) { file throws(FileError) in
      for row in [columns] + rows { try file.write(row.joined(separator: ",") + "\n") }
    }
  }

  /// Reads what ``write(to:)`` wrote.
  ///
  /// - Throws: ``FileError`` where the file is no such table.
  public init(contentsOf path: String) throws(FileError) {
    let text = try MappedFile(path).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    let lines = text.split(separator: "\n").map {
      $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    }
    guard let header = lines.first else {
      throw FileError(path: path, kind: .empty, expected: "a table with a header", found: "nothing")
    }
    columns = header
    rows = Array(lines.dropFirst())
    if let (number, row) = rows.enumerated().first(where: { $0.element.count != header.count }) {
      throw FileError(
        path: path, kind: .wrongFormat, expected: "\(header.count) fields in line \(number + 2)", found: "\(row.count)")
    }
  }
}
