import Benchmark
import BenchmarkCases

// The cases as `swift package benchmark` runs them: baselines, and a comparison that fails where the median grows by more than a tenth.
let benchmarks: @Sendable () -> Void = {
  for item in allCases {
    Benchmark(
      item.name,
      configuration: .init(
        metrics: [.wallClock], warmupIterations: 3, maxDuration: .milliseconds(500), maxIterations: 100_000,
        thresholds: [.wallClock: .init(relative: [.p50: 10])]),
      closure: { (_: Benchmark, body: () -> Void) in body() },
      setup: {
        switch item.prepare() {
        case .run(let body): body
        case .concurrent(let callers, let body): { _ = Callers(callers, for: .zero, minimum: 100, body) }
        }
      })
  }
}
