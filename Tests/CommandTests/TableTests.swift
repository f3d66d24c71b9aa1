import Foundation
import Steppe
import Testing

@Suite struct TableTests {
  /// Rows of two useful features far apart in size, a constant one and an identifier; `kind` and `price` follow from them.
  private static func table(_ rows: Int, seed: UInt64) -> String {
    var generator = RandomGenerator(seed: seed)
    var text = "id,area,rooms,same,kind,price\n"
    for row in 0..<rows {
      let area = 5000 + 1000 * Double(generator.index(below: 1000)) / 1000
      let rooms = Double(generator.index(below: 100)) / 10
      let kind = (area - 5500) / 250 + (rooms - 5) / 2.5 > 0 ? "\"large, bright\"" : "small"
      text += "r\(row),\(area),\(rooms),3,\(kind),\(2 * area - 300 * rooms + 1e5)\n"
    }
    return text
  }

  private func folder() throws -> Folder {
    let folder = try Folder()
    try folder.write(Data(Self.table(600, seed: 1).utf8), to: "train.csv")
    try folder.write(Data(Self.table(200, seed: 2).utf8), to: "test.csv")
    return folder
  }

  @Test func classifies() throws {
    let folder = try folder()
    let training = try folder.run(
      "train", "--data", "train.csv", "--target", "kind", "--without", "id", "price", "--test-data", "test.csv",
      "--hidden", "32", "--epochs", "15", "--batch-size", "32", "--output", "run")
    #expect(training.code == 0, "\(training.errors)")
    let accuracy = try #require(try folder.metrics("run").last?["test_accuracy"] as? Double)
    #expect(accuracy > 0.95)
    // The model carries its standardization: the file alone evaluates and predicts.
    let model = try SafetensorsFile(folder.path("run/model.safetensors"))
    #expect(model.shape(of: "0.shift") == [3] && model.shape(of: "1.weight") == [32, 3])
    let evaluation = try folder.run("evaluate", "run/model.safetensors", "--data", "test.csv")
    #expect(evaluation.code == 0, "\(evaluation.errors)")
    #expect(evaluation.output.contains(String(format: "accuracy  %.2f %%", 100 * accuracy)), "\(evaluation.output)")
    #expect(evaluation.output.contains("large, bright"))
    let prediction = try folder.run("predict", "run/model.safetensors", "--input", "test.csv", "--output", "y.csv")
    #expect(prediction.code == 0, "\(prediction.errors)")
    let rows = try folder.text("y.csv").split(separator: "\n").dropFirst()
    let truth = try folder.text("test.csv").split(separator: "\n").dropFirst()
    let correct = zip(rows, truth).count { $0.contains("large, bright") == $1.contains("large, bright") }
    #expect(Double(correct) / 200 == accuracy)
  }

  @Test func regresses() throws {
    let folder = try folder()
    let training = try folder.run(
      "train", "--data", "train.csv", "--target", "price", "--without", "id", "kind", "--test-data", "test.csv",
      "--hidden", "32", "--normalization", "none", "--optimizer", "adam", "--learning-rate", "0.01", "--epochs", "30",
      "--batch-size", "32", "--output", "run")
    #expect(training.code == 0, "\(training.errors)")
    #expect(training.output.contains("test error") && !training.output.contains("accuracy"), "\(training.output)")
    let metrics = try folder.metrics("run")
    #expect(metrics.last?["accuracy"] is NSNull)
    #expect(try #require(metrics.last?["test_loss"] as? Double) < 0.01)
    let evaluation = try folder.run("evaluate", "run/model.safetensors", "--data", "test.csv")
    #expect(evaluation.code == 0 && evaluation.output.contains("R²  "), "\(evaluation.errors)")
    let prediction = try folder.run("predict", "run/model.safetensors", "--input", "test.csv", "--output", "y.npy")
    #expect(prediction.code == 0, "\(prediction.errors)")
    let found = try NPY.read(folder.path("y.npy"), as: Double.self).scalars
    let prices = try CSV.read(folder.path("test.csv"), columns: ["price"], as: Double.self).rows.scalars
    // In the target's own units, whose deviation is 1000.
    let squares = zip(found, prices).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    #expect((squares / 200).squareRoot() < 100)
    _ = try folder.run("predict", "run/model.safetensors", "--input", "test.csv", "--output", "y.csv")
    #expect(try CSV.read(folder.path("y.csv"), as: Double.self).names == ["price"])
  }

