import ArgumentParser
import Steppe

/// All that decides what a run computes; the first line of its metrics holds it, so that `--resume` needs no other options.
struct RunConfiguration: Equatable {
  var data = DataSelection()
  var classes: Int?
  var standardizes = true
  var validationFraction = 0.0
  var patience: Int?
  var model = ModelName.mlp
  var hidden = [512, 512]
  var activation = ActivationName.relu
  var normalization = NormalizationName.batch
  var depth = 20
  var width = ModelName.mlp.width
  var optimizer = OptimizerName.sgd
  var learningRate = OptimizerName.sgd.learningRate
  var momentum = 0.9
  var weightDecay = OptimizerName.sgd.weightDecay
  var schedule = ScheduleName.cosine
  var batchSize = 128
  var epochs = 10
  var seed: UInt64 = 1
  /// Part of it, for another number sums in another order; each rank's.
  var threads = Parallel.threadCount
  /// The processes that trained together when the run was last begun or resumed.
  var ranks = 1

  /// What a layer's size and the number of classes may be.
  static let sizes = 1...1 << 20
  /// What batch size, epochs and patience may be.
  static let counts = 1...1 << 24

  /// A new optimizer of `parameters`.
  func makeOptimizer(_ parameters: [Parameter<Float>]) -> any Optimizer<Float> {
    switch optimizer {
    case .sgd: SGD(parameters, learningRate: learningRate, momentum: momentum, weightDecay: weightDecay)
    case .adam: Adam(parameters, learningRate: learningRate, weightDecay: weightDecay)
    case .adamw: AdamW(parameters, learningRate: learningRate, weightDecay: weightDecay)
    case .rmsprop: RMSProp(parameters, learningRate: learningRate, momentum: momentum, weightDecay: weightDecay)
    case .adagrad: Adagrad(parameters, learningRate: learningRate, weightDecay: weightDecay)
    }
  }

  /// The rates of a run of `steps` steps.
  func makeSchedule(steps: Int) -> any LearningRateSchedule {
    switch schedule {
    case .constant: ConstantRate(learningRate)
    case .cosine: CosineDecay(initial: learningRate, final: 0, steps: steps)
    }
  }
}

enum OptimizerName: String, CaseIterable, ExpressibleByArgument {
  case sgd, adam, adamw, rmsprop, adagrad

  /// The rate where none is given.
  var learningRate: Double {
    switch self {
    case .sgd: 0.1
    case .adam, .adamw, .rmsprop: 0.001
    case .adagrad: 0.01
    }
  }

  /// The weight decay where none is given.
  var weightDecay: Double {
    switch self {
    case .sgd: 5e-4
    case .adamw: 0.01
    case .adam, .rmsprop, .adagrad: 0
    }
  }

  /// The momentum where none is given; nil for optimizers that take none.
  var momentum: Double? {
    switch self {
    case .sgd: 0.9
    case .rmsprop: 0
    case .adam, .adamw, .adagrad: nil
    }
  }
}

enum ScheduleName: String, CaseIterable, ExpressibleByArgument {
  case cosine, constant
}

// MARK: - In files

extension RunConfiguration {
  /// As one line of JSON.
  var text: String { JSONValue.object(members).serialized() }

  var members: [JSONValue.Member] {
    func optional(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }
    return [
      .init("data_folder", optional(data.folder)),
      .init("train_images", optional(data.training?.images)), .init("train_labels", optional(data.training?.labels)),
      .init("test_images", optional(data.test?.images)), .init("test_labels", optional(data.test?.labels)),
      .init("table", data.table?.json ?? .null), .init("classes", classes.map { .integer($0) } ?? .null),
      .init("standardize", .bool(standardizes)),
      .init("validation_fraction", .number(validationFraction)),
      .init("patience", patience.map { .integer($0) } ?? .null),
      .init("model", .string(model.rawValue)), .init("depth", .integer(depth)), .init("width", .integer(width)),
      .init("hidden", .array(hidden.map { .integer($0) })), .init("activation", .string(activation.rawValue)),
      .init("normalization", .string(normalization.rawValue)), .init("optimizer", .string(optimizer.rawValue)),
      .init("learning_rate", .number(learningRate)), .init("momentum", .number(momentum)),
      .init("weight_decay", .number(weightDecay)), .init("schedule", .string(schedule.rawValue)),
      .init("batch_size", .integer(batchSize)), .init("epochs", .integer(epochs)),
      // A string: JSON's readers round whole numbers beyond 2⁵³.
      .init("seed", .string(String(seed))), .init("threads", .integer(threads)),
      .init("ranks", .integer(ranks)),
    ]
  }

  init(_ reader: JSONReader) throws(FileError) {
    data.folder = try reader.optionalString("data_folder")
    if let images = try reader.optionalString("train_images") {
      data.training = .init(images: images, labels: try reader.string("train_labels"))
    }
    if let images = try reader.optionalString("test_images") {
      data.test = .init(images: images, labels: try reader.string("test_labels"))
    }
    data.table = try reader.optionalObject("table").map { reader throws(FileError) in try TableSelection(reader) }
    classes = try reader.optionalInteger("classes", in: Self.sizes)
    standardizes = try reader.boolean("standardize")
    validationFraction = try reader.number("validation_fraction", in: 0...1)
    patience = try reader.optionalInteger("patience", in: Self.counts)
    model = try reader.choice("model")
    depth = try reader.integer("depth", in: ImageNetwork.depths)
    width = try reader.integer("width", in: ImageNetwork.widths)
    hidden = try reader.integers("hidden", in: Self.sizes)
    activation = try reader.choice("activation")
    normalization = try reader.choice("normalization")
    optimizer = try reader.choice("optimizer")
    learningRate = try reader.number("learning_rate", in: 0...Double.greatestFiniteMagnitude)
    momentum = try reader.number("momentum", in: 0...1.0.nextDown)
    weightDecay = try reader.number("weight_decay", in: 0...Double.greatestFiniteMagnitude)
    schedule = try reader.choice("schedule")
    batchSize = try reader.integer("batch_size", in: Self.counts)
    epochs = try reader.integer("epochs", in: Self.counts)
    seed = try reader.unsigned("seed")
    threads = try reader.integer("threads", in: 1...Parallel.maximumThreadCount)
    // Files of before it was there are of one process.
    if try reader.has("ranks") { ranks = try reader.integer("ranks", in: Self.counts) }
  }
}
