import Steppe

/// What an experiment costs: `quick` shows the effect in a minute or two, `full` has more seeds, finer pictures and longer training, and
/// `tiny` shows that it runs, nothing more.
public enum Preset: String, CaseIterable, Sendable {
  case tiny, quick, full
}

/// A computation that sets a claim about normalization beside a measurement.
public protocol Experiment: Sendable {
  /// As the command and a report's folders have it.
  static var name: String { get }

  init(_ preset: Preset)

  /// How often what depends on chance is repeated, from the first seed on.
  var seeds: Int { get set }

  /// What beside the preset, the seeds and the data the numbers depend on.
  var parameters: [(name: String, value: String)] { get }

  /// Runs what `work` does not hold yet, and says what all of it shows.
  func findings(from data: ExperimentData, seed: UInt64, _ work: ExperimentWork) throws -> [Finding]

  /// What ``findings(from:seed:_:)`` computes, in seconds or so of the project's machine: for the time that is left.
  func cost(_ data: ExperimentData) -> Double
}

extension Experiment {
  public var parameters: [(name: String, value: String)] { [] }
}

/// An experiment that measures several normalizations.
public protocol MethodExperiment: Experiment {
  /// All that it can measure.
  static var allMethods: [Normalization] { get }
  /// Those that it needs for its findings.
  static var alwaysMeasured: [Normalization] { get }

  /// What is measured, in the order of ``allMethods`` and with ``alwaysMeasured`` among it.
  var methods: [Normalization] { get set }
}

extension MethodExperiment {
  static func completed(_ methods: [Normalization]) -> [Normalization] {
    allMethods.filter { alwaysMeasured.contains($0) || methods.contains($0) }
  }

  public var parameters: [(name: String, value: String)] {
    [("methods", methods.map(\.rawValue).joined(separator: " "))]
  }
}

/// Data that an experiment can't be made with.
public struct ExperimentError: Error, Equatable, CustomStringConvertible {
  /// What is wrong, such as "training images".
  public let subject: String
  public let expected: String
  public let found: String

  public init(_ subject: String, expected: String, found: String) {
    (self.subject, self.expected, self.found) = (subject, expected, found)
  }

  public var description: String { "\(subject): expected \(expected), found \(found)" }
}

/// The parts of an experiment, each kept in its folder as soon as it is done.
public final class ExperimentWork {
  /// Told what is done now, the share of the whole that is done, and the seconds that the rest will take once that can be said. What it
  /// throws ends the work.
  public typealias Progress = (_ part: String, _ share: Double, _ secondsLeft: Double?) throws -> Void

  public let folder: ExperimentFolder
  private let progress: Progress
  /// The costs of all parts that were not there at the begin, and of those done since.
  private var total: Double
  private var done = 0.0
  private let start = ContinuousClock.now

  /// - Parameter cost: Of all parts together, in the unit in which each part's is given.
  public init(in folder: ExperimentFolder, cost: Double, progress: @escaping Progress = { _, _, _ in }) {
    self.folder = folder
    self.progress = progress
    total = cost
  }

  /// The tables `names` of one part of the work: read where that part is done, else made by `body`, in the same order, and written.
  ///
  /// - Parameters:
  ///   - title: Names the part to the person who waits.
  ///   - body: Gets a function to call with the share of the part that is done.
  public func tables(
    _ names: [String], title: String, cost: Double,
    body: (_ progress: @escaping (Double) throws -> Void) throws -> [ExperimentTable]
  ) throws -> [ExperimentTable] {
    if let tables = try folder.tables(names) {
      total -= cost
      return tables
    }
    let begin = ContinuousClock.now
    try report(title, cost, 0)
    let tables = try body { [self] in try report(title, cost, $0) }
    done += cost
    try folder.keep(Array(zip(names, tables)), seconds: (ContinuousClock.now - begin) / .seconds(1))
    return tables
  }

  /// One table, likewise.
  public func table(
    _ name: String, title: String, cost: Double,
    body: (_ progress: @escaping (Double) throws -> Void) throws -> ExperimentTable
  ) throws -> ExperimentTable {
    try tables([name], title: title, cost: cost) { [try body($0)] }[0]
  }

  private func report(_ title: String, _ cost: Double, _ share: Double) throws {
    let passed = (ContinuousClock.now - start) / .seconds(1)
    let now = done + cost * share
    let isKnown = passed > 2 && now > 0
    try progress(title, total > 0 ? min(1, now / total) : 0, isKnown ? passed / now * max(0, total - now) : nil)
  }
}
