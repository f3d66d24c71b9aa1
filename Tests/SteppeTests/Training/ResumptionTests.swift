import Foundation
import Reference
import Testing

import Steppe

/// The kinds of run that must come out the same however often they are stopped.
enum RunKind: String, CaseIterable, Codable, Sendable {
  case sgd, adam, clippedRMSProp

  /// A new trainer, as a new process would make it: with other weights, which resuming replaces, and other masks.
  func trainer(_ folder: String?, seed: UInt64 = 3) -> Trainer<Float> {
    let model = network(seed: seed)
    let optimizer: any Optimizer<Float>
    var schedule: (any LearningRateSchedule)?
    switch self {
    case .sgd:
      optimizer = SGD(model.parameters, learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.01)
      schedule = Warmup(steps: 4, then: CosineDecay(initial: 0.1, final: 0, steps: 20))
    case .adam: optimizer = AdamW(model.parameters, learningRate: 0.01)
    case .clippedRMSProp:
      let clipped = RMSProp(model.parameters, learningRate: 0.01, momentum: 0.5)
      clipped.maximumGradientNorm = 0.5
      optimizer = clipped
    }
    let trainer = Trainer(
      model: model, optimizer: optimizer, schedule: schedule, loss: .softmaxCrossEntropy(labelSmoothing: 0.1),
      configuration: TrainingConfiguration(epochs: 3, batchSize: 10, seed: 8))
    trainer.configuration.checkpointFolder = folder
    trainer.configuration.checkpointInterval = .steps(3)
    trainer.configuration.progressInterval = 0
    return trainer
  }

  var training: Dataset<Float> { twoClasses(75) }
  var validation: Dataset<Float> { twoClasses(30, seed: 2) }
  /// 75 examples by 10, thrice.
  static let steps = 24

  /// The bytes of the model that a run without a stop ends with, and its history without its times.
  func uninterrupted(_ folder: TemporaryFolder) throws -> (model: [UInt8], history: [EpochRecord]) {
    let trainer = trainer(nil)
    _ = try Parallel.withThreadCount(2) { try trainer.fit(training: training, validation: validation) }
    return (try savedBytes(trainer.model, folder), trainer.history.map(\.withoutTime))
  }
}

extension EpochRecord {
  var withoutTime: EpochRecord {
    EpochRecord(
      epoch: epoch, step: step, trainingLoss: trainingLoss, trainingAccuracy: trainingAccuracy,
      validationLoss: validationLoss, validationAccuracy: validationAccuracy, learningRate: learningRate, seconds: 0)
  }
}

extension TrainingTests {
  @Suite struct ResumptionTests {
    let folder = TemporaryFolder()

    @Test(arguments: RunKind.allCases)
    func endsBitwiseAsIfItHadNeverStopped(kind: RunKind) throws {
      let expected = try kind.uninterrupted(folder)
      // Stopped at each step in turn, and at each again until the end.
      for stride in [1, 2, 5, 8, 11, 23, 24] {
        let run = folder("\(kind)-\(stride)")
        var trainer = kind.trainer(run)
        while true {
          var left = stride
          let report = try Parallel.withThreadCount(2) {
            try trainer.fit(training: kind.training, validation: kind.validation) { progress in
              if progress.record == nil { left -= 1 }
              return left == 0 ? .stop : .continue
            }
          }
          if report.outcome == .completed { break }
          #expect(report.outcome == .interrupted)
          trainer = kind.trainer(run, seed: 99)
          let resumption = try trainer.resume(from: run)
          #expect(resumption.checkpoint == report.checkpoint && resumption.step == report.step)
          #expect(resumption.threadCount == 2 && resumption.skipped.isEmpty)
        }
        #expect(trainer.step == RunKind.steps)
        #expect(try savedBytes(trainer.model, folder) == expected.model, "stopped every \(stride) steps")
        #expect(trainer.history.map(\.withoutTime) == expected.history)
      }
    }

    @Test func aStoppedTrainerGoesOn() throws {
      let expected = try RunKind.adam.uninterrupted(folder)
      let trainer = RunKind.adam.trainer(nil)
      for _ in 1...3 {
        _ = try Parallel.withThreadCount(2) {
          try trainer.fit(training: RunKind.adam.training, validation: RunKind.adam.validation) {
            $0.step == 7 || $0.step == 13 ? .stop : .continue
          }
        }
      }
      #expect(try savedBytes(trainer.model, folder) == expected.model)
    }

