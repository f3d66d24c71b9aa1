import ArgumentParser
import Steppe

/// A model file ready for inference.
struct TrainedModel {
  let specification: ModelSpecification
  /// Batch norm folded into the weights.
  let folded: FoldedModel<Float>
  private let path: String

  /// - Throws: ``FileError`` and the errors of loading: a file that is broken, or that is no such model.
  init(_ options: ModelOptions) throws {
    path = options.model
    var specification = try ModelSpecification(of: SafetensorsFile(path), activation: options.activation)
    if let mean = options.mean { specification.mean = mean }
    if let deviation = options.deviation { specification.deviation = deviation }
    let model = specification.model()
    try model.load(from: path)
    self.specification = specification
    folded = model.folded()
  }

  /// What the model takes and tells of a table's rows.
  ///
  /// - Parameter source: Names the table in errors.
  func table(for source: String) throws(Failure) -> TableSpecification {
    guard let table = specification.table else {
      throw Failure(
        "\(path): expected a model that was trained on a table, for \(source); found one of images, or one that `steppe train` did not write"
      )
    }
    return table
  }

  /// The model's outputs for all of `examples`, `[count, outputs]`, which must be finite.
  func outputs(of examples: any DataSource<Float>, _ source: String) throws -> Tensor<Float> {
    var sampler = BatchSampler(count: examples.count, batchSize: 1000, shuffle: false)
    var parts: [Tensor<Float>] = []
    while let rows = sampler.next() {
      let outputs = folded(try examples.batch(rows: rows).features)
      guard outputs.isAllFinite() else {
        throw Failure(
          "\(path): expected finite scores, found others for \(source), rows \(rows[0]) … \(rows.last ?? 0)")
      }
      parts.append(outputs)
    }
    return parts.isEmpty ? .zeros(shape: [0, specification.classes]) : .concatenated(parts)
  }

  /// `examples` as the model takes them.
  ///
  /// - Parameter source: Names the examples in errors.
  func prepared(_ examples: Dataset<Float>, source: String) throws -> Dataset<Float> {
    let rows = examples.asRows
    guard rows.featureShape[0] == specification.inputs else {
      throw Failure(
        "\(source): expected examples of \(specification.inputs) features, which \(path) takes, found \(rows.count) of "
          + "\(rows.featureShape[0])")
    }
    return rows.standardized(mean: specification.mean, deviation: specification.deviation)
  }
}

struct ModelOptions: ParsableArguments {
  @Argument(help: ArgumentHelp("The model, a .safetensors file of 'steppe train' or of PyTorch.", valueName: "model"))
  var model: String

  @Option(help: "The activation of a model whose file does not name it, such as PyTorch's.")
  var activation = ActivationName.relu

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "What was subtracted from features, where bytes are 0 … 1. (default: as in the model, or 0)", valueName: "number")
  )
  var mean: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "What features were then divided by. (default: as in the model, or 1)", valueName: "number"))
  var deviation: Double?

  func validate() throws {
    if let mean, !mean.isFinite { throw ValidationError("--mean: expected a finite number, found \(mean)") }
    if let deviation, !(deviation > 0 && deviation.isFinite) {
      throw ValidationError("--deviation: expected a number above 0, found \(deviation)")
    }
  }
}
