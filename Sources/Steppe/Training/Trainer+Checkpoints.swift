import Glibc

private let recordName = trainingPrefix + "training"
private let generatorsName = trainingPrefix + "generators"
/// The key of the epoch in the metadata of the best epoch's model.
private let bestEpochKey = "steppe.epoch"
/// What begins the names of settings that the data decide.
private let dataPrefix = "data's "
private let optimizerPrefix = trainingPrefix + "optimizer/"

// A training checkpoint is the model's file with more in it: `steppe/optimizer/…`, the optimizer's state; `steppe/generators`, a row of
// seed, stream and position for each generator of the model; `steppe/training`, the JSON of a `TrainingRecord`.
extension Trainer {
  /// Goes back to where a run stood when it wrote a checkpoint; ``fit(training:validation:onProgress:)`` goes on from there.
  ///
  /// The trainer must be made like the one that wrote it: model, optimizer, schedule, loss, seed and batches; data sources are compared by
  /// ``fit(training:validation:onProgress:)``. The number of epochs, patience and all that concerns checkpoints may differ.
  ///
  /// - Parameter path: A training checkpoint, or a folder of them: then the latest that is whole.
  /// - Returns: What was read.
  /// - Throws: ``CheckpointError``; ``TrainingError``, of settings with every difference; ``FileError`` for a folder that can't be read.
  ///   Nothing has changed then.
  @discardableResult
  public func resume(from path: String) throws -> Resumption {
    guard Folder.exists(path) else { return try restore(path, skipped: []) }
    var skipped: [CheckpointError] = []
    for step in try CheckpointFolder.steps(in: path).sorted(by: >) {
      do {
        return try restore(CheckpointFolder.checkpoint(step, in: path), skipped: skipped)
      } catch let error as CheckpointError where error.isDamage {
        skipped.append(error)
      }
    }
    throw TrainingError.noCheckpoint(folder: path, skipped: skipped)
  }

  private func restore(_ path: String, skipped: [CheckpointError]) throws -> Resumption {
    let file = try openCheckpoint(path)
    let record = try record(in: file)
    let model = try CheckpointValues(file, model.state, where: { !$0.hasPrefix(trainingPrefix) })
    try model.check(path)
    // The data's settings are not known yet: `fit` compares them.
    try compare(record.settings, with: settingsOfTrainer, path: path)
    let optimizer = try CheckpointValues(
      file, optimizer.state, prefix: optimizerPrefix, where: { $0.hasPrefix(optimizerPrefix) })
    try optimizer.check(path)
    let generators = try generators(in: file)

    model.apply()
    optimizer.apply()
    self.model.randomGenerators = generators
    for parameter in self.optimizer.parameters { parameter.clearGradient() }
    state = record.state
    settings = record.settings
    lastCheckpoint = path
    bestModel = state.best.flatMap { Self.bestModel(besides: path, epoch: $0.epoch) }
    return Resumption(
      checkpoint: path, step: state.step, epoch: state.position.epoch + 1, threadCount: record.threadCount,
      rankCount: record.rankCount, skipped: skipped)
  }

  private func record(in file: SafetensorsFile) throws(CheckpointError) -> TrainingRecord {
    func failure(_ expected: String, _ found: String) -> CheckpointError {
      .file(FileError(path: file.path, kind: .wrongFormat, expected: expected, found: found))
    }
    guard file.elementType(of: recordName) == .uint8, file.hasChecksum else {
      throw failure("a training checkpoint", "a model without the state of a training run")
    }
    let bytes = try CheckpointError.onFailure { () throws(FileError) in try file.integers(named: recordName) }
    guard let json = try? JSONValue(parsing: bytes.map { UInt8($0) }), let record = TrainingRecord(json) else {
      throw failure("the state of a training run in '\(recordName)'", "something else")
    }
    return record
  }

  private func generators(in file: SafetensorsFile) throws(CheckpointError) -> [RandomGenerator] {
    let expected = [model.randomGenerators.count, 3]
    let shape = file.shape(of: generatorsName)
    guard shape == expected, file.elementType(of: generatorsName) == .int64 else {
      let difference =
        shape.map { CheckpointDifference.shape(name: generatorsName, expected: expected, found: $0) }
        ?? .missing(name: generatorsName, shape: expected)
      throw .mismatch(path: file.path, differences: [difference])
    }
    let words = try CheckpointError.onFailure { () throws(FileError) in try file.integers(named: generatorsName) }
      .map { UInt64(bitPattern: Int64($0)) }
    return stride(from: 0, to: words.count, by: 3).map {
      RandomGenerator(seed: words[$0], stream: words[$0 + 1], position: words[$0 + 2])
    }
  }

  /// Writes where the run stands, unless the model is not finite. Of processes that train together the first one does.
  ///
  /// - Parameter folder: Where to; nil in the other processes.
  func writeCheckpoint(in folder: CheckpointFolder?) throws {
    try agreed { try checkFinite() }
    let path = CheckpointFolder.checkpoint(state.step, in: configuration.checkpointFolder!)
    try byFirst { try writeCheckpoint(to: path, in: folder!) }
    lastCheckpoint = path
  }