    @Test func keepsTheLastCheckpointsAndTheBestModel() throws {
      let trainer = RunKind.sgd.trainer(folder("run"))
      trainer.configuration.keptCheckpoints = 3
      var best: [Int: [StateEntry<Float>.Value]] = [:]
      let report = try trainer.fit(training: RunKind.sgd.training, validation: RunKind.sgd.validation) {
        if let record = $0.record { best[record.epoch] = trainer.model.state.map { $0.get() } }
        return .continue
      }
      let files = try FileManager.default.contentsOfDirectory(atPath: folder("run")).sorted()
      #expect(
        files == [
          "best.safetensors", "checkpoint-18.safetensors", "checkpoint-21.safetensors", "checkpoint-24.safetensors",
        ])
      #expect(report.checkpoint == folder("run") + "/checkpoint-24.safetensors")
      #expect(report.bestModel == folder("run") + "/best.safetensors")
      let other = network(seed: 7)
      try other.load(from: report.bestModel!)
      #expect(other.state.map { $0.get() } == best[report.bestEpoch!])
      // A training checkpoint is also a model.
      try other.load(from: report.checkpoint!)
      #expect(other.state.map { $0.get() } == trainer.model.state.map { $0.get() })
    }

    /// The epoch is not closed before its model is saved, so that the same trainer can go on once there is room again.
    @Test func aBestModelThatCannotBeWrittenLeavesTheRunWhereItWas() throws {
      let expected = try RunKind.sgd.uninterrupted(folder)
      let trainer = RunKind.sgd.trainer(folder("run"))
      func fit() throws -> TrainingReport {
        try Parallel.withThreadCount(2) {
          try trainer.fit(training: RunKind.sgd.training, validation: RunKind.sgd.validation)
        }
      }
      let obstacle = folder("run") + "/best.safetensors"
      try FileManager.default.createDirectory(atPath: obstacle, withIntermediateDirectories: true)
      #expect(throws: FileError.self) { try fit() }
      #expect(throws: FileError.self) { try fit() }
      #expect(trainer.step == 8 && trainer.history.isEmpty)
      try FileManager.default.removeItem(atPath: obstacle)
      #expect(try fit().bestModel == obstacle)
      #expect(trainer.history.map(\.withoutTime) == expected.history)
      #expect(try savedBytes(trainer.model, folder) == expected.model)
    }

    @Test func theBestModelIsNamedWhereItIs() throws {
      func trainer(_ name: String, epochs: Int) -> Trainer<Float> {
        let trainer = RunKind.sgd.trainer(folder(name))
        trainer.configuration.epochs = epochs
        // The first epoch stays the best.
        trainer.configuration.minimumImprovement = 1e6
        return trainer
      }
      func fit(_ trainer: Trainer<Float>) throws -> TrainingReport {
        try trainer.fit(training: RunKind.sgd.training, validation: RunKind.sgd.validation)
      }
      let first = trainer("first", epochs: 2)
      let firstReport = try fit(first)
      #expect(firstReport.bestEpoch == 1 && firstReport.bestModel == folder("first") + "/best.safetensors")

      let second = trainer("second", epochs: 3)
      try second.resume(from: folder("first"))
      let report = try fit(second)
      #expect(report.bestEpoch == 1 && report.bestModel == firstReport.bestModel)
      #expect(FileManager.default.fileExists(atPath: report.checkpoint!))

      // From here on only the folder of the second run is known, where the file is missing, of the right epoch, or of a later one.
      let best = folder("second") + "/best.safetensors"
      for (epoch, named) in [(nil, nil), (1, best), (2, nil)] as [(Int?, String?)] {
        if let epoch { try first.model.save(to: best, metadata: ["steppe.epoch": "\(epoch)"]) }
        let third = trainer("third-\(epoch ?? 0)", epochs: 4)
        try third.resume(from: folder("second"))
        let report = try fit(third)
        #expect(report.bestEpoch == 1 && report.bestModel == named)
      }
    }

