import Glibc

/// The training loop for classifiers, and by a loss of targets for regressions: shuffled batches, progress, validation, early stopping, checkpoints, and resumption.
///
/// ```swift
/// let trainer = Trainer(model: model, optimizer: SGD(model.parameters, learningRate: 0.1, momentum: 0.9))
/// trainer.configuration.epochs = 20
/// trainer.configuration.checkpointFolder = "run"
/// let report = try trainer.fit(training: training, validation: test) { progress in
///   print(progress.epoch, progress.loss, progress.accuracy)
///   return .continue
/// }
/// ```
///
/// The loop itself is short enough to write by hand where something else is wanted:
///
/// ```swift
/// var sampler = BatchSampler(count: training.count, batchSize: 64, seed: 1)
/// for epoch in 1...20 {
///   while let rows = sampler.next() {
///     let (images, labels) = training.batch(rows: rows)
///     let (logits, pullback) = model.forward(images)
///     pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)
///     optimizer.step()
///   }
///   print(epoch, try evaluate(model, on: test).accuracy)
/// }
/// ```
///
/// **A stopped run** goes on by ``resume(from:)`` in a trainer made like the first, and ends bitwise as if it had never stopped, with the
/// same number of threads. A checkpoint holds the model, the optimizer, the random generators and the place in the data; it takes its
/// name in the folder complete or not at all, so that a run killed at any moment can be resumed.
///
/// **NaN and infinity** stop training with an error that says where they first came up. No checkpoint is written of a model that holds
/// any, so the last one is good.
///
/// **In a regression**, whose ``TrainingLoss/usesTargets``, examples are of one class and the training accuracy is 0.
///
/// A trainer is a reference without locks, for one task at a time, as the model is.
public final class Trainer<Scalar: TensorScalar> {
  /// What is trained. It gives scores `[N, C]`, with C at least the data's number of classes.
  public let model: any Layer<Scalar>
  /// What moves its parameters.
  public let optimizer: any Optimizer<Scalar>
  /// The learning rate of each step of the run; nil for the optimizer's own, which must then stay as it is.
  public let schedule: (any LearningRateSchedule)?
  /// What is made small, and measured in validation.
  public let loss: TrainingLoss<Scalar>
  /// How it is done; may be changed until training begins.
  public var configuration: TrainingConfiguration

  /// The steps done since the run began.
  public var step: Int { state.step }
  /// The epochs done since the run began.
  public var history: [EpochRecord] { state.history }

  /// Where the run stands.
  var state = TrainingState()
  /// What the run was begun with; nil before.
  var settings: [String: String]?
  /// The last checkpoint written or read.
  var lastCheckpoint: String?
  /// Where the model of `state.best` was saved; nil where it was not.
  var bestModel: String?
  /// The processes that train together; nil for this one alone.
  package var group: (any TrainingGroup<Scalar>)?
  /// What `onProgress` asked for, or threw, since the last step of a group.
  var asksToStop = false
  var pendingError: (any Error)?

  /// A trainer that stands at the beginning.
  ///
  /// - Parameters:
  ///   - model: What is trained.
  ///   - optimizer: What moves its parameters.
  ///   - schedule: The learning rate of each step; nil for the optimizer's own.
  ///   - loss: What is made small.
  ///   - configuration: How it is done.
  public init(
    model: any Layer<Scalar>, optimizer: any Optimizer<Scalar>, schedule: (any LearningRateSchedule)? = nil,
    loss: TrainingLoss<Scalar> = .softmaxCrossEntropy(), configuration: TrainingConfiguration = TrainingConfiguration()
  ) {
    self.model = model
    self.optimizer = optimizer
    self.schedule = schedule
    self.loss = loss
    self.configuration = configuration
  }

