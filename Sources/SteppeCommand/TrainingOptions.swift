import ArgumentParser
import Steppe
import SteppeExperiments

// The options are optional so that `--resume` can tell what was asked for from what was left open.

struct OwnTrainingData: ParsableArguments {
  @OptionGroup var own: OwnTrainingFiles

  @Option(
    help: ArgumentHelp(
      "The number of classes of own data. (default: the largest training label and 1)", valueName: "count"))
  var classes: Int?

  @Flag(
    inversion: .prefixedNo,
    help: """
      Shift and scale by the mean and the deviation of all numbers of the training images together. Features of different \
      scales: 'steppe normalize' first, or --data with a table. (default: --standardize)
      """)
  var standardize: Bool?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      """
      The share of the training examples, drawn at random, that is held out to validate after each epoch; the model of \
      the best epoch is then kept. The test set never decides anything. (default: 0)
      """, valueName: "share"))
  var validationFraction: Double?

  func validate() throws {
    if let classes {
      try check("--classes", classes, RunConfiguration.sizes)
      if own.files == nil { throw ValidationError("--classes: goes with --train-images; Fashion-MNIST has 10") }
    }
    if let validationFraction, !(0..<1).contains(validationFraction) {
      throw ValidationError("--validation-fraction: expected 0 or more and less than 1, found \(validationFraction)")
    }
  }

  func apply(
    _ test: DataOptions, _ table: TableTrainingOptions, to configuration: inout RunConfiguration
  ) throws {
    let training = own.files
    if training != nil || !test.isEmpty { configuration.data = try test.selection(training: training) }
    if let table = try table.selection(test.table) { configuration.data.table = table }
    try TestFiles.check(configuration.data.test, beside: configuration.data.training)
    if let classes { configuration.classes = classes }
    if let standardize { configuration.standardizes = standardize }
    if let validationFraction { configuration.validationFraction = validationFraction }
  }
}

struct NetworkOptions: ParsableArguments {
  @Option(help: "Dense layers, a residual network for images, or one like VGG. (default: mlp)") var model: ModelName?

  @Option(help: ArgumentHelp("The sizes of an mlp's hidden layers, or 'none'. (default: 512,512)", valueName: "sizes"))
  var hidden: HiddenSizes?

  @Option(help: "What follows each hidden layer of an mlp. (default: relu)") var activation: ActivationName?

  @Option(help: "What normalizes each hidden layer of an mlp. (default: batch)") var normalization: NormalizationName?

  @Option(
    help: ArgumentHelp(
      "The layers with weights of a resnet: 8, 14, 20, 26, … (default: 20)", valueName: "count"))
  var depth: Int?

  @Option(
    help: ArgumentHelp(
      "The channels of the first layer of a resnet or vgg. (default: resnet 16, vgg 32)", valueName: "count"))
  var width: Int?

  func validate() throws {
    if let depth, !ImageNetwork.depths.contains(depth) || depth % 6 != 2 {
      throw ValidationError(
        "--depth: expected one of 8, 14, 20, 26, … \(ImageNetwork.depths.upperBound), found \(depth)")
    }
    if let width { try check("--width", width, ImageNetwork.widths) }
  }

  func apply(to configuration: inout RunConfiguration) throws {
    if let model, model != configuration.model {
      configuration.model = model
      configuration.width = model.width
    }
    let chosen = configuration.model
    let given: [(name: String, isGiven: Bool, models: [ModelName])] = [
      ("hidden", hidden != nil, [.mlp]), ("activation", activation != nil, [.mlp]),
      ("normalization", normalization != nil, [.mlp]), ("depth", depth != nil, [.resnet]),
      ("width", width != nil, [.resnet, .vgg]),
    ]
    for option in given where option.isGiven && !option.models.contains(chosen) {
      let models = option.models.map(\.rawValue).joined(separator: " or ")
      throw ValidationError("--\(option.name): expected --model \(models) beside it, found \(chosen.rawValue)")
    }
    if let depth { configuration.depth = depth }
    if let width { configuration.width = width }
    if let hidden { configuration.hidden = hidden.sizes }
    if let activation { configuration.activation = activation }
    if let normalization { configuration.normalization = normalization }
  }
}

