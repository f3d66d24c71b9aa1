import Glibc
import Steppe
import SteppeExperiments

/// A picture of surfaces and of ways down them.
struct SurfacePictures {
  /// Its path without extension.
  let path: String

  /// Both surfaces by contours, and the best way of each method down them.
  func drawDescents(_ paths: ExperimentTable, seed: UInt64) throws(Failure) {
    var (blocks, panels): ([String], [String]) = ([], [])
    for (name, surface, start) in SurfaceExperiment.surfaces(seed: seed) {
      let (hessian, end, condition): (Tensor<Double>, [Double], Double)
      do throws(LinearAlgebraError) {
        (hessian, end, condition) = (surface.hessian, try surface.minimum(), try surface.conditionNumber())
      } catch {
        throw Failure("\(name) surface: \(error)")
      }
      let own = paths.filtered("surface", name)
      let window = window(own.numbers("w1") + [end[0]], own.numbers("w2") + [end[1]])
      // Each contour is a third of the one before it.
      let contours = (0..<12).map { contour(surface.loss(start) * pow(3, -Double($0)), hessian, around: end) }
      blocks.append("$\(name) << END\n\(contours.joined(separator: "\n\n"))\nEND")
      for method in DescentMethod.allCases {
        blocks.append(data(own.filtered("method", method.rawValue), ["w1", "w2"], as: "\(name)_\(method.id)"))
      }
      // Marks on the first steps alone, since thousands would hide the way.
      let ways = DescentMethod.allCases.flatMap { method in
        let steps = own.filtered("method", method.rawValue).fields("step").last!
        let (block, color) = ("$\(name)_\(method.id)", "linecolor rgb '\(method.color.rawValue)'")
        return [
          "\(block) using 1:2 with lines linewidth 1.5 \(color) title '\(method.rawValue), \(grouped(Int(steps)!)) steps'",
          "\(block) using 1:2 every ::::50 with points pointtype 7 pointsize 0.35 \(color) notitle",
        ]
      }
      panels.append(
        """
        set title \(Gnuplot.quoted("\(name) features, κ = \(threeDigits(condition))")) noenhanced
        set xrange [\(window.x.lowerBound):\(window.x.upperBound)]
        set yrange [\(window.y.lowerBound):\(window.y.upperBound)]
        plot $\(name) using 1:2 with lines linecolor rgb '#bbbbbb' notitle, \(ways.joined(separator: ", ")), \
        '-' using 1:2 with points pointtype 2 pointsize 1.2 linewidth 2 linecolor rgb '#222222' title 'least loss'
        \(end[0]) \(end[1])
        e
        """)
    }
    _ = try Gnuplot.draw(
      Gnuplot.Picture(
        path: path, width: 1100, height: 640,
        script: """
          \(blocks.joined(separator: "\n"))
          set multiplot layout 1,2 title 'The error surface of y = w₁x₁ + w₂x₂, and the ways down it' noenhanced
          set size ratio -1
          set clip two
          set border 3 linecolor rgb '#555555'
          set tics nomirror out
          set key below maxcols 2 samplen 2
          set xlabel 'w₁ (small feature)' offset 0,0.5
          set ylabel 'w₂ (large feature)'
          \(panels.joined(separator: "\n"))
          unset multiplot
          """))
  }

  /// The places where ½·dᵀHd, for distances d from `center`, is `loss`: with H = LLᵀ an ellipse d = √(2·loss)·L⁻ᵀu for u on the unit circle.
  private func contour(_ loss: Double, _ hessian: Tensor<Double>, around center: [Double]) -> String {
    let first = hessian[0, 0].squareRoot()
    let below = hessian[0, 1] / first
    let second = (hessian[1, 1] - below * below).squareRoot()
    return (0...180).map { index in
      let (angle, size) = (2 * Double.pi * Double(index) / 180, (2 * loss).squareRoot())
      let y = size * sin(angle) / second
      let x = (size * cos(angle) - below * y) / first
      return "\(center[0] + x) \(center[1] + y)"
    }.joined(separator: "\n")
  }

