// swift-tools-version: 6.2
import PackageDescription

// One list of cases (BenchmarkCases) with two faces: `swift run -c release steppe-bench` prints a table or JSON, and
// `swift package benchmark` keeps baselines and compares against them. CLimits runs into the machine's limits, which the table holds the
// rates against.
let package = Package(
  name: "steppe-benchmarks",
  products: [.executable(name: "steppe-bench", targets: ["SteppeBench"])],
  dependencies: [
    .package(name: "steppe", path: ".."),
    .package(url: "https://github.com/apple/swift-argument-parser", "1.5.0"..<"2.0.0"),
    // Without its traits: they count allocations, and need libraries that measuring time doesn't.
    .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.0", traits: []),
  ],
  targets: [
    .target(name: "BenchmarkCases", dependencies: [.product(name: "Steppe", package: "steppe")]),
    .target(name: "CLimits"),
    .executableTarget(
      name: "SteppeBench",
      dependencies: [
        "BenchmarkCases", "CLimits", .product(name: "Steppe", package: "steppe"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    .executableTarget(
      name: "SteppeBenchmarks",
      dependencies: ["BenchmarkCases", .product(name: "Benchmark", package: "benchmark")],
      path: "Benchmarks/SteppeBenchmarks",
      plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),
  ],
  swiftLanguageModes: [.v6]
)
