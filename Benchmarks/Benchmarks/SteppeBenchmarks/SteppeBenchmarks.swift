import Benchmark
import BenchmarkCases

// The cases as `swift package benchmark` runs them.
let benchmarks: @Sendable () -> Void = {
  for item in allCases {
    Benchmark(
      item.name,
      configuration: .init(metrics: [.wallClock], warmupIterations: 3, maxDuration: .seconds(1), maxIterations: 1000),
      closure: { (_: Benchmark, body: () -> Void) in body() },
      setup: { item.prepare() })
  }
}
