import Steppe

/// What came of one epoch, as a run keeps it.
struct EpochMetrics {
  let epoch: Int
  let step: Int
  let loss: Double
  /// Nil in a regression, and so the others.
  let accuracy: Double?
  let validationLoss: Double?
  let validationAccuracy: Double?
  let testLoss: Double?
  let testAccuracy: Double?
  let learningRate: Double
  let seconds: Double
  let samplesPerSecond: Double
}

extension EpochMetrics {
  /// - Parameters:
  ///   - record: What the trainer says of the epoch.
  ///   - test: What came of the test examples after it.
  ///   - samples: The training examples of an epoch.
  ///   - isRegression: Whether there are no classes to be right about.
  init(_ record: EpochRecord, test: Evaluation?, samples: Int, isRegression: Bool) {
    self.init(
      epoch: record.epoch, step: record.step, loss: record.trainingLoss,
      accuracy: isRegression ? nil : record.trainingAccuracy, validationLoss: record.validationLoss,
      validationAccuracy: isRegression ? nil : record.validationAccuracy, testLoss: test?.loss,
      testAccuracy: isRegression ? nil : test?.accuracy, learningRate: record.learningRate, seconds: record.seconds,
      samplesPerSecond: Double(samples) / record.seconds)
  }

  fileprivate init(_ reader: JSONReader) throws(FileError) {
    self.init(
      epoch: try reader.integer("epoch", atLeast: 1), step: try reader.integer("step", atLeast: 1),
      loss: try reader.number("loss"), accuracy: try reader.optionalNumber("accuracy"),
      validationLoss: try reader.optionalNumber("validation_loss"),
      validationAccuracy: try reader.optionalNumber("validation_accuracy"),
      testLoss: try reader.optionalNumber("test_loss"), testAccuracy: try reader.optionalNumber("test_accuracy"),
      learningRate: try reader.number("learning_rate"), seconds: try reader.number("seconds"),
      samplesPerSecond: try reader.number("samples_per_second"))
  }

  fileprivate var json: JSONValue {
    func optional(_ number: Double?) -> JSONValue { number.map { .number($0) } ?? .null }
    return .object([
      .init("epoch", .integer(epoch)), .init("step", .integer(step)), .init("loss", .number(loss)),
      .init("accuracy", optional(accuracy)), .init("validation_loss", optional(validationLoss)),
      .init("validation_accuracy", optional(validationAccuracy)), .init("test_loss", optional(testLoss)),
      .init("test_accuracy", optional(testAccuracy)), .init("learning_rate", .number(learningRate)),
      .init("seconds", .number(seconds)), .init("samples_per_second", .number(samplesPerSecond)),
    ])
  }
}

/// A run's metrics as JSON lines: first the configuration, then one line for each epoch.
struct MetricsFile {
  private static let format = 1
  let path: String
  var configuration: RunConfiguration
  private(set) var epochs: [EpochMetrics] = []

  /// Metrics of a new run; nothing is written yet.
  init(path: String, configuration: RunConfiguration) {
    self.path = path
    self.configuration = configuration
  }

  /// Reads the metrics of a run that was begun before.
  init(reading path: String) throws(FileError) {
    self.path = path
    let text = try MappedFile(path).withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    let lines = text.split(separator: "\n")
    let first = JSONReader(source: path, text: lines.first ?? "")
    let format = try first.integer("format", atLeast: 1)
    guard format == Self.format else {
      throw FileError(path: path, kind: .unsupported, expected: "format \(Self.format)", found: "\(format)")
    }
    configuration = try RunConfiguration(try first.object("configuration"))
    for line in lines.dropFirst() { epochs.append(try EpochMetrics(JSONReader(source: path, text: line))) }
  }

  /// The same with the configuration that a text says.
  func with(text: String) throws(FileError) -> MetricsFile {
    var result = MetricsFile(path: path, configuration: try RunConfiguration(JSONReader(source: path, text: text)))
    result.epochs = epochs
    return result
  }

  /// Forgets the epochs that are to be computed again: those from `epoch` on.
  mutating func truncate(from epoch: Int) { epochs.removeAll { $0.epoch >= epoch } }

  mutating func append(_ metrics: EpochMetrics) { epochs.append(metrics) }

  /// Writes everything anew, so that the file never ends within a line.
  func write() throws(FileError) {
    let header = JSONValue.object([
      .init("steppe", .string(SteppeVersion.current)), .init("format", .integer(Self.format)),
      .init("configuration", .object(configuration.members)),
    ])
    try AtomicFile.write(to: path) { file throws(FileError) in
      for line in [header] + epochs.map(\.json) { try file.write(line.serialized() + "\n") }
    }
  }
}
