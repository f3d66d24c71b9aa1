/// The processes that train one model together, each on its share of every batch, as a ``Trainer`` uses them; `SteppeMPI` has those of MPI.
///
/// All ranks call the same functions in the same order. What one of them throws all throw.
package protocol TrainingGroup<Scalar>: AnyObject {
  associatedtype Scalar: TensorScalar

  /// This process's number, from 0. The first writes checkpoints and reports.
  var rank: Int { get }
  /// How many there are.
  var size: Int { get }

  /// Throws where the ranks were started with different `settings`, or the model is none that they can train together.
  func begin(_ settings: [String: String]) throws
  /// Runs `body` on each rank; where it throws on one, all throw that.
  func agree<Result>(_ body: () throws -> Result) throws -> Result
  /// What `body` returns on the first rank, while the others wait as long as it takes.
  func fromFirst(_ body: () throws -> [UInt8]) throws -> [UInt8]
  /// Makes the entries those of the first rank.
  func copyFromFirst(_ entries: [StateEntry<Scalar>]) throws
  /// Adds up `numbers` over the ranks.
  func sum(_ numbers: [Double]) throws -> [Double]
  /// Comes before a step's forward pass.
  func beginStep()
  /// Comes after a step's backward pass: makes the gradients of the parameters the sums over the ranks, and returns the sums of `sums`.
  ///
  /// - Parameter failure: What went wrong on this rank.
  func endStep(_ sums: StepSums, failure: (any Error)?) throws -> StepSums
  /// Comes after `step` steps, with what all ranks must hold alike.
  func check(_ entries: [StateEntry<Scalar>], step: Int) throws
}

/// What a training step came to.
package struct StepSums: Equatable {
  /// The examples' losses.
  package var loss = 0.0
  /// The examples classified rightly.
  package var correct = 0
  /// The examples trained on.
  package var examples = 0
  /// Whether training shall stop after this step.
  package var asksToStop = false

  package init() {}
}

/// What processes that train together must have in common, whatever they train: their build, and what they hold of `entries`.
package func sharedSettings<Scalar: TensorScalar>(_ entries: [StateEntry<Scalar>]) -> [String: String] {
  var result = ["version": SteppeVersion.current, "instruction set": InstructionSet.current]
  for entry in entries {
    result["'\(entry.key)'"] = if case .tensor(let tensor) = entry.get() { "\(tensor.shape)" } else { "a number" }
  }
  return result
}

// How a trainer goes with others.
extension Trainer {
  /// The processes that train together; 1 for this one alone.
  public var rankCount: Int { group?.size ?? 1 }

  /// Whether this process writes checkpoints and reports.
  var isFirst: Bool { group.map { $0.rank == 0 } ?? true }

  /// `body`, and its error too, agreed with the other processes.
  func agreed<Result>(_ body: () throws -> Result) throws -> Result {
    try group.map { try $0.agree(body) } ?? body()
  }

  /// `body` by the first process alone.
  func byFirst(_ body: () throws -> Void) throws {
    guard let group else { return try body() }
    _ = try group.fromFirst {
      try body()
      return []
    }
  }

  /// Compares settings with the other processes, and begins where the first one stands.
  func join() throws {
    guard let group else { return }
    var settings = settings!.merging(sharedSettings(model.state + optimizer.state)) { $1 }
    for (index, generator) in model.randomGenerators.enumerated() {
      settings["random generator \(index)"] = "seed \(generator.seed), stream \(generator.stream)"
    }
    // A process that goes on with a run knows more of it than those that begin.
    settings["epochs"] = "\(configuration.epochs)"
    settings["checkpoint interval"] = "\(configuration.checkpointInterval)"
    settings["checkpoints"] = configuration.checkpointFolder == nil ? "none" : "kept"
    settings["patience"] = configuration.patience.map { "\($0)" } ?? "none"
    settings["monitored metric"] = "\(configuration.monitoredMetric), improved by \(configuration.minimumImprovement)"
    settings["validation batch size"] = "\(configuration.validationBatchSize)"
    try group.begin(settings)

    let bytes = try group.fromFirst {
      let record = TrainingRecord(
        state: state, settings: settings, threadCount: Parallel.threadCount, rankCount: group.size)
      let positions = model.randomGenerators.map { JSONValue.string("\($0.position)") }
      return Array(
        JSONValue.object([
          .init("record", record.json), .init("positions", .array(positions)),
          .init("checkpoint", lastCheckpoint.map { .string($0) } ?? .null),
        ]).serialized().utf8)
    }
    let json = try JSONValue(parsing: bytes)
    if let record = json["record"].flatMap({ TrainingRecord($0) }) { state = record.state }
    // None where the first has none, even if this process knows one: all must agree on whether the run is new.
    if case .string(let path)? = json["checkpoint"] { lastCheckpoint = path } else { lastCheckpoint = nil }
    if case .array(let positions)? = json["positions"] {
      model.randomGenerators = zip(model.randomGenerators, positions).map { generator, position in
        guard case .string(let text) = position, let position = UInt64(text) else { return generator }
        return RandomGenerator(seed: generator.seed, stream: generator.stream, position: position)
      }
    }
    try group.copyFromFirst(model.state + optimizer.state)
  }

