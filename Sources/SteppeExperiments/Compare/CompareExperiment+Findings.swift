import Steppe

extension CompareExperiment {
  private func steps(_ count: Double) -> String { count.isFinite ? grouped(Int(count)) : "never" }

  /// How many times fewer steps `with` are than `without`.
  private func ratio(_ without: Double, _ with: Double?) -> String {
    guard let with, without.isFinite else { return "–" }
    return "× " + fixed(without / with, 1)
  }

  /// The steps of each run to its own best accuracy.
  private func stepsToBest(_ tables: [ExperimentTable]) -> Spread {
    Spread(tables.map { $0.firstStep(reaching: $0.bestAccuracy) ?? .infinity })!
  }

  // MARK: The paper's network of sigmoid units

  func sigmoidFinding(_ runs: TrainingRuns) throws -> Finding {
    struct Result {
      let normalization: Normalization
      let isSmall: Bool
      let runs: TunedRuns
      var tables: [ExperimentTable] { runs.tables }
      var title: String { normalization.title + (isSmall ? ", small weights" : ", Glorot’s weights") }
      func way(_ value: ([Double]) -> Double) -> Spread { tables.spread { HiddenInputs.way($0, value) } }
    }
    let results = try [true, false].flatMap { isSmall in
      try [Normalization.none, .batch].map { normalization in
        let training = sigmoidTraining(normalization, start: isSmall ? Self.smallWeights : nil)
        return Result(
          normalization: normalization, isSmall: isSmall,
          runs: try runs.tuned(training, among: Self.rates(.sgd), seeds: seeds))
      }
    }
    // Steps are counted to the best accuracy of the network without batch norm from the same weights.
    func mark(_ result: Result) -> Double {
      results.first { $0.isSmall == result.isSmall }!.tables.spread(\.bestAccuracy).median
    }
    func reaching(_ result: Result) -> Spread? {
      result.normalization == .none ? stepsToBest(result.tables) : result.tables.steps(reaching: mark(result))
    }
    let accuracy = Chart(
      "sigmoid-accuracy", title: "784-100-100-100-10, sigmoid, with and without batch norm", x: .steps,
      y: .accuracy,
      series: results.map {
        .accuracy($0.title, .init($0.normalization.style.color, dash: $0.isSmall ? .none : .short), $0.tables)
      })
    let inputs = Chart(
      "sigmoid-inputs", title: "Inputs of one unit of the last hidden layer, from small weights", x: .steps,
      y: .init("15th, 50th and 85th percentile"),
      series: results.filter(\.isSmall).map {
        HiddenInputs.series($0.normalization.title, $0.normalization.style, $0.tables[0])
      })
    var checks: [Finding.Check] = []
    for (without, with) in [(results[0], results[1]), (results[2], results[3])] {
      let start = without.isSmall ? "From small weights" : "From Glorot’s weights"
      let (slow, fast) = (stepsToBest(without.tables).median, reaching(with)?.median)
      let ways = [with, without].map { result in result.way { $0[1] }.median }
      checks += [
        .init(
          "\(start) the network with batch norm ends higher",
          "\(percentage(with.runs.last)) against \(percentage(without.runs.last))",
          holds: with.runs.last > without.runs.last),
        .init(
          "\(start) it comes sooner to the best accuracy of the network without",
          fast.map { "\(steps($0)) steps against \(steps(slow))" } ?? "not within \(grouped(sigmoidSteps)) steps",
          holds: (fast ?? .infinity) < slow),
        .init(
          "\(start) the medians of the last hidden layer’s inputs go a shorter way",
          "\(fixed(ways[0], 2)) against \(fixed(ways[1], 2))", holds: ways[0] < ways[1]),
      ]
    }
    return Finding(
      "compare-sigmoid", title: "A deep network of sigmoid units",
      question:
        "Does normalizing what each sigmoid receives let the network learn faster, and hold still what deeper layers see?",
      pictures: [
        Picture(
          accuracy,
          alternative: "Test accuracy over \(grouped(sigmoidSteps)) steps; at the end "
            + results.map { "\($0.title) \(percentage($0.runs.last))" }.joined(separator: ", ") + "."),
        Picture(
          inputs,
          alternative:
            "The band from the 15th to the 85th percentile of one hidden unit’s inputs and their median by step, with and without "
            + "batch norm."),
      ],
      table: FindingTable(
        header: [
          "network", "rate", "best accuracy", "last accuracy", "steps to the best without", "way of the medians",
          "way of the widths",
        ],
        rows: results.map { result in
          [
            result.title, "\(result.runs.rate)", result.tables.accuracyText(\.bestAccuracy),
            result.tables.accuracyText(\.finalAccuracy),
            reaching(result)?.text(steps) ?? "not in \(grouped(sigmoidSteps))",
            result.way { $0[1] }.text { fixed($0, 2) }, result.way { $0[2] - $0[0] }.text { fixed($0, 2) },
          ]
        }),
      published:
        "Ioffe & Szegedy 2015, §4.1, on MNIST in 50 000 steps from “small random Gaussian” weights: the normalized network is "
        + "ahead all along and ends higher, and the distribution of a unit’s inputs is far steadier (no figures are given).",
      checks: checks,
      note:
        "Batches of \(Self.sigmoidBatch), plain gradient steps. Small weights are normal with deviation 0.01, since the paper does not say "
        + "which; Glorot’s (2010) suit the sigmoid’s layers. Each network has its best rate of "
        + "\(Self.rates(.sgd).map { "\($0)" }.joined(separator: ", ")). \(repeated(seeds)) The way of a median is the sum "
        + "of its changes from record to record, the mean over \(HiddenInputs.units) units.")
  }

