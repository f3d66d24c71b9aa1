/// Why training can't begin, go on or be resumed.
///
/// Its description is one line for people: what was expected and what came.
public enum TrainingError: Error, Equatable, CustomStringConvertible {
  /// A setting of the configuration, the optimizer or the schedule makes no sense.
  case invalidSetting(name: String, expected: String, found: String)
  /// The data, or what the model makes of them, can't be trained on.
  case invalidData(expected: String, found: String)
  /// NaN or infinity came up. `step` counts from 1; `checkpoint` is the last one written, before it came up.
  case notFinite(place: NonFinitePlace, epoch: Int, step: Int, checkpoint: String?)
  /// The run that the checkpoint (or this trainer) began had other settings, so that it can't be continued as if it had not stopped.
  case differentSettings(path: String?, differences: [SettingDifference])
  /// There is no checkpoint to resume from: none in the folder, or none that is whole.
  case noCheckpoint(folder: String, skipped: [CheckpointError])
  /// The folder holds checkpoints of a run that is not being resumed.
  case folderInUse(folder: String, reason: String)

  /// One line with what was expected and what came.
  public var description: String {
    switch self {
    case .invalidSetting(let name, let expected, let found): "\(name): expected \(expected), got \(found)"
    case .invalidData(let expected, let found): "data: expected \(expected), got \(found)"
    case .notFinite(let place, let epoch, let step, let checkpoint):
      "\(place) at step \(step) (epoch \(epoch)); "
        + (checkpoint.map { "the last good checkpoint is \($0)" } ?? "no checkpoint was written")
    case .differentSettings(let path, let differences):
      "\(path ?? "this trainer's run") was begun with other settings: "
        + differences.map(\.description).joined(separator: "; ")
    case .noCheckpoint(let folder, let skipped):
      skipped.isEmpty
        ? "\(folder): expected a checkpoint to resume from, found none"
        : "\(folder): expected a whole checkpoint to resume from, found none: "
          + skipped.map(\.description).joined(separator: "; ")
    case .folderInUse(let folder, let reason): "\(folder): \(reason)"
    }
  }
}

/// A setting that is not what it was.
public struct SettingDifference: Sendable, Equatable, CustomStringConvertible {
  /// The setting, such as `batch size`.
  public let name: String
  /// What the run was begun with.
  public let expected: String
  /// What it is now.
  public let found: String

  package init(name: String, expected: String, found: String) {
    self.name = name
    self.expected = expected
    self.found = found
  }

  /// `batch size: 64 then, 128 now`.
  public var description: String { "\(name): \(expected) then, \(found) now" }
}

/// Where NaN or infinity first came up.
public enum NonFinitePlace: Sendable, Equatable, CustomStringConvertible {
  /// In the data: a row of the data source, and the place within its features in row-major order.
  case features(row: Int, column: Int)
  /// In a parameter or a running statistic, before the step: the gradients of the step before were not finite, or too large. The layer is
  /// nil where it was found at the writing of a checkpoint.
  case parameter(String, layer: String?)
  /// In the output of a layer, as in `BatchNorm '1'`, whose input and parameters were finite.
  case layer(String)
  /// In the loss of finite scores.
  case loss
  /// In the loss over the validation data.
  case validationLoss

  /// What is not finite.
  public var description: String {
    switch self {
    case .features(let row, let column): "a feature is not finite: row \(row), column \(column)"
    case .parameter(let name, let layer):
      "'\(name)'\(layer.map { " of \($0)" } ?? "") is not finite (a lower learning rate may help)"
    case .layer(let name): "the output of \(name) is not finite"
    case .loss: "the loss is not finite"
    case .validationLoss: "the validation loss is not finite"
    }
  }
}