  private func writeCheckpoint(to path: String, in folder: CheckpointFolder) throws {
    var writer = checkpointWriter()
    writer.add(model.state)
    writer.add(optimizer.state, prefix: optimizerPrefix)
    let generators = model.randomGenerators
    writer.add(
      generators.flatMap { [$0.seed, $0.stream, $0.position].map { Int64(bitPattern: $0) } },
      shape: [generators.count, 3], named: generatorsName)
    let record = TrainingRecord(
      state: state, settings: settings!, threadCount: Parallel.threadCount, rankCount: rankCount)
    let text = Array(record.json.serialized().utf8)
    writer.add(bytes: text, shape: [text.count], named: recordName)
    try writer.write(to: path)
    lastCheckpoint = path
    try folder.removeOld(upTo: state.step, keeping: configuration.keptCheckpoints)
  }

  /// Saves the model after `epoch`, the best so far, and returns its path; nil without a folder.
  func saveBest(_ epoch: Int, in folder: CheckpointFolder?) throws(FileError) -> String? {
    guard let folder else { return nil }
    let path = CheckpointFolder.bestModel(in: folder.path)
    try model.save(to: path, metadata: [bestEpochKey: "\(epoch)"])
    return path
  }

  /// The best epoch's model in the folder of a checkpoint. It may be missing there, where only the checkpoint was copied, or be that of a
  /// later epoch, where the checkpoint is not the last one.
  private static func bestModel(besides checkpoint: String, epoch: Int) -> String? {
    let path = CheckpointFolder.bestModel(in: Folder.parent(of: checkpoint))
    return (try? SafetensorsFile(path))?.metadata[bestEpochKey] == "\(epoch)" ? path : nil
  }

  // MARK: Settings

  /// All that decides what a step does, by names for people.
  private var settingsOfTrainer: [String: String] {
    var result = [
      "model": Self.architecture(model),
      "scalar type": "\(Scalar.self)",
      "optimizer": Self.typeName(optimizer),
      "loss": loss.name,
      "seed": "\(configuration.seed)",
      "batch size": "\(configuration.batchSize)",
      "shuffling": "\(configuration.shuffles)",
      "last batch": configuration.lastBatch.rawValue,
    ]
    if let schedule {
      result["learning rate schedule"] = "\(schedule)"
    } else {
      result["learning rate"] = "\(optimizer.learningRate)"
    }
    for (name, value) in optimizer.hyperparameters { result["optimizer's \(name)"] = "\(value)" }
    return result
  }

  /// The same, and what the data decide.
  func runSettings(
    _ training: any DataSource<Scalar>, _ validation: (any DataSource<Scalar>)?, _ sampler: BatchSampler
  ) -> [String: String] {
    settingsOfTrainer.merging([
      dataPrefix + "examples": "\(training.count)",
      dataPrefix + "features": "\(training.featureShape)",
      dataPrefix + "classes": "\(training.classes)",
      dataPrefix + "batches per epoch": "\(sampler.batchesPerEpoch)",
      dataPrefix + "validation examples": "\(validation?.count ?? 0)",
    ]) { $1 }
  }

  /// Begins a run with `settings`, or goes on with one that was begun with the same.
  func begin(with settings: [String: String]) throws(TrainingError) {
    if let begun = self.settings { try compare(begun, with: settings, path: lastCheckpoint, withData: true) }
    self.settings = settings
  }

  /// - Parameter withData: Whether `now` has the data's settings too.
  private func compare(
    _ begun: [String: String], with now: [String: String], path: String?, withData: Bool = false
  ) throws(TrainingError) {
    let names = Set(begun.keys).union(now.keys).filter { withData || !$0.hasPrefix(dataPrefix) }
    let differences = names.sorted().filter { begun[$0] != now[$0] }.map {
      SettingDifference(name: $0, expected: begun[$0] ?? "none", found: now[$0] ?? "none")
    }
    if !differences.isEmpty { throw .differentSettings(path: path, differences: differences) }
  }

  /// The layers' types, as in `Sequential(Dense, ReLU, Residual(Dense))`.
  private static func architecture(_ layer: any Layer<Scalar>) -> String {
    switch layer {
    case let layer as Sequential<Scalar>: "Sequential(\(layer.layers.map(architecture).joined(separator: ", ")))"
    case let layer as Residual<Scalar>: "Residual(\(layer.branch.layers.map(architecture).joined(separator: ", ")))"
    case let layer as ActivationLayer<Scalar>: "\(layer.activation)"
    default: typeName(layer)
    }
  }

  private static func typeName(_ object: AnyObject) -> String {
    String("\(type(of: object))".prefix { $0 != "<" })
  }
}

extension CheckpointError {
  /// Whether the file is broken, as by a failing disk, so that an older one may do.
  fileprivate var isDamage: Bool {
    guard case .file(let error) = self else { return false }
    switch error.kind {
    case .empty, .truncated, .trailingBytes, .wrongMagic, .wrongFormat, .corrupted: return true
    default: return false
    }
  }
}
