/// Curves over an axis, with the range of what several seeds gave as a band around each.
public struct Chart: Sendable, Equatable {
  /// The files' name, without extension.
  public let name: String
  public let title: String
  public let x: Axis
  public let y: Axis
  public let series: [Series]

  public struct Axis: Sendable, Equatable {
    /// With the unit.
    public let label: String
    /// The base of a logarithmic axis.
    public let base: Int?

    public init(_ label: String, base: Int? = nil) { (self.label, self.base) = (label, base) }
  }

  public struct Series: Sendable, Equatable {
    public let title: String
    public let style: Style
    public let points: [Point]
    /// Whether it ends because training diverged there.
    public let diverges: Bool

    public init(_ title: String, _ style: Style, _ points: [Point], diverges: Bool = false) {
      (self.title, self.style, self.points, self.diverges) = (title, style, points, diverges)
    }
  }

  public struct Point: Sendable, Equatable {
    public let x: Double
    /// The median, and the ends of the range.
    public let y: Spread

    public init(_ x: Double, _ y: Spread) { (self.x, self.y) = (x, y) }
  }

  /// How a method is drawn: the same in every picture.
  public struct Style: Sendable, Equatable {
    public let color: Palette
    public let dash: Dash

    public enum Dash: Int, Sendable {
      case none, short, mixed
    }

    public init(_ color: Palette, dash: Dash = .none) { (self.color, self.dash) = (color, dash) }
  }

  public init(_ name: String, title: String, x: Axis, y: Axis, series: [Series]) {
    (self.name, self.title, self.x, self.y, self.series) = (name, title, x, y, series)
  }

  /// What the picture shows, as the file beside it holds it.
  public var table: ExperimentTable {
    var table = ExperimentTable(columns: ["series", "x", "median", "least", "greatest"])
    for one in series {
      let name = String(one.title.map { ",\"\n\r".contains($0) ? ";" : $0 })
      for point in one.points { table.append([name, point.x, point.y.median, point.y.least, point.y.greatest]) }
    }
    return table
  }
}

/// Colours that people with any colour vision tell apart (Okabe & Ito 2008), without the yellow that paper swallows.
public enum Palette: String, Sendable {
  case ink = "#333333"
  case blue = "#0072B2"
  case sky = "#56B4E9"
  case green = "#009E73"
  case orange = "#E69F00"
  case vermilion = "#D55E00"
  case purple = "#CC79A7"
}

extension Chart.Series {
  /// The median and the range of `column` over the tables of several seeds, at each value of the column `x`; a run that diverged counts
  /// up to there.
  ///
  /// - Parameter scale: What values are multiplied by, 100 for a percentage.
  package init(
    _ title: String, _ style: Chart.Style, _ tables: [ExperimentTable], x: String, y: String, scale: Double = 1
  ) {
    var values: [Double: [Double]] = [:]
    var hasGap = false
    for table in tables {
      for (place, value) in zip(table.numbers(x), table.numbers(y)) {
        if value.isFinite { values[place, default: []].append(scale * value) } else { hasGap = true }
      }
    }
    let points = values.keys.sorted().map { Chart.Point($0, Spread(values[$0]!)!) }
    self.init(title, style, points, diverges: hasGap)
  }
}
