import ArgumentParser
import Glibc
import Steppe
import SteppeExperiments

/// What a network is made of and how its inputs are prepared: with a model file's tensors, all that evaluation and prediction need.
struct ModelSpecification: Equatable {
  var kind = ModelName.mlp
  /// The features of one example.
  var inputs: Int
  /// The hidden layers' sizes of an mlp.
  var hidden: [Int]
  var classes: Int
  var activation: ActivationName
  var normalization: NormalizationName
  /// Features less `mean` over `deviation` go in, in units where a byte is 0 … 1.
  var mean = 0.0
  var deviation = 1.0
  /// The names of the classes; empty where they have none.
  var classNames: [String] = []
  /// What networks for images are made of; an mlp needs none of it.
  var images = ImageNetwork()
  /// What the model takes and tells of a table's rows; nil for images.
  var table: TableSpecification?
  /// Whether the model's first layer standardizes its features, and its last one gives a regression's outputs in the target's units.
  var standardizesInputs = false
  var scalesOutputs = false

  /// The key of the specification in a model file's metadata.
  static let metadataKey = "steppe.model"

  /// The network, which takes rows of features.
  ///
  /// - Parameters:
  ///   - seed: Chooses its start.
  ///   - standardizer: What scales a table's features in the first layer; without it the layer waits to be loaded.
  ///   - target: What a regression's outputs are brought back by in the last layer.
  func model(
    seed: UInt64? = nil, inputs standardizer: FeatureStandardizer? = nil, output target: FeatureStandardizer? = nil
  ) -> Sequential<Float> {
    switch kind {
    case .mlp: perceptron(seed: seed, standardizer, target)
    case .resnet:
      onImages(
        .resNet(
          depth: images.depth, channels: images.shape[0], classes: classes, width: images.width, seed: seed))
    case .vgg:
      onImages(.vgg(stages: images.stages, channels: images.shape[0], classes: classes, seed: seed))
    }
  }

  private func onImages(_ network: Sequential<Float>) -> Sequential<Float> {
    let unflatten: any Layer<Float> = Unflatten<Float>(images.shape)
    return Sequential([unflatten] + network.layers)
  }

  /// For each hidden size a dense layer, a batch norm if wanted and the activation, then a dense layer of the classes.
  private func perceptron(
    seed: UInt64?, _ standardizer: FeatureStandardizer?, _ target: FeatureStandardizer?
  ) -> Sequential<Float> {
    Sequential(seed: seed) {
      if standardizesInputs { scaling(standardizer) }
      for (inputs, outputs) in zip([inputs] + hidden, hidden) {
        Dense(inputs, outputs, bias: normalization == .none)
        if normalization == .batch { BatchNorm(outputs) }
        ActivationLayer(activation.activation)
      }
      Dense(hidden.last ?? inputs, classes)
      if scalesOutputs { target?.inverseLayer() ?? FeatureScaling<Float>(classes) }
    }
  }

  private func scaling(_ standardizer: FeatureStandardizer?) -> any Layer<Float> {
    if let standardizer { return standardizer.layer() }
    return FeatureScaling<Float>(inputs)
  }

  /// Throws where the weights alone would not fit this machine's memory, as by a number that was damaged in a file.
  func checkSize() throws(Failure) {
    let memory = Double(sysconf(Int32(_SC_PHYS_PAGES))) * Double(sysconf(Int32(_SC_PAGESIZE)))
    let sizes = kind == .mlp ? [inputs] + hidden + [classes] : images.sizes + [classes]
    // In Double, where a product of large sizes does not overflow.
    let products = zip(sizes, sizes.dropFirst()).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    // A convolution has 3 × 3 weights for each pair of channels.
    let bytes = products * (kind == .mlp ? 4 : 36)
    guard bytes <= memory else {
      throw Failure(
        "the network \(summary): expected one whose weights fit the memory of \(fixed(memory / 0x1p30, 1)) GiB, found "
          + "\(fixed(bytes / 0x1p30, 1)) GiB of weights")
    }
  }

