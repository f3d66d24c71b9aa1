import Steppe

/// What batch normalization changes in training (Mathematics §3, §4, §11): a network of sigmoid units as the paper has it, a convolutional network
/// at small and large rates, the two places beside the activation, batch norm beside adaptive rates, and all that over depth.
public struct CompareExperiment: Experiment {
  public static let name = "compare"

  /// What is compared.
  public enum Part: String, CaseIterable, Sendable {
    case sigmoid, rates, place, optimizers, depth
  }

  /// Repetitions with other first weights and batches.
  public var seeds: Int
  /// What is compared, in this order.
  public var parts = Part.allCases
  /// Steps of the sigmoid network's training.
  public var sigmoidSteps: Int
  /// Steps of the convolutional network's training.
  public var convolutionSteps: Int
  /// Channels of the convolutional networks' first stage.
  public var width: Int
  /// Whether convolutional networks see images of half the size.
  public var halvesImages: Bool
  /// Steps of each training beside adaptive rates.
  public var optimizerSteps: Int
  /// The convolutions of the networks compared over depth.
  public var depths: [Int]
  /// Steps of their training.
  public var depthSteps: Int
  /// Repetitions of it at the most: depth is dear.
  public var mostDepthSeeds: Int
  var depthSeeds: Int { min(seeds, mostDepthSeeds) }
  /// How often a training is tested on its way, and with how many images.
  public var records: Int
  public var testImages: Int
  /// The baselines' rates are chosen among these.
  public var convolutionRates = [0.003, 0.01, 0.03, 0.1]

  public init(_ preset: Preset) {
    switch preset {
    case .tiny:
      (seeds, records, testImages, width) = (1, 4, 60, 4)
      (sigmoidSteps, convolutionSteps, optimizerSteps, depthSteps) = (12, 8, 8, 8)
      (halvesImages, depths, mostDepthSeeds, convolutionRates) = (false, [3, 6], 1, [0.01, 0.03])
    case .quick:
      (seeds, records, testImages, width) = (3, 30, 1000, 8)
      (sigmoidSteps, convolutionSteps, optimizerSteps, depthSteps) = (5000, 1000, 1200, 500)
      (halvesImages, depths, mostDepthSeeds) = (true, [6, 12, 24], 2)
    case .full:
      (seeds, records, testImages, width) = (3, 40, 2000, 8)
      (sigmoidSteps, convolutionSteps, optimizerSteps, depthSteps) = (50_000, 4000, 3000, 800)
      (halvesImages, depths, mostDepthSeeds) = (false, [6, 12, 24], 2)
    }
  }

  public var parameters: [(name: String, value: String)] {
    [
      ("parts", parts.map(\.rawValue).joined(separator: " ")),
      ("rates", convolutionRates.map { "\($0)" }.joined(separator: " ")),
    ]
  }

  // MARK: Trainings

  static let sigmoidUnits = [100, 100, 100]
  static let sigmoidBatch = 60
  static let convolutionBatch = 32
  static let baseConvolutions = 6

  static func rates(_ method: DescentMethod) -> [Double] {
    switch method {
    case .sgd: [0.1, 0.3, 1, 3]
    case .momentum: [0.01, 0.03, 0.1, 0.3]
    case .adagrad: [0.003, 0.01, 0.03, 0.1]
    case .rmsProp, .adam: [0.0003, 0.001, 0.003, 0.01]
    }
  }

  /// "Small random Gaussian values" (Ioffe & Szegedy 2015, §4.1), whose deviation the paper does not give; that of Krizhevsky et al. 2012.
  static let smallWeights = WeightInitialization.normal(standardDeviation: 0.01)

  /// A training of the paper's network of sigmoid units.
  func sigmoidTraining(
    _ normalization: Normalization, _ place: NetworkDesign.Place = .before, start: WeightInitialization? = nil
  ) -> Training {
    var design = NetworkDesign(
      body: .dense(Self.sigmoidUnits), nonlinearity: .sigmoid, normalization: normalization, place: place)
    design.initialization = start
    var training = Training(
      design: design, optimizer: .sgd, rate: 1, batchSize: Self.sigmoidBatch, steps: sigmoidSteps, records: records,
      testImages: testImages, seed: 0)
    training.probe = HiddenInputs.probe
    return training
  }

  /// The same with another method, to set beside it.
  func optimizerTraining(_ method: DescentMethod, _ normalization: Normalization) -> Training {
    var training = sigmoidTraining(normalization)
    (training.optimizer, training.steps, training.probe) = (method, optimizerSteps, nil)
    return training
  }

  func convolutionTraining(
    _ normalization: Normalization, _ nonlinearity: NetworkDesign.Nonlinearity = .relu,
    _ place: NetworkDesign.Place = .before, convolutions: Int = baseConvolutions, steps: Int
  ) -> Training {
    let design = NetworkDesign(
      body: .convolutional(convolutions, width: width, halved: halvesImages), nonlinearity: nonlinearity,
      normalization: normalization, place: place)
    return Training(
      design: design, rate: 1, batchSize: Self.convolutionBatch, steps: steps, records: records, testImages: testImages,
      seed: 0)
  }