  /// A run that was stopped goes on from its own settings alone.
  @Test func goesOn() throws {
    let folder = try folder()
    let options = [
      "train", "--data", "train.csv", "--target", "price", "--without", "id", "kind", "--hidden", "8", "--epochs", "3",
      "--validation-fraction", "0.2", "--threads", "1",
    ]
    let whole = try Command(options + ["--output", "whole"], in: folder).outcome()
    #expect(whole.code == 0, "\(whole.errors)")
    let again = try folder.run("train", "--output", "whole", "--resume")
    #expect(again.code == 0, "\(again.errors)")
    let other = try folder.run(
      "train", "--output", "whole", "--resume", "--data", "train.csv", "--target", "area")
    #expect(other.code == 64 && other.errors.contains("expected no other settings than the run's, table"))
  }

  @Test func whatIsRefused() throws {
    let folder = try folder()
    try folder.write(Data("a,b\n1,x\n2,y\n3,\n".utf8), to: "gap.csv")
    try folder.write(Data("a,b\n1,2\n2,2\n3,2\n".utf8), to: "flat.csv")
    try folder.write(Data("a,b\n1,2.5\n2,2\n,2\n".utf8), to: "missing.csv")
    for (arguments, code, message) in [
      (["--data", "train.csv"], 64, "--data train.csv: expected --target with the column that is to be told"),
      (["--target", "price"], 64, "expected --data with a table, found none"),
      (
        ["--data", "train.csv", "--target", "prize"], 1,
        "expected a column 'prize', found id, area, rooms, same, kind, price"
      ),
      (["--data", "train.csv", "--target", "price"], 1, "found 'r0' in column 0 ('id') at row 0, line 2"),
      (
        ["--data", "train.csv", "--target", "kind", "--without", "id", "--task", "regress"], 1,
        "expected finite numbers in the target's column 'kind', found"
      ),
      (["--data", "gap.csv", "--target", "b"], 1, "expected a class in the target's column 'b', found '' at row 2"),
      (["--data", "flat.csv", "--target", "b", "--task", "regress"], 1, "expected a target 'b' that varies"),
      (["--data", "missing.csv", "--target", "b"], 1, "found the missing '' in column 0 ('a') at row 2, line 4"),
      (["--data", "missing.csv", "--target", "b", "--missing", "mean"], 64, "--missing: expected refuse or drop"),
      (["--data", "none.csv", "--target", "b"], 1, "none.csv: missing"),
    ] as [([String], Int32, String)] {
      let outcome = try Command(["train", "--output", "run"] + arguments, in: folder).outcome()
      #expect(outcome.code == code && outcome.errors.contains(message), "\(arguments): \(outcome.errors)")
      #expect(!folder.exists("run"))
    }
    let training = try folder.run(
      "train", "--data", "train.csv", "--target", "kind", "--without", "id", "--hidden", "4", "--epochs", "1",
      "--output", "run")
    #expect(training.code == 0, "\(training.errors)")
    try folder.write(Data("area,rooms,same,price,kind\n5000,1,3,1,huge\n".utf8), to: "huge.csv")
    try folder.write(Data("area,rooms\n5000,1\n".utf8), to: "few.csv")
    for (arguments, message) in [
      (
        ["evaluate", "run/model.safetensors", "--data", "huge.csv"], "expected one of the classes large, bright, small"
      ),
      (["evaluate", "run/model.safetensors"], "expected --data with a table that has the column 'kind'"),
      (["predict", "run/model.safetensors", "--input", "few.csv", "--output", "y.csv"], "expected a column 'same'"),
    ] {
      let outcome = try Command(arguments, in: folder).outcome()
      #expect(outcome.code == 1 && outcome.errors.contains(message), "\(outcome.errors)")
    }
  }
}
