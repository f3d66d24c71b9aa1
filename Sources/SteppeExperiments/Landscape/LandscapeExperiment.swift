import Steppe

/// Why batch normalization helps (Mathematics §12): how far the loss and the gradient change along a step, with and without normalizations, while a
/// convolutional network like VGG and a deep linear network are trained.
public struct LandscapeExperiment: MethodExperiment {
  public static let name = "landscape"

  public var seeds: Int
  public var methods = Self.allMethods { didSet { methods = Self.completed(methods) } }
  /// Steps of the convolutional network's training.
  public var steps: Int
  /// Steps of the deep linear network's.
  public var linearSteps: Int
  /// How often on the way the landscape is measured.
  public var measurements: Int
  /// The convolutional network: its convolutions and the channels of its first stage.
  public var convolutions: Int
  public var width: Int
  public var halvesImages: Bool
  public var batchSize: Int
  /// The deep linear network's examples.
  public var linearExamples: Int
  public var testImages: Int

  /// ℓ₂ is batch norm itself.
  public static let allMethods: [Normalization] = [.none, .batch, .noisyBatch, .l1, .lInfinity]
  public static let alwaysMeasured: [Normalization] = [.none, .batch]
  /// The rate of the convolutional networks, the same for all.
  static let rate = 0.05
  /// The deep linear network (Mathematics §12): its layers and the features of each.
  package static let linearLayers = 25
  package static let linearWidth = 16

  /// How large the deep linear network's first weights are.
  package enum LinearStart: String, CaseIterable, Sendable {
    /// Of variance 1/width, so that each layer keeps the variance of what it receives.
    case level
    /// Of variance 2/width, as for ReLU (He et al. 2015): each layer doubles the variance.
    case steep

    var initialization: WeightInitialization { self == .level ? .glorotNormal : .heNormal }
  }

  /// Rates of the deep linear network, from which those without and with batch norm get the one with the lowest last loss.
  static let linearRates = [1e-9, 1e-8, 1e-7, 1e-5, 1e-3, 0.01, 0.03, 0.1]

  public init(_ preset: Preset) {
    switch preset {
    case .tiny:
      (seeds, steps, linearSteps, measurements) = (1, 20, 20, 10)
      (convolutions, width, halvesImages, batchSize, linearExamples, testImages) = (3, 4, false, 16, 32, 60)
    case .quick:
      (seeds, steps, linearSteps, measurements) = (2, 500, 1000, 30)
      (convolutions, width, halvesImages, batchSize, linearExamples, testImages) = (6, 8, true, 32, 128, 1000)
    case .full:
      (seeds, steps, linearSteps, measurements) = (2, 2000, 2000, 40)
      (convolutions, width, halvesImages, batchSize, linearExamples, testImages) = (9, 16, true, 32, 256, 2000)
    }
  }

  func design(_ normalization: Normalization) -> NetworkDesign {
    NetworkDesign(
      body: .convolutional(convolutions, width: width, halved: halvesImages), normalization: normalization)
  }

  /// The deep linear network: layers without activations, each normalized but the last.
  package static func linearModel(
    _ normalization: Normalization, _ start: LinearStart, seed: UInt64
  ) -> Sequential<Double> {
    var (weights, noise) = (RandomGenerator(seed: seed), RandomGenerator(seed: seed, stream: 1))
    var layers: [any Layer<Double>] = []
    for index in 1...linearLayers {
      layers.append(
        Dense(linearWidth, linearWidth, bias: false, initialization: start.initialization, seed: weights.next()))
      guard index < linearLayers else { break }
      layers += normalization.layers(linearWidth, hasPlaces: false, RunningAverages(), noise: noise.next())
    }
    return Sequential(layers)
  }

  // MARK: Measuring

  static let columns = [
    "step", "loss", "accuracy", "reestimated_accuracy", "training_accuracy", "loss_least", "loss_greatest",
    "change_least", "change_greatest", "smoothness", "gradient_norm", "shift_distance", "shift_cosine",
  ]

  /// How right a network is; NaN where that says nothing.
  struct Accuracies {
    /// On the test images, by running averages.
    var test = Double.nan
    /// On them, by statistics of training images taken without noise.
    var reestimated = Double.nan
    /// On the training batches since the last record, as training computes.
    var training = Double.nan
  }

  /// A row of the table: means over the layers of the covariate shift, of the distance relative to the gradient's norm. NaN where training diverged.
  private static func row<Scalar>(
    _ step: Int, _ found: LandscapeProbe<Scalar>.Measurement?, _ accuracies: Accuracies
  ) -> [any CustomStringConvertible] {
    guard let found else { return [step] + [Double](repeating: .nan, count: columns.count - 1) }
    let layers = Double(max(1, found.shifts.count))
    return [
      step, found.loss, accuracies.test, accuracies.reestimated, accuracies.training, found.losses.lowerBound,
      found.losses.upperBound, found.gradientChanges.lowerBound, found.gradientChanges.upperBound, found.smoothness,
      found.gradientNorm,
      found.shifts.reduce(0) { $0 + $1.distance } / layers, found.shifts.reduce(0) { $0 + $1.cosine } / layers,
    ]
  }

