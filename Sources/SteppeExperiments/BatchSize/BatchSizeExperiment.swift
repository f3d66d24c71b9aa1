import Steppe

/// What batch normalization asks of the batch (Mathematics §5, §8, §13): accuracy against the batch's size beside normalizations that do without its
/// statistics, evaluation by running averages against evaluation by the test batch's own, and how far running averages are from the truth.
public struct BatchSizeExperiment: MethodExperiment {
  public static let name = "batchsize"

  public var seeds: Int
  public var methods = Self.allMethods { didSet { methods = Self.completed(methods) } }
  public var batchSizes: [Int]
  /// Images that each training sees, in steps of whatever size.
  public var seen: Int
  public var testImages: Int
  /// Channels of the convolutional network's first stage.
  public var width: Int
  public var halvesImages: Bool
  /// The momenta of the running averages; nil for the cumulative average.
  public var momenta: [Double?]
  /// Steps of each training for them.
  public var momentumSteps: Int
  /// Images over which the true statistics are taken.
  public var trueImages: Int

  public static let allMethods: [Normalization] = [.batch, .batchRenorm, .group, .layer, .none]
  public static let alwaysMeasured: [Normalization] = [.batch]
  static let convolutions = 6
  /// The rate at a batch of 256, to which others are in proportion (Goyal et al. 2017; Wu & He 2018).
  static let rate = 0.1
  /// Batch sizes at which running averages are looked at.
  static let momentumBatches = [4, 64]

  public init(_ preset: Preset) {
    switch preset {
    case .tiny:
      (seeds, batchSizes, seen, testImages) = (1, [2, 16], 64, 60)
      (width, halvesImages, momenta, momentumSteps, trueImages) = (4, false, [0.1, nil], 6, 100)
    case .quick:
      (seeds, batchSizes, seen, testImages) = (2, [2, 4, 8, 16, 32, 64, 128, 256], 16_384, 2000)
      (width, halvesImages, momenta) = (8, true, [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, nil])
      (momentumSteps, trueImages) = (300, 5000)
    case .full:
      (seeds, batchSizes, seen, testImages) = (2, [2, 4, 8, 16, 32, 64, 128, 256], 40_000, 5000)
      (width, halvesImages, momenta) = (8, true, [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, nil])
      (momentumSteps, trueImages) = (1000, 10_000)
    }
  }

  func steps(_ batchSize: Int) -> Int { max(1, seen / batchSize) }

  static func rate(_ batchSize: Int) -> Double { rate * Double(batchSize) / 256 }

  func design(_ normalization: Normalization, _ averages: RunningAverages) -> NetworkDesign {
    NetworkDesign(
      body: .convolutional(Self.convolutions, width: width, halved: halvesImages), normalization: normalization,
      averages: averages)
  }

  // MARK: Measuring

  /// One row: the accuracy of a network trained with batches of `batchSize` by its own evaluation, by statistics re-estimated over training
  /// images, and by the statistics of the test batch, which has the size of a training batch. NaN where training diverged.
  func accuracy(
    _ normalization: Normalization, batchSize: Int, _ data: ExperimentData, seed: UInt64,
    progress: (Double) throws -> Void
  ) throws -> ExperimentTable {
    let (run, data) = try trained(
      design(normalization, .forSteps(steps(batchSize))), batchSize: batchSize, steps: steps(batchSize), data,
      seed: seed,
      progress)
    var table = ExperimentTable(columns: ["batch", "method", "seed", "rate", "steps", "loss", "running", "true", "own"])
    let start: [any CustomStringConvertible] = [
      batchSize, normalization.rawValue, seed, Self.rate(batchSize), steps(batchSize),
    ]
    guard let run else {
      table.append(start + [Double.nan, Double.nan, Double.nan, Double.nan])
      return table
    }
    let test = data.test.subset(0..<min(testImages, data.test.count))
    let running = try evaluate(run.model, on: test)
    let own = try ownAccuracy(run.model, test, batchSize: batchSize)
    let isFollowing = normalization == .batch || normalization == .batchRenorm
    if isFollowing { try takeTrueStatistics(run.model, data) }
    let truth = isFollowing ? try evaluate(run.model, on: test).accuracy : running.accuracy
    table.append(start + [running.loss, running.accuracy, truth, own])
    return table
  }

  /// One row: the distance of the running averages from the true statistics of the training images, and the accuracies by either.
  func averages(
    momentum: Double?, batchSize: Int, _ data: ExperimentData, seed: UInt64, progress: (Double) throws -> Void
  ) throws -> ExperimentTable {
    let (run, data) = try trained(
      design(.batch, RunningAverages(momentum: momentum)), batchSize: batchSize, steps: momentumSteps, data, seed: seed,
      progress)
    var table = ExperimentTable(
      columns: ["momentum", "batch", "seed", "mean_distance", "deviation_distance", "running", "true"])
    let start: [any CustomStringConvertible] = [momentum.map { "\($0)" } ?? "cumulative", batchSize, seed]
    guard let run else {
      table.append(start + [Double.nan, Double.nan, Double.nan, Double.nan])
      return table
    }
    let test = data.test.subset(0..<min(testImages, data.test.count))
    let running = try evaluate(run.model, on: test).accuracy
    let layers = run.model.layers.compactMap { $0 as? BatchNorm<Float> }
    let followed = layers.map { ($0.runningMean, $0.runningVariance) }
    try takeTrueStatistics(run.model, data)
    let distance = Self.distance(followed, layers.map { ($0.runningMean, $0.runningVariance) })
    table.append(start + [distance.mean, distance.deviation, running, try evaluate(run.model, on: test).accuracy])
    return table
  }