    @Test func moreEpochsMayFollow() throws {
      let long = RunKind.adam.trainer(nil)
      long.configuration.epochs = 5
      try long.fit(training: RunKind.adam.training)
      let short = RunKind.adam.trainer(folder("run"))
      try short.fit(training: RunKind.adam.training)
      let more = RunKind.adam.trainer(folder("run"))
      more.configuration.epochs = 5
      #expect(try more.resume(from: folder("run")).step == 24)
      try more.fit(training: RunKind.adam.training)
      #expect(try savedBytes(more.model, folder) == savedBytes(long.model, folder))
    }

    @Test func damagedCheckpointsArePassedOver() throws {
      let expected = try RunKind.sgd.uninterrupted(folder)
      let run = folder("run")
      let first = RunKind.sgd.trainer(run)
      first.configuration.keptCheckpoints = 4
      _ = try Parallel.withThreadCount(2) {
        try first.fit(training: RunKind.sgd.training, validation: RunKind.sgd.validation) {
          $0.step == 13 ? .stop : .continue
        }
      }
      var content = bytes(of: run + "/checkpoint-13.safetensors")
      content[content.count / 2] ^= 1
      _ = folder.file("run/checkpoint-13.safetensors", content)
      _ = folder.file("run/checkpoint-12.safetensors", content.dropLast(9))
      _ = folder.file("run/checkpoint-11.safetensors", [])
      _ = folder.file("run/checkpoint-x.safetensors", [1])
      _ = folder.file("run/.steppe-123.tmp", [1])
      let trainer = RunKind.sgd.trainer(run)
      trainer.configuration.keptCheckpoints = 1
      let resumption = try trainer.resume(from: run)
      #expect(resumption.step == 9 && resumption.epoch == 2)
      let kinds = resumption.skipped.map {
        if case .file(let error) = $0 { error.kind } else { FileError.Kind.missing }
      }
      #expect(kinds == [.corrupted, .truncated, .empty])
      _ = try Parallel.withThreadCount(2) {
        try trainer.fit(training: RunKind.sgd.training, validation: RunKind.sgd.validation)
      }
      #expect(try savedBytes(trainer.model, folder) == expected.model)
      let files = try FileManager.default.contentsOfDirectory(atPath: run).sorted()
      #expect(files == ["best.safetensors", "checkpoint-24.safetensors", "checkpoint-x.safetensors"])
    }

