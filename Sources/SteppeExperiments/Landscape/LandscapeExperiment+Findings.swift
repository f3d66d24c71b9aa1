import Steppe

extension LandscapeExperiment {
  /// What is said of one of the two networks.
  struct Kind {
    let name: String
    /// As pictures call it.
    let network: String
    let title: String
    let question: String
    let published: String
    let note: String
  }

  private var probing: String {
    "At \(measurements + 1) places along training the loss and the gradient are taken at "
      + "\(LandscapeProbe<Float>.factors.map { significant($0, 2) }.joined(separator: ", ")) "
      + "times the step, on one batch"
  }

  var convolutionalKind: Kind {
    Kind(
      name: "convolutional", network: "\(convolutions) convolutions", title: "The landscape along training",
      question:
        "Is the surface more level where the network with batch norm walks: does the loss change less along a step, and does the "
        + "gradient keep its word?",
      published:
        "Santurkar et al. 2018, figure 4, VGG on CIFAR-10: all along training the loss varies less along the gradient, the gradient "
        + "changes less and the effective β-smoothness is lower with batch norm than without (by up to orders of magnitude, drawn, not tabulated).",
      note:
        "\(convolutions) convolutions like VGG’s, the first stage with \(width) channels, plain gradient steps at rate \(Self.rate) for all, "
        + "batches of \(batchSize). "
        + "\(probing). \(repeated(seeds))")
  }

  func linearKind(_ start: LinearStart) -> Kind {
    let weights =
      switch start {
      case .level: "weights of variance 1/\(Self.linearWidth), with which layers keep the variance"
      case .steep: "weights of variance 2/\(Self.linearWidth), with which each layer doubles the variance"
      }
    return Kind(
      name: start.rawValue, network: "\(Self.linearLayers) linear layers, \(start.rawValue) weights",
      title: start == .level
        ? "A deep linear network from level weights" : "A deep linear network from steep weights",
      question: start == .level
        ? "A network of \(Self.linearLayers) linear layers computes a linear map, and yet its surface is not a bowl: does batch norm level it as "
          + "well?"
        : "What if its first weights are 1.4 times as large, so that the signal doubles its variance at every layer?",
      published:
        "Santurkar et al. 2018, figures 2 and 9, a deep linear network of 25 layers on Gaussian data: with batch norm the loss and "
        + "the gradient change less along a step, although the covariate shift does not go down.",
      note:
        "\(Self.linearLayers) layers of \(Self.linearWidth) features in Float64 from \(weights); y = A·x for Gaussian x and A, \(linearExamples) "
        + "examples, "
        + "steps on all of them. Without and with batch norm each has the rate, of "
        + "\(Self.linearRates.map { significant($0, 2) }.joined(separator: ", ")), with the lowest last loss, "
        + "and the other norms have batch norm’s. At a rate η gradient descent is stable on curvatures up to 2/η, and "
        + "trainings tend to walk at that edge, whatever normalizes (Cohen et al. 2021). "
        + "\(probing). \(repeated(seeds))")
  }

  /// The mean of `value` over the records of each tenth of a training of `steps`; nil where training diverged before.
  func tenths(_ table: ExperimentTable, of steps: Int, _ value: ([String: Double]) -> Double) -> [Double?] {
    let numbers = Dictionary(uniqueKeysWithValues: table.columns.map { ($0, table.numbers($0)) })
    var sums = [(sum: Double, count: Double)](repeating: (0, 0), count: 10)
    for row in table.rows.indices {
      let found = value(numbers.mapValues { $0[row] })
      guard found.isFinite else { continue }
      let tenth = min(9, Int(10 * numbers["step"]![row] / Double(max(1, steps))))
      sums[tenth] = (sums[tenth].sum + found, sums[tenth].count + 1)
    }
    return sums.map { $0.count > 0 ? $0.sum / $0.count : nil }
  }

  private func range(_ row: [String: Double]) -> Double { row["loss_greatest"]! - row["loss_least"]! }

