/// What an `onProgress` closure decides.
public enum TrainingAction: Sendable, Hashable {
  /// Go on.
  case `continue`
  /// Write a checkpoint and return.
  case stop
}

/// Where training stands, while it runs.
public struct TrainingProgress: Sendable, Equatable {
  /// The current epoch, from 1.
  public let epoch: Int
  /// How many epochs there will be.
  public let epochs: Int
  /// The batches done in this epoch.
  public let batch: Int
  /// The batches in an epoch.
  public let batchesPerEpoch: Int
  /// The steps done since the run began, those before a resumption included.
  public let step: Int
  /// The steps of the whole run.
  public let totalSteps: Int
  /// The mean loss over this epoch's examples so far.
  public let loss: Double
  /// The share of this epoch's examples so far that were classified rightly, each before the step that it took part in.
  public let accuracy: Double
  /// The rate of the last step.
  public let learningRate: Double
  /// Examples trained on in a second, since training began or was resumed.
  public let samplesPerSecond: Double
  /// Seconds that are left at this pace.
  public let timeLeft: Double
  /// At the end of an epoch its record; else nil.
  public let record: EpochRecord?
}

/// What came of one epoch.
public struct EpochRecord: Sendable, Equatable {
  /// The epoch, from 1.
  public let epoch: Int
  /// The steps since the run began, at the epoch's end.
  public let step: Int
  /// The mean loss over the epoch's examples, each before the step that it took part in.
  public let trainingLoss: Double
  /// The share of the epoch's examples that were classified rightly, each before the step that it took part in.
  public let trainingAccuracy: Double
  /// The mean loss over the validation data, where there are any.
  public let validationLoss: Double?
  /// The share of the validation data that is classified rightly, where there are any.
  public let validationAccuracy: Double?
  /// The rate of the epoch's last step.
  public let learningRate: Double
  /// How long the epoch took in seconds, validation included.
  public let seconds: Double

  package init(
    epoch: Int, step: Int, trainingLoss: Double, trainingAccuracy: Double, validationLoss: Double?,
    validationAccuracy: Double?, learningRate: Double, seconds: Double
  ) {
    self.epoch = epoch
    self.step = step
    self.trainingLoss = trainingLoss
    self.trainingAccuracy = trainingAccuracy
    self.validationLoss = validationLoss
    self.validationAccuracy = validationAccuracy
    self.learningRate = learningRate
    self.seconds = seconds
  }
}

/// What came of ``Trainer/fit(training:validation:onProgress:)``.
public struct TrainingReport: Sendable, Equatable {
  /// Why training ended.
  public enum Outcome: String, Sendable, Hashable, CaseIterable {
    /// All epochs are done.
    case completed
    /// The monitored metric stopped improving.
    case stoppedEarly
    /// `onProgress` asked to stop; the run can be resumed.
    case interrupted
  }

  /// Why training ended.
  public let outcome: Outcome
  /// All epochs since the run began, those before a resumption included.
  public let history: [EpochRecord]
  /// The steps since the run began.
  public let step: Int
  /// How long this call took in seconds.
  public let seconds: Double
  /// The checkpoint written at the end, from which ``Trainer/resume(from:)`` goes on; nil without a checkpoint folder.
  public let checkpoint: String?
  /// The epoch, from 1, with the best value of the monitored metric; nil without validation.
  public let bestEpoch: Int?
  /// The model as it was after that epoch, in the folder where the epoch's checkpoints were kept; nil without validation or without a
  /// checkpoint folder then, and where the file is gone.
  public let bestModel: String?
}

/// What ``Trainer/resume(from:)`` found.
public struct Resumption: Sendable, Equatable {
  /// The checkpoint that was read.
  public let checkpoint: String
  /// The steps that the run had done.
  public let step: Int
  /// The epoch, from 1, that training goes on with.
  public let epoch: Int
  /// The run's thread count. With another one the run goes on as well, but not bitwise as it would have.
  public let threadCount: Int
  /// The processes that trained together. With another number of them the run goes on as well, but not bitwise as it would have.
  public let rankCount: Int
  /// Newer checkpoints of the folder that are damaged, and why.
  public let skipped: [CheckpointError]
}