  /// The steps taken when the landscape is measured: at the begin, and at equal distances to the end.
  package static func measuredSteps(_ steps: Int, _ measurements: Int) -> [Int] {
    (0...measurements).map { $0 * steps / measurements }
  }

  /// The landscape along the convolutional network's training by plain gradient steps.
  func convolutional(
    _ normalization: Normalization, _ data: ExperimentData, seed: UInt64, progress: (Double) throws -> Void
  ) throws -> ExperimentTable {
    let design = design(normalization)
    let data = try design.data(data)
    let test = data.test.subset(0..<min(testImages, data.test.count))
    var run = TrainingRun(design, .sgd, rate: Self.rate, batchSize: batchSize, on: data.training, seed: seed)
    let (model, optimizer) = (run.model, run.optimizer)
    var last: (scores: Tensor<Float>, labels: [Int])?
    var (right, seen) = (0, 0)
    return try walk(steps, LandscapeProbe(model), rate: Self.rate, progress) {
      let (features, labels) = run.nextBatch()
      return {
        let (scores, pullback) = model.forward(features)
        let (loss, gradient) = softmaxCrossEntropy(scores, labels)
        pullback.accumulate(gradient)
        last = (scores, labels)
        return Double(loss)
      }
    } take: {
      right += zip(last!.scores.argmaxOfRows(), last!.labels).count { $0 == $1 }
      seen += last!.labels.count
      optimizer.step()
    } accuracies: {
      defer { (right, seen) = (0, 0) }
      return Accuracies(
        test: try evaluate(model, on: test).accuracy,
        reestimated: try reestimatedAccuracy(normalization, model, data, test),
        training: seen > 0 ? Double(right) / Double(seen) : .nan)
    }
  }

  /// Images over which statistics are re-estimated.
  static let reestimationImages = 1024

  /// The accuracy of networks with batch norm, which stay as they are, by statistics of training images. Noise, which evaluation does
  /// without, is left out of them too: running averages are those of noisy values.
  private func reestimatedAccuracy(
    _ normalization: Normalization, _ model: Sequential<Float>, _ data: ExperimentData, _ test: Dataset<Float>
  ) throws -> Double {
    guard normalization == .batch || normalization == .noisyBatch else { return .nan }
    let snapshot = ModelSnapshot<Float>(model)
    defer { snapshot.restore() }
    let quiet = Sequential(model.layers.filter { !($0 is ActivationNoise<Float>) })
    try quiet.reestimateStatistics(on: data.training.subset(0..<min(Self.reestimationImages, data.training.count)))
    return try evaluate(quiet, on: test).accuracy
  }

  /// The landscape along the deep linear network's training on the whole of its data: Gaussian x, and y = A·x with a Gaussian A.
  ///
  /// - Parameter measures: Without, only the last loss is found, for choosing a rate: the table then has one row.
  func linear(
    _ normalization: Normalization, _ start: LinearStart, rate: Double, seed: UInt64, measures: Bool = true,
    progress: (Double) throws -> Void
  ) throws -> ExperimentTable {
    var generator = RandomGenerator(seed: seed, stream: 3)
    let width = Self.linearWidth
    let x = Tensor<Double>.randomNormal(shape: [linearExamples, width], using: &generator)
    let target = Tensor<Double>.randomNormal(
      shape: [width, width], standardDeviation: (1 / Double(width)).squareRoot(), using: &generator)
    let y = x.matmul(target)
    let model = Self.linearModel(normalization, start, seed: seed)
    let optimizer = SGD(model.parameters, learningRate: rate)
    func loss() -> Double {
      let (output, pullback) = model.forward(x)
      let (loss, gradient) = meanSquaredError(output, y)
      pullback.accumulate(gradient)
      return loss
    }
    guard measures else {
      var (table, last) = (ExperimentTable(columns: ["rate", "loss"]), 0.0)
      for step in 0...linearSteps where last.isFinite {
        last = loss()
        optimizer.step()
        if step % 64 == 0 { try progress(Double(step) / Double(linearSteps)) }
      }
      table.append([rate, last])
      return table
    }
    return try walk(linearSteps, LandscapeProbe(model), rate: rate, progress) {
      loss
    } take: {
      optimizer.step()
    } accuracies: {
      Accuracies()
    }
  }