  /// The mean over all records and the median over seeds, or nothing where no record is finite.
  private func mean(_ result: Result, _ value: ([String: Double]) -> Double) -> Double {
    median(
      result.tables.map { table in
        let tenths = tenths(table, of: result.steps, value).compactMap { $0 }
        return tenths.isEmpty ? .infinity : tenths.reduce(0, +) / Double(tenths.count)
      })
  }

  /// In how many tenths of training `value` is smaller with batch norm than without, and how many there are; those of all seeds together. A
  /// tenth that the network without batch norm does not live to see counts for batch norm.
  private func smaller(_ results: [Result], _ value: ([String: Double]) -> Double) -> (Int, of: Int) {
    let (plain, batch) = (result(.none, results), result(.batch, results))
    let pairs = zip(plain.tables, batch.tables).flatMap {
      zip(tenths($0, of: plain.steps, value), tenths($1, of: batch.steps, value))
    }
    let counted = pairs.filter { $0.0 != nil || $0.1 != nil }
    return (counted.filter { ($0.1 ?? .infinity) < ($0.0 ?? .infinity) }.count, counted.count)
  }

  private func result(_ method: Normalization, _ results: [Result]) -> Result {
    results.first { $0.method == method }!
  }

  private func bands(_ results: [Result], _ least: String, _ greatest: String, _ middle: String?) -> [Chart.Series] {
    [Normalization.none, .batch].map { method in
      let table = result(method, results).tables[0]
      let (low, high) = (table.numbers(least), table.numbers(greatest))
      let middle = middle.map { table.numbers($0) } ?? zip(low, high).map { ($0 * $1).squareRoot() }
      let points = table.numbers("step").enumerated().compactMap { row, step in
        low[row].isFinite ? Chart.Point(step, Spread(low[row], middle[row], high[row])) : nil
      }
      return Chart.Series(method.title, method.style, points, diverges: table.hasDiverged)
    }
  }

  func landscapeFinding(_ results: [Result], _ kind: Kind) -> Finding {
    let hasAccuracy = kind.name == convolutionalKind.name
    let loss = Chart(
      "\(kind.name)-loss", title: "Loss along the gradient, ½ to 4 times the step: \(kind.network)", x: .steps,
      y: .init(hasAccuracy ? "cross-entropy (nats)" : "mean squared error", base: hasAccuracy ? nil : 10),
      series: bands(results, "loss_least", "loss_greatest", "loss"))
    let change = Chart(
      "\(kind.name)-gradient", title: "Change of the gradient along itself: \(kind.network)", x: .steps,
      y: .init("‖∇L(w) − ∇L(w − sη∇L)‖₂", base: 10),
      series: bands(results, "change_least", "change_greatest", nil))
    let smoothness = Chart(
      "\(kind.name)-smoothness", title: "Effective β-smoothness: \(kind.network)", x: .steps,
      y: .init("greatest change of the gradient by distance", base: 10),
      series: results.map { Chart.Series($0.method.title, $0.method.style, $0.tables, x: "step", y: "smoothness") })
    let measures: [(name: String, value: ([String: Double]) -> Double)] = [
      ("range of the loss", range), ("change of the gradient", { $0["change_greatest"]! }),
      ("effective β-smoothness", { $0["smoothness"]! }),
    ]
    let (without, with) = (result(.none, results), result(.batch, results))
    return Finding(
      "landscape-\(kind.name)", title: kind.title, question: kind.question,
      pictures: zip(
        [loss, change, smoothness],
        [
          "the band of the loss from ½ to 4 times the step", "the band of the gradient’s change over the same steps",
          "the effective β-smoothness",
        ]
      ).enumerated().map { index, picture in
        Picture(
          picture.0,
          alternative: "By training step, \(picture.1), with and without batch norm; on average "
            + "\(threeDigits(mean(without, measures[index].value))) without and \(threeDigits(mean(with, measures[index].value))) with it."
        )
      },
      table: FindingTable(
        header: ["network", "rate"] + measures.map(\.name) + [
          "cosine of the shift", hasAccuracy ? "last accuracy" : "last loss",
        ],
        rows: results.map { result in
          [result.method.title, significant(result.rate, 2)]
            + measures.map { threeDigits(mean(result, $0.value)) }
            + [
              fixed(mean(result) { $0["shift_cosine"]! }, 3),
              hasAccuracy
                ? result.tables.accuracyText(\.finalAccuracy)
                : Spread(result.tables.map { $0.numbers("loss").last { $0.isFinite } ?? .infinity })!.text(threeDigits),
            ]
        }),
      published: kind.published,
      checks: measures.map { measure in
        let (count, total) = smaller(results, measure.value)
        return .init(
          "The \(measure.name) is smaller with batch norm at every tenth of training",
          "in \(count) of \(total); on average \(threeDigits(mean(with, measure.value))) against \(threeDigits(mean(without, measure.value)))",
          holds: count == total)
      }, note: kind.note)
  }

