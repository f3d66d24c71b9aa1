/// Where a run stands: what a checkpoint holds beside tensors and generators.
struct TrainingState: Equatable {
  /// The sums of the current epoch.
  struct Epoch: Equatable {
    /// The examples' losses.
    var loss = 0.0
    /// The examples classified rightly.
    var correct = 0
    /// The examples trained on.
    var examples = 0
    /// How long the epoch took up to the last checkpoint.
    var seconds = 0.0

    var meanLoss: Double { loss / Double(examples) }
    var accuracy: Double { Double(correct) / Double(examples) }
  }

  /// The best epoch so far.
  struct Best: Equatable {
    var epoch: Int
    /// The monitored metric, turned so that less is better.
    var metric: Double
  }

  var step = 0
  var position = BatchSampler.Position()
  var epoch = Epoch()
  var best: Best?
  var epochsWithoutImprovement = 0
  var history: [EpochRecord] = []
}

/// A ``TrainingState``, and under what it came about, as JSON. Numbers are written so that they read back as the same.
struct TrainingRecord: Equatable {
  var state: TrainingState
  var settings: [String: String]
  var threadCount: Int
  /// The processes that trained together.
  var rankCount: Int

  init(state: TrainingState, settings: [String: String], threadCount: Int, rankCount: Int) {
    self.state = state
    self.settings = settings
    self.threadCount = threadCount
    self.rankCount = rankCount
  }

  var json: JSONValue {
    .object([
      .init("step", .integer(state.step)),
      .init("epoch", .integer(state.position.epoch)),
      .init("batch", .integer(state.position.batch)),
      .init("epoch_loss", .number(state.epoch.loss)),
      .init("epoch_correct", .integer(state.epoch.correct)),
      .init("epoch_examples", .integer(state.epoch.examples)),
      .init("epoch_seconds", .number(state.epoch.seconds)),
      .init("best_epoch", state.best.map { .integer($0.epoch) } ?? .null),
      .init("best_metric", state.best.map { .number($0.metric) } ?? .null),
      .init("epochs_without_improvement", .integer(state.epochsWithoutImprovement)),
      .init("history", .array(state.history.map(\.json))),
      .init("threads", .integer(threadCount)),
      .init("ranks", .integer(rankCount)),
      .init("settings", .object(settings.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) })),
    ])
  }

  /// Nil where something is missing or impossible.
  init?(_ json: JSONValue) {
    guard let step = json.count("step"), let epoch = json.count("epoch"), let batch = json.count("batch"),
      let loss = json.double("epoch_loss"), let correct = json.count("epoch_correct"),
      let examples = json.count("epoch_examples"), let seconds = json.double("epoch_seconds"),
      let waited = json.count("epochs_without_improvement"), let threads = json.count("threads"),
      case .array(let records) = json["history"], case .object(let members) = json["settings"]
    else { return nil }
    state = TrainingState(
      step: step, position: BatchSampler.Position(epoch: epoch, batch: batch),
      epoch: TrainingState.Epoch(loss: loss, correct: correct, examples: examples, seconds: seconds),
      epochsWithoutImprovement: waited, history: records.compactMap { EpochRecord($0) })
    if let epoch = json.count("best_epoch"), let metric = json.double("best_metric") {
      state.best = TrainingState.Best(epoch: epoch, metric: metric)
    }
    settings = [:]
    for member in members {
      guard case .string(let text) = member.value else { return nil }
      settings[member.key] = text
    }
    threadCount = threads
    rankCount = json.count("ranks") ?? 1
    guard state.history.count == records.count else { return nil }
  }
}

extension EpochRecord {
  fileprivate var json: JSONValue {
    .object([
      .init("epoch", .integer(epoch)),
      .init("step", .integer(step)),
      .init("training_loss", .number(trainingLoss)),
      .init("training_accuracy", .number(trainingAccuracy)),
      .init("validation_loss", validationLoss.map { .number($0) } ?? .null),
      .init("validation_accuracy", validationAccuracy.map { .number($0) } ?? .null),
      .init("learning_rate", .number(learningRate)),
      .init("seconds", .number(seconds)),
    ])
  }

  fileprivate init?(_ json: JSONValue) {
    guard let epoch = json.count("epoch"), let step = json.count("step"), let loss = json.double("training_loss"),
      let accuracy = json.double("training_accuracy"), let rate = json.double("learning_rate"),
      let seconds = json.double("seconds")
    else { return nil }
    self.init(
      epoch: epoch, step: step, trainingLoss: loss, trainingAccuracy: accuracy,
      validationLoss: json.double("validation_loss"), validationAccuracy: json.double("validation_accuracy"),
      learningRate: rate, seconds: seconds)
  }
}

extension JSONValue {
  /// The integer of at least 0 of an object's `key`.
  fileprivate func count(_ key: String) -> Int? {
    if case .integer(let value) = self[key], value >= 0 { value } else { nil }
  }

  /// The number of an object's `key`.
  fileprivate func double(_ key: String) -> Double? { self[key]?.double }
}