  public func cost(_ data: ExperimentData) -> Double {
    let (tuned, sigmoidTuned) = (convolutionRates.count, Self.rates(.sgd).count)
    let relu = convolutionTraining(.none, steps: convolutionSteps).cost(data)
    let sigmoid = sigmoidTraining(.none).cost(data)
    return parts.reduce(0) { sum, part in
      switch part {
      case .sigmoid: sum + 4 * Double(sigmoidTuned + seeds) * sigmoid
      case .rates: sum + Double(2 * tuned + RateMethod.allCases.count * seeds) * relu
      case .place: sum + 3 * Double(sigmoidTuned + seeds) * sigmoid + 3 * Double(tuned + seeds) * relu
      case .optimizers:
        sum
          + DescentMethod.allCases.reduce(0) { sum, method in
            sum + 2 * Double(Self.rates(method).count + seeds) * optimizerTraining(method, .none).cost(data)
          }
      case .depth:
        sum
          + depths.reduce(0) {
            $0 + Double(tuned + 3 * depthSeeds)
              * convolutionTraining(.none, convolutions: $1, steps: depthSteps).cost(data)
          }
      }
    }
  }

  public func findings(from data: ExperimentData, seed: UInt64, _ work: ExperimentWork) throws -> [Finding] {
    let runs = TrainingRuns(work: work, data: data, seed: seed)
    return try parts.map { part in
      switch part {
      case .sigmoid: try sigmoidFinding(runs)
      case .rates: try ratesFinding(runs)
      case .place: try placeFinding(runs)
      case .optimizers: try optimizersFinding(runs)
      case .depth: try depthFinding(runs)
      }
    }
  }
}

/// Trainings as parts of an experiment, each run once and kept.
struct TrainingRuns {
  let work: ExperimentWork
  let data: ExperimentData
  let seed: UInt64

  /// The training at `rate`, with the seed that is `index` after the first.
  func table(_ training: Training, rate: Double, index: Int = 0) throws -> ExperimentTable {
    var training = training
    (training.rate, training.seed) = (rate, seed + UInt64(index))
    let name = [
      training.design.name, training.optimizer.id, "\(rate)", "batch\(training.batchSize)", "\(training.steps)steps",
      "seed\(training.seed)",
    ].joined(separator: "-")
    return try work.table(name, title: name, cost: training.cost(data)) { progress in
      try training.table(on: data, progress: progress)
    }
  }

  /// The training at `rate`, with each of `seeds` seeds.
  func tables(_ training: Training, rate: Double, seeds: Int) throws -> [ExperimentTable] {
    try (0..<seeds).map { try table(training, rate: rate, index: $0) }
  }

  /// The rate with which the first seed's training comes to the greatest accuracy, and that of each rate.
  func tuned(_ training: Training, among rates: [Double]) throws -> TunedRate {
    TunedRate(tried: try rates.map { ($0, try table(training, rate: $0).bestAccuracy) })
  }
}

extension TrainingRuns {
  /// The training at that rate, with each of `seeds` seeds.
  func tuned(_ training: Training, among rates: [Double], seeds: Int) throws -> TunedRuns {
    let rate = try tuned(training, among: rates).rate
    return TunedRuns(rate: rate, tables: try tables(training, rate: rate, seeds: seeds))
  }
}

/// A training at its best rate, a table for each seed.
struct TunedRuns {
  let rate: Double
  let tables: [ExperimentTable]

  /// The medians over seeds of the best and the last accuracy.
  var best: Double { tables.spread(\.bestAccuracy).median }
  var last: Double { tables.spread(\.finalAccuracy).median }
}

/// A rate chosen by trying.
struct TunedRate {
  let tried: [(rate: Double, accuracy: Double)]

  /// The rate of the greatest accuracy, the smallest one of several.
  var rate: Double { tried.max { ($0.accuracy, -$0.rate) < ($1.accuracy, -$1.rate) }!.rate }

  /// `0.01: 88.3 %, 0.03: 87.0 %`
  var text: String { tried.map { "\($0.rate): \(percentage($0.accuracy))" }.joined(separator: ", ") }
}

extension ExperimentTable {
  /// The greatest accuracy of a training's records; 0 where it diverged before the first.
  var bestAccuracy: Double { numbers("accuracy").filter(\.isFinite).max() ?? 0 }

  /// The last accuracy before the end, or before it diverged.
  var finalAccuracy: Double { numbers("accuracy").last { $0.isFinite } ?? 0 }

  /// Whether the training diverged.
  var hasDiverged: Bool { numbers("loss").contains { !$0.isFinite } }

  /// The step of the first record with at least `accuracy`; nil where there is none.
  func firstStep(reaching accuracy: Double) -> Double? {
    zip(numbers("step"), numbers("accuracy")).first { $1 >= accuracy }?.0
  }
}

extension Array<ExperimentTable> {
  /// The median and range over seeds.
  func spread(_ value: (ExperimentTable) -> Double) -> Spread { Spread(map(value))! }

  /// `88.3 % (88.0 … 88.9 %)`, and how many diverged.
  func accuracyText(_ value: (ExperimentTable) -> Double) -> String {
    let diverged = filter(\.hasDiverged).count
    return spread(value).text { percentage($0) } + (diverged > 0 ? ", \(diverged) of \(count) diverged" : "")
  }

  /// The steps of each run to `accuracy`; nil where one does not come there.
  func steps(reaching accuracy: Double) -> Spread? {
    let steps = compactMap { $0.firstStep(reaching: accuracy) }
    return steps.count == count ? Spread(steps) : nil
  }
}

extension Chart.Axis {
  static let steps = Chart.Axis("training step")
  static let accuracy = Chart.Axis("test accuracy (%)")
}

extension Chart.Series {
  /// Test accuracy by step, over seeds.
  static func accuracy(_ title: String, _ style: Chart.Style, _ tables: [ExperimentTable]) -> Chart.Series {
    Chart.Series(title, style, tables, x: "step", y: "accuracy", scale: 100)
  }
}
