/// How a ``Trainer`` goes about its work; ``Trainer/fit(training:validation:onProgress:)`` checks the values.
///
/// ```swift
/// var configuration = TrainingConfiguration(epochs: 20, batchSize: 128, seed: 1)
/// configuration.checkpointFolder = "run"
/// configuration.checkpointInterval = .steps(500)
/// configuration.patience = 5
/// ```
public struct TrainingConfiguration: Sendable, Equatable {
  /// What becomes of an incomplete last batch of an epoch.
  public enum LastBatch: String, Sendable, Hashable, CaseIterable {
    /// It is kept, unless it is too small for a layer of the model: batch norm can't train on a single row. Then it is left out, in
    /// each epoch other rows.
    case automatic
    /// It is kept. Where it is too small for a layer, training throws that layer's ``LayerError`` before the first step.
    case keep
    /// It is left out.
    case drop
  }

  /// When checkpoints are written, besides at the start, when training is interrupted and at the end.
  public enum CheckpointInterval: Sendable, Hashable {
    /// After every so many steps.
    case steps(Int)
    /// At the end of every so many epochs.
    case epochs(Int)
  }

  /// What decides which epoch is the best and when training stops early.
  public enum MonitoredMetric: String, Sendable, Hashable, CaseIterable {
    /// The validation loss; less is better.
    case validationLoss
    /// The validation accuracy; more is better.
    case validationAccuracy
  }

  /// How often each example is seen, at least 1.
  public var epochs: Int
  /// The rows in a batch, at least 1.
  public var batchSize: Int
  /// Chooses the order of the examples.
  public var seed: UInt64
  /// Whether each epoch has a random order of its own.
  public var shuffles = true
  /// What becomes of an incomplete last batch.
  public var lastBatch = LastBatch.automatic
  /// The rows in a batch of validation, at least 1.
  public var validationBatchSize = 1000

  /// Where checkpoints are kept; nil for none. The folder is made where it is missing.
  public var checkpointFolder: String?
  /// When checkpoints are written.
  public var checkpointInterval = CheckpointInterval.epochs(1)
  /// How many of the latest checkpoints stay in the folder, at least 1.
  public var keptCheckpoints = 2

  /// After how many epochs without improvement training stops, at least 1; nil for never. It needs validation data.
  public var patience: Int?
  /// What has to improve.
  public var monitoredMetric = MonitoredMetric.validationLoss
  /// By how much it has to change to count as improved, at least 0.
  public var minimumImprovement = 0.0

  /// The least time between two reports of progress in seconds, at least 0; the end of an epoch is always reported.
  public var progressInterval = 0.1

  /// A configuration with the defaults for all else.
  public init(epochs: Int = 10, batchSize: Int = 64, seed: UInt64 = 0) {
    self.epochs = epochs
    self.batchSize = batchSize
    self.seed = seed
  }

  /// - Throws: ``TrainingError/invalidSetting(name:expected:found:)``.
  func check(hasValidation: Bool) throws(TrainingError) {
    func check(_ name: String, _ value: some Any, _ holds: Bool, _ expected: String) throws(TrainingError) {
      if !holds { throw .invalidSetting(name: name, expected: expected, found: "\(value)") }
    }
    try check("epochs", epochs, epochs >= 1, "at least 1")
    try check("batchSize", batchSize, batchSize >= 1, "at least 1")
    try check("validationBatchSize", validationBatchSize, validationBatchSize >= 1, "at least 1")
    let interval =
      switch checkpointInterval {
      case .steps(let count), .epochs(let count): count
      }
    try check("checkpointInterval", checkpointInterval, interval >= 1, "at least 1")
    try check("keptCheckpoints", keptCheckpoints, keptCheckpoints >= 1, "at least 1")
    if let patience {
      try check("patience", patience, patience >= 1, "at least 1")
      try check("patience", patience, hasValidation, "validation data beside it")
    }
    try check(
      "minimumImprovement", minimumImprovement, minimumImprovement >= 0 && minimumImprovement.isFinite,
      "a finite number of at least 0")
    try check(
      "progressInterval", progressInterval, progressInterval >= 0 && progressInterval.isFinite,
      "a finite number of at least 0")
  }
}
