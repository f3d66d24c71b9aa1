import ArgumentParser
import Steppe
import SteppeExperiments

struct Normalize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Standardizes, scales or whitens the features of a data set.",
    discussion: """
      Takes NPY files and tables of comma-separated values, however much larger than memory. A normalization is fitted \
      on training data and applied to any; its file is all that applying and taking back need.

      Examples:
        steppe normalize fit train.npy --output scaler.safetensors
        steppe normalize apply test.npy --scaler scaler.safetensors --output z.npy
        steppe normalize inverse z.npy --scaler scaler.safetensors --output x.npy
        steppe normalize fit table.csv --without id --missing mean \\
          --output scaler.safetensors --report features.csv
      """,
    subcommands: [FitFeatures.self, ApplyFeatures.self, InverseFeatures.self])
}

extension FeatureMethod: ExpressibleByArgument {}
extension MissingValues: ExpressibleByArgument {}

enum NumberType: String, CaseIterable, ExpressibleByArgument {
  case float32, float64

  var elementType: ElementType { self == .float32 ? .float32 : .float64 }
}

enum SeparatorName: String, CaseIterable, ExpressibleByArgument {
  case comma, semicolon, tab, bar

  var character: Character {
    switch self {
    case .comma: ","
    case .semicolon: ";"
    case .tab: "\t"
    case .bar: "|"
    }
  }
}

/// How a table is read.
struct TableOptions: ParsableArguments {
  @Option(help: "What stands between the fields of a table.") var separator = SeparatorName.comma

  @Flag(
    inversion: .prefixedNo,
    help: "A table's first line holds the columns' names. (default: --header, unless the line holds numbers alone)")
  var header: Bool?

  @Option(
    help: """
      What becomes of missing numbers (an empty field, NA, N/A, NaN, null): refuse them, drop their rows, or take the \
      feature's mean in their place.
      """)
  var missing = MissingValues.refuse

  var format: CSVFormat { CSVFormat(separator: separator.character, hasHeader: header) }

  /// Throws where missing numbers would be made up.
  func checkExamples() throws {
    if missing == .mean {
      throw ValidationError("--missing: expected refuse or drop, for examples are not made up; found mean")
    }
  }
}