  // MARK: Larger rates

  /// The paper's networks: the baseline, batch norm at multiples of its rate, and both with sigmoids.
  enum RateMethod: CaseIterable {
    case baseline, batch, batch5, batch30, sigmoidBatch5, sigmoid

    var title: String {
      switch self {
      case .baseline: "baseline, without"
      case .batch: "BN"
      case .batch5: "BN ×5"
      case .batch30: "BN ×30"
      case .sigmoidBatch5: "BN ×5, sigmoid"
      case .sigmoid: "sigmoid, without"
      }
    }

    var factor: Double {
      switch self {
      case .batch5, .sigmoidBatch5: 5
      case .batch30: 30
      default: 1
      }
    }

    var normalization: Normalization { self == .baseline || self == .sigmoid ? .none : .batch }
    var nonlinearity: NetworkDesign.Nonlinearity { self == .sigmoidBatch5 || self == .sigmoid ? .sigmoid : .relu }

    var style: Chart.Style {
      switch self {
      case .baseline: Normalization.none.style
      case .batch: Normalization.batch.style
      case .batch5: .init(.sky)
      case .batch30: .init(.purple)
      case .sigmoidBatch5: .init(.green, dash: .short)
      case .sigmoid: .init(.orange, dash: .short)
      }
    }

    /// To the baseline's steps, as the paper has them.
    var published: String {
      switch self {
      case .baseline: "31.0M steps to 72.2 %"
      case .batch: "13.3M steps; best 72.7 %"
      case .batch5: "2.1M steps; best 73.0 %"
      case .batch30: "2.7M steps; best 74.8 %"
      case .sigmoidBatch5: "best 69.8 %"
      case .sigmoid: "at chance"
      }
    }
  }

