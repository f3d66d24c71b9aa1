import ArgumentParser
import Steppe
import SteppeExperiments

/// The experiments by their names.
enum ExperimentName: String, CaseIterable, Sendable {
  case surface, compare, landscape, batchsize

  func experiment(_ preset: Preset) -> any Experiment {
    switch self {
    case .surface: SurfaceExperiment(preset)
    case .compare: CompareExperiment(preset)
    case .landscape: LandscapeExperiment(preset)
    case .batchsize: BatchSizeExperiment(preset)
    }
  }

  /// The heading of its part of the report.
  var title: String {
    switch self {
    case .surface: "The error surface before and after normalization"
    case .compare: "Training with and without batch norm"
    case .landscape: "Why it helps: the landscape"
    case .batchsize: "What it asks of the batch"
    }
  }
}

struct Report: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs all experiments and writes what they found as one page.",
    discussion: """
      The page report.html stands by itself: each claim with its question, pictures, table, the published figure, a \
      verdict by the measured figures, and the command that repeats it. Each experiment's curves and tables stand in a \
      folder of its own beside the page.

      A report that was stopped goes on by the same command: finished runs are kept and not run again. The quick preset \
      takes about six minutes on two cores, the full one three quarters of an hour.

      Examples:
        steppe report --output report
        steppe report --preset full --output report-full
        steppe report --experiments surface,landscape --output two
      """)

  @Option(
    help: ArgumentHelp(
      "What is run: \(Choices<ExperimentName>.names). (default: all)", valueName: "experiments"))
  var experiments: Choices<ExperimentName>?

  @OptionGroup var options: ExperimentOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    let path = output.output ?? "steppe-report"
    let names = experiments?.values ?? ExperimentName.allCases
    options.threads.apply(quiet: options.quiet)
    let data = try options.data()
    let folder = try ExperimentFolder(
      path, experiment: "report",
      parameters: options.commonParameters + [("experiments", names.map(\.rawValue).joined(separator: " "))])
    Interruption.watch()
    let chosen = experiments.map { ["--experiments", $0.text] } ?? []
    let command = (["steppe", "report"] + chosen + options.words + ["--output", shellQuoted(path)]).joined(
      separator: " ")

    var sections: [ReportPage.Section] = []
    var failure: Failure?
    for (index, name) in names.enumerated() {
      let own = "\(path)/\(name.rawValue)"
      let run = ExperimentRun(
        options: options, experiment: options.prepared(name.experiment(options.preset)), path: own, command: command)
      let outcome = try run.outcome(data, prefix: "\(index + 1) of \(names.count), \(name.rawValue), ")
      failure = failure ?? outcome.pictureFailure
      sections.append(
        ReportPage.Section(
          title: name.title,
          command: (["steppe", name.rawValue] + options.words + ["--output", shellQuoted(own)]).joined(separator: " "),
          seconds: outcome.seconds, findings: outcome.findings))
    }

    let page = ReportPage(sections, command: command, facts: facts)
    let html = page.html { section, picture in
      try? MappedFile("\(path)/\(names[section].rawValue)/\(picture).svg").withUnsafeBytes {
        String(decoding: $0, as: UTF8.self)
      }
    }
    let file = "\(folder.path)/report.html"
    try AtomicFile.write(to: file) { output throws(FileError) in try output.write(html) }

    let rows = sections.flatMap(\.findings).map { [$0.title, $0.verdict.rawValue] }
    print(list(rows + [["page", file], ["time", duration(sections.reduce(0) { $0 + $1.seconds })]]))
    if let failure {
      Console.error(
        "steppe: no pictures: \(failure.description)\nThe numbers are in \(path), and in the page's tables.")
    }
  }

  /// What a reader needs to repeat the report.
  private var facts: [(name: String, value: String)] {
    [
      ("preset", options.preset.rawValue), ("seed", "\(options.seed)"), ("data", options.dataName),
      ("Steppe", SteppeVersion.current), ("compiler", Info.compiler),
      ("OpenBLAS", "\(OpenBLAS.version), \(OpenBLAS.kernelName)"),
      ("kernels", InstructionSet.current), ("processor", Info.processorName), ("threads", "\(Parallel.threadCount)"),
    ]
  }
}
