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

  @Option(help: ArgumentHelp("Repetitions, from the seed on. (default: 3, of the full preset 10)", valueName: "count"))
  var seeds: Int?

  @Option(
    help: ArgumentHelp(
      "The folder of Fashion-MNIST's four files. (default: /usr/share/datasets/fashion-mnist)", valueName: "folder"))
  var dataFolder: String?

  @Option(help: ArgumentHelp("Own images in its place, in IDX (also gzip) or NPY.", valueName: "file"))
  var trainImages: String?

  @Option(help: ArgumentHelp("Their labels: integers from 0 in IDX or NPY.", valueName: "file"))
  var trainLabels: String?

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    if let seeds, !(1...1000).contains(seeds) { throw ValidationError("--seeds: expected 1 … 1000, found \(seeds)") }
    if (trainImages == nil) != (trainLabels == nil) {
      throw ValidationError("--train-images and --train-labels go together: expected both, found one")
    }
    if trainImages != nil, dataFolder != nil {
      throw ValidationError("--data-folder chooses Fashion-MNIST: expected either it or own files, found both")
    }
    if seed > UInt64(Int32.max) { throw ValidationError("--seed: expected at most \(Int32.max), found \(seed)") }
  }
}

extension ExperimentOptions {
  var data: DataSelection {
    let files = trainImages.flatMap { images in trainLabels.map { DataSelection.Files(images: images, labels: $0) } }
    return DataSelection(folder: dataFolder, training: files)
  }

  /// The data by which an experiment is known.
  var dataName: String { trainImages ?? dataFolder ?? DataName.fashionMNIST.rawValue }
}

struct Surface: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows the error surface before and after normalization.",
    discussion: """
      First a linear model with a small and a large feature: the error surface is a ravine, and gradient descent needs \
      thousands of steps; with both features standardized it is a round bowl, and a few do. Five methods go down both, \
      each at the rate, of those tried, that takes the fewest steps. Then a network on Fashion-MNIST, without and with \
      batch norm: its loss along two random directions. The output folder takes:

        linear.svg .png       both surfaces and the ways down
        linear-loss.svg .png  the loss by step
        network.svg .png      the networks' loss as map and in relief
        *.csv                 the numbers behind them

      An experiment that was stopped goes on by the same command: what is done is not done again.

      Examples:
        steppe surface --output surface
        steppe surface --preset full --seeds 20 --output surface-full
      """)

  @OptionGroup var options: ExperimentOptions

  @Option(
    name: [.short, .long], help: ArgumentHelp("The folder that takes what the experiment makes.", valueName: "folder"))
  var output = "steppe-surface"

  func run() throws {
    var experiment = SurfaceExperiment(options.preset)
    experiment.seeds = options.seeds ?? experiment.seeds
    options.threads.apply(quiet: options.quiet)
    let examples = try options.data.trainingExamples(classes: nil).asRows
    let folder = try ExperimentFolder(
      output, experiment: "surface",
      parameters: [
        "preset": options.preset.rawValue, "seed": "\(options.seed)", "seeds": "\(experiment.seeds)",
        "data": options.dataName, "threads": "\(Parallel.threadCount)", "version": SteppeVersion.current,
      ])
    Interruption.watch()
    let progress = ExperimentProgress(quiet: options.quiet, command: "steppe surface", folder: output)

    var summaries: [ExperimentTable] = []
    var paths: ExperimentTable?
    for index in 0..<experiment.seeds {
      let seed = options.seed + UInt64(index)
      let tables = try folder.tables("linear-\(seed)", "paths-\(seed)") {
        let parts = try experiment.linear(seed: seed) {
          try progress.show("linear model, seed \(index + 1) of \(experiment.seeds)", $0)
        }
        return [parts.summary, parts.paths]
      }
      summaries.append(tables[0])
      paths = paths ?? tables[1]
    }
    let planes = try [false, true].map { normalized in
      try folder.tables(normalized ? "network-batchnorm" : "network-plain") {
        [
          try experiment.network(normalized: normalized, examples: examples, seed: options.seed) {
            try progress.show("network \(normalized ? "with" : "without") batch norm", $0)
          }
        ]
      }[0]
    }
    progress.clear()

    print(SurfaceReport.summary(summaries, planes, loss: experiment.loss, limit: experiment.limit))
    let pictures = SurfacePictures(folder: output, seed: options.seed)
    do {
      var files = try pictures.drawLinear(paths!)
      files += try pictures.drawLosses(paths!, limit: experiment.loss)
      files += try pictures.drawPlanes(planes, of: SurfaceExperiment.units(examples))
      if !options.quiet { Console.error("drawn: \(files.joined(separator: ", "))") }
    } catch let failure as Failure {
      Console.error("steppe: no picture: \(failure.description)\nThe numbers are in \(output).")
    }
  }
}

/// Says how far an experiment is, and ends it where the person at the terminal wishes so.
final class ExperimentProgress {
  private var line: ProgressLine
  private let command: String
  private let folder: String
  private var part = ""
  private var start = ContinuousClock.now

  init(quiet: Bool, command: String, folder: String) {
    line = ProgressLine(quiet: quiet)
    self.command = command
    self.folder = folder
  }

  /// Shows that `share` of `part` is done, and how long the rest will take.
  ///
  /// - Throws: `ExitCode` after an interruption.
  func show(_ part: String, _ share: Double) throws {
    if part != self.part { (self.part, start) = (part, .now) }
    if let signal = Interruption.signal {
      line.clear()
      Console.error("steppe: interrupted; what is done is kept in \(folder), and the same command goes on: \(command)")
      throw ExitCode(128 + signal)
    }
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    line.show {
      let left = share > 0.02 ? ", " + duration(seconds / share * (1 - share)) + " left" : ""
      return "\(part): \(Int(100 * share)) %\(left)"
    }
  }

  func clear() { line.clear() }
}