struct FitFeatures: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fit", abstract: "Fits a normalization in one pass over a file, and reports its features.",
    discussion: """
      Prints the mean, deviation and range of each feature, and which are constant: these become 0. NaN, infinity and \
      text in a data column end it, named by row and column, and nothing is written.
      """)

  @Argument(help: ArgumentHelp("The rows: an NPY file or a table of comma-separated values.", valueName: "file"))
  var input: String

  @Option(name: [.short, .long], help: ArgumentHelp("Where the normalization is kept.", valueName: "file"))
  var output: String

  @Option(
    help: """
      What is made of each feature: mean 0 and deviation 1, a range of 0 to 1, or principal components (pca) or near \
      features (zca) that are uncorrelated with deviation 1.
      """)
  var method = FeatureMethod.standardize

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The range's lower bound, for minmax. (default: 0)", valueName: "number"))
  var low: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The range's upper bound, for minmax. (default: 1)", valueName: "number"))
  var high: Double?

  @Option(help: ArgumentHelp("How many principal components are kept, for pca. (default: all)", valueName: "count"))
  var components: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("What is added to the variances, for pca and zca. (default: 0)", valueName: "number"))
  var epsilon: Double?

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("The columns of a table that are its features. (default: all)", valueName: "names"))
  var columns: [String] = []

  @Option(
    parsing: .upToNextOption, help: ArgumentHelp("Columns of a table that are left out.", valueName: "names"))
  var without: [String] = []

  @OptionGroup(title: "Table") var reading: TableOptions

  @Option(help: ArgumentHelp("Write the report of all features as a table, too.", valueName: "file"))
  var report: String?

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    let isWhitening = method == .pca || method == .zca
    if low != nil || high != nil {
      guard method == .minmax else {
        throw ValidationError("--low, --high: expected --method minmax beside them, found \(method.rawValue)")
      }
      let (low, high) = (low ?? 0, high ?? 1)
      guard low < high, (high - low).isFinite else {
        throw ValidationError("--low, --high: expected a lower and a higher finite number, found \(low) and \(high)")
      }
    }
    if let components {
      guard method == .pca else {
        throw ValidationError("--components: expected --method pca beside it, found \(method.rawValue)")
      }
      guard components > 0 else { throw ValidationError("--components: expected at least 1, found \(components)") }
    }
    if let epsilon {
      guard isWhitening else {
        throw ValidationError("--epsilon: expected --method pca or zca beside it, found \(method.rawValue)")
      }
      guard epsilon >= 0, epsilon.isFinite else {
        throw ValidationError("--epsilon: expected 0 or more, found \(epsilon)")
      }
    }
    if isWhitening, reading.missing == .mean {
      throw ValidationError("--missing: expected refuse or drop with --method \(method.rawValue), found mean")
    }
  }

  func run() throws {
    threads.apply(quiet: quiet)
    let file = try FeatureFile(
      input, columns: columns.isEmpty ? nil : columns, without: without, format: reading.format,
      missing: reading.missing)
    let clock = ContinuousClock.now
    let normalizer = try fitted(file)
    try normalizer.save(to: output)
    let seconds = (ContinuousClock.now - clock) / .seconds(1)
    let statistics = normalizer.statistics
    let rows = Self.rows(of: statistics)
    if let report {
      let lines = [Self.titles] + rows
      try AtomicFile.write(to: report) { file throws(FileError) in
        for line in lines { try file.write(line.map(CSV.quoted).joined(separator: ",") + "\n") }
      }
    }
    let shown = rows.prefix(Self.mostShown)
    print(Self.reportTable([Self.titles] + shown))
    if rows.count > shown.count {
      print("… and \(grouped(rows.count - shown.count)) features more\(report == nil ? "; --report has all" : "")")
    }
    let constant = statistics.constantFeatures.count
    var summary = [
      ["rows", grouped(statistics.rows)], ["features", grouped(statistics.count)],
      ["constant", constant == 0 ? "none" : "\(grouped(constant)), which become 0"],
    ]
    if let whitening = normalizer as? Whitening {
      summary.append(["rank", "\(grouped(whitening.rank)), giving \(grouped(whitening.outputCount)) features"])
    }
    if !file.omitted.isEmpty { summary.append(["left out", file.omitted.joined(separator: ", ")]) }
    summary += [["normalization", output]] + (report.map { [["report", $0]] } ?? [])
    summary.append(["read", "\(byteCount(file.byteCount)) in \(fixed(seconds, 2)) s"])
    print("\n" + list(summary))
  }

  private func fitted(_ file: FeatureFile) throws -> any FeatureNormalizer {
    var pass = PassProgress("fit", quiet: quiet)
    defer { pass.end() }
    return try pass.interruptible { onProgress -> any FeatureNormalizer in
      switch method {
      case .standardize: return try FeatureStandardizer(file.statistics(onProgress: onProgress), source: input)
      case .minmax:
        return try MinMaxScaler(
          file.statistics(onProgress: onProgress), range: (low ?? 0)...(high ?? 1), source: input)
      case .pca, .zca:
        return try Whitening(
          file.covariance(onProgress: onProgress), method: method, components: components, epsilon: epsilon ?? 0,
          source: input)
      }
    }
  }

  // MARK: The report

  private static let mostShown = 100
  private static let titles = ["feature", "count", "mean", "deviation", "minimum", "maximum", "constant"]

  private static func rows(of statistics: FeatureStatistics) -> [[String]] {
    statistics.features.enumerated().map { index, feature in
      [
        feature.name.isEmpty ? "\(index)" : feature.name, "\(feature.count)", "\(feature.mean)",
        "\(feature.deviation)", "\(feature.minimum)", "\(feature.maximum)", feature.isConstant ? "yes" : "no",
      ]
    }
  }

  /// The report as a person reads it: six digits.
  private static func reportTable(_ rows: [[String]]) -> String {
    table(
      rows.map { row in
        row.enumerated().map { column, text in
          2...5 ~= column ? Double(text).map { significant($0, 6) } ?? text : text
        }
      })
  }
}

