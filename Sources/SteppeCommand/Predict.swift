import ArgumentParser
import Steppe
import SteppeExperiments

struct Predict: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Gives images their classes, or a table's rows theirs or their numbers.",
    discussion: """
      Reads images in IDX (also gzip) or NPY, the first axis counting them, and writes by the output's extension:

        .csv   row, class, name and probability; with --probabilities all of them
        .npy   the classes as 64-bit integers; with --probabilities a matrix of
               32-bit floats, a row for each image, a column for each class

      For a model that was trained on a table it reads one with the same features, found by their names; a regression \
      writes a number for each row.

      The model runs folded: batch norm has gone into its weights.

      Examples:
        steppe predict run/model.safetensors --input x.idx.gz --output y.csv
        steppe predict run/model.safetensors --input x.npy --output p.npy \\
          --probabilities
      """)

  @OptionGroup var model: ModelOptions

  @Option(
    name: [.short, .long],
    help: ArgumentHelp("The images, in IDX or NPY, or a table's rows, in NPY or a table.", valueName: "file"))
  var input: String

  @Option(name: [.short, .long], help: ArgumentHelp("What is written: a .csv or .npy file.", valueName: "file"))
  var output: String

  @Flag(help: "Write the probability of every class.") var probabilities = false

  @OptionGroup(title: "Table") var reading: TableOptions

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    if reading.missing != .refuse {
      throw ValidationError(
        "--missing: expected refuse, so that each row has its prediction; found \(reading.missing.rawValue)")
    }
    guard output.hasSuffix(".csv") || output.hasSuffix(".npy") else {
      throw ValidationError("--output: expected a file with the extension .csv or .npy, found '\(output)'")
    }
  }

  func run() throws {
    threads.apply(quiet: quiet)
    let trained = try TrainedModel(model)
    let table = trained.specification.table
    var examples: Dataset<Float>
    if let table, !input.hasSuffix(".npy") {
      let rows = try CSV.read(input, columns: table.features, format: reading.format, as: Float.self).rows
      examples = try Dataset(features: rows, labels: Array(repeating: 0, count: rows.shape[0]), classes: 1)
    } else {
      examples = try Dataset(unlabelledFeatures: input)
    }
    examples = try trained.prepared(examples, source: input)
    let outputs = try trained.outputs(of: examples, input)
    if let table, table.task == .regress {
      try writeNumbers(outputs, table.target)
    } else {
      try writeClasses(outputs.softmax(), trained.specification)
    }
    print(list([[table == nil ? "images" : "rows", grouped(examples.count)], ["predictions", output]]))
  }

  private func writeNumbers(_ outputs: Tensor<Float>, _ name: String) throws {
    let numbers = outputs.reshaped([outputs.count])
    if output.hasSuffix(".csv") {
      try CSV.write(numbers, header: [name], to: output)
    } else {
      try NPY.write(numbers, to: output)
    }
  }

  private func writeClasses(_ probabilities: Tensor<Float>, _ specification: ModelSpecification) throws {
    let classes = probabilities.argmaxOfRows()
    if output.hasSuffix(".csv") {
      try writeCSV(probabilities, classes, specification)
    } else if self.probabilities {
      try NPY.write(probabilities, to: output)
    } else {
      try NPY.write(classes, to: output)
    }
  }

  private func writeCSV(_ values: Tensor<Float>, _ classes: [Int], _ specification: ModelSpecification) throws {
    let width = specification.classes
    let names = (0..<width).map { CSV.quoted(specification.name(ofClass: $0)) }
    let columns = probabilities ? (0..<width).map { "p\($0)" } : []
    try values.withUnsafeBufferPointer { values in
      try AtomicFile.write(to: output) { file throws(FileError) in
        try file.write((["row", "class", "name", "probability"] + columns).joined(separator: ",") + "\n")
        for (row, label) in classes.enumerated() {
          let own = values[row * width..<(row + 1) * width]
          let cells = ["\(row)", "\(label)", names[label], "\(own[row * width + label])"]
          try file.write((cells + (probabilities ? own.map(\.description) : [])).joined(separator: ",") + "\n")
        }
      }
    }
  }
}
