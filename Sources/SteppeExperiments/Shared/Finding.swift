/// What an experiment found about one claim.
public struct Finding: Sendable {
  /// Such as `compare-depth`; part of a page's addresses.
  public let name: String
  public let title: String
  /// The question, in the words of a lecture.
  public let question: String
  public let pictures: [Picture]
  public let table: FindingTable
  /// What was published, to set beside it.
  public let published: String
  /// What was claimed, and whether the measurement agrees.
  public let checks: [Check]
  /// What else a reader should know: how it was measured, and what it does not show.
  public let note: String

  /// A claim, with the figures that speak for it or against it.
  public struct Check: Sendable, Equatable {
    public let claim: String
    public let figures: String
    public let holds: Bool

    public init(_ claim: String, _ figures: String, holds: Bool) {
      (self.claim, self.figures, self.holds) = (claim, figures, holds)
    }
  }

  public enum Verdict: String, Sendable {
    case reproduced
    case inPart = "reproduced in part"
    case not = "not reproduced"
  }

  /// By the checks alone.
  public var verdict: Verdict {
    let holding = checks.filter(\.holds).count
    return holding == checks.count ? .reproduced : holding > 0 ? .inPart : .not
  }

  public init(
    _ name: String, title: String, question: String, pictures: [Picture], table: FindingTable, published: String,
    checks: [Check], note: String
  ) {
    (self.name, self.title, self.question, self.pictures) = (name, title, question, pictures)
    (self.table, self.published, self.checks, self.note) = (table, published, checks, note)
  }
}

/// Figures in rows under a header, ready to be read; the first column names the row.
public struct FindingTable: Sendable, Equatable {
  public let header: [String]
  public let rows: [[String]]

  public init(header: [String], rows: [[String]]) {
    precondition(
      rows.allSatisfy { $0.count == header.count },
      "FindingTable: expected \(header.count) fields in each row, got \(rows)")
    (self.header, self.rows) = (header, rows)
  }
}

/// A picture of a finding.
public struct Picture: Sendable {
  /// The file's, without extension.
  public let name: String
  /// What it shows, for those who do not see it.
  public let alternative: String
  public let content: Content

  public enum Content: Sendable {
    case chart(Chart)
    /// The ways of descents on the linear model's surfaces of a seed, by the table of their paths.
    case descents(paths: ExperimentTable, seed: UInt64)
    /// The loss by step of those descents, which shall come down to `limit`.
    case descentLosses(paths: ExperimentTable, limit: Double)
    /// Networks' losses along two directions, each with its title; `axes` names the directions.
    case planes([(title: String, plane: ExperimentTable)], title: String, axes: (first: String, second: String))
  }

  public init(_ name: String, alternative: String, _ content: Content) {
    (self.name, self.alternative, self.content) = (name, alternative, content)
  }

  /// A chart, under its own name.
  public init(_ chart: Chart, alternative: String) { self.init(chart.name, alternative: alternative, .chart(chart)) }
}
