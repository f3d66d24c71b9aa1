// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "steppe",
  products: [
    .library(name: "Steppe", targets: ["Steppe"]),
    .executable(name: "steppe", targets: ["SteppeCommand"]),
  ],
  dependencies: [
    // Only the command and the documentation need these: SwiftPM resolves none of them for a package that links the library.
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.4.0"),
  ],
  targets: [
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev", "liblapacke-dev", "pkg-config"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev", "pkg-config"])]),
    // `kernels/` holds the bodies, which the files of `isa/` include once for each instruction set.
    .target(name: "CSteppeKernels", exclude: ["kernels"]),
    .target(name: "Steppe", dependencies: ["COpenBLAS", "CZlib", "CSteppeKernels"]),
    .executableTarget(
      name: "SteppeCommand",
      dependencies: ["Steppe", "COpenBLAS", .product(name: "ArgumentParser", package: "swift-argument-parser")]),
    .target(name: "Reference", path: "Tests/Reference"),
    // The command is built beside its tests, which run it.
    .testTarget(name: "CommandTests", dependencies: ["Steppe", "SteppeCommand"]),
    .testTarget(
      name: "SteppeTests", dependencies: ["Steppe", "Reference", "CSteppeKernels"], resources: [.copy("Golden")]),
  ],
  swiftLanguageModes: [.v6]
)
