import Steppe

extension BatchSizeExperiment {
  /// What `column` says of a method at a batch size, over seeds; nil where all diverged.
  private func spread(_ rows: ExperimentTable, _ method: Normalization, _ batchSize: Int, _ column: String) -> Spread? {
    let own = rows.filtered("method", method.rawValue).filtered("batch", batchSize)
    return Spread(own.numbers(column).filter(\.isFinite))
  }

  private func cell(_ rows: ExperimentTable, _ method: Normalization, _ batchSize: Int, _ column: String) -> String {
    let numbers = rows.filtered("method", method.rawValue).filtered("batch", batchSize).numbers(column)
    let diverged = numbers.filter { !$0.isFinite }.count
    guard let spread = spread(rows, method, batchSize, column) else { return "diverged" }
    return percentage(spread.median) + (diverged > 0 ? ", \(diverged) of \(numbers.count) diverged" : "")
  }

  private func points(_ rows: ExperimentTable, _ method: Normalization, _ column: String) -> [Chart.Point] {
    batchSizes.compactMap { size in
      spread(rows, method, size, column).map {
        Chart.Point(Double(size), Spread(100 * $0.least, 100 * $0.median, 100 * $0.greatest))
      }
    }
  }

  private func hasDiverged(_ rows: ExperimentTable, _ method: Normalization) -> Bool {
    rows.filtered("method", method.rawValue).numbers("running").contains { !$0.isFinite }
  }

  private static let sizes = Chart.Axis("images in a batch", base: 2)

  func sizesFinding(_ rows: ExperimentTable) -> Finding {
    let (small, large) = (batchSizes.min()!, batchSizes.max()!)
    func accuracy(_ method: Normalization, _ size: Int) -> Double { spread(rows, method, size, "running")?.median ?? 0 }
    /// What is lost from the best batch size to the smallest.
    func fall(_ method: Normalization) -> Double {
      batchSizes.map { accuracy(method, $0) }.max()! - accuracy(method, small)
    }
    let chart = Chart(
      "batch-size", title: "Test accuracy by batch size", x: Self.sizes, y: .init("test accuracy (%)"),
      series: methods.map {
        .init($0.title, $0.style, points(rows, $0, "running"), diverges: hasDiverged(rows, $0))
      })
    var checks: [Finding.Check] = []
    for method in [Normalization.group, .layer, .batchRenorm] where methods.contains(method) {
      checks.append(
        .init(
          "At batches of \(small) \(method.title) is better than batch norm",
          "\(percentage(accuracy(method, small))) against \(percentage(accuracy(.batch, small)))",
          holds: accuracy(method, small) > accuracy(.batch, small)))
    }
    if methods.contains(.group) {
      checks.append(
        .init(
          "Group norm minds the batch’s size less than batch norm does",
          "it loses \(fixed(100 * fall(.group), 1)) points from its best to batches of \(small), batch norm \(fixed(100 * fall(.batch), 1))",
          holds: fall(.group) < fall(.batch)))
    }
    let best = batchSizes.max { accuracy(.batch, $0) < accuracy(.batch, $1) }!
    checks.append(
      .init(
        "Batch norm is best with a batch of more than \(small)",
        "\(percentage(accuracy(.batch, best))) at \(best), \(percentage(accuracy(.batch, small))) at \(small)",
        holds: accuracy(.batch, best) > accuracy(.batch, small)))
    return Finding(
      "batchsize-accuracy", title: "Accuracy by the batch’s size",
      question: "Batch norm estimates mean and deviation from the batch. What if the batch is small?",
      pictures: [
        Picture(
          chart,
          alternative: "Test accuracy by batch size: at \(small) "
            + methods.map { "\($0.title) \(percentage(accuracy($0, small)))" }.joined(separator: ", ")
            + "; at \(large) "
            + methods.map { "\($0.title) \(percentage(accuracy($0, large)))" }.joined(separator: ", ") + ".")
      ],
      table: FindingTable(
        header: ["batch"] + methods.map(\.title),
        rows: batchSizes.map { size in ["\(size)"] + methods.map { cell(rows, $0, size, "running") } }),
      published:
        "Wu & He 2018, ResNet-50 on ImageNet: at batches of 2 group norm errs in 24.1 %, batch norm in 34.7 %; at 32 both in about "
        + "24 %, and group norm’s curve is flat. Ioffe 2017: batch renorm with batches of 4 comes near large batches.",
      checks: checks,
      note:
        "\(Self.convolutions) convolutions, the first stage with \(width) channels; every training sees \(grouped(seen)) images with momentum 0.9 "
        + "at a rate of \(Self.rate) for a batch of "
        + "256, and in proportion for others. Groups have \(Normalization.channelsPerGroup) channels. Batch renorm’s limits rise in the paper’s "
        + "proportions. \(repeated(seeds))"
    )
  }