  func ratesFinding(_ runs: TrainingRuns) throws -> Finding {
    func training(_ method: RateMethod) -> Training {
      convolutionTraining(method.normalization, method.nonlinearity, steps: convolutionSteps)
    }
    let tuned = try runs.tuned(training(.baseline), among: convolutionRates)
    let sigmoidTuned = try runs.tuned(training(.sigmoid), among: convolutionRates)
    var rates: [RateMethod: Double] = [:]
    var tables: [RateMethod: [ExperimentTable]] = [:]
    for method in RateMethod.allCases {
      let rate = method == .sigmoid ? sigmoidTuned.rate : method.factor * tuned.rate
      rates[method] = rate
      tables[method] = try runs.tables(training(method), rate: rate, seeds: seeds)
    }
    let mark = tables[.baseline]!.spread(\.bestAccuracy).median
    let baseline = stepsToBest(tables[.baseline]!)
    func reaching(_ method: RateMethod) -> Spread? { tables[method]!.steps(reaching: mark) }
    func best(_ method: RateMethod) -> Double { tables[method]!.spread(\.bestAccuracy).median }
    func last(_ method: RateMethod) -> Double { tables[method]!.spread(\.finalAccuracy).median }
    let rows = RateMethod.allCases.map { method -> [String] in
      let reached = method == .baseline ? baseline : reaching(method)
      return [
        method.title, significant(rates[method]!, 3), reached?.text(steps) ?? "not in \(grouped(convolutionSteps))",
        ratio(baseline.median, reached?.median),
        tables[method]!.accuracyText(\.bestAccuracy), tables[method]!.accuracyText(\.finalAccuracy), method.published,
      ]
    }
    let chart = Chart(
      "rates-accuracy", title: "\(Self.baseConvolutions) convolutions: batch norm and larger rates", x: .steps,
      y: .accuracy,
      series: RateMethod.allCases.map { .accuracy($0.title, $0.style, tables[$0]!) })
    let fastest = RateMethod.allCases.filter { $0.normalization == .batch && $0.nonlinearity == .relu }
    let chance = 1 / Double(runs.data.training.classes)
    let early = convolutionSteps / 5
    func accuracy(_ method: RateMethod, at step: Int) -> Double {
      tables[method]!.spread { table in
        zip(table.numbers("step"), table.numbers("accuracy")).filter { $0.0 <= Double(step) && $0.1.isFinite }.last?.1
          ?? 0
      }.median
    }
    let soonest = fastest.compactMap { method in reaching(method).map { (steps: $0.median, title: method.title) } }
      .min { $0.steps < $1.steps }
    return Finding(
      "compare-rates", title: "Batch norm and larger rates",
      question:
        "If normalization levels the surface, steps can be longer: how many fewer are needed, and how far can one go?",
      pictures: [
        Picture(
          chart,
          alternative: "Test accuracy over \(convolutionSteps) steps of six networks: best accuracies "
            + RateMethod.allCases.map { "\($0.title) \(percentage(best($0)))" }.joined(separator: ", ") + ".")
      ],
      table: FindingTable(
        header: [
          "network", "rate", "steps to \(percentage(mark))", "fewer", "best accuracy", "last accuracy",
          "Inception on ImageNet, published",
        ], rows: rows),
      published:
        "Ioffe & Szegedy 2015, §4.2: to Inception’s 72.2 % batch norm needs 2.3 times fewer steps, at 5 times the rate 14.8 times "
        + "fewer; at 30 times the rate it is slower at first than at 5 times, and ends higher; with sigmoids it reaches 69.8 %, where without "
        + "batch norm the network stays at chance.",
      checks: [
        .init(
          "With batch norm the baseline’s best accuracy is reached in at most half of its steps",
          soonest.map { "\(steps($0.steps)) steps (\($0.title)) against \(steps(baseline.median))" } ?? "not reached",
          holds: (soonest?.steps ?? .infinity) <= baseline.median / 2),
        .init(
          "Batch norm ends higher than the baseline",
          "\(percentage(fastest.map(last).max()!)) against \(percentage(last(.baseline)))",
          holds: fastest.map(last).max()! > last(.baseline)),
        .init(
          "At 5 times the rate it is faster still",
          "\(reaching(.batch5).map { steps($0.median) } ?? "not in") steps against \(reaching(.batch).map { steps($0.median) } ?? "not in")",
          holds: (reaching(.batch5)?.median ?? .infinity) < (reaching(.batch)?.median ?? .infinity)),
        .init(
          "At 30 times the rate it is slower at first than at 5 times",
          "\(percentage(accuracy(.batch30, at: early))) against \(percentage(accuracy(.batch5, at: early))) after \(grouped(early)) steps",
          holds: accuracy(.batch30, at: early) < accuracy(.batch5, at: early)),
        .init(
          "… and ends higher", "\(percentage(best(.batch30))) against \(percentage(best(.batch5))) at best",
          holds: best(.batch30) > best(.batch5)),
        .init(
          "With sigmoids the network trains with batch norm, and stays at chance without",
          "\(percentage(best(.sigmoidBatch5))) against \(percentage(best(.sigmoid)))",
          holds: best(.sigmoidBatch5) > 3 * chance && best(.sigmoid) < 1.5 * chance),
      ],
      note:
        "Three stages of 3×3 convolutions with \(width), \(2 * width) and \(4 * width) channels"
        + (halvesImages ? " on images of half the size, " : ", ")
        + "batches of \(Self.convolutionBatch), momentum 0.9, no other regularization. The baseline’s rate is the best of \(tuned.text); the rate "
        + "of sigmoids without batch norm the best of \(sigmoidTuned.text). Steps are counted to the median of the baseline’s best accuracies; "
        + "the baseline’s own to its best. \(repeated(seeds))"
    )
  }

