// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "steppe-distributed",
  dependencies: [
    // In a package of your own this line is:
    //   .package(url: "https://github.com/OWNER/steppe", from: "0.1.0", traits: ["MPI"]),
    // with the address of the repository that you use. Without the trait nothing of MPI is built, nor looked for.
    .package(name: "steppe", path: "../..", traits: ["MPI"])
  ],
  targets: [
    .executableTarget(
      name: "Distributed",
      dependencies: [
        .product(name: "Steppe", package: "steppe"), .product(name: "SteppeMPI", package: "steppe"),
      ])
  ],
  swiftLanguageModes: [.v6]
)
