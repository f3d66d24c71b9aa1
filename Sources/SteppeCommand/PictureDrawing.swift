import Steppe
import SteppeExperiments

/// Draws the pictures of findings.
struct PictureDrawing {
  /// The folder that takes them.
  let folder: String

  /// Draws `picture` in SVG and PNG, from a table of its own name where it is a chart.
  func draw(_ picture: Picture) throws(Failure) {
    let surface = SurfacePictures(path: "\(folder)/\(picture.name)")
    switch picture.content {
    case .chart(let chart): try draw(chart)
    case .descents(let paths, let seed): try surface.drawDescents(paths, seed: seed)
    case .descentLosses(let paths, let limit): try surface.drawLosses(paths, limit: limit)
    case .planes(let planes, let title, let axes): try surface.drawPlanes(planes, title: title, axes: axes)
    }
  }

  /// Gnuplot's own are so wide that a curve of few points loses its shape.
  private static let dashes = ["solid", "(5,3)", "(9,2,2,2)"]

  private func draw(_ chart: Chart) throws(Failure) {
    let path = "\(folder)/\(chart.name)"
    do throws(FileError) { try chart.table.write(to: path + ".csv") } catch { throw Failure(error.description) }
    let shown = chart.series.enumerated().filter { !$1.points.isEmpty }
    let blocks = shown.map { index, series in
      let rows = series.points.map { "\($0.x) \($0.y.median) \($0.y.least) \($0.y.greatest)" }
      return "$series\(index) << END\n\(rows.joined(separator: "\n"))\nEND"
    }
    let bands = shown.filter { $1.points.contains { $0.y.least < $0.y.greatest } }.map { index, series in
      "$series\(index) using 1:3:4 with filledcurves fillstyle transparent solid 0.15 noborder "
        + "fillcolor rgb '\(series.style.color.rawValue)' notitle"
    }
    let curves = shown.map { index, series in
      let marks = series.points.count <= 12 ? "linespoints pointtype 7 pointsize 0.5" : "lines"
      let title = series.title + (series.diverges ? " (diverged)" : "")
      return "$series\(index) using 1:2 with \(marks) linewidth 2 dashtype \(Self.dashes[series.style.dash.rawValue]) "
        + "linecolor rgb '\(series.style.color.rawValue)' title \(Gnuplot.quoted(title))"
    }
    // Where training diverged a cross ends the curve.
    let ends = shown.filter(\.element.diverges).map { index, series in
      "$series\(index) every ::\(series.points.count - 1) using 1:2 with points pointtype 2 pointsize 1.2 linewidth 2 "
        + "linecolor rgb '\(series.style.color.rawValue)' notitle"
    }
    // A title for what has no point, so that it is named all the same.
    let names = chart.series.filter(\.points.isEmpty).map { series in
      "NaN with lines linewidth 2 linecolor rgb '\(series.style.color.rawValue)' title "
        + Gnuplot.quoted(series.title + " (diverged at once)")
    }
    let plots = bands + curves + ends + names
    func settings(_ axis: Chart.Axis, _ name: String) -> String {
      var lines = ["set \(name)label \(Gnuplot.quoted(axis.label))"]
      if let base = axis.base { lines.append("set logscale \(name) \(base)") }
      if axis.base == 10, name == "y" { lines.append("set format y '10^{%T}'") }
      return lines.joined(separator: "\n")
    }
    _ = try Gnuplot.draw(
      Gnuplot.Picture(
        path: path, width: 640, height: 460,
        script: """
          \(blocks.joined(separator: "\n"))
          set title \(Gnuplot.quoted(chart.title)) noenhanced
          set border 3 linecolor rgb '#555555'
          set tics nomirror out
          set grid ytics linecolor rgb '#dddddd' linetype 1
          set key outside above center horizontal maxcols 3 samplen 2.5 width 2 reverse Left noenhanced
          set autoscale xfix
          \(settings(chart.x, "x"))
          \(settings(chart.y, "y"))
          plot \(plots.joined(separator: ", "))
          """))
  }
}
