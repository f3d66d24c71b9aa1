import ArgumentParser
import BenchmarkCases
import Foundation
import Steppe

@main
struct SteppeBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "steppe-bench",
    abstract: "Times Steppe's operations: median, spread, the rate of work, and its share of what the machine can do.",
    discussion: "Close other programs first: on a busy machine the spread grows, and the median means less.")

  @Option(help: "Run only the cases whose name matches this regular expression.")
  var filter: String?

  @Option(help: "The number of threads (default: the processors that this process may use).")
  var threads: Int?

  @Option(help: "The kernels' instruction set, one of: \(InstructionSet.available.joined(separator: ", ")).")
  var isa: String?

  @Flag(help: "Print one JSON object for each case and line, instead of the table.")
  var json = false

  @Flag(help: "Run each case a few times only, to see that it works.")
  var quick = false

  @Flag(help: "Print the cases' names and end.")
  var list = false

  @Flag(
    help: ArgumentHelp(
      "Measure on request: for each line 'CASE MILLISECONDS' on the standard input, print a line of JSON.",
      discussion: "The first line printed tells the machine. For programs that measure in turns with others."))
  var serve = false

  func validate() throws {
    if serve, filter != nil || json || quick || list {
      throw ValidationError("--serve takes only --threads and --isa.")
    }
    if let filter, (try? Regex(filter)) == nil { throw ValidationError("'\(filter)' is not a regular expression.") }
    if let threads, !(1...Parallel.maximumThreadCount).contains(threads) {
      throw ValidationError("--threads must be in 1 … \(Parallel.maximumThreadCount).")
    }
    if let isa, !InstructionSet.available.contains(isa) {
      throw ValidationError("This machine doesn't offer '\(isa)'; see --help.")
    }
  }

  func run() throws {
    if let threads { Parallel.threadCount = threads }
    try InstructionSet.select(isa)
    let pattern = try filter.map { try Regex($0) }
    let cases = allCases.filter { item in pattern.map { item.name.contains($0) } ?? true }
    guard !cases.isEmpty else { throw ValidationError("No case matches '\(filter ?? "")'; see --list.") }
    if list {
      for item in cases { print(item.name) }
      return
    }
    let machine = Machine(limitsFor: .milliseconds(quick ? 2 : 60))
    if serve { return Server(machine: machine).run() }
    let report: any Report =
      json
      ? JSONLines(machine: machine)
      : Table(
        machine: machine, nameWidth: cases.map(\.name.count).max()!,
        showsLatencies: cases.contains { $0.callers != nil })
    report.begin()
    for item in cases {
      let sampler = Sampler(item, on: machine)
      report.add(
        sampler.measure(for: quick ? .zero : .milliseconds(500), turns: quick ? 1 : 5, minimumSamples: quick ? 1 : 5))
    }
  }
}