/// What applying and taking back have in common.
struct TransformOptions: ParsableArguments {
  @Argument(help: ArgumentHelp("The rows: an NPY file or a table of comma-separated values.", valueName: "file"))
  var input: String

  @Option(name: [.short, .long], help: ArgumentHelp("The file of 'steppe normalize fit'.", valueName: "file"))
  var scaler: String

  @Option(name: [.short, .long], help: ArgumentHelp("What is written: a .npy or .csv file.", valueName: "file"))
  var output: String

  @Option(help: "The numbers that are written. (default: float64 where the file's own are, else float32)")
  var type: NumberType?

  @OptionGroup(title: "Table") var reading: TableOptions

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    guard output.hasSuffix(".csv") || output.hasSuffix(".npy") else {
      throw ValidationError("--output: expected a file with the extension .csv or .npy, found '\(output)'")
    }
  }

  func run(inverse: Bool) throws {
    threads.apply(quiet: quiet)
    let normalizer = try featureNormalizer(from: scaler)
    let file = try FeatureFile(
      input, for: normalizer, inverse: inverse, format: reading.format, missing: reading.missing)
    let clock = ContinuousClock.now
    var pass = PassProgress(inverse ? "inverse" : "apply", quiet: quiet)
    defer { pass.end() }
    let result = try pass.interruptible { onProgress in
      try file.transform(
        by: normalizer, to: output, inverse: inverse, type: type?.elementType, onProgress: onProgress)
    }
    pass.end()
    let seconds = (ContinuousClock.now - clock) / .seconds(1)
    var summary = [["rows", grouped(result.rows)], ["method", normalizer.method.rawValue]]
    if result.missing > 0 {
      let fate = reading.missing == .drop ? "\(grouped(result.dropped)) rows dropped" : "taken as the mean"
      summary.append(["missing", "\(grouped(result.missing)) numbers, \(fate)"])
    }
    if !file.omitted.isEmpty { summary.append(["left out", file.omitted.joined(separator: ", ")]) }
    summary += [["output", output], ["read", "\(byteCount(file.byteCount)) in \(fixed(seconds, 2)) s"]]
    print(list(summary))
  }
}

struct ApplyFeatures: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "apply", abstract: "Normalizes a file's rows.",
    discussion: """
      A table's columns are found by the names that the normalization was fitted on, wherever they stand; others are \
      left out. The file appears complete or not at all.
      """)

  @OptionGroup var options: TransformOptions

  func run() throws { try options.run(inverse: false) }
}

struct InverseFeatures: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inverse", abstract: "Makes normalized rows what they were before.",
    discussion: "What the normalization took away, such as a constant feature, comes back as its mean.")

  @OptionGroup var options: TransformOptions

  func run() throws { try options.run(inverse: true) }
}

/// The progress of a pass over a file, which Ctrl-C ends in good order: nothing half written stays.
private struct PassProgress {
  private var line: ProgressLine
  private let title: String
  private let start = ContinuousClock.now

  init(_ title: String, quiet: Bool) {
    self.title = title
    line = ProgressLine(quiet: quiet)
    Interruption.watch()
  }

  mutating func interruptible<Result>(
    _ body: ((FeatureProgress) -> Bool) throws -> Result
  ) throws -> Result {
    do {
      return try body { progress in
        let shown = self.text(progress)
        line.show { shown }
        return Interruption.signal == nil
      }
    } catch let error as FileError where error.kind == .interrupted {
      line.clear()
      Console.error("steppe: \(error)")
      throw ExitCode(128 + (Interruption.signal ?? 0))
    }
  }

  mutating func end() { line.clear() }

  private func text(_ progress: FeatureProgress) -> String {
    let seconds = max((ContinuousClock.now - start) / .seconds(1), 1e-9)
    let share = Double(progress.bytes) / Double(max(progress.totalBytes, 1))
    let rate = Double(progress.bytes) / seconds
    return [
      "\(title) \(percentage(share, digits: 2))", "\(grouped(progress.rows)) rows", "\(byteCount(Int(rate)))/s",
      "\(duration(Double(progress.totalBytes - progress.bytes) / max(rate, 1))) left",
    ].joined(separator: "  ")
  }
}
