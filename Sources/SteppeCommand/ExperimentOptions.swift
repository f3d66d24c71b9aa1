import ArgumentParser
import Steppe
import SteppeExperiments

extension Preset: ExpressibleByArgument {}

/// What every experiment takes.
struct ExperimentOptions: ParsableArguments {
  @Option(
    help: """
      What it costs: quick shows the effect in a minute or two, full has more seeds, finer pictures and longer runs, tiny \
      shows that it works.
      """)
  var preset = Preset.quick

  @Option(help: "Chooses all random numbers: the same seed gives the same tables, byte for byte.")
  var seed: UInt64 = 1

  @Option(help: ArgumentHelp("Repetitions, from the seed on. (default: as the preset has it)", valueName: "count"))
  var seeds: Int?

  @OptionGroup(title: "Data (of own images without others to test with the last fifth is kept for that)")
  var own: OwnTrainingFiles

  @OptionGroup var test: TestFiles

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    if let seeds, !(1...1000).contains(seeds) { throw ValidationError("--seeds: expected 1 … 1000, found \(seeds)") }
    try TestFiles.check(test.files, beside: own.files)
    if own.files != nil, test.dataFolder != nil {
      throw ValidationError("--data-folder chooses Fashion-MNIST: expected either it or own files, found both")
    }
    if seed > UInt64(Int32.max) { throw ValidationError("--seed: expected at most \(Int32.max), found \(seed)") }
  }

  /// The options as a shell takes them, less those that say where results go.
  var words: [String] {
    var words = ["--preset", preset.rawValue, "--seed", "\(seed)"]
    if let seeds { words += ["--seeds", "\(seeds)"] }
    for (name, value) in [
      ("data-folder", test.dataFolder), ("train-images", own.trainImages), ("train-labels", own.trainLabels),
      ("test-images", test.testImages), ("test-labels", test.testLabels),
    ] {
      if let value { words += ["--\(name)", shellQuoted(value)] }
    }
    if let threads = threads.threads { words += ["--threads", "\(threads)"] }
    return words
  }

  /// Reads the data.
  func data() throws -> ExperimentData {
    let selection = DataSelection(folder: test.dataFolder, training: own.files, test: test.files)
    let training = try selection.trainingExamples(classes: nil)
    return try ExperimentData(training: training, test: try selection.testExamples(classes: training.classes))
  }

  /// The data by which an experiment is known.
  var dataName: String {
    [own.trainImages ?? test.dataFolder ?? DataName.fashionMNIST.rawValue, test.testImages].compactMap { $0 }.joined(
      separator: " ")
  }

  /// `experiment` as the options have it.
  func prepared(_ experiment: any Experiment) -> any Experiment {
    var experiment = experiment
    experiment.seeds = seeds ?? experiment.seeds
    return experiment
  }

  /// What the numbers of every experiment depend on.
  var commonParameters: [(name: String, value: String)] {
    [
      ("preset", preset.rawValue), ("seed", "\(seed)"), ("seeds", seeds.map { "\($0)" } ?? "as the preset has it"),
      ("data", dataName), ("threads", "\(Parallel.threadCount)"), ("version", SteppeVersion.current),
    ]
  }
}

/// What an experiment that measures several normalizations takes beside.
struct MethodOptions<Measured: MethodExperiment>: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "What is measured: \(Measured.allMethods.map(\.rawValue).joined(separator: ", ")); \(Measured.alwaysMeasured.map(\.rawValue).joined(separator: " and ")) always. (default: all)",
      valueName: "methods"))
  var methods: Choices<Normalization>?

  func validate() throws { try methods?.check("--methods", among: Measured.allMethods) }

  /// Runs the experiment as a command of its own.
  func run(_ options: ExperimentOptions, _ output: OutputOptions) throws {
    var experiment = Measured(options.preset)
    experiment.methods = methods?.values ?? experiment.methods
    try options.run(experiment, output, arguments: methods.map { ["--methods", $0.text] } ?? [])
  }
}

struct OutputOptions: ParsableArguments {
  @Option(
    name: [.short, .long],
    help: ArgumentHelp(
      "The folder that takes what the experiment makes. (default: steppe- and the command's name)", valueName: "folder")
  )
  var output: String?
}

