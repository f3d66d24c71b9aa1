import Foundation
import FoundationXML
import Steppe
import Testing

@Suite struct SurfaceTests {
  private static let arguments = [
    "surface", "--preset", "tiny", "--train-images", "train-images.idx", "--train-labels", "train-labels.idx",
  ]
  private static let tables = [
    "linear-1", "paths-1", "network-plain", "network-batchnorm", "training-plain", "training-batchnorm",
  ]

  private func surface(_ folder: Folder, _ arguments: String..., environment: [String: String] = [:]) throws -> Outcome
  {
    try Command(Self.arguments + arguments, in: folder, environment: environment).outcome()
  }

  @Test func writesTablesAndPicturesAndSaysWhatItFound() throws {
    let folder = try Folder.withData()
    let outcome = try surface(folder, "--output", "surface")
    #expect(outcome.code == 0, "\(outcome.errors)")
    for words in ["condition number:", "SGD", "momentum", "Adagrad", "RMSProp", "Adam", "with batch norm"] {
      #expect(outcome.output.contains(words), "\(outcome.output)")
    }
    let linear = try rows(folder, "surface/linear-1.csv")
    #expect(linear[0] == ["seed", "surface", "condition", "method", "rate", "steps", "reached", "loss"])
    #expect(linear.count == 1 + 2 * 5)
    // Within the tiny preset's steps gradient descent comes down the level surface alone.
    let sgd = linear.filter { $0[3] == "SGD" }
    #expect(sgd.map { $0[1] } == ["raw", "standardized"] && sgd.map { $0[6] } == ["false", "true"])
    #expect(try #require(Double(sgd[0][2])) > 1e3)
    #expect(try #require(Double(sgd[1][2])) < 2)
    for name in ["network-plain", "network-batchnorm", "training-plain", "training-batchnorm"] {
      let plane = try rows(folder, "surface/\(name).csv")
      #expect(plane[0] == ["first", "second", "loss"] && plane.count == 1 + 9)
      #expect(plane.dropFirst().allSatisfy { Double($0[2])!.isFinite && Double($0[2])! > 0 })
    }
    guard !outcome.errors.contains("gnuplot' is not installed") else { return }
    for name in ["linear", "linear-loss", "network", "network-training"] {
      let parser = XMLParser(data: try folder.bytes("surface/\(name).svg"))
      #expect(parser.parse(), "\(name).svg: \(String(describing: parser.parserError))")
      #expect(try folder.bytes("surface/\(name).png").starts(with: [0x89, 0x50, 0x4E, 0x47]))
    }
  }

  private func rows(_ folder: Folder, _ name: String) throws -> [[String]] {
    try folder.text(name).split(separator: "\n").map { $0.split(separator: ",").map(String.init) }
  }

  @Test func theSameSeedGivesTheSameTables() throws {
    let folder = try Folder.withData()
    for name in ["a", "b"] { #expect(try surface(folder, "--output", name).code == 0) }
    for table in Self.tables {
      #expect(try folder.bytes("a/\(table).csv") == folder.bytes("b/\(table).csv"), "\(table)")
    }
  }

  @Test func goesOnWhereItWas() throws {
    let folder = try Folder.withData()
    #expect(try surface(folder, "--output", "run").code == 0)
    let kept = try folder.text("run/network-plain.csv").replacingOccurrences(of: "-1.0,-1.0,", with: "-1.0,-1.0,9")
    try folder.write(Data(kept.utf8), to: "run/network-plain.csv")
    let whole = try folder.bytes("run/network-batchnorm.csv")
    try FileManager.default.removeItem(atPath: folder.path("run/network-batchnorm.csv"))
    #expect(try surface(folder, "--output", "run").code == 0)
    #expect(try folder.text("run/network-plain.csv") == kept, "a finished part was run again")
    #expect(try folder.bytes("run/network-batchnorm.csv") == whole)
  }

  @Test func refusesOtherFoldersAndOtherParameters() throws {
    let folder = try Folder.withData()
    try FileManager.default.createDirectory(atPath: folder.path("full"), withIntermediateDirectories: true)
    try folder.write(Data("text".utf8), to: "full/letter.txt")
    let full = try surface(folder, "--output", "full")
    #expect(full.code == 1)
    #expect(
      full.errors.contains(
        "full: mismatch: expected an empty folder or that of an experiment, found 'letter.txt' in it"), "\(full.errors)"
    )

    #expect(try surface(folder, "--output", "run").code == 0)
    let other = try surface(folder, "--output", "run", "--seed", "2")
    #expect(other.code == 1)
    #expect(other.errors.contains("run/experiment.json: mismatch: expected seed 2, found seed 1"), "\(other.errors)")

    let unwritable = try surface(folder, "--output", "/proc/steppe")
    #expect(unwritable.code == 1 && unwritable.errors.contains("/proc/steppe: cannot write"), "\(unwritable.errors)")
  }

  @Test func saysWhereGnuplotAndDataAreMissing() throws {
    let folder = try Folder.withData()
    let bare = try surface(folder, "--output", "run", environment: ["PATH": "/nonexistent"])
    #expect(bare.code == 0)
    #expect(
      bare.errors.contains("'gnuplot' is not installed") && bare.errors.contains("The numbers are in run"),
      "\(bare.errors)")
    for table in Self.tables { #expect(folder.exists("run/\(table).csv")) }
    let missing = try folder.run("surface", "--preset", "tiny", "--data-folder", "nothing", "--output", "other")
    #expect(missing.code == 1 && missing.errors.contains("nothing") && !folder.exists("other"), "\(missing.errors)")
    for (arguments, message) in [
      (["--preset", "huge"], "preset"), (["--seeds", "0"], "--seeds: expected 1 … 1000, found 0"),
      (["--data-folder", "x"], "expected either it or own files, found both"),
    ] {
      let wrong = try Command(Self.arguments + arguments, in: folder).outcome()
      #expect(wrong.code == 64 && wrong.errors.contains(message), "\(wrong.errors)")
    }
  }
}
