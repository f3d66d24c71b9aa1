import ArgumentParser
import Glibc
import Steppe
import SteppeExperiments

struct Train: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Trains a network on Fashion-MNIST, own images or a table.",
    discussion: """
      Without options it trains 784-512-512-10 with batch norm and ReLU on Fashion-MNIST for 10 epochs, by SGD with \
      momentum and a rate that falls along a cosine, and leaves in the output folder:

        model.safetensors        the model, which PyTorch reads too
        metrics.jsonl            the configuration, then a line for each epoch
        curves.svg .png .csv     loss and accuracy by epoch
        checkpoints/             where the run stands, for --resume

      All training images train, unless --validation-fraction holds some out. Test images are only looked at: they \
      choose neither the model nor when to stop.

      With --data and a table of comma-separated values it learns to tell the column --target from the others: a class, \
      or a number. Features are standardized by the model's own first layer, so that its file is all that evaluation \
      and prediction need.

      Ctrl-C writes a checkpoint and ends the run, a second Ctrl-C ends it at once. A run goes on by --resume, which \
      needs no other options, and with the same number of threads its model is bitwise that of a run without a stop.

      Under mpirun the run is that of all its processes, each with its part of every batch: the same model as by one \
      process, up to rounding. The first of them writes and reports; --resume goes on with any number of processes.

      Examples:
        steppe train --output run
        steppe train --hidden 256 --optimizer adamw --epochs 5 --output small
        steppe train --model resnet --epochs 10 --output resnet
        steppe train --train-images x.npy --train-labels y.npy --output own
        steppe train --data houses.csv --target price --without id --output houses
        steppe train --output run --resume
        mpirun -n 4 steppe train --output run
      """)

  @OptionGroup(title: "Data") var data: DataOptions
  @OptionGroup(title: "Data") var ownData: OwnTrainingData
  @OptionGroup(title: "Table") var tableData: TableTrainingOptions
  @OptionGroup(title: "Network") var network: NetworkOptions
  @OptionGroup(title: "Recipe") var recipe: RecipeOptions

  @Option(name: [.short, .long], help: ArgumentHelp("The folder that takes what the run makes.", valueName: "folder"))
  var output = "steppe-run"

  @Flag(help: "Go on with the run in the output folder.") var resume = false

  @Flag(help: "Replace the run in the output folder.") var overwrite = false

  @Flag(
    help: "Train on all processes that mpirun has started; without mpirun, as the only one. (default: under mpirun)")
  var distributed = false

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    if resume, overwrite { throw ValidationError("--resume and --overwrite: expected one of them, found both") }
    if output.isEmpty { throw ValidationError("--output: expected a folder's name, found none") }
    // What does not fit together is found before anything is read.
    if !resume { _ = try configuration(from: RunConfiguration()) }
  }

  func run() throws {
    let ranks = try Ranks.join(asked: distributed)
    try ranks.run { try train(on: ranks) }
  }

  private func train(on ranks: Ranks) throws {
    let folder = RunFolder(path: output)
    // To the end: a run that is still going on is neither read halfway nor cleared away.
    var lock: FolderLock?
    defer { withExtendedLifetime(lock) {} }
    var metrics = try ranks.agree {
      guard resume, ranks.isFirst else {
        var configuration = try self.configuration(from: RunConfiguration())
        configuration.ranks = ranks.count
        let metrics = MetricsFile(path: folder.metrics, configuration: configuration)
        if !resume, ranks.isFirst { try checkIsFree(folder) }
        return metrics
      }
      guard folder.holdsRun else { throw Failure("\(output): expected a run to go on with, found none") }
      lock = try folder.lock()
      return try resumedMetrics(folder)
    }
    // The run's own settings, which only the first rank has read.
    if resume { metrics = try metrics.with(text: try ranks.share(metrics.configuration.text)) }
    threads.apply(quiet: quiet || !ranks.isFirst)
    // As many as before, for the same bits. Another number of ranks has other bits and shares the processors out otherwise.
    if threads.threads == nil, metrics.configuration.ranks == ranks.count {
      Parallel.threadCount = metrics.configuration.threads
    }
    (metrics.configuration.threads, metrics.configuration.ranks) = (Parallel.threadCount, ranks.count)
    let configuration = metrics.configuration

    let (examples, specification) = try ranks.agree { try prepare(configuration) }
    if !resume {
      // Only now that all input has been found good does the old run go.
      try ranks.agree {
        guard ranks.isFirst else { return }
        try folder.create()
        lock = try folder.lock()
        // Another run may have begun in the meantime.
        try checkIsFree(folder)
        try folder.clear()
      }
    }
    let trainer = makeTrainer(configuration, specification, folder, examples)
    ranks.distribute(trainer)
    if resume {
      let epoch = try ranks.agree { ranks.isFirst ? try resume(trainer, folder, configuration) : 1 }
      metrics.truncate(from: epoch)
    }
    try ranks.agree { if ranks.isFirst { try metrics.write() } }
    let list = try ranks.list()
    if ranks.isFirst {
      if let list { say(list) }
      say("\(specification.summary): \(grouped(examples.training.count)) examples, \(Parallel.threadCount) threads")
    }

    Interruption.watch()
    let report = try fit(trainer, examples, &metrics)
    // Every rank ends with the first one's signal.
    if report.outcome == .interrupted, let signal = Int32(try ranks.share("\(Interruption.signal ?? SIGTERM)")) {
      if ranks.isFirst {
        Console.error(
          "steppe: interrupted after step \(report.step); the run is kept in \(report.checkpoint ?? folder.checkpoints), "
            + "and goes on by: steppe train --output \(shellQuoted(output)) --resume")
      }
      throw ranks.ending(with: ExitCode(128 + signal))
    }
    try ranks.agree {
      if ranks.isFirst { try finish(trainer, examples, specification, report, metrics, folder) }
    }
  }

  // MARK: - Before training

  /// `base` with what the options say.
  private func configuration(from base: RunConfiguration) throws -> RunConfiguration {
    var configuration = base
    try ownData.apply(data, tableData, to: &configuration)
    try network.apply(to: &configuration)
    try recipe.apply(to: &configuration)
    if let count = threads.threads { configuration.threads = count }
    return configuration
  }

  /// The examples, and what a model for them is made of.
  private func prepare(_ configuration: RunConfiguration) throws -> (Examples, ModelSpecification) {
    let examples = try Examples.read(configuration)
    var specification = ModelSpecification(
      kind: configuration.model, inputs: examples.training.featureShape[0], hidden: configuration.hidden,
      classes: examples.training.classes, activation: configuration.activation,
      normalization: configuration.normalization, mean: examples.mean, deviation: examples.deviation,
      classNames: examples.table?.classNames ?? configuration.data.classNames,
      table: examples.table.map { TableSpecification(features: $0.featureNames, target: $0.targetName, task: $0.task) },
      standardizesInputs: examples.standardizer != nil, scalesOutputs: examples.target != nil)
    if configuration.model != .mlp {
      specification.images = try ImageNetwork(
        features: examples.imageShape, depth: configuration.depth, width: configuration.width,
        source: configuration.data.training?.images ?? configuration.data.table?.path ?? "training images")
    }
    try specification.checkSize()
    return (examples, specification)
  }

  /// Throws where a new run would replace another without being asked to.
  private func checkIsFree(_ folder: RunFolder) throws(Failure) {
    if folder.holdsRun, !overwrite {
      throw Failure("\(output): holds another run; --resume goes on with it, --overwrite replaces it")
    }
  }

  /// The metrics of the run to go on with, whose settings the options must not change.
  private func resumedMetrics(_ folder: RunFolder) throws -> MetricsFile {
    let metrics = try MetricsFile(reading: folder.metrics)
    let stored = metrics.configuration
    let asked = try configuration(from: stored)
    for (old, new) in zip(stored.members, asked.members) where old != new && !["threads", "ranks"].contains(old.key) {
      throw ValidationError(
        "--resume: expected no other settings than the run's, \(old.key) \(old.value.serialized()), "
          + "found \(new.value.serialized())")
    }
    return metrics
  }

  private func makeTrainer(
    _ configuration: RunConfiguration, _ specification: ModelSpecification, _ folder: RunFolder, _ examples: Examples
  ) -> Trainer<Float> {
    let model = specification.model(
      seed: configuration.seed, inputs: examples.standardizer, output: examples.target)
    var settings = TrainingConfiguration(
      epochs: configuration.epochs, batchSize: configuration.batchSize, seed: configuration.seed)
    settings.checkpointFolder = folder.checkpoints
    settings.patience = configuration.patience
    let batches = (examples.training.count + configuration.batchSize - 1) / configuration.batchSize
    return Trainer(
      model: model, optimizer: configuration.makeOptimizer(model.parameters),
      schedule: configuration.makeSchedule(steps: configuration.epochs * batches), loss: examples.loss,
      configuration: settings)
  }

  /// Puts `trainer` where the run stands and returns the epoch that it goes on with.
  private func resume(
    _ trainer: Trainer<Float>, _ folder: RunFolder, _ configuration: RunConfiguration
  ) throws -> Int {
    let resumption = try trainer.resume(from: folder.checkpoints)
    for error in resumption.skipped { Console.error("steppe: note: \(error)") }
    if resumption.rankCount != trainer.rankCount {
      say(
        "steppe: note: the run had \(resumption.rankCount) ranks; with \(trainer.rankCount) its last digits will differ from "
          + "those of a run without a stop")
    } else if resumption.threadCount != Parallel.threadCount {
      say(
        "steppe: note: the run had \(resumption.threadCount) threads; with \(Parallel.threadCount) its last digits will "
          + "differ from those of a run without a stop")
    }
    say("resumed in epoch \(resumption.epoch) after step \(resumption.step) by \(resumption.checkpoint)")
    return resumption.epoch
  }

  // MARK: - Training

  private func fit(
    _ trainer: Trainer<Float>, _ examples: Examples, _ metrics: inout MetricsFile
  ) throws -> TrainingReport {
    var line = ProgressLine(quiet: quiet)
    // Whatever ends training, messages begin on a line of their own.
    defer { line.clear() }
    return try trainer.fit(training: examples.training, validation: examples.validation) { progress in
      if let record = progress.record {
        let test = try examples.test.map { try evaluate(trainer.model, on: $0, loss: examples.loss) }
        let epoch = EpochMetrics(
          record, test: test, samples: examples.training.count, isRegression: examples.target != nil)
        metrics.append(epoch)
        try metrics.write()
        line.write(Self.text(epoch, progress))
      } else {
        line.show { Self.text(progress, isRegression: examples.target != nil) }
      }
      return Interruption.signal == nil ? .continue : .stop
    }
  }

  /// A line in the middle of an epoch, with a bar where the terminal has room for one.
  private static func text(_ progress: TrainingProgress, isRegression: Bool) -> String {
    var parts = ["epoch \(progress.epoch)/\(progress.epochs)", "loss \(fixed(progress.loss, 4))"]
    if !isRegression { parts.append("accuracy \(percentage(progress.accuracy, digits: 2))") }
    parts += [
      "\(grouped(Int(progress.samplesPerSecond))) samples/s",
      "\(duration(progress.timeLeft)) left",
    ]
    let room = Console.width - 1 - parts.reduce(0) { $0 + $1.count + 2 }
    if room >= 4 {
      let length = min(room, 24)
      let done = length * progress.batch / max(progress.batchesPerEpoch, 1)
      parts.insert(String(repeating: "━", count: done) + String(repeating: "─", count: length - done), at: 1)
    }
    return parts.joined(separator: "  ")
  }

  /// A line at the end of an epoch.
  private static func text(_ epoch: EpochMetrics, _ progress: TrainingProgress) -> String {
    var parts = ["epoch \(epoch.epoch)/\(progress.epochs)", "loss \(fixed(epoch.loss, 4))"]
    if let accuracy = epoch.accuracy { parts.append("accuracy \(percentage(accuracy, digits: 2))") }
    for (name, loss, accuracy) in [
      ("validation", epoch.validationLoss, epoch.validationAccuracy), ("test", epoch.testLoss, epoch.testAccuracy),
    ] {
      if let loss { parts.append("\(name) loss \(fixed(loss, 4))") }
      if let accuracy { parts.append("\(name) accuracy \(percentage(accuracy, digits: 2))") }
    }
    parts += [
      "\(fixed(epoch.seconds, 2)) s", "\(grouped(Int(epoch.samplesPerSecond))) samples/s",
      "\(duration(progress.timeLeft)) left",
    ]
    return parts.joined(separator: "  ")
  }

  // MARK: - After training

  private func finish(
    _ trainer: Trainer<Float>, _ examples: Examples, _ specification: ModelSpecification, _ report: TrainingReport,
    _ metrics: MetricsFile, _ folder: RunFolder
  ) throws {
    if report.outcome == .stoppedEarly {
      say("stopped: the validation loss has not fallen for \(metrics.configuration.patience ?? 0) epochs")
    }
    // The model that is kept, and whose numbers are shown, is the best epoch's where there is one.
    let bestEpoch = report.bestModel == nil ? nil : report.bestEpoch
    if let best = report.bestModel { try trainer.model.load(from: best) }
    try trainer.model.save(to: folder.model, metadata: specification.metadata)
    var rows = [["model", folder.model], ["metrics", folder.metrics]]
    rows.append(["curves", try drawCurves(metrics, specification, folder).joined(separator: ", ")])

    let chosen = metrics.epochs.first { $0.epoch == bestEpoch } ?? metrics.epochs.last
    var results: [[String]] = []
    if let bestEpoch { results.append(["best epoch", "\(bestEpoch)"]) }
    for (name, loss, accuracy) in [
      ("training", chosen?.loss, chosen?.accuracy),
      ("validation", chosen?.validationLoss, chosen?.validationAccuracy),
      ("test", chosen?.testLoss, chosen?.testAccuracy),
    ] {
      if let loss, let accuracy {
        results.append(["\(name) accuracy", "\(percentage(accuracy, digits: 2))  (loss \(fixed(loss, 4)))"])
      } else if let loss, let target = examples.target {
        let error = loss.squareRoot() * target.statistics[0].deviation
        results.append(["\(name) error", "\(significant(error, 5)), root of the mean square  (loss \(fixed(loss, 4)))"])
      }
    }
    print(list(results + rows))
  }

  private func drawCurves(
    _ metrics: MetricsFile, _ specification: ModelSpecification, _ folder: RunFolder
  ) throws -> [String] {
    var files = [try Curves.writeTable(metrics.epochs, path: folder.curves)]
    do throws(Failure) {
      let title = (metrics.configuration.data.isOwn ? "" : "Fashion-MNIST: ") + specification.summary
      files = try Curves.draw(metrics.epochs, title: title, path: folder.curves) + files
    } catch {
      Console.error("steppe: note: no picture of the curves, whose numbers are in \(files[0]): \(error)")
    }
    return files
  }

  private func say(_ text: String) {
    if !quiet { Console.error(text) }
  }
}
