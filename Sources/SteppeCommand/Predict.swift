import ArgumentParser
import Steppe

struct Predict: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Gives images their classes.",
    discussion: """
      Reads images in IDX (also gzip) or NPY, the first axis counting them, and writes by the output's extension:

        .csv   row, class, name and probability; with --probabilities all of them
        .npy   the classes as 64-bit integers; with --probabilities a matrix of
               32-bit floats, a row for each image, a column for each class

      The model runs folded: batch norm has gone into its weights.

      Examples:
        steppe predict run/model.safetensors --input x.idx.gz --output y.csv
        steppe predict run/model.safetensors --input x.npy --output p.npy \\
          --probabilities
      """)

  @OptionGroup var model: ModelOptions

  @Option(name: [.short, .long], help: ArgumentHelp("The images, in IDX or NPY.", valueName: "file"))
  var input: String

  @Option(name: [.short, .long], help: ArgumentHelp("What is written: a .csv or .npy file.", valueName: "file"))
  var output: String

  @Flag(help: "Write the probability of every class.") var probabilities = false

  @OptionGroup var threads: ThreadOptions

  @Flag(help: "Say nothing on the way.") var quiet = false

  func validate() throws {
    guard output.hasSuffix(".csv") || output.hasSuffix(".npy") else {
      throw ValidationError("--output: expected a file with the extension .csv or .npy, found '\(output)'")
    }
  }

  func run() throws {
    threads.apply(quiet: quiet)
    let trained = try TrainedModel(model)
    let images = try trained.prepared(try Dataset(unlabelledFeatures: input), source: input)
    let probabilities = try self.probabilities(trained, images)
    let classes = probabilities.argmaxOfRows()
    if output.hasSuffix(".csv") {
      try writeCSV(probabilities, classes, trained.specification)
    } else if self.probabilities {
      try NPY.write(probabilities, to: output)
    } else {
      try NPY.write(classes, to: output)
    }
    print(list([["images", grouped(images.count)], ["predictions", output]]))
  }

  /// `[images, classes]`.
  private func probabilities(_ trained: TrainedModel, _ images: Dataset<Float>) throws -> Tensor<Float> {
    var sampler = BatchSampler(count: images.count, batchSize: 1000, shuffle: false)
    var parts: [Tensor<Float>] = []
    while let rows = sampler.next() {
      let scores = trained.folded(images.batch(rows: rows).features)
      guard scores.isAllFinite() else {
        throw Failure("\(model.model): expected finite scores, found others for images \(rows[0]) … \(rows.last ?? 0)")
      }
      parts.append(scores.softmax())
    }
    return parts.isEmpty ? .zeros(shape: [0, trained.specification.classes]) : .concatenated(parts)
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
