import Foundation
import Steppe

/// Where measurements go, one by one.
protocol Report {
  func begin()
  func add(_ measurement: Measurement)
}

/// What measurements depend on beside the code.
struct Machine: Encodable {
  let processor: String
  let instructionSet = InstructionSet.current
  let threads = Parallel.threadCount
  let blas = "OpenBLAS \(OpenBLAS.version) \(OpenBLAS.kernelName)"

  init() {
    let lines = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n") ?? []
    let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
    processor = model.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
  }
}

/// A table for people.
struct Table: Report {
  let nameWidth: Int

  func begin() {
    let machine = Machine()
    print(machine.processor)
    print("\(machine.instructionSet), threads: \(machine.threads), \(machine.blas)\n")
    print("\(pad("case"))      median   spread        rate")
  }

  func add(_ measurement: Measurement) {
    let (value, unit) = scaled(measurement.median)
    let line = String(
      format: "%9.3f %@ %7.1f%% %9.1f %@", value, unit, 100 * measurement.spread, measurement.rate, measurement.unit)
    print("\(pad(measurement.name))\(line)")
    fflush(nil)  // each line as it comes, in a pipe too
  }

  private func pad(_ name: String) -> String { name.padding(toLength: nameWidth, withPad: " ", startingAt: 0) }

  private func scaled(_ seconds: Double) -> (Double, String) {
    switch seconds {
    case ..<1e-3: (seconds * 1e6, "µs")
    case ..<1: (seconds * 1e3, "ms")
    default: (seconds, "s ")
    }
  }
}

/// One JSON object a line, for programs.
struct JSONLines: Report {
  private struct Line: Encodable {
    let measurement: MeasurementLine
    let machine: Machine

    enum CodingKeys: CodingKey { case machine }

    func encode(to encoder: any Encoder) throws {
      try measurement.encode(to: encoder)
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(machine, forKey: .machine)
    }
  }

  let machine = Machine()

  func begin() {}

  func add(_ measurement: Measurement) {
    printJSON(Line(measurement: MeasurementLine(measurement), machine: machine))
  }
}

/// A measurement as JSON has it.
struct MeasurementLine: Encodable {
  let name: String
  let medianSeconds: Double
  let lowerQuartileSeconds: Double
  let upperQuartileSeconds: Double
  let samples: Int
  let runsPerSample: Int
  let rate: Double
  let unit: String

  init(_ measurement: Measurement) {
    name = measurement.name
    medianSeconds = measurement.median
    lowerQuartileSeconds = measurement.quantile(0.25)
    upperQuartileSeconds = measurement.quantile(0.75)
    samples = measurement.samples.count
    runsPerSample = measurement.runs
    rate = measurement.rate
    unit = measurement.unit
  }
}

/// Prints `value` as one line of JSON, at once.
func printJSON(_ value: some Encodable) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  encoder.keyEncodingStrategy = .convertToSnakeCase
  print(String(decoding: try! encoder.encode(value), as: UTF8.self))
  fflush(nil)
}