struct RecipeOptions: ParsableArguments {
  @Option(help: "What moves the weights. (default: sgd)") var optimizer: OptimizerName?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The first learning rate. (default: sgd 0.1, adagrad 0.01, others 0.001)", valueName: "rate"))
  var learningRate: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The momentum of sgd and rmsprop. (default: sgd 0.9, rmsprop 0)", valueName: "share"))
  var momentum: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How strongly weights are pulled to 0. (default: sgd 0.0005, adamw 0.01, others 0)", valueName: "rate"))
  var weightDecay: Double?

  @Option(help: "How the learning rate goes on: along half a cosine to 0, or constant. (default: cosine)")
  var schedule: ScheduleName?

  @Option(parsing: .unconditional, help: ArgumentHelp("Images in a step. (default: 128)", valueName: "count"))
  var batchSize: Int?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("How often each image is seen. (default: 10)", valueName: "count"))
  var epochs: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Stop after so many epochs without a lower validation loss; needs --validation-fraction.", valueName: "epochs"))
  var patience: Int?

  @Option(
    help: ArgumentHelp("Chooses the first weights and the order of the images. (default: 1)", valueName: "number"))
  var seed: UInt64?

  func validate() throws {
    try check("--learning-rate", learningRate, isAbove: 0)
    if let momentum, !(0..<1).contains(momentum) {
      throw ValidationError("--momentum: expected 0 or more and less than 1, found \(momentum)")
    }
    if let weightDecay, !(weightDecay >= 0 && weightDecay.isFinite) {
      throw ValidationError("--weight-decay: expected 0 or more, found \(weightDecay)")
    }
    if let batchSize { try check("--batch-size", batchSize, RunConfiguration.counts) }
    if let epochs { try check("--epochs", epochs, RunConfiguration.counts) }
    if let patience { try check("--patience", patience, RunConfiguration.counts) }
  }

  func apply(to configuration: inout RunConfiguration) throws {
    if let optimizer, optimizer != configuration.optimizer {
      configuration.optimizer = optimizer
      configuration.learningRate = optimizer.learningRate
      configuration.momentum = optimizer.momentum ?? 0
      configuration.weightDecay = optimizer.weightDecay
    }
    if let momentum {
      guard configuration.optimizer.momentum != nil else {
        throw ValidationError(
          "--momentum: expected sgd or rmsprop beside it, found \(configuration.optimizer.rawValue)")
      }
      configuration.momentum = momentum
    }
    if let learningRate { configuration.learningRate = learningRate }
    if let weightDecay { configuration.weightDecay = weightDecay }
    if let schedule { configuration.schedule = schedule }
    if let batchSize { configuration.batchSize = batchSize }
    if let epochs { configuration.epochs = epochs }
    if let patience { configuration.patience = patience }
    if let seed { configuration.seed = seed }
    if configuration.batchSize == 1, configuration.model == .mlp, configuration.normalization == .batch,
      !configuration.hidden.isEmpty
    {
      throw ValidationError(
        "--batch-size: expected at least 2 with --normalization batch, for a batch of one has no variance; found 1")
    }
    if configuration.patience != nil, configuration.validationFraction == 0 {
      throw ValidationError("--patience: expected --validation-fraction beside it, found none")
    }
  }
}

private func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws {
  guard range.contains(value) else {
    throw ValidationError("\(name): expected \(range.lowerBound) … \(range.upperBound), found \(value)")
  }
}

private func check(_ name: String, _ value: Double?, isAbove bound: Double) throws {
  if let value, !(value > bound && value.isFinite) {
    throw ValidationError("\(name): expected a number above \(fixed(bound, 0)), found \(value)")
  }
}
