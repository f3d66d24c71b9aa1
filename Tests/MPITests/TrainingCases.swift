#if MPI
  import Foundation
  import Reference
  import Steppe
  import SteppeMPI

  /// Four clusters of points around means far from 0, and labels.
  func clusters(_ count: Int, seed: UInt64 = 1, inputs: Int = 12, mean: Double = 0) throws -> Dataset<Float> {
    var generator = TestGenerator(fixed: "clusters", seed: seed)
    var (features, labels): ([Float], [Int]) = ([], [])
    for _ in 0..<count {
      let label = generator.integer(0...3)
      labels.append(label)
      features += generator.normals(inputs, mean: mean).enumerated().map { $1 + ($0 % 4 == label ? 1.5 : 0) }
    }
    return try Dataset(features: Tensor(shape: [count, inputs], scalars: features), labels: labels, classes: 4)
  }

  func trainer(
    _ model: Sequential<Float>, epochs: Int, batchSize: Int = 32, seed: UInt64 = 7, over ranks: Communicator? = nil
  ) -> Trainer<Float> {
    if let ranks { model.synchronized(over: ranks) }
    let trainer = Trainer(
      model: model, optimizer: SGD(model.parameters, learningRate: 0.05, momentum: 0.9, weightDecay: 1e-4),
      configuration: TrainingConfiguration(epochs: epochs, batchSize: batchSize, seed: seed))
    trainer.configuration.progressInterval = 0
    if let ranks { trainer.distribute(over: ranks, bucketBytes: 1024, checkInterval: 10) }
    return trainer
  }

  func values(_ model: Sequential<Float>) -> [Float] {
    model.state.flatMap { entry -> [Float] in
      if case .tensor(let tensor) = entry.get() { tensor.scalars } else { [] }
    }
  }

  /// A hundred steps and more, with an incomplete last batch in each epoch, against those of one process; validation too.
  func training(_ context: RankContext) throws {
    for mean in [0.0, 1e6] {
      let data = try clusters(325, mean: mean)
      let validation = try clusters(111, seed: 2, mean: mean)
      let (single, several) = (perceptron(12), perceptron(12))
      let expected = try trainer(single, epochs: 10).fit(training: data, validation: validation)
      var reports = 0
      let found = try trainer(several, epochs: 10, over: context.ranks).fit(training: data, validation: validation) {
        _ in
        reports += 1
        return .continue
      }
      context.expect(found.step == 110 && expected.step == 110, "\(found.step) steps")
      // The first rank alone reports.
      context.expect(context.rank == 0 ? reports >= 110 : reports == 0, "\(reports) reports")
      for (a, b) in zip(found.history, expected.history) {
        let what = "epoch \(b.epoch) near \(mean)"
        context.expect(
          abs(a.trainingLoss - b.trainingLoss) <= 1e-4 * b.trainingLoss,
          "\(what): loss \(a.trainingLoss), expected \(b.trainingLoss)")
        context.expect(
          abs(a.validationLoss! - b.validationLoss!) <= 1e-4 * b.validationLoss!,
          "\(what): validation loss \(a.validationLoss!), expected \(b.validationLoss!)")
        // An example on the border of two classes may fall to either.
        context.expect(
          abs(a.trainingAccuracy - b.trainingAccuracy) <= 1.5 / 325
            && abs(a.validationAccuracy! - b.validationAccuracy!) <= 1.5 / 111,
          "\(what): accuracies \(a.trainingAccuracy) and \(a.validationAccuracy!)")
      }
      context.expect(found.history.count == expected.history.count, "\(found.history.count) epochs")
      try context.expectSame(values(several), "the trained model")
    }
  }

  /// The loop that `DataParallel`'s documentation shows.
  func ownLoop(_ context: RankContext) throws {
    let training = try clusters(200)
    func train(_ model: Sequential<Float>, _ parallel: DataParallel<Float>?) throws {
      let optimizer = SGD(model.parameters, learningRate: 0.05, momentum: 0.9)
      var sampler = BatchSampler(count: training.count, batchSize: 32, seed: 1)
      for _ in 0..<3 {
        while let rows = sampler.next() {
          let own = parallel?.share(of: rows) ?? rows
          let (images, labels) = training.batch(rows: own)
          let (logits, pullback) = model.forward(images)
          pullback.accumulate(softmaxCrossEntropy(logits, labels, reduction: .sum).gradient * (1 / Float(rows.count)))
          try parallel?.finishGradients()
          optimizer.step()
        }
      }
    }
    let (single, several) = (perceptron(12), perceptron(12, seed: 1 + UInt64(context.rank)))
    try train(single, nil)
    // A start of its own on each rank: the first rank's counts.
    let parallel = try DataParallel(
      several.synchronized(over: context.ranks), over: context.ranks, bucketBytes: 512, checkInterval: 5)
    try train(several, parallel)
    context.expectNear(values(several), values(single), within: 1e-4, "the model after 21 steps")
    try context.expectSame(values(several), "the model")
  }

  /// What each rank sees: over an epoch all rows once, in each the same for the same seed.
  func shares(_ context: RankContext) throws {
    final class Log: DataSource {
      let base: Dataset<Float>
      var rows: [Int] = []
      init(_ base: Dataset<Float>) { self.base = base }
      var count: Int { base.count }
      var featureShape: [Int] { base.featureShape }
      var classes: Int { base.classes }
      func batch(rows: [Int]) -> (features: Tensor<Float>, labels: [Int]) {
        self.rows += rows
        return base.batch(rows: rows)
      }
    }
    func seen(seed: UInt64) throws -> [Int] {
      let log = Log(try clusters(101))
      _ = try trainer(perceptron(12), epochs: 2, batchSize: 16, seed: seed, over: context.ranks).fit(training: log)
      return log.rows
    }
    let own = try seen(seed: 5)
    let bytes = own.flatMap { withUnsafeBytes(of: $0) { Array($0) } }
    let all = try context.ranks.allGather(bytes).flatMap { bytes in
      bytes.withUnsafeBytes { raw in (0..<raw.count / 8).map { raw.loadUnaligned(fromByteOffset: 8 * $0, as: Int.self) }
      }
    }
    let counts = Dictionary(grouping: all, by: { $0 }).mapValues(\.count)
    context.expect(counts.count == 101 && counts.values.allSatisfy { $0 == 2 }, "each row twice in two epochs")
    context.expect(try seen(seed: 5) == own, "the same shares by the same seed")
    context.expect(try seen(seed: 6) != own, "other shares by another seed")
  }

  /// A run that is stopped in the middle of an epoch and goes on, against one that is not: the same bits.
  func resumption(_ context: RankContext) throws {
    let name = try context.ranks.broadcast(Array("steppe-mpi-\(UUID().uuidString)".utf8))
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(String(decoding: name, as: UTF8.self))
      .path
    defer { if context.rank == 0 { try? FileManager.default.removeItem(atPath: folder) } }
    let (data, validation) = (try clusters(150), try clusters(40, seed: 2))
    func model() -> Sequential<Float> {
      Sequential(seed: 1) {
        Dense(12, 16, bias: false)
        BatchNorm(16)
        ReLU()
        Dropout(0.2)
        Dense(16, 4)
      }
    }
    let whole = model()
    try trainer(whole, epochs: 3, over: context.ranks).fit(training: data, validation: validation)

    let stopped = trainer(model(), epochs: 3, over: context.ranks)
    stopped.configuration.checkpointFolder = folder
    let report = try stopped.fit(training: data, validation: validation) { $0.step >= 7 ? .stop : .continue }
    context.expect(report.outcome == .interrupted && report.step >= 7 && report.step < 15, "stopped at \(report.step)")
    let files = try FileManager.default.contentsOfDirectory(atPath: folder)
    context.expect(files.count { $0.hasPrefix("checkpoint-") } <= 2, "\(files)")

    let last = model()
    let second = trainer(last, epochs: 3, over: context.ranks)
    second.configuration.checkpointFolder = folder
    // The first rank reads; the others learn it from it.
    if context.rank == 0 {
      let resumption = try second.resume(from: folder)
      context.expect(resumption.rankCount == context.size, "\(resumption.rankCount) ranks in the checkpoint")
    }
    let end = try second.fit(training: data, validation: validation)
    context.expect(end.step == 15 && end.history.count == 3, "\(end.step) steps")
    context.expect(values(last) == values(whole), "the resumed run is not the whole one")

    // And on one process alone: other bits, the same run.
    if context.rank == 0 {
      let alone = model()
      let third = trainer(alone, epochs: 4)
      third.configuration.checkpointFolder = folder
      try third.resume(from: folder)
      let report = try third.fit(training: data, validation: validation)
      context.expect(report.step == 20 && values(alone).allSatisfy(\.isFinite), "\(report.step) steps alone")
    }
    try context.ranks.barrier()
  }

  /// Ranks draw masks of their own, the same in each run.
  func dropout(_ context: RankContext) throws {
    let data = try clusters(64)
    func trained() throws -> [Float] {
      let model = Sequential<Float>(seed: 1) {
        Dense(12, 32)
        Dropout(0.5)
        Dense(32, 4)
      }
      try trainer(model, epochs: 2, over: context.ranks).fit(training: data)
      return values(model)
    }
    let first = try trained()
    context.expect(try trained() == first, "two runs differ")
    try context.expectSame(first, "the model")
  }

  // MARK: Refusals and faults that are agreed

  func refusals(_ context: RankContext) throws {
    let (ranks, other) = (context.ranks, context.rank == context.size - 1)
    let data = try clusters(64)
    let last = context.size - 1
    func fit(
      _ model: Sequential<Float>, batchSize: Int = 16, seed: UInt64 = 7, data: Dataset<Float>, version: String? = nil
    ) throws {
      try trainer(model, epochs: 1, batchSize: batchSize, seed: seed, over: ranks).fit(training: data)
    }
    context.expectError("seed: 7 on rank 0, 8 on rank \(last)") {
      try fit(perceptron(12), seed: other ? 8 : 7, data: data)
    }
    context.expectError("batch size: 16 on rank 0, 8 on rank \(last)") {
      try fit(perceptron(12), batchSize: other ? 8 : 16, data: data)
    }
    context.expectError("'0.weight': [24, 12] on rank 0, [20, 12] on rank \(last)") {
      try fit(
        Sequential(seed: 1) {
          Dense(12, other ? 20 : 24)
          Dense(other ? 20 : 24, 4)
        }, data: data)
    }
    context.expectError("model: ", "on rank 0", "on rank \(last)") {
      try fit(
        Sequential(seed: 1) {
          Dense(12, 4)
          if other { ReLU() }
        }, data: data)
    }
    context.expectError("data's examples: 64 on rank 0, 80 on rank \(last)") {
      try fit(perceptron(12), data: other ? clusters(80) : data)
    }
    context.expectError("data's features: [12] on rank 0, [10] on rank \(last)") {
      try fit(
        Sequential(seed: 1) {
          // Takes features of any number.
          GroupNorm(1, other ? 10 : 12)
          ReLU()
        }, data: other ? clusters(64, inputs: 10) : data)
    }
    context.expectError("version: 1.2.3 on rank 0, 1.2.4 on rank \(last)") {
      let parallel = try DataParallel(perceptron(12).synchronized(over: ranks), over: ranks)
      try parallel.begin(["version": other ? "1.2.4" : "1.2.3"])
    }
    // A dropout that starts elsewhere is another seed too.
    context.expectError("random generator 0: ", "on rank \(last)") {
      try fit(
        Sequential(seed: 1) {
          Dense(12, 4)
          Dropout(0.5, seed: other ? 2 : 1)
        }, data: data)
    }
    // Not on one rank, but on all: a layer whose copies would come apart.
    context.expectError("BatchNorm '0' goes by the statistics of its own rank's batch") {
      _ = try DataParallel(perceptron(12), over: ranks)
    }
    // After all these the ranks still work together.
    try fit(perceptron(12), data: data)
  }

  /// Examples that are broken on one rank.
  final class BrokenSource: DataSource {
    enum Fault { case notANumber, error }
    struct Broken: Error, CustomStringConvertible {
      let description = "the disk has gone"
    }

    let base: Dataset<Float>
    let fault: Fault
    var batchesLeft: Int

    init(_ base: Dataset<Float>, _ fault: Fault, after batches: Int) {
      (self.base, self.fault, batchesLeft) = (base, fault, batches)
    }

    var count: Int { base.count }
    var featureShape: [Int] { base.featureShape }
    var classes: Int { base.classes }

    func batch(rows: [Int]) throws -> (features: Tensor<Float>, labels: [Int]) {
      var (features, labels) = base.batch(rows: rows)
      batchesLeft -= 1
      if batchesLeft < 0 {
        if fault == .error { throw Broken() }
        features[0, 3] = .nan
      }
      return (features, labels)
    }
  }

  func notANumber(_ context: RankContext) throws {
    let (ranks, culprit) = (context.ranks, context.size - 1)
    let isCulprit = context.rank == culprit
    let data = try clusters(64)
    // In the data.
    context.expectError("rank \(culprit): a feature is not finite: row ", "column 3 at step 3 (epoch 1)") {
      let source = BrokenSource(data, .notANumber, after: isCulprit ? 2 : .max)
      try trainer(perceptron(12), epochs: 5, batchSize: 16, over: ranks).fit(training: source)
    }
    // In what one rank computes: its own copy of a weight, before batch norm spreads it.
    context.expectError("rank \(culprit): '4.weight' of Dense '4' is not finite") {
      let model = perceptron(12)
      let broken = BrokenLayerSource(data) { batches in
        guard isCulprit, batches == 2, let parameter = model.parameters.first(where: { $0.name == "4.weight" }) else {
          return
        }
        var value = parameter.value
        value[0, 0] = .nan
        parameter.value = value
      }
      try trainer(model, epochs: 5, batchSize: 16, over: ranks).fit(training: broken)
    }
    // In a gradient whose loss is finite.
    context.expectError("rank \(culprit): the gradient of '7.") {
      let model = perceptron(12)
      var steps = 0
      let loss = TrainingLoss<Float>(name: "broken") { scores, labels in
        steps += 1
        var (value, gradient) = softmaxCrossEntropy(scores, labels)
        if isCulprit, steps == 4 { gradient[0, 0] = .infinity }
        value += 0
        return (value, gradient)
      }
      let trainer = Trainer(model: model.synchronized(over: ranks), optimizer: SGD(model.parameters), loss: loss)
      trainer.configuration.batchSize = 16
      trainer.distribute(over: ranks)
      try trainer.fit(training: data)
    }
    // In one place behind a large weight, whose gradient is looked at in part.
    context.expectError("rank \(culprit): the gradient of '0.weight' is not finite") {
      let model = Sequential<Float>(seed: 1) { Dense(12, 700, bias: false) }
      let parallel = try DataParallel(model, over: ranks, bucketBytes: 1024)
      for step in 0..<3 {
        let (output, pullback) = model.forward(data.batch(rows: Array(0..<8)).features)
        var gradient = Tensor<Float>(repeating: 0.1, shape: output.shape)
        if isCulprit, step == 2 { gradient[3, 500] = .nan }
        pullback.accumulate(gradient)
        try parallel.finishGradients()
        for parameter in model.parameters { parameter.clearGradient() }
      }
    }
    // And in a loop of one's own.
    context.expectError("rank \(culprit): the gradient of '7.") {
      let model = perceptron(12).synchronized(over: ranks)
      let parallel = try DataParallel(model, over: ranks)
      for step in 0..<3 {
        let (output, pullback) = model.forward(data.batch(rows: Array(0..<8)).features)
        pullback.accumulate(Tensor(repeating: isCulprit && step == 2 ? .nan : 0.1, shape: output.shape))
        try parallel.finishGradients()
        for parameter in model.parameters { parameter.clearGradient() }
      }
    }
  }

  /// Calls a function before each batch.
  final class BrokenLayerSource: DataSource {
    let base: Dataset<Float>
    let before: (Int) -> Void
    var batches = 0

    init(_ base: Dataset<Float>, _ before: @escaping (Int) -> Void) { (self.base, self.before) = (base, before) }

    var count: Int { base.count }
    var featureShape: [Int] { base.featureShape }
    var classes: Int { base.classes }

    func batch(rows: [Int]) -> (features: Tensor<Float>, labels: [Int]) {
      before(batches)
      batches += 1
      return base.batch(rows: rows)
    }
  }

  func errors(_ context: RankContext) throws {
    let (ranks, culprit) = (context.ranks, context.size - 1)
    let data = try clusters(64)
    context.expectError("rank \(culprit): the disk has gone") {
      let source = BrokenSource(data, .error, after: context.rank == culprit ? 3 : .max)
      try trainer(perceptron(12), epochs: 5, batchSize: 16, over: ranks).fit(training: source)
    }
    // While it validates.
    context.expectError("rank \(culprit): the disk has gone") {
      let source = BrokenSource(data, .error, after: context.rank == culprit ? 0 : .max)
      let trainer = trainer(perceptron(12), epochs: 5, batchSize: 16, over: ranks)
      trainer.configuration.validationBatchSize = 8
      try trainer.fit(training: data, validation: source)
    }
    // A checkpoint that the first rank can't write.
    context.expectError("rank 0: /proc/none") {
      let trainer = trainer(perceptron(12), epochs: 1, over: ranks)
      trainer.configuration.checkpointFolder = "/proc/none"
      try trainer.fit(training: data)
    }
    // What the first rank's progress throws.
    context.expectError("rank 0: the disk has gone") {
      try trainer(perceptron(12), epochs: 3, over: ranks).fit(training: data) { progress in
        if progress.step == 3 { throw BrokenSource.Broken() }
        return .continue
      }
    }
    try trainer(perceptron(12), epochs: 1, over: ranks).fit(training: data)
  }

  /// A copy of the model that comes apart on one rank.
  func drift(_ context: RankContext) throws {
    let model = perceptron(12)
    let culprit = context.size - 1
    // Of two ranks the first one's copy counts as right.
    context.expectError("'7.bias' is no longer the same on all ranks after step 10", "differs on rank \(culprit)") {
      try trainer(model, epochs: 10, over: context.ranks).fit(
        training: BrokenLayerSource(try clusters(64)) { batches in
          if context.rank == culprit, batches == 9 {
            var bias = model.parameters.last!.value
            bias[0] += 1e-6
            model.parameters.last!.value = bias
          }
        })
    }
  }

  /// A rank that says that it takes long is waited for.
  func busy(_ context: RankContext) throws {
    context.ranks.timeout = 0.5
    if context.rank == 0 { context.ranks.busy { _ = usleep(2_500_000) } }
    try context.ranks.barrier()
  }

  // MARK: Faults that end the job

  let faultCases: [(name: String, least: Int, body: RankCase)] = [
    ("fault-hang", .max, { try fault($0) { while true { sleep(1) } } }),
    ("fault-stop", .max, { try fault($0) { kill(getpid(), SIGSTOP) } }),
    ("fault-kill", .max, { try fault($0) { kill(getpid(), SIGKILL) } }),
  ]

  /// Trains with checkpoints in the folder of the first argument, until something happens to the last rank in the middle.
  private func fault(_ context: RankContext, _ happens: @escaping () -> Void) throws {
    context.ranks.timeout = 5
    let model = perceptron(12)
    let trainer = trainer(model, epochs: 5, batchSize: 16, over: context.ranks)
    trainer.configuration.checkpointFolder = context.arguments[0]
    trainer.configuration.checkpointInterval = .steps(3)
    let isLast = context.rank == context.size - 1
    do {
      try trainer.fit(training: BrokenLayerSource(try clusters(64)) { if isLast, $0 == 10 { happens() } })
    } catch {
      // MPI may still write to what it was given.
      if context.ranks.transferCount == 0 { note("rank \(context.rank): no transfer is kept") }
      throw error
    }
  }
#endif
