// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "steppe",
  products: [
    // The command has no line here: with one, SwiftPM would resolve its dependencies for every package that links the library.
    // Its product is the one that SwiftPM makes of the target `steppe` where this package is the root.
    .library(name: "Steppe", targets: ["Steppe"]),
    // Training on several processes. Without the trait `MPI` it is empty, and nothing of MPI is looked for.
    .library(name: "SteppeMPI", targets: ["SteppeMPI"]),
  ],
  traits: [
    .trait(name: "MPI", description: "Training on several processes and machines, over MPICH or Open MPI.")
  ],
  dependencies: [
    // Only the command and the documentation need these: SwiftPM resolves none of them for a package that links the library.
    .package(url: "https://github.com/apple/swift-argument-parser", "1.5.0"..<"2.0.0"),
    .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.4.0"),
  ],
  targets: [
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev", "liblapacke-dev", "pkg-config"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev", "pkg-config"])]),
    // `kernels/` holds the bodies, which the files of `isa/` include once for each instruction set.
    .target(name: "CSteppeKernels", exclude: ["kernels"]),
    .target(name: "Steppe", dependencies: ["COpenBLAS", "CZlib", "CSteppeKernels"]),
    .target(name: "SteppeExperiments", dependencies: ["Steppe"]),
    .systemLibrary(name: "CMPI", pkgConfig: "mpi", providers: [.apt(["libopenmpi-dev", "openmpi-bin", "pkg-config"])]),
    .target(name: "SteppeMPI", dependencies: ["Steppe", .target(name: "CMPI", condition: .when(traits: ["MPI"]))]),
    .executableTarget(
      name: "steppe",
      dependencies: [
        "Steppe", "SteppeExperiments", "SteppeMPI", "COpenBLAS",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Sources/SteppeCommand"),
    // What `mpirun` starts in the tests and measurements of SteppeMPI; see script/mpi.
    .executableTarget(
      name: "steppe-mpi-tests", dependencies: ["Steppe", "SteppeMPI", "Reference"], path: "Tests/MPITests"),
    .target(name: "Reference", path: "Tests/Reference"),
    .testTarget(name: "ExperimentTests", dependencies: ["Steppe", "SteppeExperiments", "Reference"]),
    // The command is built beside its tests, which run it.
    .testTarget(name: "CommandTests", dependencies: ["Steppe", "steppe"]),
    .testTarget(
      name: "SteppeTests", dependencies: ["Steppe", "Reference", "CSteppeKernels"], resources: [.copy("Golden")]),
  ],
  swiftLanguageModes: [.v6]
)