  /// Such as `784-512-512-10, batch norm, relu`, or `ResNet-20 of width 16, 1×28×28 to 10 classes`.
  var summary: String {
    let size = "of width \(images.width), \(images.shape.map(String.init).joined(separator: "×")) to \(classes) classes"
    switch kind {
    case .mlp: break
    case .resnet: return "ResNet-\(images.depth) \(size)"
    case .vgg: return "VGG \(size)"
    }
    let sizes = ([inputs] + hidden + [classes]).map(String.init).joined(separator: "-")
    return hidden.isEmpty
      ? sizes : "\(sizes), \(normalization == .batch ? "batch norm" : "no normalization"), \(activation.rawValue)"
  }

  /// What class `index` is called.
  func name(ofClass index: Int) -> String { index < classNames.count ? classNames[index] : "\(index)" }
}

// MARK: - In files

extension ModelSpecification {
  /// What a model file's tensors do not tell.
  var metadata: [String: String] {
    var members: [JSONValue.Member] = [
      .init("activation", .string(activation.rawValue)), .init("mean", .number(mean)),
      .init("deviation", .number(deviation)), .init("class_names", .array(classNames.map { .string($0) })),
      .init("table", table?.json ?? .null),
    ]
    if kind != .mlp {
      members += [
        .init("model", .string(kind.rawValue)), .init("image", .array(images.shape.map { .integer($0) })),
        .init("depth", .integer(images.depth)), .init("width", .integer(images.width)),
        .init("classes", .integer(classes)),
      ]
    }
    let json = JSONValue.object(members)
    return [Self.metadataKey: json.serialized()]
  }

  /// The specification of the model in `file`: an mlp's layers by its tensors' names and shapes, the rest by its metadata.
  ///
  /// - Parameter activation: That of a file without metadata, such as PyTorch's.
  init(of file: SafetensorsFile, activation: ActivationName) throws(FileError) {
    let reader = file.metadata[Self.metadataKey].map { JSONReader(source: file.path, text: $0) }
    if let reader, try reader.has("model") {
      let images = try ImageNetwork(reader)
      self.init(
        kind: try reader.choice("model"), inputs: images.shape.reduce(1, *), hidden: [],
        classes: try reader.integer("classes", in: RunConfiguration.sizes), activation: activation,
        normalization: .batch, images: images)
    } else {
      try self.init(tensorsOf: file, activation: activation)
    }
    guard let reader else { return }
    self.activation = try reader.choice("activation")
    mean = try reader.number("mean")
    deviation = try reader.number("deviation", in: Double.leastNormalMagnitude...Double.greatestFiniteMagnitude)
    classNames = try reader.strings("class_names")
    table = try reader.optionalObject("table").map { reader throws(FileError) in try TableSpecification(reader) }
    if let table, table.features.count != inputs || (table.task == .regress) != scalesOutputs {
      throw FileError(
        path: file.path, kind: .mismatch, expected: "a model of the \(table.features.count) features of its table",
        found: "one of \(inputs)" + (scalesOutputs ? " for a regression" : ""))
    }
  }

