import Steppe

/// A network of an experiment.
public struct NetworkDesign: Sendable, Equatable {
  public enum Body: Sendable, Equatable {
    /// Hidden layers of so many units.
    case dense([Int])
    /// Three stages of 3×3 convolutions, as many in each, whose channels double from stage to stage while images halve; then the mean of
    /// each channel.
    ///
    /// - Parameters:
    ///   - convolutions: Of all stages together.
    ///   - width: The channels of the first stage.
    ///   - halved: Whether images are made half as large each way at first, to save time.
    case convolutional(_ convolutions: Int, width: Int, halved: Bool)
  }

  /// What follows each layer.
  public enum Nonlinearity: String, Sendable {
    case relu, sigmoid
  }

  /// Where a normalization stands (Mathematics §3).
  public enum Place: String, Sendable {
    case before, after
  }

  public var body: Body
  public var nonlinearity: Nonlinearity
  public var normalization: Normalization
  /// Before or after the activation.
  public var place: Place
  /// How weights start; nil for what suits the activation.
  public var initialization: WeightInitialization?
  var averages: RunningAverages

  static let stages = 3

  /// The least pixels each way that images must have.
  var leastSide: Int {
    guard case .convolutional(_, _, let halved) = body else { return 1 }
    return (halved ? 2 : 1) << Self.stages
  }

  /// A short name, part of files' names.
  var name: String {
    let start =
      switch body {
      case .dense(let hidden): "dense" + hidden.map(String.init).joined(separator: "x")
      case .convolutional(let count, let width, _): "conv\(count)x\(width)"
      }
    var parts = [start, nonlinearity.rawValue, normalization.rawValue] + (place == .after ? ["after"] : [])
    if case .normal(let deviation)? = initialization { parts.append("start\(deviation)") }
    return parts.joined(separator: "-")
  }

  /// The data as the network takes them.
  func data(_ data: ExperimentData) throws(ExperimentError) -> ExperimentData {
    if case .dense = body { return data.rows }
    return try data.images(atLeast: leastSide)
  }

  public init(
    body: Body, nonlinearity: Nonlinearity = .relu, normalization: Normalization = .none, place: Place = .before
  ) {
    self.init(
      body: body, nonlinearity: nonlinearity, normalization: normalization, place: place, averages: RunningAverages())
  }

  init(
    body: Body, nonlinearity: Nonlinearity = .relu, normalization: Normalization, place: Place = .before,
    averages: RunningAverages
  ) {
    (self.body, self.nonlinearity, self.normalization, self.place) = (body, nonlinearity, normalization, place)
    self.averages = averages
  }

  /// The network for examples of `featureShape`. With one seed all designs of a body start with the same weights, whatever normalizes them.
  package func model(_ featureShape: [Int], classes: Int, seed: UInt64) -> Sequential<Float> {
    var (weights, noise) = (RandomGenerator(seed: seed), RandomGenerator(seed: seed, stream: 1))
    let initialization = initialization ?? (nonlinearity == .relu ? .heNormal : .glorotNormal)
    let bias = !(place == .before && normalization.subtractsMean)
    var layers: [any Layer<Float>] = []
    func finish(_ channels: Int, hasPlaces: Bool) {
      let normalizing: [any Layer<Float>] = normalization.layers(
        channels, hasPlaces: hasPlaces, averages, noise: noise.next())
      let activation: any Layer<Float> = nonlinearity == .relu ? ReLU<Float>() : Sigmoid<Float>()
      layers += place == .before ? normalizing + [activation] : [activation] + normalizing
    }
    var inputs = featureShape[0]
    switch body {
    case .dense(let hidden):
      for units in hidden {
        layers.append(Dense(inputs, units, bias: bias, initialization: initialization, seed: weights.next()))
        finish(units, hasPlaces: false)
        inputs = units
      }
    case .convolutional(let count, let width, let halved):
      if halved { layers.append(AveragePool2D(kernel: 2)) }
      for stage in 0..<Self.stages {
        for _ in 0..<count / Self.stages {
          let outputs = width << stage
          layers.append(
            Conv2D(
              inputs, outputs, kernel: 3, padding: 1, bias: bias, initialization: initialization, seed: weights.next()))
          finish(outputs, hasPlaces: true)
          inputs = outputs
        }
        layers.append(MaxPool2D(kernel: 2))
      }
      layers += [GlobalAveragePool(), Flatten()]
    }
    layers.append(Dense(inputs, classes, initialization: initialization, seed: weights.next()))
    return Sequential(layers)
  }

  /// About how many seconds a training step on `batchSize` examples takes on the project's machine.
  func stepCost(_ featureShape: [Int], batchSize: Int) -> Double {
    var (layers, products) = (1.0, 0.0)
    switch body {
    case .dense(let hidden):
      var inputs = featureShape.reduce(1, *)
      for units in hidden {
        products += Double(inputs * units)
        layers += 1
        inputs = units
      }
    case .convolutional(let count, let width, let halved):
      var inputs = featureShape.count == 3 ? featureShape[0] : 1
      var places = featureShape.suffix(2).reduce(1, *) / (halved ? 4 : 1)
      for stage in 0..<Self.stages {
        for _ in 0..<count / Self.stages {
          let outputs = width << stage
          // Channels below 32 leave the products' kernels half empty, and planes are moved too.
          products += Double(places * 9 * max(16, inputs) * outputs)
          layers += 1
          inputs = outputs
        }
        places /= 4
      }
    }
    return layers * 40e-6 + 6 * products * Double(batchSize) / 60e9
  }
}
