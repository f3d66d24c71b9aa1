import Foundation
import Steppe
import Testing

/// What a run of the command gave.
struct Outcome {
  let code: Int32
  let output: String
  let errors: String
}

/// The command as a person runs it: the built program in a process of its own.
struct Command {
  let process = Process()
  private let output: URL
  private let errors: URL

  /// The program stands beside the program that runs the tests.
  static let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    .deletingLastPathComponent().appendingPathComponent("steppe")

  /// Starts the command in `folder`.
  init(_ arguments: [String], in folder: Folder, environment: [String: String] = [:]) throws {
    let name = UUID().uuidString
    output = folder.url.appendingPathComponent(name + ".out")
    errors = folder.url.appendingPathComponent(name + ".err")
    for url in [output, errors] { try Data().write(to: url) }
    process.executableURL = Self.program
    process.arguments = arguments
    process.currentDirectoryURL = folder.url
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = try FileHandle(forWritingTo: output)
    process.standardError = try FileHandle(forWritingTo: errors)
    try process.run()
  }

  /// Waits for the end.
  func outcome() throws -> Outcome {
    process.waitUntilExit()
    return Outcome(
      code: process.terminationStatus, output: try String(contentsOf: output, encoding: .utf8),
      errors: try String(contentsOf: errors, encoding: .utf8))
  }
}

/// A folder that lasts as long as the object.
final class Folder {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("steppe-tests-" + UUID().uuidString)
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  func path(_ name: String) -> String { url.appendingPathComponent(name).path }
  func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: path(name)) }
  func bytes(_ name: String) throws -> Data { try Data(contentsOf: url.appendingPathComponent(name)) }
  func text(_ name: String) throws -> String {
    try String(contentsOf: url.appendingPathComponent(name), encoding: .utf8)
  }
  func write(_ bytes: Data, to name: String) throws { try bytes.write(to: url.appendingPathComponent(name)) }

  /// Runs the command in this folder to its end.
  func run(_ arguments: String..., environment: [String: String] = [:]) throws -> Outcome {
    try Command(arguments, in: self, environment: environment).outcome()
  }

  /// The lines of a run's metrics, by their keys.
  func metrics(_ run: String) throws -> [[String: Any]] {
    try text(run + "/metrics.jsonl").split(separator: "\n").map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
  }
}

/// Data that a small network learns in a second: 8 × 8 bytes with one bright stripe for each of 4 classes.
struct StripedImages {
  static let side = 8
  static let classes = 4

  let pixels: [Int]
  let labels: [Int]

  init(count: Int, seed: UInt64) {
    var generator = RandomGenerator(seed: seed)
    var (pixels, labels): ([Int], [Int]) = ([], [])
    for _ in 0..<count {
      let label = generator.index(below: Self.classes)
      labels.append(label)
      for place in 0..<Self.side * Self.side {
        let bright = place / Self.side / 2 == label ? 90 : 0
        pixels.append(bright + generator.index(below: 150))
      }
    }
    self.pixels = pixels
    self.labels = labels
  }

  /// Writes `<name>-images.idx` and `<name>-labels.idx`.
  func write(_ name: String, in folder: Folder) throws {
    try IDX.write(pixels, shape: [labels.count, Self.side, Self.side], to: folder.path(name + "-images.idx"))
    try IDX.write(labels, shape: [labels.count], to: folder.path(name + "-labels.idx"))
  }
}

extension Folder {
  /// A folder with `train` and `test` images.
  static func withData(count: Int = 400) throws -> Folder {
    let folder = try Folder()
    try StripedImages(count: count, seed: 1).write("train", in: folder)
    try StripedImages(count: 100, seed: 2).write("test", in: folder)
    return folder
  }

  static let dataArguments = [
    "--train-images", "train-images.idx", "--train-labels", "train-labels.idx", "--test-images", "test-images.idx",
    "--test-labels", "test-labels.idx",
  ]

  /// `steppe train` on the folder's data.
  func train(_ arguments: String..., environment: [String: String] = [:]) throws -> Outcome {
    try Command(["train"] + Self.dataArguments + arguments, in: self, environment: environment).outcome()
  }
}