  /// Trains until all epochs are done, the monitored metric stops improving, or `onProgress` asks to stop.
  ///
  /// A trainer that has been resumed, or was interrupted, goes on where it stands; one whose epochs are all done returns at once.
  ///
  /// With a checkpoint folder, a checkpoint is written at the start too, so that a folder that can't be written is found out before the
  /// first step; beside the checkpoints the folder then holds `best.safetensors`, the model after the epoch with the best monitored
  /// metric (where there are validation data).
  ///
  /// - Parameters:
  ///   - training: The examples to train on.
  ///   - validation: Examples on which the model is evaluated after each epoch.
  ///   - onProgress: Called after a step when ``TrainingConfiguration/progressInterval`` has passed, and at the end of each epoch.
  /// - Returns: What came of it.
  /// - Throws: ``TrainingError``; ``LayerError`` where a layer can't take the batches; ``FileError`` where a checkpoint can't be written;
  ///   and whatever the data sources or `onProgress` throw.
  @discardableResult
  public func fit(
    training: any DataSource<Scalar>, validation: (any DataSource<Scalar>)? = nil,
    onProgress: (TrainingProgress) throws -> TrainingAction = { _ in .continue }
  ) throws -> TrainingReport {
    var sampler = try agreed { try prepare(training, validation) }
    try join()
    sampler.position = state.position
    let keepsCheckpoints = configuration.checkpointFolder != nil
    var folder: CheckpointFolder?
    let isFresh = lastCheckpoint == nil
    try byFirst {
      folder = try configuration.checkpointFolder.map { try CheckpointFolder($0, continuing: lastCheckpoint) }
      // A run that was killed after a checkpoint had not yet removed the old ones.
      if !isFresh { try folder?.removeOld(upTo: state.step, keeping: configuration.keptCheckpoints) }
    }
    if keepsCheckpoints, isFresh { try writeCheckpoint(in: folder) }

    asksToStop = false
    pendingError = nil
    var pace = Pace(step: state.step)
    var outcome = isExhausted ? TrainingReport.Outcome.stoppedEarly : .completed
    while state.position.epoch < configuration.epochs, !isExhausted {
      var record: EpochRecord?
      let isDue: Bool
      var action = TrainingAction.continue
      if let rows = sampler.next() {
        if try trainStep(rows, of: training) { action = .stop }
        pace.examples += rows.count
        isDue = isCheckpointDue(step: state.step)
      } else {
        record = try finishEpoch(validation, in: folder, seconds: pace.lap())
        isDue = isCheckpointDue(epoch: sampler.position.epoch)
        if isExhausted { outcome = .stoppedEarly }
      }
      state.position = sampler.position
      if record != nil || isFirst && pace.isReportDue(every: configuration.progressInterval) {
        let asked = try self.action(isEpochsEnd: record != nil) { try onProgress(progress(sampler, pace, record)) }
        if asked == .stop { action = .stop }
      }
      let isOver = state.position.epoch >= configuration.epochs || isExhausted
      if keepsCheckpoints, isDue || action == .stop || isOver {
        state.epoch.seconds += pace.lap()
        try writeCheckpoint(in: folder)
      }
      if action == .stop, !isOver {
        outcome = .interrupted
        break
      }
    }
    if !keepsCheckpoints { try agreed { try checkFinite() } }
    return TrainingReport(
      outcome: outcome, history: state.history, step: state.step, seconds: pace.seconds,
      checkpoint: keepsCheckpoints ? lastCheckpoint : nil, bestEpoch: state.best?.epoch,
      bestModel: bestModel.flatMap { access($0, F_OK) == 0 ? $0 : nil })
  }

  /// Whether the monitored metric has not improved for as long as it may.
  private var isExhausted: Bool {
    configuration.patience.map { state.epochsWithoutImprovement >= $0 } ?? false
  }

  private func isCheckpointDue(step: Int) -> Bool {
    if case .steps(let count) = configuration.checkpointInterval { step % count == 0 } else { false }
  }

  /// - Parameter epoch: The epochs done.
  private func isCheckpointDue(epoch: Int) -> Bool {
    if case .epochs(let count) = configuration.checkpointInterval { epoch % count == 0 } else { false }
  }

  // MARK: Before the first step

  /// Checks all that can be checked before, and returns the sampler where the run stands.
  private func prepare(
    _ training: any DataSource<Scalar>, _ validation: (any DataSource<Scalar>)?
  ) throws -> BatchSampler {
    try configuration.check(hasValidation: validation != nil)
    try checkRate(optimizer.learningRate, "the optimizer's learning rate")
    let own = Set(model.parameters.map { ObjectIdentifier($0) })
    guard optimizer.parameters.contains(where: { own.contains(ObjectIdentifier($0)) }) else {
      throw TrainingError.invalidSetting(
        name: "optimizer", expected: "an optimizer of the model's parameters", found: "one of none of them")
    }
    guard training.count >= 1 else {
      throw TrainingError.invalidData(expected: "at least one example", found: "none")
    }
    guard validation?.count != 0 else {
      throw TrainingError.invalidData(expected: "at least one example for validation", found: "none")
    }
    if let validation {
      guard validation.featureShape == training.featureShape, validation.classes <= training.classes else {
        throw TrainingError.invalidData(
          expected: "validation data of features \(training.featureShape) and at most \(training.classes) classes",
          found: "features \(validation.featureShape) and \(validation.classes) classes")
      }
      let rows = min(validation.count, configuration.validationBatchSize)
      _ = try model.outputShape(for: [rows] + validation.featureShape, training: false)
    }
    var sampler = BatchSampler(
      count: training.count, batchSize: configuration.batchSize, shuffle: configuration.shuffles,
      dropLast: try dropsLast(training), seed: configuration.seed)
    try begin(with: runSettings(training, validation, sampler))
    guard state.position.batch <= sampler.batchesPerEpoch else {
      throw TrainingError.differentSettings(
        path: lastCheckpoint,
        differences: [
          SettingDifference(
            name: "batch of the epoch", expected: "\(state.position.batch)", found: "\(sampler.batchesPerEpoch) in all")
        ])
    }
    sampler.position = state.position
    return sampler
  }