  // MARK: Before or after the activation

  func placeFinding(_ runs: TrainingRuns) throws -> Finding {
    let places: [(title: String, normalization: Normalization, place: NetworkDesign.Place, style: Chart.Style)] = [
      ("without", .none, .before, Normalization.none.style),
      ("batch norm before", .batch, .before, Normalization.batch.style),
      ("batch norm after", .batch, .after, .init(.vermilion, dash: .short)),
    ]
    let sigmoid = try places.map {
      try runs.tuned(sigmoidTraining($0.normalization, $0.place), among: Self.rates(.sgd), seeds: seeds)
    }
    let relu = try places.map {
      try runs.tuned(
        convolutionTraining($0.normalization, .relu, $0.place, steps: convolutionSteps), among: convolutionRates,
        seeds: seeds)
    }
    func chart(_ name: String, _ title: String, _ results: [TunedRuns]) -> Chart {
      Chart(
        name, title: title, x: .steps, y: .accuracy,
        series: zip(places, results).map { .accuracy($0.title, $0.style, $1.tables) })
    }
    func words(_ results: [TunedRuns]) -> String {
      zip(places, results).map { "\($0.title) \(percentage($1.best))" }.joined(separator: ", ")
    }
    return Finding(
      "compare-place", title: "Before the activation, or after it",
      question: "Shall we normalize what goes into the activation, or what comes out of it?",
      pictures: [
        Picture(
          chart("place-sigmoid", "Sigmoid units: batch norm before and after the activation", sigmoid),
          alternative: "Test accuracy by step of the sigmoid network; best: \(words(sigmoid))."),
        Picture(
          chart("place-relu", "Convolutions with ReLU: batch norm before and after", relu),
          alternative: "Test accuracy by step of the convolutional network; best: \(words(relu))."),
      ],
      table: FindingTable(
        header: ["place", "sigmoid: rate", "best accuracy", "last", "ReLU: rate", "best accuracy", "last"],
        rows: places.indices.map { index in
          [places[index].title]
            + [sigmoid[index], relu[index]].flatMap { run in
              ["\(run.rate)", run.tables.accuracyText(\.bestAccuracy), run.tables.accuracyText(\.finalAccuracy)]
            }
        }),
      published:
        "Ioffe & Szegedy 2015, §3.2, normalize before the activation, since sums of many inputs are nearer to a normal "
        + "distribution; for sigmoids that keeps inputs where the slope is large. They give no figures for the other place.",
      checks: [
        .init(
          "With sigmoids either place is better than none", words(sigmoid),
          holds: sigmoid[1].best > sigmoid[0].best && sigmoid[2].best > sigmoid[0].best),
        .init(
          "With sigmoids before is better than after",
          "\(percentage(sigmoid[1].best)) against \(percentage(sigmoid[2].best))",
          holds: sigmoid[1].best > sigmoid[2].best),
        .init(
          "With ReLU either place is better than none", words(relu),
          holds: relu[1].best > relu[0].best && relu[2].best > relu[0].best),
      ],
      note:
        "The networks of the two comparisons above, each with its best rate of those tried there. \(repeated(seeds))"
    )
  }

