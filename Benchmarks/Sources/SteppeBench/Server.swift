import BenchmarkCases
import Foundation

/// Measures on request, so that another program can measure in turns with its own: a line `CASE MILLISECONDS` on the standard input
/// gives a line of JSON on the standard output. What was asked for last stays prepared.
struct Server {
  let machine: Machine

  private struct Greeting: Encodable {
    let machine: Machine
  }

  private struct Failure: Encodable {
    let error: String
  }

  func run() {
    printJSON(Greeting(machine: machine))
    var sampler: Sampler?
    while let line = readLine() {
      let words = line.split(whereSeparator: \.isWhitespace)
      guard words.count == 2, let milliseconds = Double(words[1]), (0...3_600_000).contains(milliseconds) else {
        printJSON(Failure(error: "expected 'CASE MILLISECONDS', got '\(line)'"))
        continue
      }
      if sampler?.item.name != String(words[0]) {
        guard let item = allCases.first(where: { $0.name == words[0] }) else {
          printJSON(Failure(error: "no case '\(words[0])'; --list names them"))
          continue
        }
        // The old case's memory goes back to the pool before the new one's is taken.
        sampler = nil
        sampler = Sampler(item, on: machine)
      }
      let measurement = sampler!.measure(for: .seconds(milliseconds / 1000), turns: 1, minimumSamples: 1)
      printJSON(MeasurementLine(measurement))
    }
  }
}