  /// The loss by step, of each method on both surfaces.
  func drawLosses(_ paths: ExperimentTable, limit: Double) throws(Failure) {
    var (blocks, curves): ([String], [String]) = ([], [])
    for (name, dash) in [("raw", "1"), ("standardized", "(5,3)")] {
      for method in DescentMethod.allCases {
        let own = paths.filtered("surface", name).filtered("method", method.rawValue)
        blocks.append(data(own, ["step", "loss"], as: "\(name)_\(method.id)"))
        curves.append(
          "$\(name)_\(method.id) using ($1+1):2 with lines linewidth 2 dashtype \(dash) "
            + "linecolor rgb '\(method.color.rawValue)' title '\(method.rawValue), \(name)'")
      }
    }
    _ = try Gnuplot.draw(
      Gnuplot.Picture(
        path: path, width: 960, height: 520,
        script: """
          \(blocks.joined(separator: "\n"))
          set title 'Loss by step, at each method’s best rate: raw features and standardized' noenhanced
          set border 3 linecolor rgb '#555555'
          set tics nomirror out
          set grid ytics linecolor rgb '#dddddd' linetype 1
          set key outside right samplen 3
          set logscale xy
          set format x '10^{%T}'
          set format y '10^{%T}'
          set yrange [\(limit / 3):*]
          set xlabel 'step + 1'
          set ylabel 'loss, half the mean squared error'
          plot \(limit) with lines linecolor rgb '#888888' dashtype 3 title 'asked for', \(curves.joined(separator: ", "))
          """))
  }

  /// Networks' planes as maps and in relief, on one scale.
  func drawPlanes(
    _ planes: [(title: String, plane: ExperimentTable)], title: String, axes: (first: String, second: String)
  ) throws(Failure) {
    let finite = planes.flatMap { $0.plane.numbers("loss") }.filter { $0.isFinite && $0 > 0 }
    let (least, greatest) = (log10(finite.min() ?? 1), log10(finite.max() ?? 1))
    let reach = SurfaceExperiment.reach
    let names = planes.indices.map { "plane\($0)" }
    let titles = planes.map(\.title)
    let blocks = zip(names, planes).map { name, plane in grid(plane.plane, as: name) }
    let maps = zip(names, titles).map { name, title in
      """
      set title '\(title)' noenhanced
      set view map
      set contour base
      set cntrlabel onecolor
      set cntrparam levels incremental \(fixed(least.rounded(.down), 2)),0.25,\(fixed(greatest, 2))
      splot $\(name) using 1:2:(log10($3)) with pm3d notitle, $\(name) using 1:2:(log10($3)) with lines nosurface \
      linecolor rgb '#444444' notitle
      unset contour
      """
    }
    let reliefs = zip(names, titles).map { name, title in
      """
      set title '\(title)' noenhanced
      set view 55,35
      set zrange [\(least):\(greatest)]
      splot $\(name) using 1:2:(log10($3)) with pm3d notitle
      """
    }
    _ = try Gnuplot.draw(
      Gnuplot.Picture(
        path: path, width: 1000, height: 900,
        script: """
          \(blocks.joined(separator: "\n"))
          set multiplot layout 2,\(planes.count) title \(Gnuplot.quoted(title)) noenhanced
          set border 31 linecolor rgb '#555555'
          set tics out
          set palette defined (0 '#00304d', 1 '#0072b2', 2 '#56b4e9', 3 '#f0e442', 4 '#e69f00', 5 '#d55e00')
          set cbrange [\(least):\(greatest)]
          set cblabel 'log_{10} of the cross-entropy (nats)'
          set xrange [-\(reach):\(reach)]
          set yrange [-\(reach):\(reach)]
          set size ratio -1
          set xlabel \(Gnuplot.quoted(axes.first))
          set ylabel \(Gnuplot.quoted(axes.second))
          \(maps.joined(separator: "\n"))
          set size noratio
          unset cblabel
          unset colorbox
          set ztics 0.5
          set zlabel 'log_{10} loss' rotate parallel
          set xlabel 'first'
          set ylabel 'second'
          set border 4095
          \(reliefs.joined(separator: "\n"))
          unset multiplot
          """))
  }

  // MARK: gnuplot's data

  private func data(_ table: ExperimentTable, _ columns: [String], as name: String) -> String {
    let fields = columns.map { table.fields($0) }
    let lines = fields[0].indices.map { row in fields.map { $0[row] }.joined(separator: " ") }
    return "$\(name) << END\n\(lines.joined(separator: "\n"))\nEND"
  }

  /// A plane's rows, set apart by empty lines.
  private func grid(_ plane: ExperimentTable, as name: String) -> String {
    var (text, last) = ("$\(name) << END\n", "")
    for row in plane.rows {
      if row[1] != last, !last.isEmpty { text += "\n" }
      last = row[1]
      text += row.joined(separator: " ") + "\n"
    }
    return text + "END"
  }

  /// A square that holds all points and some room around them.
  private func window(_ x: [Double], _ y: [Double]) -> (x: ClosedRange<Double>, y: ClosedRange<Double>) {
    func bounds(_ values: [Double]) -> (middle: Double, half: Double) {
      let finite = values.filter(\.isFinite)
      let (low, high) = (finite.min()!, finite.max()!)
      return ((low + high) / 2, (high - low) / 2)
    }
    let (a, b) = (bounds(x), bounds(y))
    let half = 1.15 * max(a.half, b.half)
    return (a.middle - half...a.middle + half, b.middle - half...b.middle + half)
  }
}