  func shiftFinding(_ results: [Result]) -> Finding {
    func distance(_ method: Normalization) -> Double { mean(result(method, results)) { $0["shift_distance"]! } }
    func relative(_ method: Normalization) -> Double {
      mean(result(method, results)) { $0["shift_distance"]! / $0["gradient_norm"]! }
    }
    func cosine(_ method: Normalization) -> Double { mean(result(method, results)) { $0["shift_cosine"]! } }
    func accuracy(_ method: Normalization) -> Double { result(method, results).tables.spread(\.finalAccuracy).median }
    /// Over the last tenth of training.
    func training(_ method: Normalization) -> Spread? {
      let result = result(method, results)
      return Spread(
        result.tables.compactMap { table in
          tenths(table, of: result.steps) { $0["training_accuracy"]! }[9]
        })
    }
    func reestimated(_ method: Normalization) -> Spread? {
      Spread(result(method, results).tables.compactMap { $0.numbers("reestimated_accuracy").last { $0.isFinite } })
    }
    func text(_ accuracy: Spread?) -> String { accuracy?.text { percentage($0) } ?? "–" }
    func charts(_ column: String, _ title: String, _ axis: Chart.Axis) -> Chart {
      Chart(
        "convolutional-\(column.split(separator: "_").joined(separator: "-"))", title: title, x: .steps, y: axis,
        series: results.map { Chart.Series($0.method.title, $0.method.style, $0.tables, x: "step", y: column) })
    }
    let present = results.map(\.method)
    var checks = [
      Finding.Check(
        "Batch norm does not lower the covariate shift",
        "cosine \(fixed(cosine(.batch), 3)) against \(fixed(cosine(.none), 3)) without, distance \(threeDigits(distance(.batch))) against "
          + "\(threeDigits(distance(.none)))",
        holds: cosine(.batch) <= cosine(.none) || distance(.batch) >= distance(.none))
    ]
    if present.contains(.noisyBatch) {
      checks += [
        .init(
          "Noisy batch norm has more covariate shift than no normalization",
          "cosine \(fixed(cosine(.noisyBatch), 3)) against \(fixed(cosine(.none), 3)), distance \(threeDigits(distance(.noisyBatch))) against "
            + "\(threeDigits(distance(.none)))",
          holds: cosine(.noisyBatch) < cosine(.none) && distance(.noisyBatch) > distance(.none)),
        .init(
          "… and trains within 2 points of batch norm’s accuracy on the training batches of the last tenth",
          "\(text(training(.noisyBatch))) against \(text(training(.batch)))",
          holds: (training(.noisyBatch)?.median ?? 0) >= (training(.batch)?.median ?? 1) - 0.02),
        .init(
          "… and ends within 2 points of batch norm’s accuracy on test images, by running averages",
          "\(percentage(accuracy(.noisyBatch))) against \(percentage(accuracy(.batch)))",
          holds: accuracy(.noisyBatch) >= accuracy(.batch) - 0.02),
        .init(
          "… or by statistics without noise", "\(text(reestimated(.noisyBatch))) against \(text(reestimated(.batch)))",
          holds: (reestimated(.noisyBatch)?.median ?? 0) >= (reestimated(.batch)?.median ?? 1) - 0.02),
      ]
    }
    for method in [Normalization.l1, .lInfinity] where present.contains(method) {
      checks.append(
        .init(
          "The \(method.title) ends within 2 points of batch norm’s (ℓ₂) accuracy",
          "\(percentage(accuracy(method))) against \(percentage(accuracy(.batch)))",
          holds: accuracy(method) >= accuracy(.batch) - 0.02))
    }
    return Finding(
      "landscape-shift", title: "Internal covariate shift, and other norms",
      question:
        "Does batch norm help because it holds still what a layer receives? Then noise that shakes it should hurt.",
      pictures: [
        Picture(
          charts(
            "shift_cosine", "Covariate shift: cosine between a layer’s gradients", .init("cosine, mean over layers")),
          alternative:
            "The cosine between each layer’s gradient before and after the layers below stepped, by training step: on average "
            + results.map { "\($0.method.title) \(fixed(cosine($0.method), 2))" }.joined(separator: ", ") + "."),
        Picture(
          charts(
            "shift_distance", "Covariate shift: distance between a layer’s gradients",
            .init("‖G − G′‖₂, mean over layers", base: 10)),
          alternative: "The ℓ₂ distance between the same gradients, by training step: on average "
            + results.map { "\($0.method.title) \(threeDigits(distance($0.method)))" }.joined(separator: ", ") + "."),
        Picture(
          Chart(
            "convolutional-training-accuracy", title: "Accuracy on the training batches", x: .steps,
            y: .init("training accuracy (%)"),
            series: results.map {
              Chart.Series(
                $0.method.title, $0.method.style, $0.tables.map { $0.dropFirst() }, x: "step", y: "training_accuracy",
                scale: 100)
            }),
          alternative: "Accuracy on the training batches by training step; over the last tenth "
            + results.map { "\($0.method.title) \(text(training($0.method)))" }.joined(separator: ", ") + "."),
        Picture(
          Chart(
            "convolutional-accuracy", title: "Accuracy on test images, by running averages", x: .steps, y: .accuracy,
            series: results.map { .accuracy($0.method.title, $0.method.style, $0.tables) }),
          alternative: "Test accuracy by training step; at the end "
            + results.map { "\($0.method.title) \(percentage(accuracy($0.method)))" }.joined(separator: ", ") + "."),
      ],
      table: FindingTable(
        header: [
          "network", "cosine", "ℓ₂ distance", "distance by the gradient’s norm", "training accuracy",
          "last test accuracy", "by re-estimated statistics",
        ],
        rows: results.map { result in
          [
            result.method.title, fixed(cosine(result.method), 3), threeDigits(distance(result.method)),
            threeDigits(relative(result.method)), text(training(result.method)),
            result.tables.accuracyText(\.finalAccuracy), text(reestimated(result.method)),
          ]
        }),
      published:
        "Santurkar et al. 2018, figures 1, 2 and §3.3: batch norm does not lower the shift; with noise behind it the shift is greater "
        + "than without any normalization, and training is about as fast as with batch norm; ℓ₁, ℓ₂ and ℓ∞ norms do as well.",
      checks: checks,
      note:
        "For each layer G is its weights’ gradient and G′ the same after the layers below took their step, on the same batch, and with the next "
        + "step’s noise where there is noise (channel means within ±0.5, "
        + "scales 1 to 1.25, for each value ±0.1). Evaluation is without noise, the running averages are of noisy values; re-estimated statistics "
        + "are not. ℓ₂ is batch norm itself; all norms are of values less their mean. \(repeated(seeds))"
    )
  }
}
