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
  let limits: Limits
  let loops = LimitLoops()

  enum CodingKeys: CodingKey { case processor, instructionSet, threads, blas, limits }

  /// Measures each limit for so long.
  init(limitsFor duration: Duration) {
    limits = Limits(loops, duration: duration)
    let lines = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n") ?? []
    let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
    processor = model.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown processor"
  }
}

/// A table for people.
struct Table: Report {
  let machine: Machine
  let nameWidth: Int
  /// Whether any case has latencies.
  let showsLatencies: Bool

  func begin() {
    print(machine.processor)
    print("\(machine.instructionSet), threads: \(machine.threads), \(machine.blas)\n")
    let limits = machine.limits
    let peak = String(format: "%.0f GFLOP/s in float, %.0f in double", limits.floatRate, limits.doubleRate)
    print("Limits: \(peak); GB/s from and to")
    func row(_ title: String, _ values: [String]) {
      print("  \(title)\(values.map { String(repeating: " ", count: max(0, 8 - $0.count)) + $0 }.joined())")
    }
    row("    ", limits.levels.map(\.name))
    row("copy", limits.levels.map { String(format: "%.0f", $0.copyRate) })
    row("read", limits.levels.map { String(format: "%.0f", $0.readRate) })
    print(
      "\n\(pad("case"))      median   spread        rate           share\(showsLatencies ? "        p50         p99" : "")"
    )
  }

  func add(_ measurement: Measurement) {
    var line = String(
      format: "%@ %7.1f%% %9.1f %@ %7.1f%%", time(measurement.median), 100 * measurement.spread, measurement.rate,
      measurement.work.unit.padding(toLength: 7, withPad: " ", startingAt: 0),
      100 * measurement.shareOfLimit)
    if let latencies = measurement.latencies {
      line += time(latencies.quantile(0.5)) + time(latencies.quantile(0.99))
    }
    print("\(pad(measurement.name))\(line)")
    fflush(nil)  // each line as it comes, in a pipe too
  }

  private func pad(_ name: String) -> String { name.padding(toLength: nameWidth, withPad: " ", startingAt: 0) }

  private func time(_ seconds: Double) -> String {
    let (value, unit) =
      switch seconds {
      case ..<1e-3: (seconds * 1e6, "µs")
      case ..<1: (seconds * 1e3, "ms")
      default: (seconds, "s ")
      }
    return String(format: "%9.3f %@", value, unit)
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

  let machine: Machine

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
  let shareOfLimit: Double
  // Where several callers run at once.
  let latencyP50Seconds: Double?
  let latencyP99Seconds: Double?

  init(_ measurement: Measurement) {
    name = measurement.name
    medianSeconds = measurement.median
    lowerQuartileSeconds = measurement.samples.quantile(0.25)
    upperQuartileSeconds = measurement.samples.quantile(0.75)
    samples = measurement.samples.values.count
    runsPerSample = measurement.runs
    rate = measurement.rate
    unit = measurement.work.unit
    shareOfLimit = measurement.shareOfLimit
    latencyP50Seconds = measurement.latencies?.quantile(0.5)
    latencyP99Seconds = measurement.latencies?.quantile(0.99)
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