/// An experiment on its way from the options to tables and pictures.
struct ExperimentRun {
  let options: ExperimentOptions
  let experiment: any Experiment
  /// The folder that takes everything.
  let path: String
  /// The person's command, by which an interrupted one goes on.
  let command: String

  /// What was found, how long all parts took, and why there are no pictures, where there are none.
  struct Outcome {
    let findings: [Finding]
    let seconds: Double
    let pictureFailure: Failure?
  }

  /// Runs what the folder does not hold yet, and draws.
  ///
  /// - Parameter prefix: Stands before what is said of the progress.
  func outcome(_ data: ExperimentData, prefix: String = "") throws -> Outcome {
    let folder = try ExperimentFolder(
      path, experiment: type(of: experiment).name, parameters: options.commonParameters + experiment.parameters)
    let progress = ExperimentProgress(quiet: options.quiet, command: command, folder: path)
    let work = ExperimentWork(in: folder, cost: experiment.cost(data)) { part, share, left in
      try progress.show(prefix + part, share, secondsLeft: left)
    }
    let findings = try experiment.findings(from: data, seed: options.seed, work)
    var failure: Failure?
    do throws(Failure) {
      for picture in findings.flatMap(\.pictures) {
        do { try progress.show("\(prefix)drawing \(picture.name)", 1, secondsLeft: nil) } catch { break }
        try PictureDrawing(folder: path).draw(picture)
      }
    } catch {
      failure = error
    }
    progress.clear()
    return Outcome(findings: findings, seconds: folder.seconds, pictureFailure: failure)
  }
}

extension ExperimentOptions {
  /// Runs `experiment` as a command of its own: what it found goes to standard output.
  func run(_ experiment: some Experiment, _ output: OutputOptions, arguments: [String] = []) throws {
    let name = type(of: experiment).name
    let path = output.output ?? "steppe-\(name)"
    threads.apply(quiet: quiet)
    let data = try data()
    Interruption.watch()
    let command = (["steppe", name] + arguments + words + ["--output", shellQuoted(path)]).joined(separator: " ")
    let run = ExperimentRun(options: self, experiment: prepared(experiment), path: path, command: command)
    let outcome = try run.outcome(data)
    print(outcome.findings.map(FindingText.text).joined(separator: "\n\n"))
    if let failure = outcome.pictureFailure {
      Console.error("steppe: no picture: \(failure.description)\nThe numbers are in \(path).")
    } else if !quiet {
      let files = outcome.findings.flatMap(\.pictures).map { "\(path)/\($0.name).svg" }
      Console.error("drawn: \(files.joined(separator: ", "))")
    }
  }
}

/// Says how far an experiment is, and ends it where the person at the terminal wishes so.
final class ExperimentProgress {
  private var line: ProgressLine
  private let command: String
  private let folder: String

  init(quiet: Bool, command: String, folder: String) {
    line = ProgressLine(quiet: quiet)
    self.command = command
    self.folder = folder
  }

  /// Shows that `part` is being made, the share of the whole that is done, and how long the rest will take.
  ///
  /// - Throws: `ExitCode` after an interruption.
  func show(_ part: String, _ share: Double, secondsLeft: Double?) throws {
    if let signal = Interruption.signal {
      line.clear()
      Console.error("steppe: interrupted; what is done is kept in \(folder), and the same command goes on: \(command)")
      throw ExitCode(128 + signal)
    }
    line.show {
      "\(Int(100 * share)) %" + (secondsLeft.map { ", \(duration($0)) left" } ?? "") + ": \(part)"
    }
  }

  func clear() { line.clear() }
}

/// A finding as a person reads it at the terminal.
enum FindingText {
  static func text(_ finding: Finding) -> String {
    var lines = [finding.title, String(repeating: "=", count: finding.title.count), finding.question, ""]
    lines += [table([finding.table.header] + finding.table.rows), ""]
    lines += finding.checks.map { "\($0.holds ? "yes" : "no ")  \($0.claim): \($0.figures)" }
    lines += ["", "Verdict: \(finding.verdict.rawValue). Published: \(finding.published)", finding.note]
    return lines.joined(separator: "\n")
  }
}