  /// The gradients of this process's share of the batch `rows`, summed over the processes.
  ///
  /// Each share is weighted by its examples, so that the sum is the gradient of the batch's mean loss, however the batch is cut. What goes
  /// wrong here waits for the end of the step: the others count on this process's part in every exchange.
  func gradientStep(
    _ rows: [Int], of data: any DataSource<Scalar>, in group: any TrainingGroup<Scalar>
  ) throws -> StepSums {
    let own = Array(rows[Parallel.range(group.rank, of: group.size, count: rows.count)])
    group.beginStep()
    var failure = pendingError
    pendingError = nil
    var features = Tensor<Scalar>.zeros(shape: [0] + data.featureShape)
    var labels: [Int] = []
    do {
      try applySchedule()
      if failure == nil, !own.isEmpty { (features, labels) = try checkedExamples(own, of: data) }
    } catch {
      failure = failure ?? error
    }
    // With enough of them that no batch norm lacks a variance for want of this process's.
    if failure != nil { features = .zeros(shape: [max(2, own.count)] + data.featureShape) }

    let generators = model.randomGenerators
    let ownGenerators = group.size > 1 ? generators.map { $0.own(rank: group.rank) } : generators
    model.randomGenerators = ownGenerators
    let (output, pullback) = model.forward(features)
    var sums = StepSums()
    var gradient = Tensor<Scalar>.zeros(shape: output.shape)
    var lossIsBroken = false
    if failure == nil, !own.isEmpty {
      do {
        if let found = try judged(output, labels, rows: own, of: data) {
          (sums, gradient) = found
          if own.count < rows.count { gradient = gradient * (Scalar(own.count) / Scalar(rows.count)) }
        } else {
          lossIsBroken = true
        }
      } catch {
        failure = error
      }
    }
    pullback.accumulate(gradient)
    if lossIsBroken { failure = brokenLoss(features, ownGenerators) }
    if group.size > 1 { model.randomGenerators = generators.map { $0.nextStep() } }
    sums.asksToStop = asksToStop
    return try group.endStep(sums, failure: failure)
  }

  /// The model's evaluation over `data`, of which each process takes a share.
  func evaluated(_ data: any DataSource<Scalar>) throws -> Evaluation {
    let size = configuration.validationBatchSize
    guard let group else { return try evaluate(model, on: data, batchSize: size, loss: loss) }
    // The same batches as one process would take.
    let rows = Parallel.range(group.rank, of: group.size, count: data.count, multiple: size)
    let part = try group.agree {
      let shape = try model.outputShape(for: [min(size, data.count)] + data.featureShape, training: false)
      let sums = try evaluationSums({ model($0) }, on: data, rows: rows, batchSize: size, loss: loss)
      guard sums.loss.isFinite else { throw notFinite(.validationLoss) }
      // A process without a batch has not seen how wide the scores are.
      let classes = max(data.classes, shape.last ?? 0)
      return (loss: sums.loss, confusion: sums.confusion.widened(to: classes))
    }
    let all = try group.sum([part.loss] + part.confusion.counts.joined().map { Double($0) })
    return Evaluation(
      loss: all[0] / Double(data.count),
      confusion: ConfusionMatrix(counts: all.dropFirst().map { Int($0) }, classes: part.confusion.classes))
  }

  /// What `onProgress` decides: asked by the first process alone. At the end of an epoch all learn it at once, else by the next step.
  func action(isEpochsEnd: Bool, _ ask: () throws -> TrainingAction) throws -> TrainingAction {
    guard let group else { return try ask() }
    guard isEpochsEnd else {
      do {
        if try ask() == .stop { asksToStop = true }
      } catch {
        pendingError = error
      }
      return .continue
    }
    let answer = try group.fromFirst {
      if let error = pendingError {
        pendingError = nil
        throw error
      }
      if try ask() == .stop { asksToStop = true }
      return asksToStop ? [1] : [0]
    }
    return answer == [1] ? .stop : .continue
  }
}

extension RandomGenerator {
  /// This generator for one rank: sequences of their own, from the same place.
  fileprivate func own(rank: Int) -> RandomGenerator {
    RandomGenerator(seed: seed, stream: stream ^ (UInt64(rank) &+ 1) &* 0x9E37_79B9_7F4A_7C15, position: position)
  }

  /// Where the next step begins, whatever ranks have drawn in this one: a checkpoint's place for all of them.
  fileprivate func nextStep() -> RandomGenerator {
    RandomGenerator(seed: seed, stream: stream, position: position &+ 1 << 32)
  }
}
