import Testing

import Steppe

/// The words of what `body` throws, which is expected to be an error of type `Failure`.
private func message<Failure: Error>(
  _ type: Failure.Type = TrainingError.self, sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () throws -> Void
) -> String {
  let error = #expect(throws: type, sourceLocation: sourceLocation, performing: body)
  return error.map { "\($0)" } ?? ""
}

extension TrainingTests {
  @Suite struct ErrorTests {
    private let data = twoClasses(33, as: Float.self)

    private func makeTrainer(
      _ model: Sequential<Float> = network(), learningRate: Double = 0.1, schedule: (any LearningRateSchedule)? = nil,
      _ change: (inout TrainingConfiguration) -> Void = { _ in }
    ) -> Trainer<Float> {
      let trainer = Trainer(
        model: model, optimizer: SGD(model.parameters, learningRate: learningRate, momentum: 0.9), schedule: schedule,
        configuration: TrainingConfiguration(epochs: 2, batchSize: 8))
      change(&trainer.configuration)
      return trainer
    }

    @Test func refusesSettings() {
      func refused(_ change: (inout TrainingConfiguration) -> Void) -> String {
        message { try makeTrainer(network(), change).fit(training: data, validation: data) }
      }
      #expect(refused { $0.epochs = 0 } == "epochs: expected at least 1, got 0")
      #expect(refused { $0.batchSize = -1 } == "batchSize: expected at least 1, got -1")
      #expect(refused { $0.validationBatchSize = 0 } == "validationBatchSize: expected at least 1, got 0")
      #expect(refused { $0.checkpointInterval = .steps(0) } == "checkpointInterval: expected at least 1, got steps(0)")
      #expect(
        refused { $0.checkpointInterval = .epochs(0) } == "checkpointInterval: expected at least 1, got epochs(0)")
      #expect(refused { $0.keptCheckpoints = 0 } == "keptCheckpoints: expected at least 1, got 0")
      #expect(refused { $0.patience = 0 } == "patience: expected at least 1, got 0")
      #expect(
        refused { $0.minimumImprovement = -1 }
          == "minimumImprovement: expected a finite number of at least 0, got -1.0")
      #expect(
        refused { $0.progressInterval = .nan } == "progressInterval: expected a finite number of at least 0, got nan")
      #expect(
        message { try makeTrainer { $0.patience = 2 }.fit(training: data) }
          == "patience: expected validation data beside it, got 2")
    }

    @Test func refusesRatesAndOptimizers() {
      struct Negative: LearningRateSchedule { func rate(at step: Int) -> Double { step < 2 ? 0.1 : -0.5 } }
      #expect(
        message { try makeTrainer(schedule: Negative()).fit(training: data) }
          == "the schedule's rate at step 2: expected a finite number of at least 0, got -0.5")
      let other = network()
      let trainer = Trainer(model: network(), optimizer: SGD(other.parameters))
      #expect(
        message { try trainer.fit(training: data) }
          == "optimizer: expected an optimizer of the model's parameters, got one of none of them")
    }

    @Test func refusesData() throws {
      let none = data.subset(0..<0)
      #expect(
        message { try makeTrainer().fit(training: none) } == "data: expected at least one example, got none")
      #expect(
        message { try makeTrainer().fit(training: data, validation: none) }
          == "data: expected at least one example for validation, got none")
      #expect(
        message { try makeTrainer().fit(training: data, validation: twoClasses(9, width: 5, as: Float.self)) }
          == "data: expected validation data of features [6] and at most 2 classes, got features [5] and 2 classes"
      )
      #expect(
        message(LayerError.self) { try makeTrainer().fit(training: twoClasses(9, width: 5, as: Float.self)) }
          == "Dense '0': expected an input of shape [N, …, 6], got [8, 5]")
      let label = ChangedSource(base: data) { rows, _, labels in
        if let index = rows.firstIndex(of: 20) { labels[index] = 2 }
      }
      #expect(
        message { try makeTrainer().fit(training: label) }
          == "data: expected labels in 0 ..< 2, got 2 in row 20")
      let short = ChangedSource(base: data) { _, _, labels in labels.removeLast() }
      #expect(
        message { try makeTrainer().fit(training: short) }
          == "data: expected a batch of shape [8, 6] and 8 labels, got [8, 6] and 7 labels")
      let wide = ChangedSource(base: data, classes: 3) { _, _, _ in }
      #expect(
        message { try makeTrainer().fit(training: wide) }
          == "data: expected a model that gives scores of shape [8, 3 or more], one for each class, got [8, 2]"
      )
      #expect(
        message { _ = try evaluate(network(), on: none) } == "data: expected at least one example, got none")
      #expect(
        message { _ = try evaluate(network(), on: data, batchSize: 0) } == "batchSize: expected at least 1, got 0")
    }

    @Test func aDataSourcesErrorPassesThrough() {
      struct Lost: Error {}
      let source = ChangedSource(base: data) { _, _, _ in throw Lost() }
      #expect(throws: Lost.self) { try makeTrainer().fit(training: source) }
    }

    @Test func anIncompleteLastBatch() throws {
      // 33 rows are four batches of 8 and one row, on which batch norm can't train.
      let automatic = try makeTrainer().fit(training: data)
      #expect(automatic.step == 8)
      #expect(try makeTrainer { $0.batchSize = 7 }.fit(training: data).step == 10)
      #expect(
        message(LayerError.self) { try makeTrainer { $0.lastBatch = .keep }.fit(training: data) }
          == "BatchNorm '1': expected more than one value per channel in training (a batch of one has no variance), "
          + "got [1, 16]")
      #expect(
        try makeTrainer {
          $0.lastBatch = .drop; $0.batchSize = 7
        }.fit(training: data).step == 8)
      #expect(
        message {
          try makeTrainer {
            $0.lastBatch = .drop; $0.batchSize = 50
          }.fit(training: data)
        }
          == "data: expected at least one batch of 50 examples, since the last one is dropped, got 33 examples"
      )
      // Nothing would be left to train on.
      for size in [1, 8] {
        let source = data.subset(0..<1)
        #expect(
          message(LayerError.self) { try makeTrainer { $0.batchSize = size }.fit(training: source) }.contains("[1, 16]")
        )
      }
      // Without batch norm a single row is fine.
      let model = Sequential<Float>(seed: 1) { Dense(6, 2) }
      #expect(try makeTrainer(model).fit(training: data).step == 10)
    }

    // MARK: NaN and infinity

    @Test func namesABadFeature() throws {
      let folder = TemporaryFolder()
      let source = ChangedSource(base: data) { rows, features, _ in
        if let index = rows.firstIndex(of: 17) { features[index, 3...3] = Tensor([Float.infinity]) }
      }
      let trainer = makeTrainer {
        $0.shuffles = false
        $0.checkpointFolder = folder("run")
        $0.checkpointInterval = .steps(1)
      }
      let error = #expect(throws: TrainingError.self) { try trainer.fit(training: source) }
      let last = folder("run") + "/checkpoint-2.safetensors"
      #expect(error == .notFinite(place: .features(row: 17, column: 3), epoch: 1, step: 3, checkpoint: last))
      #expect(
        "\(error!)"
          == "a feature is not finite: row 17, column 3 at step 3 (epoch 1); the last good checkpoint is \(last)")
      #expect(try trainer.resume(from: folder("run")).step == 2)
    }

    @Test func namesTheFirstLayer() throws {
      let model = Sequential<Float>(seed: 1) {
        Dense(6, 8)
        Residual {
          BatchNorm(8)
          Poison(after: 4)
        }
        Dense(8, 2)
      }
      let trainer = makeTrainer(model)
      let error = #expect(throws: TrainingError.self) { try trainer.fit(training: data) }
      #expect(error == .notFinite(place: .layer("Poison '1.1'"), epoch: 2, step: 5, checkpoint: nil))
      #expect(
        "\(error!)".hasSuffix("the output of Poison '1.1' is not finite at step 5 (epoch 2); no checkpoint was written")
      )
      // The search has not moved the running statistics.
      #expect(model.state.contains { $0.key == "1.0.num_batches_tracked" && $0.get() == .integer(5) })
    }

    @Test func namesABadLoss() {
      let loss = TrainingLoss<Float>(name: "bad") { scores, _ in (.nan, scores) }
      let model = network()
      let trainer = Trainer(model: model, optimizer: SGD(model.parameters), loss: loss)
      let error = #expect(throws: TrainingError.self) { try trainer.fit(training: data) }
      #expect(error == .notFinite(place: .loss, epoch: 1, step: 1, checkpoint: nil))
    }

    @Test func gradientsThatExplodeLeaveTheLastCheckpoint() throws {
      let folder = TemporaryFolder()
      struct Explosion: LearningRateSchedule { func rate(at step: Int) -> Double { step < 2 ? 0.1 : 1e300 } }
      let model = Sequential<Float>(seed: 1) { Dense(6, 2) }
      let trainer = makeTrainer(model, schedule: Explosion()) {
        $0.checkpointFolder = folder("run")
        $0.checkpointInterval = .steps(1)
      }
      let last = folder("run") + "/checkpoint-2.safetensors"
      let error = #expect(throws: TrainingError.self) { try trainer.fit(training: data) }
      #expect(
        error == .notFinite(place: .parameter("0.weight", layer: nil), epoch: 1, step: 4, checkpoint: last))
      try model.load(from: last)
      #expect(model.parameters.allSatisfy { $0.value.isAllFinite() })
      // Without checkpoints the next step finds it, and at the latest the epoch's end.
      let plain = Sequential<Float>(seed: 1) { Dense(6, 2) }
      let found = #expect(throws: TrainingError.self) {
        try self.makeTrainer(plain, schedule: Explosion()).fit(training: data)
      }
      #expect(
        found == .notFinite(place: .parameter("0.weight", layer: "Dense '0'"), epoch: 1, step: 4, checkpoint: nil))
    }

    @Test func namesABadValidationLoss() {
      let good = ChangedSource(base: data) { _, _, _ in }
      let bad = ChangedSource(base: data) { _, features, _ in features *= .infinity }
      let error = #expect(throws: TrainingError.self) { try makeTrainer().fit(training: good, validation: bad) }
      #expect(error == .notFinite(place: .validationLoss, epoch: 1, step: 5, checkpoint: nil))
    }
  }
}