  // MARK: Adaptive rates

  func optimizersFinding(_ runs: TrainingRuns) throws -> Finding {
    struct Result {
      let method: DescentMethod
      let runs: TunedRuns
    }
    func results(_ normalization: Normalization) throws -> [Result] {
      try DescentMethod.allCases.map { method in
        let training = optimizerTraining(method, normalization)
        return Result(method: method, runs: try runs.tuned(training, among: Self.rates(method), seeds: seeds))
      }
    }
    let (plain, normalized) = (try results(.none), try results(.batch))
    func chart(_ name: String, _ title: String, _ results: [Result]) -> Chart {
      Chart(
        name, title: title, x: .steps, y: .accuracy,
        series: results.map { .accuracy($0.method.rawValue, .init($0.method.color), $0.runs.tables) })
    }
    func words(_ results: [Result]) -> String {
      results.map { "\($0.method.rawValue) \(percentage($0.runs.best))" }.joined(separator: ", ")
    }
    func range(_ results: [Result]) -> Double { results.map(\.runs.best).max()! - results.map(\.runs.best).min()! }
    let adaptive = plain.filter(\.method.isAdaptive).map(\.runs.best).max()!
    return Finding(
      "compare-optimizers", title: "Batch norm beside adaptive rates",
      question: "Adagrad, RMSProp and Adam give each weight a rate of its own: is that the same answer to the ravine?",
      pictures: [
        Picture(
          chart("optimizers-plain", "784-100-100-100-10, sigmoid, without normalization", plain),
          alternative: "Test accuracy by step of five methods without normalization; best: \(words(plain))."),
        Picture(
          chart("optimizers-batch", "784-100-100-100-10, sigmoid, with batch norm", normalized),
          alternative: "Test accuracy by step of five methods with batch norm; best: \(words(normalized))."),
      ],
      table: FindingTable(
        header: ["method", "without: rate", "best accuracy", "with batch norm: rate", "best accuracy"],
        rows: zip(plain, normalized).map { without, with in
          [without.method.rawValue]
            + [without, with].flatMap { ["\($0.runs.rate)", $0.runs.tables.accuracyText(\.bestAccuracy)] }
        }),
      published: "No figures were published for this comparison; the lecture sets both answers side by side.",
      checks: [
        .init(
          "Without normalization adaptive rates are better than plain SGD",
          "\(percentage(adaptive)) against \(percentage(plain[0].runs.best))", holds: adaptive > plain[0].runs.best),
        .init(
          "Batch norm helps plain SGD more than adaptive rates do",
          "\(percentage(normalized[0].runs.best)) against \(percentage(adaptive))",
          holds: normalized[0].runs.best > adaptive),
        .init(
          "With batch norm the method matters less",
          "between best and worst lie \(fixed(100 * range(normalized), 1)) points against \(fixed(100 * range(plain), 1))",
          holds: range(normalized) < range(plain)),
      ],
      note:
        "\(grouped(optimizerSteps)) steps of batches of \(Self.sigmoidBatch). Each method has its best rate of four, without and with batch norm. "
        + "\(repeated(seeds))"
    )
  }

  // MARK: Depth