  func evaluationFinding(_ rows: ExperimentTable) -> Finding {
    let columns = [
      ("running", "running averages", Chart.Style(.blue)),
      ("true", "statistics of the training images", .init(.green, dash: .short)),
      ("own", "the test batch’s own", .init(.vermilion)),
    ]
    let small = batchSizes.min()!
    func accuracy(_ column: String, _ size: Int) -> Double { spread(rows, .batch, size, column)?.median ?? 0 }
    let gaps = batchSizes.map { accuracy("running", $0) - accuracy("own", $0) }
    let widest = batchSizes[gaps.firstIndex(of: gaps.max()!)!]
    let large = batchSizes.filter { $0 >= 64 }
    let difference = (large.isEmpty ? [batchSizes.max()!] : large).map {
      abs(accuracy("own", $0) - accuracy("true", $0))
    }.max()!
    return Finding(
      "batchsize-evaluation", title: "Which statistics at test time",
      question: "In use, a single image may come. By what mean and deviation shall it be normalized?",
      pictures: [
        Picture(
          Chart(
            "evaluation", title: "Batch norm evaluated by three statistics", x: Self.sizes,
            y: .init("test accuracy (%)"),
            series: columns.map {
              .init($0.1, $0.2, points(rows, .batch, $0.0), diverges: hasDiverged(rows, .batch))
            }),
          alternative:
            "Test accuracy of networks with batch norm by batch size, evaluated by running averages, by re-estimated statistics "
            + "and by the test batch’s own; at batches of \(small): "
            + columns.map { "\($0.1) \(percentage(accuracy($0.0, small)))" }.joined(separator: ", ") + ".")
      ],
      table: FindingTable(
        header: ["batch"] + columns.map(\.1),
        rows: batchSizes.map { size in ["\(size)"] + columns.map { cell(rows, .batch, size, $0.0) } }),
      published:
        "Ioffe & Szegedy 2015, algorithm 2, use the training set’s statistics at inference, so that an output depends on its input "
        + "alone; Ioffe 2017 sees small batches suffer from the difference between the two. No figures for this comparison.",
      checks: [
        .init(
          "At batches of \(small) running averages are better than the test batch’s own statistics",
          "\(percentage(accuracy("running", small))) against \(percentage(accuracy("own", small)))",
          holds: accuracy("running", small) > accuracy("own", small)),
        .init(
          "With large batches the batch’s own statistics come within 2 points of the training set’s",
          "they differ by at most \(fixed(100 * difference, 1)) points from 64 images on", holds: difference < 0.02),
      ],
      note:
        "The same trainings as above. The widest gap between running averages and the batch’s own is \(fixed(100 * gaps.max()!, 1)) points, at "
        + "batches of \(widest). "
        + "Statistics of the training images are re-estimated over \(grouped(trueImages)) of them. \(repeated(seeds))")
  }

