import ArgumentParser
import Steppe
import SteppeExperiments

struct Evaluate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures a model on labelled images, or on a table.",
    discussion: """
      Prints the accuracy, the loss and for each class precision (the share of images given the class that are of it), \
      recall (the share of images of the class that were given it) and their harmonic mean F1. With --output it also \
      draws the confusion matrix. The model runs folded: batch norm has gone into its weights.

      Examples:
        steppe evaluate run/model.safetensors --output run
        steppe evaluate own/model.safetensors --test-images x.npy \\
          --test-labels y.npy
        steppe evaluate houses/model.safetensors --data new.csv
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup(title: "Data") var data: DataOptions
  @OptionGroup(title: "Table") var reading: TableOptions

  @Option(
    name: [.short, .long],
    help: ArgumentHelp("The folder that takes confusion.csv, .svg and .png. (default: none)", valueName: "folder"))
  var output: String?

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    _ = try data.selection()
    try reading.checkExamples()
  }

  func run() throws {
    let selection = try data.selection()
    threads.apply(quiet: quiet)
    let trained = try TrainedModel(model)
    let specification = trained.specification
    if let path = data.table {
      try evaluateTable(path, trained)
      return
    }
    if let table = specification.table {
      throw Failure(
        "\(model.model): expected --data with a table that has the column '\(table.target)', for which the model was "
          + "trained; found none")
    }
    guard let examples = try selection.testExamples(classes: specification.classes) else { return }
    let source = selection.test?.images ?? DataName.fashionMNIST.rawValue
    guard examples.classes <= specification.classes else {
      throw Failure(
        "\(model.model): expected a model of at least \(examples.classes) classes, which \(source) has, found "
          + "\(specification.classes)")
    }
    try report(try evaluate(trained.folded, on: try trained.prepared(examples, source: source)), trained)
  }

  private func evaluateTable(_ path: String, _ trained: TrainedModel) throws {
    let table = try trained.table(for: path)
    let examples = try TableDataset<Float>(
      path, target: table.target, features: table.features, task: table.task,
      classNames: table.task == .classify ? trained.specification.classNames : nil, format: reading.format,
      missing: reading.missing)
    guard let targets = examples.targets else {
      return try report(try evaluate(trained.folded, on: examples), trained)
    }
    let (outputs, numbers) = (try trained.outputs(of: examples, path).scalars, targets.scalars)
    let mean = numbers.reduce(0) { $0 + Double($1) } / Double(numbers.count)
    var (squares, absolutes, spread) = (0.0, 0.0, 0.0)
    for (output, number) in zip(outputs, numbers) {
      let error = Double(output) - Double(number)
      squares += error * error
      absolutes += abs(error)
      spread += (Double(number) - mean) * (Double(number) - mean)
    }
    let count = Double(numbers.count)
    print(
      list([
        ["model", "\(trained.specification.summary), folded for inference"], ["rows", grouped(numbers.count)],
        ["target", table.target], ["root of the mean squared error", significant((squares / count).squareRoot(), 6)],
        ["mean absolute error", significant(absolutes / count, 6)],
        ["R²", spread > 0 ? fixed(1 - squares / spread, 4) : "-"],
      ]))
  }

  private func report(_ result: Evaluation, _ trained: TrainedModel) throws {
    let specification = trained.specification
    guard result.loss.isFinite else {
      throw Failure("\(model.model): expected finite scores, found a loss of \(result.loss)")
    }
    print(
      list([
        ["model", "\(specification.summary), folded for inference"],
        [specification.table == nil ? "images" : "rows", grouped(result.confusion.total)],
        ["accuracy", percentage(result.accuracy, digits: 2)], ["loss", fixed(result.loss, 4)],
      ]))
    print("\n" + classTable(result.confusion, specification))
    if let output { try write(result.confusion, specification, to: output) }
  }

  private func classTable(_ confusion: ConfusionMatrix, _ specification: ModelSpecification) -> String {
    func cell(_ share: Double) -> String { share.isNaN ? "-" : percentage(share, digits: 2) }
    let rows = (0..<confusion.classes).map { index in
      [
        specification.name(ofClass: index), cell(confusion.precision(of: index)), cell(confusion.recall(of: index)),
        cell(confusion.f1(of: index)), grouped(confusion.counts[index].reduce(0, +)),
      ]
    }
    return table([["class", "precision", "recall", "F1", "images"]] + rows)
  }

  private func write(_ confusion: ConfusionMatrix, _ specification: ModelSpecification, to output: String) throws {
    try Folder.make(output, "a folder for the confusion matrix")
    let path = output + "/confusion"
    let names = (0..<confusion.classes).map { specification.name(ofClass: $0) }
    let counts = confusion.counts.map { $0.map { Double($0) } }
    try CSV.write(Tensor<Double>(counts), header: names, to: path + ".csv")
    var files = [path + ".csv"]
    do throws(Failure) {
      files = try ConfusionPicture.draw(confusion, names: names, path: path) + files
    } catch {
      Console.error("steppe: note: no picture of the confusion matrix, whose numbers are in \(files[0]): \(error)")
    }
    print("\n" + list([["confusion matrix", files.joined(separator: ", ")]]))
  }
}
