import Steppe

/// The picture of a run: loss and accuracy after each epoch.
enum Curves {
  private struct Curve: Sendable {
    let title: String
    let color: String
    /// Where its loss and its accuracy stand in the table, from 1.
    let columns: (loss: Int, accuracy: Int)
    let isThere: @Sendable (EpochMetrics) -> Bool
  }

  private static let curves = [
    Curve(title: "training (over the epoch)", color: Gnuplot.Colors.training, columns: (2, 3)) { _ in true },
    Curve(title: "validation", color: Gnuplot.Colors.validation, columns: (4, 5)) { $0.validationLoss != nil },
    Curve(title: "test", color: Gnuplot.Colors.test, columns: (6, 7)) { $0.testLoss != nil },
  ]

  /// Writes the numbers to `path` with `.csv`.
  static func writeTable(_ epochs: [EpochMetrics], path: String) throws(FileError) -> String {
    let header = [
      "epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy",
      "learning_rate", "seconds", "samples_per_second",
    ]
    let rows = epochs.map { numbers($0).map { $0.map { "\($0)" } ?? "" } }
    try AtomicFile.write(to: path + ".csv") { file throws(FileError) in
      for row in [header] + rows.map({ $0 }) { try file.write(row.joined(separator: ",") + "\n") }
    }
    return path + ".csv"
  }

  /// Draws the picture to `path` with `.svg` and `.png`.
  static func draw(_ epochs: [EpochMetrics], title: String, path: String) throws(Failure) -> [String] {
    let shown = curves.filter { curve in epochs.contains(where: curve.isThere) }
    let rows = epochs.map { numbers($0).map { $0.map { "\($0)" } ?? "NaN" }.joined(separator: " ") }
    func plot(_ column: (Curve) -> Int, _ scale: String) -> String {
      "plot "
        + shown.map { curve in
          "$epochs using 1:(\(scale)$\(column(curve))) with linespoints linewidth 2 pointtype 7 pointsize 0.5 "
            + "linecolor rgb '\(curve.color)' title '\(curve.title)'"
        }.joined(separator: ", ")
    }
    let last = epochs.last?.epoch ?? 1
    let hasAccuracy = epochs.contains { $0.accuracy != nil }
    let accuracies = """
      set key bottom right
      set ylabel 'accuracy (%)'
      \(plot({ $0.columns.accuracy }, "100*"))
      """
    return try Gnuplot.draw(
      Gnuplot.Picture(
        path: path, width: 960, height: 420,
        script: """
          $epochs << END
          \(rows.joined(separator: "\n"))
          END
          set multiplot layout 1,\(hasAccuracy ? 2 : 1) title \(Gnuplot.quoted(title)) noenhanced
          set border 3 linecolor rgb '#555555'
          set tics nomirror out
          set grid ytics linecolor rgb '#dddddd' linetype 1
          set key top right
          set xrange [\(last > 1 ? "1:\(last)" : "0.5:1.5")]
          set xtics \(max(1, last / 10))
          set offsets 0, 0, graph 0.05, graph 0.05
          set xlabel 'epoch'
          set ylabel '\(hasAccuracy ? "mean cross-entropy (nats)" : "mean squared error over variance")'
          \(plot({ $0.columns.loss }, ""))
          \(hasAccuracy ? accuracies : "")
          unset multiplot
          """))
  }

  private static func numbers(_ epoch: EpochMetrics) -> [Double?] {
    [
      Double(epoch.epoch), epoch.loss, epoch.accuracy, epoch.validationLoss, epoch.validationAccuracy, epoch.testLoss,
      epoch.testAccuracy, epoch.learningRate, epoch.seconds, epoch.samplesPerSecond,
    ]
  }
}