  func averagesFinding(_ rows: ExperimentTable) -> Finding {
    let styles: [Chart.Style] = [.init(.blue, dash: .short), .init(.blue)]
    func spread(_ momentum: Double?, _ batch: Int, _ column: String) -> Spread? {
      let own = rows.filtered("momentum", momentum.map { "\($0)" } ?? "cumulative").filtered("batch", batch)
      return Spread(own.numbers(column).filter(\.isFinite))
    }
    func value(_ momentum: Double?, _ batch: Int, _ column: String) -> Double {
      spread(momentum, batch, column)?.median ?? .infinity
    }
    func chart(_ name: String, _ title: String, _ axis: String, _ column: String) -> Chart {
      Chart(
        name, title: title, x: .init("momentum: the weight of the new batch", base: 10),
        y: .init(axis, base: 10),
        series: zip(Self.momentumBatches, styles).map { batch, style in
          .init(
            "batches of \(batch)", style,
            momenta.compactMap { $0 }.sorted().compactMap { momentum in
              spread(momentum, batch, column).map { Chart.Point(momentum, $0) }
            })
        })
    }
    let fixedMomenta = momenta.compactMap { $0 }.sorted()
    func best(_ batch: Int) -> Double {
      fixedMomenta.min { value($0, batch, "mean_distance") < value($1, batch, "mean_distance") }!
    }
    let (small, large) = (Self.momentumBatches.min()!, Self.momentumBatches.max()!)
    func text(_ momentum: Double?) -> String { momentum.map { "\($0)" } ?? "cumulative" }
    return Finding(
      "batchsize-momentum", title: "How running averages follow",
      question:
        "The running average forgets at a rate of its own. How far is it from the truth, and which momentum is right?",
      pictures: [
        Picture(
          chart(
            "momentum-mean", "Running means against the true ones", "distance in deviations (root mean square)",
            "mean_distance"),
          alternative:
            "The distance of the running means from the training set’s, in deviations, by momentum: least at "
            + Self.momentumBatches.map { "\(best($0)) for batches of \($0)" }.joined(separator: " and ") + "."),
        Picture(
          chart(
            "momentum-deviation", "Running deviations against the true ones",
            "distance of logarithms (root mean square)",
            "deviation_distance"),
          alternative: "The distance of the running deviations’ logarithms from the training set’s, by momentum."),
      ],
      table: FindingTable(
        header: ["momentum"]
          + Self.momentumBatches.flatMap {
            ["batch \($0): means off by", "deviations off by", "accuracy, running", "accuracy, true"]
          },
        rows: momenta.map { momentum in
          [text(momentum)]
            + Self.momentumBatches.flatMap { batch in
              ["mean_distance", "deviation_distance"].map {
                spread(momentum, batch, $0).map { fixed($0.median, 3) } ?? "diverged"
              }
                + ["running", "true"].map { spread(momentum, batch, $0).map { percentage($0.median) } ?? "diverged" }
            }
        }),
      published:
        "No figures were published. Ioffe 2017 lowers the momentum to 0.01 since batch renorm trains by the averages; PyTorch’s "
        + "default is 0.1.",
      checks: [
        .init(
          "Small batches want a smaller momentum than large ones",
          "\(best(small)) at batches of \(small), \(best(large)) at \(large)",
          holds: best(small) < best(large)),
        .init(
          "Neither the greatest nor the least momentum follows best",
          "best \(best(small)) and \(best(large)), of \(fixedMomenta.map { "\($0)" }.joined(separator: ", "))",
          holds: ![fixedMomenta.first!, fixedMomenta.last!].contains { $0 == best(small) || $0 == best(large) }),
      ],
      note:
        "Batch norm in the same network, \(grouped(momentumSteps)) steps; the true statistics are those of \(grouped(trueImages)) training images "
        + "under the last weights. "
        + "The lecture’s p is 1 − momentum. \(repeated(seeds))")
  }
}