  /// Whether an incomplete last batch is left out; the batches' shapes are tried on the model.
  private func dropsLast(_ training: any DataSource<Scalar>) throws -> Bool {
    func tryBatch(_ rows: Int) throws {
      // A batch of all processes together must do for one alone.
      try model.withSynchronization(nil) {
        _ = try model.outputShape(for: [rows] + training.featureShape, training: true)
      }
    }
    let (full, rest) = training.count.quotientAndRemainder(dividingBy: configuration.batchSize)
    if full > 0 { try tryBatch(configuration.batchSize) }
    if rest == 0 { return false }
    switch configuration.lastBatch {
    case .drop:
      guard full > 0 else {
        throw TrainingError.invalidData(
          expected: "at least one batch of \(configuration.batchSize) examples, since the last one is dropped",
          found: "\(rest) examples")
      }
      return true
    case .keep:
      try tryBatch(rest)
      return false
    case .automatic:
      do { try tryBatch(rest) } catch { if full > 0 { return true } else { throw error } }
      return false
    }
  }

  private func checkRate(_ rate: Double, _ name: String) throws(TrainingError) {
    guard rate >= 0, rate.isFinite else {
      throw .invalidSetting(name: name, expected: "a finite number of at least 0", found: "\(rate)")
    }
  }

  // MARK: Training

  /// Whether the processes that train together have agreed to stop.
  private func trainStep(_ rows: [Int], of data: any DataSource<Scalar>) throws -> Bool {
    let sums: StepSums
    if let group { sums = try gradientStep(rows, of: data, in: group) } else { sums = try gradientStep(rows, of: data) }
    optimizer.step()
    state.step += 1
    state.epoch.loss += sums.loss
    state.epoch.correct += sums.correct
    state.epoch.examples += sums.examples
    try group?.check(model.state, step: state.step)
    return sums.asksToStop
  }

  /// Gives the optimizer the schedule's rate of the coming step.
  func applySchedule() throws(TrainingError) {
    guard let schedule else { return }
    let rate = schedule.rate(at: state.step)
    try checkRate(rate, "the schedule's rate at step \(state.step)")
    optimizer.learningRate = rate
  }

  private func gradientStep(_ rows: [Int], of data: any DataSource<Scalar>) throws -> StepSums {
    try applySchedule()
    let generators = model.randomGenerators
    let (features, labels) = try checkedExamples(rows, of: data)
    let (output, pullback) = model.forward(features)
    guard let (sums, gradient) = try judged(output, labels, rows: rows, of: data) else {
      throw brokenLoss(features, generators)
    }
    pullback.accumulate(gradient)
    return sums
  }

  /// The examples `rows`, whose features are finite.
  func checkedExamples(_ rows: [Int], of data: any DataSource<Scalar>) throws -> (Tensor<Scalar>, [Int]) {
    let (features, labels) = try checkedBatch(of: data, rows: rows)
    // A `Dataset` has been through this when it was made.
    if !(data is Dataset<Scalar>), !features.isAllFinite() {
      throw notFinite(.features(features, rows: rows))
    }
    return (features, labels)
  }

  /// What the model's output for the examples `rows` comes to, and the gradient of their mean loss by it; nil where that is not finite.
  func judged(
    _ output: Tensor<Scalar>, _ labels: [Int], rows: [Int], of data: any DataSource<Scalar>
  ) throws -> (StepSums, Tensor<Scalar>)? {
    let scores = try checkedScores(output, rows: rows.count, classes: data.classes)
    let (value, gradient) = try loss(scores, labels, of: data, rows: rows)
    guard value.isFinite else { return nil }
    var sums = StepSums()
    sums.loss = Double(value) * Double(rows.count)
    sums.examples = rows.count
    // A regression has no classes to be right about.
    if !loss.usesTargets { sums.correct = zip(scores.argmaxOfRows(), labels).count { $0 == $1 } }
    return (sums, gradient)
  }

