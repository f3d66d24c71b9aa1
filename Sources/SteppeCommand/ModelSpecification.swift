import ArgumentParser
import Glibc
import Steppe

/// What a network is made of and how its inputs are prepared: with a model file's tensors, all that evaluation and prediction need.
struct ModelSpecification: Equatable {
  var inputs: Int
  var hidden: [Int]
  var classes: Int
  var activation: ActivationName
  var normalization: NormalizationName
  /// Features less `mean` over `deviation` go in, in units where a byte is 0 … 1.
  var mean = 0.0
  var deviation = 1.0
  /// The names of the classes; empty where they have none.
  var classNames: [String] = []

  /// The key of the specification in a model file's metadata.
  static let metadataKey = "steppe.model"

  /// The network: for each hidden size a dense layer, a batch norm if wanted and the activation, then a dense layer of the classes.
  func model(seed: UInt64? = nil) -> Sequential<Float> {
    Sequential(seed: seed) {
      for (inputs, outputs) in zip([inputs] + hidden, hidden) {
        Dense(inputs, outputs, bias: normalization == .none)
        if normalization == .batch { BatchNorm(outputs) }
        ActivationLayer(activation.activation)
      }
      Dense(hidden.last ?? inputs, classes)
    }
  }

  /// Throws where the weights alone would not fit this machine's memory, as by a number that was damaged in a file.
  func checkSize() throws(Failure) {
    let memory = Double(sysconf(Int32(_SC_PHYS_PAGES))) * Double(sysconf(Int32(_SC_PAGESIZE)))
    let sizes = [inputs] + hidden + [classes]
    // In Double, where a product of large sizes does not overflow.
    let bytes = zip(sizes, sizes.dropFirst()).reduce(0) { $0 + Double($1.0) * Double($1.1) } * 4
    guard bytes <= memory else {
      throw Failure(
        "the network \(summary): expected one whose weights fit the memory of \(fixed(memory / 0x1p30, 1)) GiB, found "
          + "\(fixed(bytes / 0x1p30, 1)) GiB of weights")
    }
  }

  /// Such as `784-512-512-10, batch norm, relu`.
  var summary: String {
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
    let json = JSONValue.object([
      .init("activation", .string(activation.rawValue)), .init("mean", .number(mean)),
      .init("deviation", .number(deviation)), .init("class_names", .array(classNames.map { .string($0) })),
    ])
    return [Self.metadataKey: json.serialized()]
  }

  /// The specification of the model in `file`: its layers by its tensors' names and shapes, the rest by its metadata.
  ///
  /// - Parameter activation: That of a file without metadata, such as PyTorch's.
  init(of file: SafetensorsFile, activation: ActivationName) throws(FileError) {
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
    guard let text = file.metadata[Self.metadataKey] else { return }
    let reader = JSONReader(source: file.path, text: text)
    self.activation = try reader.choice("activation")
    mean = try reader.number("mean")
    deviation = try reader.number("deviation", in: Double.leastNormalMagnitude...Double.greatestFiniteMagnitude)
    classNames = try reader.strings("class_names")
  }
}

// MARK: - On the command line

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
