import ArgumentParser
import Steppe

/// A person's own table: what of it trains and what is to be told.
struct TableSelection: Equatable {
  var path: String
  var target: String
  /// Nil where the target itself shall tell.
  var task: TableTask?
  var without: [String] = []
  var separator = SeparatorName.comma
  var header: Bool?
  var missing = MissingValues.refuse
  /// Another table with the same columns, to test with.
  var test: String?

  var format: CSVFormat { CSVFormat(separator: separator.character, hasHeader: header) }

  func trainingExamples() throws(FileError) -> TableDataset<Float> {
    try TableDataset(path, target: target, without: without, task: task, format: format, missing: missing)
  }

  /// The examples to test with, of the training examples' columns and classes.
  func testExamples(like training: TableDataset<Float>) throws(FileError) -> TableDataset<Float>? {
    guard let test else { return nil }
    return try TableDataset(
      test, target: target, features: training.featureNames, task: training.task,
      classNames: training.task == .classify ? training.classNames : nil, format: format, missing: missing)
  }
}

// MARK: - In files

extension TableSelection {
  var json: JSONValue {
    .object([
      .init("path", .string(path)), .init("target", .string(target)),
      .init("task", task.map { .string($0.rawValue) } ?? .null),
      .init("without", .array(without.map { .string($0) })), .init("separator", .string(separator.rawValue)),
      .init("header", header.map { .bool($0) } ?? .null), .init("missing", .string(missing.rawValue)),
      .init("test", test.map { .string($0) } ?? .null),
    ])
  }

  init(_ reader: JSONReader) throws(FileError) {
    self.init(path: try reader.string("path"), target: try reader.string("target"))
    task = try reader.optionalChoice("task")
    without = try reader.strings("without")
    separator = try reader.choice("separator")
    header = try reader.optionalBoolean("header")
    missing = try reader.choice("missing")
    test = try reader.optionalString("test")
  }
}

/// What a model that was trained on a table takes and tells.
struct TableSpecification: Equatable {
  var features: [String]
  var target: String
  var task: TableTask

  var json: JSONValue {
    .object([
      .init("features", .array(features.map { .string($0) })), .init("target", .string(target)),
      .init("task", .string(task.rawValue)),
    ])
  }

  init(features: [String], target: String, task: TableTask) {
    self.features = features
    self.target = target
    self.task = task
  }

  init(_ reader: JSONReader) throws(FileError) {
    self.init(
      features: try reader.strings("features"), target: try reader.string("target"), task: try reader.choice("task"))
  }
}

// MARK: - On the command line

extension TableTask: ExpressibleByArgument {}

struct TableTrainingOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The column of the table --data that is to be told from all others; by number where it has no names.",
      valueName: "column"))
  var target: String?

  @Option(
    help: """
      Whether the target is a class or a number. (default: classify where it is text, or whole numbers of at most 20 \
      values; else regress)
      """)
  var task: TableTask?

  @Option(
    parsing: .upToNextOption, help: ArgumentHelp("Columns of the table that are left out.", valueName: "columns"))
  var without: [String] = []

  @Option(help: ArgumentHelp("Another table with the same columns, to test with.", valueName: "file"))
  var testData: String?

  @OptionGroup var reading: TableOptions

  func validate() throws { try reading.checkExamples() }

  /// The table at `path`, or nil where there is none.
  func selection(_ path: String?) throws -> TableSelection? {
    guard let path else {
      if target != nil || task != nil || !without.isEmpty || testData != nil {
        throw ValidationError("--target, --task, --without, --test-data: expected --data with a table, found none")
      }
      return nil
    }
    guard let target else {
      throw ValidationError("--data \(path): expected --target with the column that is to be told, found none")
    }
    return TableSelection(
      path: path, target: target, task: task, without: without, separator: reading.separator, header: reading.header,
      missing: reading.missing, test: testData)
  }
}
