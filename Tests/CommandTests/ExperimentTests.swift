import Foundation
import FoundationXML
import Steppe
import Testing

/// `compare`, `landscape`, `batchsize` and `report` at their tiny preset.
@Suite struct ExperimentTests {
  private static let data = ["--train-images", "train-images.idx", "--train-labels", "train-labels.idx"]
  private static let tiny = ["--preset", "tiny"] + data

  private func run(
    _ folder: Folder, _ arguments: String..., environment: [String: String] = [:]
  ) throws -> Outcome {
    try Command([arguments[0]] + Self.tiny + arguments.dropFirst(), in: folder, environment: environment).outcome()
  }

  private func names(_ folder: Folder, _ path: String, _ ending: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder.path(path)).filter { $0.hasSuffix(ending) }.sorted()
  }

  private func rows(_ folder: Folder, _ name: String) throws -> [[String]] {
    try folder.text(name).split(separator: "\n").map { $0.split(separator: ",").map(String.init) }
  }

  /// The curves of each experiment's tiny preset, and columns of one of its runs.
  @Test(arguments: [
    (
      "compare",
      [
        "depth-accuracy", "optimizers-batch", "optimizers-plain", "place-relu", "place-sigmoid", "rates-accuracy",
        "sigmoid-accuracy", "sigmoid-inputs",
      ], 5, "step,loss,accuracy"
    ),
    (
      "landscape",
      [
        "convolutional-accuracy", "convolutional-gradient", "convolutional-loss", "convolutional-shift-cosine",
        "convolutional-shift-distance", "convolutional-smoothness", "convolutional-training-accuracy", "level-gradient",
        "level-loss", "level-smoothness", "steep-gradient", "steep-loss", "steep-smoothness",
      ], 4,
      "step,loss,accuracy,reestimated_accuracy,training_accuracy,loss_least,loss_greatest,change_least,change_greatest,smoothness,"
        + "gradient_norm,shift_distance,shift_cosine"
    ),
    (
      "batchsize", ["batch-size", "evaluation", "momentum-deviation", "momentum-mean"], 3,
      "batch,method,seed,rate,steps,loss,running,true,own"
    ),
  ])
  func writesTablesAndPicturesAndSaysWhatItFound(
    name: String, pictures: [String], findings: Int, columns: String
  ) throws {
    let folder = try Folder.withData()
    for output in ["a", "b"] {
      let outcome = try run(folder, name, "--output", output)
      #expect(outcome.code == 0, "\(outcome.errors)")
      #expect(outcome.output.split(separator: "\n").filter { $0.hasPrefix("Verdict: ") }.count == findings)
      #expect(outcome.output.contains("yes  ") || outcome.output.contains("no   "), "\(outcome.output)")
      guard !outcome.errors.contains("gnuplot' is not installed") else { return }
    }
    let tables = try names(folder, "a", ".csv")
    #expect(try tables.contains { try folder.text("a/\($0)").hasPrefix(columns + "\n") })
    for table in tables {
      // One seed, one table, byte for byte.
      #expect(try folder.bytes("a/\(table)") == folder.bytes("b/\(table)"), "\(table)")
      let rows = try rows(folder, "a/\(table)")
      #expect(rows.count >= 2 && rows.allSatisfy { $0.count == rows[0].count }, "\(table)")
    }
    #expect(try names(folder, "a", ".svg") == pictures.map { $0 + ".svg" })
    for picture in pictures {
      let parser = XMLParser(data: try folder.bytes("a/\(picture).svg"))
      #expect(parser.parse(), "\(picture).svg: \(String(describing: parser.parserError))")
      #expect(try folder.bytes("a/\(picture).png").starts(with: [0x89, 0x50, 0x4E, 0x47]))
      #expect(try rows(folder, "a/\(picture).csv")[0] == ["series", "x", "median", "least", "greatest"])
    }
  }

  @Test func theReportIsOnePageAndGoesOnWhereItWas() throws {
    let folder = try Folder.withData()
    let outcome = try run(folder, "report", "--output", "report")
    #expect(outcome.code == 0, "\(outcome.errors)")
    #expect(outcome.output.contains("report/report.html"))
    let html = try folder.text("report/report.html")
    let parser = XMLParser(data: Data(html.replacingOccurrences(of: "<!DOCTYPE html>", with: "").utf8))
    #expect(parser.parse(), "\(String(describing: parser.parserError)) in line \(parser.lineNumber)")
    func count(_ text: String) -> Int { html.components(separatedBy: text).count - 1 }
    #expect(count("<article") == 14 && count("<table>") == 14 && count("<aside>") == 14)
    for words in [
      "steppe surface --preset tiny", "steppe batchsize --preset tiny", SteppeVersion.current, "train-images.idx",
    ] {
      #expect(html.contains(words), "\(words)")
    }
    if !outcome.errors.contains("gnuplot' is not installed") {
      #expect(count("<svg") == 29 && count("role=\"img\"") == 29)
    }

    // A part that is done is not done again, and one that is missing is.
    let kept = "report/batchsize/batch2-batch-seed1.csv"
    let changed = try folder.text(kept).replacingOccurrences(of: "2,batch,1,", with: "2,batch,9,")
    try folder.write(Data(changed.utf8), to: kept)
    let whole = try folder.bytes("report/landscape/level-l1-seed1.csv")
    for name in ["landscape/level-l1-seed1.csv", "report.html"] {
      try FileManager.default.removeItem(atPath: folder.path("report/" + name))
    }
    #expect(try run(folder, "report", "--output", "report").code == 0)
    #expect(try folder.text(kept) == changed && folder.bytes("report/landscape/level-l1-seed1.csv") == whole)
    #expect(folder.exists("report/report.html"))

    let other = try run(folder, "report", "--output", "report", "--seed", "2", "--experiments", "surface")
    #expect(other.code == 1)
    #expect(
      other.errors.contains(
        "report/experiment.json: mismatch: expected seed 2, experiments surface, found seed 1, experiments surface compare "
          + "landscape batchsize"), "\(other.errors)")
  }

  /// What was done before an interruption, or before the process was killed, is not done again, and the tables are those of one go.
  @Test(arguments: [SIGINT, SIGKILL])
  func aStoppedExperimentGoesOn(signal: Int32) throws {
    let folder = try Folder.withData()
    func arguments(_ output: String) -> [String] {
      ["compare"] + Self.tiny + ["--parts", "optimizers", "--seeds", "20", "--output", output]
    }
    func tables(_ output: String) throws -> [String] { try names(folder, output, "-seed1.csv") }
    func dates(_ names: [String]) throws -> [Date?] {
      try names.map {
        try FileManager.default.attributesOfItem(atPath: folder.path("run/\($0)"))[.modificationDate] as? Date
      }
    }
    let command = try Command(arguments("run"), in: folder)
    for _ in 0..<6000 where command.process.isRunning {
      if folder.exists("run"), try tables("run").count >= 3 { break }
      usleep(2000)
    }
    kill(command.process.processIdentifier, signal)
    let stopped = try command.outcome()
    if signal == SIGINT {
      #expect(stopped.code == 128 + SIGINT)
      #expect(
        stopped.errors.contains("what is done is kept in run, and the same command goes on: steppe compare --parts"),
        "\(stopped.errors)")
    } else {
      #expect(stopped.code == SIGKILL)
    }
    let kept = try tables("run")
    let before = try dates(kept)
    for output in ["run", "whole"] { #expect(try Command(arguments(output), in: folder).outcome().code == 0) }
    let all = try names(folder, "whole", ".csv")
    #expect(try kept.count >= 3 && kept.count < tables("whole").count)
    #expect(try dates(kept) == before)
    #expect(try names(folder, "run", ".csv") == all)
    for table in all { #expect(try folder.bytes("run/\(table)") == folder.bytes("whole/\(table)"), "\(table)") }
  }

  @Test func whatDivergesIsDrawnAndNamed() throws {
    let folder = try Folder.withData()
    let outcome = try run(folder, "compare", "--parts", "rates,depth", "--rates", "1e30", "--output", "run")
    #expect(outcome.code == 0, "\(outcome.errors)")
    #expect(outcome.output.contains("0.0 %, 1 of 1 diverged"), "\(outcome.output)")
    let curves = try rows(folder, "run/conv6x4-relu-none-momentum-1e+30-batch32-8steps-seed1.csv")
    #expect(curves.last?.dropFirst().allSatisfy { $0 == "nan" } == true, "\(curves)")
    guard !outcome.errors.contains("gnuplot' is not installed") else { return }
    #expect(try folder.text("run/rates-accuracy.svg").contains("baseline, without (diverged"))
  }

  @Test func withoutGnuplotThereIsAPageOfTables() throws {
    let folder = try Folder.withData()
    let bare = try run(
      folder, "report", "--experiments", "batchsize", "--output", "run", environment: ["PATH": "/nonexistent"])
    #expect(bare.code == 0)
    #expect(bare.errors.contains("'gnuplot' is not installed") && bare.errors.contains("The numbers are in run"))
    let html = try folder.text("run/report.html")
    #expect(html.contains("No picture was drawn") && html.contains("<table>") && !html.contains("<svg"))
  }

  @Test(arguments: [
    (["report", "--experiments", "surface,flight"], "--experiments"),
    (["report", "--preset", "huge"], "--preset"),
    (["compare", "--parts", "sigmoid,colour"], "--parts"),
    (["landscape", "--methods", "unknown"], "--methods"),
    (
      ["landscape", "--methods", "group"],
      "--methods: expected some of none, batch, noisy-batch, l1, l-infinity, found group"
    ),
    (
      ["batchsize", "--methods", "l1"], "--methods: expected some of batch, batch-renorm, group, layer, none, found l1"
    ),
    (["compare", "--rates", "0.1,0"], "--rates"),
    (["compare", "--seeds", "0"], "--seeds: expected 1 … 1000, found 0"),
    (["compare", "--test-images", "x"], "--test-images and --test-labels go together: expected both, found one"),
    (
      ["compare", "--test-images", "x", "--test-labels", "y"],
      "--test-images: expected --train-images and --train-labels beside it, found neither"
    ),
  ])
  func wrongUsage(_ arguments: [String], _ message: String) throws {
    let folder = try Folder()
    let outcome = try Command(arguments, in: folder).outcome()
    #expect(outcome.code == 64 && outcome.errors.contains(message) && outcome.output.isEmpty, "\(outcome.errors)")
  }

  @Test func refusesFoldersAndDataThatDoNotSuit() throws {
    let folder = try Folder.withData()
    try FileManager.default.createDirectory(atPath: folder.path("full"), withIntermediateDirectories: true)
    try folder.write(Data("text".utf8), to: "full/letter.txt")
    let full = try run(folder, "report", "--output", "full")
    #expect(
      full.code == 1 && full.errors.contains("expected an empty folder or that of an experiment"), "\(full.errors)")
    let unwritable = try run(folder, "report", "--output", "/proc/steppe")
    #expect(unwritable.code == 1 && unwritable.errors.contains("/proc/steppe: cannot write"), "\(unwritable.errors)")
    let missing = try folder.run("report", "--preset", "tiny", "--data-folder", "nothing", "--output", "other")
    #expect(missing.code == 1 && missing.errors.contains("dataset-fashion-mnist") && !folder.exists("other"))
    try StripedImages(count: 30, seed: 1).write("few", in: folder)
    let few = try folder.run(
      "landscape", "--preset", "tiny", "--train-images", "few-images.idx", "--train-labels", "few-labels.idx",
      "--output",
      "other")
    #expect(few.code == 1 && few.errors.contains("expected at least 256 to train with"), "\(few.errors)")
    try NPY.write(Tensor<Float>.ones(shape: [400, 64]), to: folder.path("rows.npy"))
    let rows = try folder.run(
      "landscape", "--preset", "tiny", "--train-images", "rows.npy", "--train-labels", "train-labels.idx", "--output",
      "rows")
    #expect(rows.code == 1 && rows.errors.contains("expected images of at least 8 × 8 pixels"), "\(rows.errors)")
  }
}