  /// The root mean squares, over all channels, of (μ̄ − μ)/σ and of ln(σ̄/σ).
  package static func distance(
    _ running: [(mean: Tensor<Float>, variance: Tensor<Float>)],
    _ truth: [(mean: Tensor<Float>, variance: Tensor<Float>)]
  ) -> (mean: Double, deviation: Double) {
    var (means, deviations, count) = (0.0, 0.0, 0.0)
    for (followed, actual) in zip(running, truth) {
      // Of a channel that never varies there is nothing to follow.
      let least: Float = 1e-12
      let variance = actual.variance.maximum(Tensor(least))
      means += Double(((followed.mean - actual.mean).squared() / variance).sum())
      deviations += Double((followed.variance.maximum(Tensor(least)) / variance).log().squared().sum()) / 4
      count += Double(variance.count)
    }
    return ((means / count).squareRoot(), (deviations / count).squareRoot())
  }

  /// A network after its training, and the data as it takes them; no network where training diverged.
  private func trained(
    _ design: NetworkDesign, batchSize: Int, steps: Int, _ data: ExperimentData, seed: UInt64,
    _ progress: (Double) throws -> Void
  ) throws -> (TrainingRun?, ExperimentData) {
    let data = try design.data(data)
    var run = TrainingRun(
      design, .momentum, rate: Self.rate(batchSize), batchSize: batchSize, on: data.training, seed: seed)
    for step in 0..<steps {
      guard run.step().isFinite else { return (nil, data) }
      if step % 16 == 0 { try progress(Double(step) / Double(steps)) }
    }
    return (run.model.parameters.allSatisfy { $0.value.isAllFinite() } ? run : nil, data)
  }

  /// The accuracy where each test batch is normalized by its own statistics; the model stays as it was.
  private func ownAccuracy(_ model: Sequential<Float>, _ test: Dataset<Float>, batchSize: Int) throws -> Double {
    let snapshot = ModelSnapshot<Float>(model)
    defer { snapshot.restore() }
    // A rest smaller than a batch would have other statistics; it is taken only where there is nothing else.
    let whole = test.count < batchSize ? test : test.subset(0..<test.count / batchSize * batchSize)
    return try evaluate({ model.forward($0).output }, on: whole, batchSize: batchSize).accuracy
  }

  private func takeTrueStatistics(_ model: Sequential<Float>, _ data: ExperimentData) throws {
    try model.reestimateStatistics(on: data.training.subset(0..<min(trueImages, data.training.count)))
  }

  // MARK: The whole

  private func cost(_ batchSize: Int, steps: Int, _ data: ExperimentData) -> Double {
    let design = design(.batch, RunningAverages())
    let (shape, testing) = (data.training.featureShape, Double(2 * testImages + trueImages))
    return Double(steps) * design.stepCost(shape, batchSize: batchSize) + testing * 0.4
      * design.stepCost(shape, batchSize: 1)
  }

  public func cost(_ data: ExperimentData) -> Double {
    let sizes = batchSizes.reduce(0) { $0 + cost($1, steps: steps($1), data) }
    let following = Self.momentumBatches.reduce(0) { $0 + cost($1, steps: momentumSteps, data) }
    return Double(seeds) * (Double(methods.count) * sizes + Double(momenta.count) * following)
  }

  public func findings(from data: ExperimentData, seed: UInt64, _ work: ExperimentWork) throws -> [Finding] {
    let own = (0..<seeds).map { seed + UInt64($0) }
    var rows: ExperimentTable?
    for (method, batchSize, seed) in methods.flatMap({ m in batchSizes.flatMap { b in own.map { (m, b, $0) } } }) {
      let name = "batch\(batchSize)-\(method.rawValue)-seed\(seed)"
      let table = try work.table(name, title: name, cost: cost(batchSize, steps: steps(batchSize), data)) {
        try accuracy(method, batchSize: batchSize, data, seed: seed, progress: $0)
      }
      rows = rows?.joined(table) ?? table
    }
    var followed: ExperimentTable?
    for (momentum, batchSize, seed) in momenta.flatMap({ m in
      Self.momentumBatches.flatMap { b in own.map { (m, b, $0) } }
    }) {
      let name = "momentum\(momentum.map { "\($0)" } ?? "cumulative")-batch\(batchSize)-seed\(seed)"
      let table = try work.table(name, title: name, cost: cost(batchSize, steps: momentumSteps, data)) {
        try averages(momentum: momentum, batchSize: batchSize, data, seed: seed, progress: $0)
      }
      followed = followed?.joined(table) ?? table
    }
    return [sizesFinding(rows!), evaluationFinding(rows!), averagesFinding(followed!)]
  }
}

extension ExperimentTable {
  /// The rows of both tables, which have the same columns.
  func joined(_ other: ExperimentTable) -> ExperimentTable {
    precondition(columns == other.columns, "ExperimentTable: expected columns \(columns), got \(other.columns)")
    var result = self
    for row in other.rows { result.append(row) }
    return result
  }
}