  /// Trains, and measures on the way.
  ///
  /// - Parameters:
  ///   - next: Gives the loss on the next batch.
  ///   - take: Takes the step that the gathered gradients give.
  private func walk<Scalar: TensorScalar>(
    _ steps: Int, _ probe: LandscapeProbe<Scalar>, rate: Double, _ progress: (Double) throws -> Void,
    next: () -> () -> Double, take: () -> Void, accuracies: () throws -> Accuracies
  ) throws -> ExperimentTable {
    var table = ExperimentTable(columns: Self.columns)
    let measured = Set(Self.measuredSteps(steps, measurements))
    for step in 0...steps {
      let loss = next()
      if measured.contains(step) {
        let found = probe.measure(rate: rate, loss: loss)
        table.append(Self.row(step, found, found == nil ? Accuracies() : try accuracies()))
        if found == nil { return table }
        try progress(Double(step) / Double(steps))
        if step == steps { break }
      }
      _ = loss()
      take()
      if step % 16 == 0 { try progress(Double(step) / Double(steps)) }
    }
    return table
  }

  // MARK: The whole

  func cost(convolutional data: ExperimentData) -> Double {
    let step = design(.batch).stepCost(data.training.featureShape, batchSize: batchSize)
    let probes = Double(LandscapeProbe<Float>.factors.count + convolutions + 1)
    let testing = 0.4 * design(.batch).stepCost(data.training.featureShape, batchSize: testImages)
    return step * Double(steps) + Double(measurements) * (step * probes + testing)
  }

  private var linearCost: (tuning: Double, measuring: Double) {
    let step = Double(Self.linearLayers) * (5e-6 + Double(linearExamples) * 2e-9 * Double(Self.linearWidth))
    let probes = measurements * (LandscapeProbe<Double>.factors.count + Self.linearLayers)
    return (step * Double(linearSteps), step * Double(linearSteps + probes))
  }

  public func cost(_ data: ExperimentData) -> Double {
    let starts = Double(LinearStart.allCases.count)
    return Double(methods.count * seeds) * (cost(convolutional: data) + starts * linearCost.measuring)
      + starts * Double(2 * Self.linearRates.count) * linearCost.tuning
  }

  /// The rate, without or with batch norm, of the lowest last loss with the first seed; the least one where all diverge.
  private func linearRate(
    _ normalization: Normalization, _ start: LinearStart, seed: UInt64, _ work: ExperimentWork
  ) throws -> Double {
    let losses = try Self.linearRates.map { rate in
      try work.table(
        "\(start.rawValue)-\(normalization.rawValue)-rate\(rate)",
        title: "deep linear network, \(start.rawValue), \(normalization.title), rate \(rate)", cost: linearCost.tuning
      ) {
        try linear(normalization, start, rate: rate, seed: seed, measures: false, progress: $0)
      }.numbers("loss")[0]
    }
    return zip(Self.linearRates, losses).filter(\.1.isFinite).min { $0.1 < $1.1 }?.0 ?? Self.linearRates[0]
  }

  public func findings(from data: ExperimentData, seed: UInt64, _ work: ExperimentWork) throws -> [Finding] {
    func tables(
      _ kind: String, steps: Int, cost: Double, rate: (Normalization) throws -> Double,
      _ body: (Normalization, Double, UInt64, (Double) throws -> Void) throws -> ExperimentTable
    ) throws -> [Result] {
      try methods.map { method in
        let rate = try rate(method)
        let tables = try (0..<seeds).map { index in
          let own = seed + UInt64(index)
          return try work.table(
            "\(kind)-\(method.rawValue)-seed\(own)",
            title: "\(kind) network, \(method.title), seed \(index + 1) of \(seeds)",
            cost: cost
          ) { try body(method, rate, own, $0) }
        }
        return Result(method: method, rate: rate, steps: steps, tables: tables)
      }
    }
    let convolutional = try tables(
      "convolutional", steps: steps, cost: cost(convolutional: data), rate: { _ in Self.rate }
    ) {
      try self.convolutional($0, data, seed: $2, progress: $3)
    }
    let linear = try LinearStart.allCases.map { start in
      let (plain, batch) = (
        try linearRate(.none, start, seed: seed, work), try linearRate(.batch, start, seed: seed, work)
      )
      return try tables(
        start.rawValue, steps: linearSteps, cost: linearCost.measuring, rate: { $0 == .none ? plain : batch }
      ) {
        try self.linear($0, start, rate: $1, seed: $2, progress: $3)
      }
    }
    return [landscapeFinding(convolutional, convolutionalKind), shiftFinding(convolutional)]
      + zip(LinearStart.allCases, linear).map { landscapeFinding($1, linearKind($0)) }
  }

  struct Result {
    let method: Normalization
    let rate: Double
    /// Of each training.
    let steps: Int
    let tables: [ExperimentTable]
  }
}