  /// Why the loss of examples is not finite; pullbacks of before are of no more use.
  ///
  /// - Parameter generators: The model's generators before its forward pass, which it gets back.
  func brokenLoss(_ features: Tensor<Scalar>, _ generators: [RandomGenerator]) -> TrainingError {
    model.randomGenerators = generators
    return notFinite(.first(in: model, features))
  }

  /// The rate of the last step.
  private var lastRate: Double { schedule?.rate(at: max(state.step - 1, 0)) ?? optimizer.learningRate }

  /// Validates and closes the epoch's record. After an error, as of a full disk, all stands as it did before.
  private func finishEpoch(
    _ validation: (any DataSource<Scalar>)?, in folder: CheckpointFolder?, seconds: @autoclosure () -> Double
  ) throws -> EpochRecord {
    try agreed { try checkFinite() }
    let result = try validation.map { try evaluated($0) }
    if let result { try agreed { if !result.loss.isFinite { throw notFinite(.validationLoss) } } }
    let epoch = state.position.epoch + 1
    let record = EpochRecord(
      epoch: epoch, step: state.step, trainingLoss: state.epoch.meanLoss, trainingAccuracy: state.epoch.accuracy,
      validationLoss: result?.loss, validationAccuracy: result?.accuracy, learningRate: lastRate,
      seconds: state.epoch.seconds + seconds())
    if let result {
      // The lower the better, whichever is monitored.
      let metric = configuration.monitoredMetric == .validationLoss ? result.loss : -result.accuracy
      if state.best.map({ metric < $0.metric - configuration.minimumImprovement }) ?? true {
        try byFirst { bestModel = try saveBest(epoch, in: folder) }
        state.best = TrainingState.Best(epoch: epoch, metric: metric)
        state.epochsWithoutImprovement = 0
      } else {
        state.epochsWithoutImprovement += 1
      }
    }
    state.history.append(record)
    state.epoch = TrainingState.Epoch()
    return record
  }

  private func progress(_ sampler: BatchSampler, _ pace: Pace, _ record: EpochRecord?) -> TrainingProgress {
    let total = configuration.epochs * sampler.batchesPerEpoch
    let seconds = pace.seconds
    return TrainingProgress(
      epoch: record?.epoch ?? state.position.epoch + 1, epochs: configuration.epochs,
      batch: record == nil ? state.position.batch : sampler.batchesPerEpoch, batchesPerEpoch: sampler.batchesPerEpoch,
      step: state.step, totalSteps: total, loss: record?.trainingLoss ?? state.epoch.meanLoss,
      accuracy: record?.trainingAccuracy ?? state.epoch.accuracy, learningRate: lastRate,
      samplesPerSecond: Double(pace.examples) / seconds,
      timeLeft: seconds * Double(total - state.step) / Double(max(state.step - pace.firstStep, 1)), record: record)
  }

  // MARK: NaN and infinity

  /// Throws where a parameter or running statistic is not finite.
  func checkFinite() throws(TrainingError) {
    for entry in model.state {
      if case .tensor(let tensor) = entry.get(), !tensor.isAllFinite() {
        throw notFinite(.parameter(entry.key, layer: nil))
      }
    }
  }

  func notFinite(_ place: NonFinitePlace) -> TrainingError {
    .notFinite(place: place, epoch: state.position.epoch + 1, step: state.step + 1, checkpoint: lastCheckpoint)
  }
}

/// The time that a call of `fit` takes.
private struct Pace {
  /// The run's steps at the start.
  let firstStep: Int
  /// The examples trained on.
  var examples = 0
  private let start = ContinuousClock.now
  private var lapStart = ContinuousClock.now
  private var lastReport = ContinuousClock.now

  init(step: Int) { firstStep = step }

  /// Seconds since the start, above 0.
  var seconds: Double { max((ContinuousClock.now - start) / .seconds(1), 1e-9) }

  /// Seconds since the last call, or the start.
  mutating func lap() -> Double {
    let now = ContinuousClock.now
    defer { lapStart = now }
    return (now - lapStart) / .seconds(1)
  }

  mutating func isReportDue(every interval: Double) -> Bool {
    let now = ContinuousClock.now
    guard (now - lastReport) / .seconds(1) >= interval else { return false }
    lastReport = now
    return true
  }
}
