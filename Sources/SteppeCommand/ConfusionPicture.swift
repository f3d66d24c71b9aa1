import Steppe
import SteppeExperiments

/// The picture of a confusion matrix: a field for each label and prediction, darker where more of the label's images fall.
enum ConfusionPicture {
  /// Beyond this many classes a field has no room for a number.
  private static let mostNumberedClasses = 24

  /// Draws the picture to `path` with `.svg` and `.png`.
  static func draw(_ confusion: ConfusionMatrix, names: [String], path: String) throws(Failure) -> [String] {
    let classes = confusion.classes
    let shares = confusion.counts.map { row in
      let total = Double(max(row.reduce(0, +), 1))
      return row.map { 100 * Double($0) / total }
    }
    let isNumbered = classes <= mostNumberedClasses
    let side = isNumbered ? 64 * max(classes, 6) : 900
    let longest = names.map(\.count).max() ?? 0
    // Place, number and whether it stands on a dark field.
    let fields = shares.enumerated().flatMap { label, row in
      row.enumerated().map { prediction, share in
        "\(prediction) \(label) \(share) \(confusion.counts[label][prediction]) \(share > 55 ? 1 : 0)"
      }
    }
    func numbers(_ isDark: Int, _ color: String, _ text: String, _ offset: String, _ size: Int) -> String {
      "$fields using 1:2:($5 == \(isDark) && $4 > 0 ? \(text) : '') with labels font ',\(size)' offset 0,\(offset) "
        + "textcolor rgb '\(color)' notitle"
    }
    let labels = [(0, "#222222"), (1, "#ffffff")].flatMap { isDark, color in
      [
        numbers(isDark, color, "sprintf('%d', $4)", "0.4", 11),
        numbers(isDark, color, "sprintf('%.1f %%', $3)", "-0.6", 8),
      ]
    }
    func tics(_ axis: String) -> String {
      let places = names.enumerated().map { "\(Gnuplot.quoted($1)) \($0)" }
      return isNumbered ? "set \(axis)tics (\(places.joined(separator: ", "))) noenhanced" : "set \(axis)tics"
    }
    return try Gnuplot.draw(
      Gnuplot.Picture(
        path: path, width: side + 170 + 8 * min(longest, 24), height: side + 110 + 5 * min(longest, 24),
        script: """
          $fields << END
          \(fields.joined(separator: "\n"))
          END
          unset key
          set title \(Gnuplot.quoted("\(grouped(confusion.total)) images, accuracy \(percentage(confusion.accuracy, digits: 2))")) noenhanced
          set palette defined (0 '#ffffff', 1 '#f1f6fa', 20 '#b4d3e8', 60 '\(Gnuplot.Colors.training)', 100 '#00304d')
          set cbrange [0:100]
          set cblabel 'share of the class (%)'
          set xrange [-0.5:\(classes - 1).5]
          set yrange [\(classes - 1).5:-0.5]
          set size ratio -1
          set border linecolor rgb '#555555'
          set tics nomirror out scale 0
          \(tics("x"))
          \(tics("y"))
          set xtics rotate by -40
          set xlabel 'predicted class'
          set ylabel 'true class'
          plot $fields using 1:2:3 with image\(isNumbered ? ", " + labels.joined(separator: ", ") : "")
          """))
  }
}