    @Test func withoutACheckpointThereIsNothingToResume() throws {
      let trainer = RunKind.sgd.trainer(nil)
      #expect(throws: TrainingError.noCheckpoint(folder: folder.path, skipped: [])) {
        try trainer.resume(from: self.folder.path)
      }
      _ = folder.file("checkpoint-5.safetensors", [])
      let error = #expect(throws: TrainingError.self) { try trainer.resume(from: self.folder.path) }
      #expect("\(error!)".contains("checkpoint-5.safetensors: empty"))
      #expect(throws: CheckpointError.self) { try trainer.resume(from: self.folder("none")) }
      // A model alone is no run.
      try trainer.model.save(to: folder("model"))
      let plain = #expect(throws: CheckpointError.self) { try trainer.resume(from: self.folder("model")) }
      #expect("\(plain!)".contains("expected a training checkpoint, found a model without the state of a training run"))
    }

    @Test func everyOtherSettingIsListed() throws {
      let run = folder("run")
      let kind = RunKind.adam
      try kind.trainer(run).fit(training: kind.training) { $0.step == 4 ? .stop : .continue }
      let model = network()
      let other = Trainer(
        model: model, optimizer: AdamW(model.parameters, learningRate: 0.02, beta1: 0.8),
        configuration: TrainingConfiguration(epochs: 9, batchSize: 11, seed: 9))
      let before = model.state.map { $0.get() }
      let error = #expect(throws: TrainingError.self) { try other.resume(from: run) }
      #expect(
        error
          == .differentSettings(
            path: run + "/checkpoint-4.safetensors",
            differences: [
              SettingDifference(name: "batch size", expected: "10", found: "11"),
              SettingDifference(name: "learning rate", expected: "0.01", found: "0.02"),
              SettingDifference(
                name: "loss", expected: "softmax cross-entropy, label smoothing 0.1",
                found: "softmax cross-entropy, label smoothing 0.0"),
              SettingDifference(name: "optimizer's beta1", expected: "0.9", found: "0.8"),
              SettingDifference(name: "seed", expected: "8", found: "9"),
            ]))
      #expect(
        "\(error!)".contains("was begun with other settings: batch size: 10 then, 11 now; learning rate: 0.01 then"))
      #expect(model.state.map { $0.get() } == before && other.step == 0)
      let sgd = #expect(throws: TrainingError.self) { try RunKind.sgd.trainer(run).resume(from: run) }
      #expect("\(sgd!)".contains("optimizer: AdamW then, SGD now"))

      // Data are compared when they are there.
      let same = kind.trainer(run)
      try same.resume(from: run)
      let data = #expect(throws: TrainingError.self) { try same.fit(training: twoClasses(74)) }
      #expect("\(data!)".hasSuffix("other settings: data's examples: 75 then, 74 now"))
      try same.fit(training: kind.training)

      // Another architecture: what differs in the tensors.
      let wide = network(hidden: 17)
      let mismatch = #expect(throws: CheckpointError.self) {
        try Trainer(model: wide, optimizer: AdamW(wide.parameters)).resume(from: run)
      }
      guard case .mismatch(_, let differences) = mismatch else {
        Issue.record("\(mismatch!)")
        return
      }
      #expect(differences.count == 8)
    }

    @Test func aFolderBelongsToOneRun() throws {
      let run = folder("run/deep")
      let kind = RunKind.sgd
      try kind.trainer(run).fit(training: kind.training) { progress in
        if progress.step == 2 {
          #expect(
            throws: TrainingError.folderInUse(folder: run, reason: "another training is writing to this folder")
          ) { try kind.trainer(run).fit(training: kind.training) }
        }
        return progress.step == 4 ? .stop : .continue
      }
      let error = #expect(throws: TrainingError.self) { try kind.trainer(run).fit(training: kind.training) }
      #expect("\(error!)".contains("found checkpoint-4.safetensors; resume that run or choose another folder"))
      // A run that is resumed may go on elsewhere.
      let elsewhere = kind.trainer(folder("other"))
      try elsewhere.resume(from: run)
      try elsewhere.fit(training: kind.training)
      let again = kind.trainer(run)
      #expect(try again.resume(from: run + "/checkpoint-4.safetensors").step == 4)
      try again.fit(training: kind.training)
      #expect(try savedBytes(again.model, folder) == savedBytes(elsewhere.model, folder))
    }

    @Test func anUnwritableFolderIsFoundBeforeTheFirstStep() {
      _ = folder.file("plain", [1])
      for run in [folder("plain"), folder("plain/below"), "/proc/steppe/run"] {
        let trainer = RunKind.sgd.trainer(run)
        let error = #expect(throws: FileError.self) { try trainer.fit(training: RunKind.sgd.training) }
        #expect(error?.kind == .cannotWrite && trainer.step == 0)
      }
    }

    @Test func aFullDiskKeepsTheLastCheckpoint() async {
      await #expect(processExitsWith: .success) {
        let folder = TemporaryFolder()
        let run = folder("run")
        let trainer = RunKind.sgd.trainer(run)
        do {
          try trainer.fit(training: RunKind.sgd.training) {
            if $0.step == 7 { limitFileSize(2000, SIG_IGN) }
            return .continue
          }
          exit(1)
        } catch let error as FileError {
          guard error.kind == .cannotWrite, error.found == "File too large" else { exit(2) }
        }
        let files = try FileManager.default.contentsOfDirectory(atPath: run).sorted()
        guard files == ["checkpoint-3.safetensors", "checkpoint-6.safetensors"] else { exit(3) }
        guard try RunKind.sgd.trainer(run).resume(from: run).step == 6 else { exit(4) }
      }
    }

    // MARK: Killed processes

    /// What a process does that may be killed at any moment: it goes on where the run stands.
    private static func run(_ kind: RunKind, in folder: String) throws -> Trainer<Float> {
      let trainer = kind.trainer(folder)
      trainer.configuration.checkpointInterval = .steps(1)
      do {
        try trainer.resume(from: folder)
      } catch is TrainingError {
      } catch is CheckpointError {
        // The first process was killed before it had made the folder.
      }
      try Parallel.withThreadCount(2) { _ = try trainer.fit(training: kind.training, validation: kind.validation) }
      return trainer
    }

    @Test
    func aKilledRunEndsAlike() async throws {
      for kind in [RunKind.sgd, .adam] {
        let expected = try kind.uninterrupted(folder)
        let seed = dataTestSeed("TrainingTests.aKilledRunEndsAlike(\(kind))")
        var generator = RandomGenerator(seed: seed)
        // Half of what a whole run takes here, so that most kills hit it midway.
        let time = try ContinuousClock().measure { _ = try Self.run(kind, in: folder("\(kind)-timed")) }
        let longest = Int(time / .microseconds(1) / 2)
        var steps: [Int] = []
        for trial in 0..<3 {
          let run = folder("\(kind)-\(trial)")
          for _ in 0..<6 {
            let delay = UInt32(generator.index(below: longest))
            try ExitTestArguments.pass(kind.rawValue, run, "\(delay)", to: "killed")
            await #expect(processExitsWith: .signal(SIGKILL)) {
              let arguments = try ExitTestArguments.received(by: "killed")
              let kind = try #require(RunKind(rawValue: arguments[0]))
              let (run, delay) = (arguments[1], try #require(UInt32(arguments[2])))
              Thread.detachNewThread {
                usleep(delay)
                kill(getpid(), SIGKILL)
              }
              _ = try Self.run(kind, in: run)
              while true { sleep(1) }
            }
            steps.append(try Folder.exists(run) ? CheckpointFolder.steps(in: run).max() ?? -1 : -1)
          }
          let trainer = try Self.run(kind, in: run)
          #expect(try savedBytes(trainer.model, folder) == expected.model)
          #expect(trainer.history.map(\.withoutTime) == expected.history)
          let files = try FileManager.default.contentsOfDirectory(atPath: run).sorted()
          #expect(files == ["best.safetensors", "checkpoint-23.safetensors", "checkpoint-24.safetensors"])
        }
        print("\(kind): killed with the last checkpoint at step \(steps)")
      }
    }

    /// The system ends the process inside the write, when half of the file is there.
    @Test func aRunKilledWhileItWritesACheckpointEndsAlike() async throws {
      let kind = RunKind.adam
      let expected = try kind.uninterrupted(folder)
      let run = folder("run")
      for step in [0, 4, 8, 17] {
        try ExitTestArguments.pass(run, "\(step)", to: "killed while writing")
        await #expect(processExitsWith: .signal(SIGXFSZ)) {
          let arguments = try ExitTestArguments.received(by: "killed while writing")
          let (run, step) = (arguments[0], try #require(Int(arguments[1])))
          let trainer = RunKind.adam.trainer(run)
          trainer.configuration.checkpointInterval = .steps(1)
          if step == 0 { limitFileSize(3000, SIG_DFL) } else { _ = try? trainer.resume(from: run) }
          _ = try Parallel.withThreadCount(2) {
            _ = try trainer.fit(training: RunKind.adam.training, validation: RunKind.adam.validation) {
              if $0.step == step { limitFileSize(3000, SIG_DFL) }
              return .continue
            }
          }
        }
        let files = try FileManager.default.contentsOfDirectory(atPath: run)
        #expect(files.contains { $0.hasSuffix(".tmp") })
      }
      let trainer = try Self.run(kind, in: run)
      #expect(try savedBytes(trainer.model, folder) == expected.model)
      let files = try FileManager.default.contentsOfDirectory(atPath: run).sorted()
      #expect(files == ["best.safetensors", "checkpoint-23.safetensors", "checkpoint-24.safetensors"])
    }
  }
}

/// Lets this process write files of at most `bytes`; `handler` decides what a greater one does.
private func limitFileSize(_ bytes: UInt, _ handler: __sighandler_t?) {
  signal(SIGXFSZ, handler)
  // Threads of the concurrency runtime block signals.
  var signals = sigset_t()
  sigemptyset(&signals)
  sigaddset(&signals, SIGXFSZ)
  pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  var limits = rlimit(rlim_cur: bytes, rlim_max: bytes)
  setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limits)
}
