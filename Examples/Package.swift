// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "steppe-examples",
  dependencies: [
    // In a package of your own this line is:
    //   .package(url: "https://github.com/OWNER/steppe", from: "0.1.0"),
    // with the address of the repository that you use.
    .package(name: "steppe", path: "..")
  ],
  targets: [
    .executableTarget(name: "QuickStart", dependencies: [.product(name: "Steppe", package: "steppe")]),
    .executableTarget(name: "OwnLoop", dependencies: [.product(name: "Steppe", package: "steppe")]),
    .executableTarget(name: "LinearSystems", dependencies: [.product(name: "Steppe", package: "steppe")]),
  ],
  swiftLanguageModes: [.v6]
)