  func depthFinding(_ runs: TrainingRuns) throws -> Finding {
    struct Result {
      let depth: Int
      let rate: Double
      let mark: Double
      let baseline: [ExperimentTable]
      let normalized: [(factor: Int, tables: [ExperimentTable])]
      let baselineSteps: Double
      /// The steps with batch norm by the better rate; nil where neither comes there.
      let soonest: Double?
      var ratio: Double { soonest.map { baselineSteps / $0 } ?? 0 }
      var best: Double { normalized.map { $0.tables.spread(\.bestAccuracy).median }.max()! }
    }
    let results = try depths.map { depth -> Result in
      let plain = convolutionTraining(.none, convolutions: depth, steps: depthSteps)
      let rate = try runs.tuned(plain, among: convolutionRates).rate
      let baseline = try runs.tables(plain, rate: rate, seeds: depthSeeds)
      let normalized = try [1, 5].map { factor in
        (
          factor,
          try runs.tables(
            convolutionTraining(.batch, convolutions: depth, steps: depthSteps), rate: Double(factor) * rate,
            seeds: depthSeeds)
        )
      }
      let mark = baseline.spread(\.bestAccuracy).median
      let steps = stepsToBest(baseline).median
      let soonest = normalized.compactMap { $0.1.steps(reaching: mark)?.median }.min()
      return Result(
        depth: depth, rate: rate, mark: mark, baseline: baseline, normalized: normalized, baselineSteps: steps,
        soonest: soonest)
    }
    func points(_ tables: (Result) -> [ExperimentTable]) -> [Chart.Point] {
      results.map { result in
        let spread = tables(result).spread { 100 * $0.bestAccuracy }
        return Chart.Point(Double(result.depth), spread)
      }
    }
    let chart = Chart(
      "depth-accuracy", title: "Best accuracy by depth", x: .init("convolutions"), y: .accuracy,
      series: [.init("baseline, without", Normalization.none.style, points(\.baseline))]
        + [0, 1].map { index in
          let method: RateMethod = index == 0 ? .batch : .batch5
          return .init(method.title, method.style, points { $0.normalized[index].tables })
        })
    let (first, last) = (results.first!, results.last!)
    func gain(_ result: Result) -> Double { result.best - result.mark }
    func grows(_ value: (Result) -> Double) -> Bool {
      zip(results, results.dropFirst()).allSatisfy { value($0) < value($1) }
    }
    return Finding(
      "compare-depth", title: "Deeper networks",
      question:
        "Every layer bends the surface of those below it: does normalization matter more, the deeper the network?",
      pictures: [
        Picture(
          chart,
          alternative:
            "Best test accuracy of networks of \(depths.map(String.init).joined(separator: ", ")) convolutions: "
            + results.map { "\($0.depth): \(percentage($0.mark)) without and \(percentage($0.best)) with batch norm" }
            .joined(separator: "; ") + ".")
      ],
      table: FindingTable(
        header: [
          "convolutions", "baseline’s rate", "baseline’s best", "its steps to that", "BN: steps to that", "BN ×5",
          "fewer",
          "BN: best", "BN ×5: best",
        ],
        rows: results.map { result in
          [
            "\(result.depth)", "\(result.rate)", result.baseline.accuracyText(\.bestAccuracy),
            steps(result.baselineSteps),
          ]
            + result.normalized.map {
              $0.tables.steps(reaching: result.mark)?.text(steps) ?? "not in \(grouped(depthSteps))"
            }
            + [ratio(result.baselineSteps, result.soonest)]
            + result.normalized.map { $0.tables.accuracyText(\.bestAccuracy) }
        }),
      published:
        "Ioffe & Szegedy 2015 on Inception, a network of 42 layers or so: 14.8 times fewer steps at 5 times the rate.",
      checks: [
        .init(
          "The deeper the network, the more accuracy batch norm gains",
          results.map { "\($0.depth): \(fixed(100 * gain($0), 1))" }.joined(separator: ", ") + " points",
          holds: grows(gain)),
        .init(
          "The deeper the network, the greater the part of its steps that batch norm saves",
          results.map { "\($0.depth): \(ratio($0.baselineSteps, $0.soonest))" }.joined(separator: ", "),
          holds: grows(\.ratio)),
        .init(
          "The deepest network without batch norm is behind the shallowest",
          "\(percentage(last.mark)) against \(percentage(first.mark))", holds: last.mark < first.mark),
      ],
      note:
        "The networks of the comparison of rates with more convolutions in each stage, \(grouped(depthSteps)) steps; the baseline’s rate is chosen "
        + "among \(convolutionRates.map { "\($0)" }.joined(separator: ", ")) at each depth anew, and batch norm gets that rate and five times as "
        + "much. \(repeated(depthSeeds))"
    )
  }
}
