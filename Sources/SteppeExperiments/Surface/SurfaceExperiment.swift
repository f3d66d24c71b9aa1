import Steppe

/// The error surface before and after normalization (Mathematics §1, §2): a linear model's bowl, with the descents of five methods on it, and a
/// network's loss along two random directions, without and with batch norm.
public struct SurfaceExperiment: Experiment {
  public static let name = "surface"

  /// Data sets of the linear model.
  public var seeds: Int
  /// The loss that a descent shall reach.
  public var loss = 1e-3
  /// Steps after which a descent is given up.
  public var limit: Int
  /// Steps by which each network is trained.
  public var trainingSteps: Int
  /// Places along each direction of a network's plane.
  public var places: Int
  /// Images whose mean loss a plane shows.
  public var images: Int

  /// A network's plane ends this many times its own weights' norm from the trained network.
  public static let reach = 1.0
  /// The units of the network's hidden layers, Mathematics §4's.
  public static let hidden = [100, 100, 100]
  /// Images of a training step.
  public static let batchSize = 60

  public init(_ preset: Preset) {
    switch preset {
    case .tiny: (seeds, limit, trainingSteps, places, images) = (1, 2000, 20, 3, 50)
    case .quick: (seeds, limit, trainingSteps, places, images) = (3, 200_000, 2000, 21, 1000)
    case .full: (seeds, limit, trainingSteps, places, images) = (10, 200_000, 20_000, 41, 5000)
    }
  }

  /// The two surfaces of a data set, and where descents start on them: the same function, since standardization scales the weights by the
  /// features' deviations, with weights that are off by 3 and 1.
  public static func surfaces(
    seed: UInt64
  ) -> [(name: String, surface: LinearSurface, start: [Double])] {
    let raw = LinearSurface.example(seed: seed)
    let start = [-1.0, 1.04]
    let deviation = raw.features.variance(axis: 0).squareRoot().scalars
    return [
      ("raw", raw, start), ("standardized", raw.standardized(), zip(start, deviation).map { $0 * $1 }),
    ]
  }

  /// For each surface of `seed` and each method the descent with the fewest steps, and the surface's condition number.
  ///
  /// - Parameter progress: Called with the share of the work that is done.
  public func linear(
    seed: UInt64, progress: (Double) throws -> Void = { _ in }
  ) throws -> (summary: ExperimentTable, paths: ExperimentTable) {
    var summary = ExperimentTable(
      columns: ["seed", "surface", "condition", "method", "rate", "steps", "reached", "loss"])
    var paths = ExperimentTable(columns: ["surface", "method", "step", "w1", "w2", "loss"])
    let surfaces = Self.surfaces(seed: seed)
    var done = 0.0
    for (name, surface, start) in surfaces {
      let condition = try surface.conditionNumber()
      for method in DescentMethod.allCases {
        let best = try surface.bestDescent(method, from: start, to: loss, limit: limit)
        summary.append([seed, name, condition, method.rawValue, best.rate, best.steps, best.reached, best.losses.last!])
        for step in Self.shownSteps(best.steps) {
          paths.append([name, method.rawValue, step, best.path[step][0], best.path[step][1], best.losses[step]])
        }
        done += 1
        try progress(done / Double(surfaces.count * DescentMethod.allCases.count))
      }
    }
    return (summary, paths)
  }

  /// Of the steps 0 … `last` each of the first 200, then one in every hundredth part of a factor of ten, and the last.
  package static func shownSteps(_ last: Int) -> [Int] {
    var steps = Array(0...min(last, 200))
    while steps.last! < last { steps.append(min(last, max(steps.last! + 1, Int(Double(steps.last!) * 1.0233)))) }
    return steps
  }

  /// A network trained on `data`, and its loss around it: along two random directions, and along the way from its first weights to the
  /// learned ones and a random direction.
  ///
  /// Networks of a seed have the same weights at the start and see the same batches, whatever normalizes them. The planes' losses are those
  /// that a training step would see, by the statistics of the images themselves.
  public func network(
    _ normalization: Normalization, _ data: ExperimentData, seed: UInt64, progress: (Double) throws -> Void = { _ in }
  ) throws -> (random: ExperimentTable, training: ExperimentTable) {
    let examples = data.rows.training
    var run = TrainingRun(
      Self.design(normalization), .momentum, rate: Self.rate, batchSize: Self.batchSize, on: examples, seed: seed)
    let start = LossPlane.weights(of: run.model)
    for step in 0..<trainingSteps {
      _ = run.step()
      if step % 50 == 0 { try progress(0.3 * Double(step) / Double(trainingSteps)) }
    }
    let (features, labels) = examples.batch(rows: Array(0..<min(images, examples.count)))
    var generator = RandomGenerator(seed: seed, stream: 2)
    func table(_ plane: LossPlane<Float>, _ begin: Double) throws -> ExperimentTable {
      var table = ExperimentTable(columns: ["first", "second", "loss"])
      let losses = try plane.losses(reach: Self.reach, steps: places, progress: { try progress(begin + 0.35 * $0) }) {
        model in
        Double(softmaxCrossEntropy(model.forward(features).output, labels).loss)
      }
      for place in losses { table.append([place.first, place.second, place.loss]) }
      return table
    }
    let random = LossPlane(run.model, using: &generator)
    let way = zip(LossPlane.weights(of: run.model), start).map { $0 - $1 }
    let training = LossPlane(
      run.model, first: way, second: LossPlane.randomDirection(run.model, using: &generator))
    return (try table(random, 0.3), try table(training, 0.65))
  }

  static let rate = 0.05

  private static func design(_ normalization: Normalization) -> NetworkDesign {
    NetworkDesign(body: .dense(hidden), normalization: normalization)
  }

  public func cost(_ data: ExperimentData) -> Double {
    Double(seeds) * linearCost + 2 * networkCost(data)
  }

  /// Gradient descent on the raw surface takes nearly all steps.
  private var linearCost: Double { Double(limit) * 25e-6 }

  private func networkCost(_ data: ExperimentData) -> Double {
    let step = { Self.design(.batch).stepCost(data.training.featureShape, batchSize: $0) }
    return Double(trainingSteps) * step(Self.batchSize) + 0.8 * Double(places * places) * step(images)
  }

  public func findings(from data: ExperimentData, seed: UInt64, _ work: ExperimentWork) throws -> [Finding] {
    let linear = try (0..<seeds).map { index in
      let own = seed + UInt64(index)
      return try work.tables(
        ["linear-\(own)", "paths-\(own)"], title: "linear model, seed \(index + 1) of \(seeds)", cost: linearCost
      ) { progress in
        let parts = try self.linear(seed: own, progress: progress)
        return [parts.summary, parts.paths]
      }
    }
    let planes = try [(Normalization.none, "plain"), (.batch, "batchnorm")].map { normalization, name in
      let tables = try work.tables(
        ["network-\(name)", "training-\(name)"], title: "network, \(normalization.title)", cost: networkCost(data)
      ) { progress in
        let planes = try network(normalization, data, seed: seed, progress: progress)
        return [planes.random, planes.training]
      }
      return Plane(normalization: normalization, random: tables[0], training: tables[1])
    }
    return [
      linearFinding(linear.map { $0[0] }, paths: linear[0][1], seed: seed),
      networkFinding(planes, units: [data.training.featureShape.reduce(1, *)] + Self.hidden + [data.training.classes]),
    ]
  }
}