  private init(tensorsOf file: SafetensorsFile, activation: ActivationName) throws(FileError) {
    let weights = file.names.compactMap { name -> (place: Int, shape: [Int])? in
      let parts = name.split(separator: ".")
      guard parts.count == 2, parts[1] == "weight", let place = Int(parts[0]), let shape = file.shape(of: name),
        shape.count == 2, !shape.contains(0)
      else { return nil }
      return (place, shape)
    }.sorted { $0.place < $1.place }
    guard let first = weights.first, let last = weights.last else {
      throw FileError(
        path: file.path, kind: .mismatch,
        expected: "a model: dense layers' tensors '0.weight', … of shape [outputs, inputs]",
        found: file.names.isEmpty ? "no tensors" : file.names.prefix(8).joined(separator: ", "))
    }
    // The model is made by these sizes before the tensors are compared: without this, two small tensors could ask for a large one between.
    for (one, next) in zip(weights, weights.dropFirst()) where next.shape[1] != one.shape[0] {
      throw FileError(
        path: file.path, kind: .mismatch,
        expected:
          "'\(next.place).weight' of shape [outputs, \(one.shape[0])] behind '\(one.place).weight' of \(one.shape)",
        found: "\(next.shape)")
    }
    self.init(
      inputs: first.shape[1], hidden: weights.dropLast().map { $0.shape[0] }, classes: last.shape[0],
      activation: activation,
      normalization: file.names.contains { $0.hasSuffix(".running_mean") } ? .batch : .none)
    standardizesInputs = file.names.contains("0.shift")
    scalesOutputs = file.names.contains("\(last.place + 1).shift")
  }
}

// MARK: - Networks for images

/// What a residual network or one like VGG is made of.
struct ImageNetwork: Equatable {
  /// `[channels, height, width]`.
  var shape = [1, 1, 1]
  /// A residual network's layers with weights, 6n + 2.
  var depth = 20
  /// The first layer's channels.
  var width = 16

  /// What a depth may be.
  static let depths = 8...1202
  /// What a width may be.
  static let widths = 1...4096

  /// The channels of VGG's convolutions, stage by stage.
  var stages: [[Int]] { [1, 2, 4].map { [$0 * width, $0 * width] } }

  /// The channels of a network's layers, at least as many of each as it has, which bounds its weights.
  var sizes: [Int] { [shape[0]] + Array(repeating: 4 * width, count: depth) }
}

extension ImageNetwork {
  init(_ reader: JSONReader) throws(FileError) {
    shape = try reader.integers("image", count: 3, in: 1...1 << 16)
    depth = try reader.integer("depth", in: Self.depths)
    width = try reader.integer("width", in: Self.widths)
    guard depth % 6 == 2 else { throw reader.failure("depth", "6n + 2") }
  }

  /// That of examples of shape `features`: `[height, width]` or `[channels, height, width]`.
  ///
  /// - Parameter source: Names the examples in errors.
  init(features: [Int], depth: Int, width: Int, source: String) throws(Failure) {
    guard features.count == 2 || features.count == 3 else {
      throw Failure(
        "\(source): expected images of shape [height, width] or [channels, height, width] for a network with "
          + "convolutions, found features of shape \(features)")
    }
    shape = features.count == 2 ? [1] + features : features
    (self.depth, self.width) = (depth, width)
  }
}

// MARK: - On the command line

enum ModelName: String, CaseIterable, ExpressibleByArgument {
  case mlp, resnet, vgg

  /// The channels of the first layer where none are given.
  var width: Int { self == .vgg ? 32 : 16 }
}

enum ActivationName: String, CaseIterable, ExpressibleByArgument {
  case relu, leakyReLU = "leaky-relu", gelu, silu, tanh, sigmoid

  var activation: Activation {
    switch self {
    case .relu: .relu
    case .leakyReLU: .leakyReLU(slope: 0.01)
    case .gelu: .gelu
    case .silu: .silu
    case .tanh: .tanh
    case .sigmoid: .sigmoid
    }
  }
}

enum NormalizationName: String, CaseIterable, ExpressibleByArgument {
  case none, batch
}

/// The sizes of hidden layers: `512,512`, or `none`.
struct HiddenSizes: ExpressibleByArgument {
  let sizes: [Int]

  init?(argument: String) {
    if argument == "none" {
      sizes = []
      return
    }
    let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    guard numbers.allSatisfy({ RunConfiguration.sizes.contains($0 ?? 0) }) else { return nil }
    sizes = numbers.map { $0! }
  }
}
