import Foundation
import Steppe
import Testing

@Suite struct NormalizeTests {
  private static let table = """
    id,size,"width, mm",same
    x1,1,10,7
    x2,2,30,7
    x3,3,20,7
    x4,6,40,7

    """

  private func folder() throws -> Folder {
    let folder = try Folder()
    try folder.write(Data(Self.table.utf8), to: "table.csv")
    return folder
  }

  @Test func fitsAppliesAndTakesBack() throws {
    let folder = try folder()
    let fit = try folder.run(
      "normalize", "fit", "table.csv", "--without", "id", "--output", "scaler.safetensors", "--report", "report.csv")
    #expect(fit.code == 0, "\(fit.errors)")
    #expect(fit.output.contains("width, mm"))
    #expect(fit.output.contains("constant       1, which become 0"), "\(fit.output)")
    #expect(fit.output.contains("left out       id"), "\(fit.output)")
    let report = try folder.text("report.csv").split(separator: "\n")
    #expect(report[0] == "feature,count,mean,deviation,minimum,maximum,constant")
    #expect(report[1] == "size,4,3.0,\((3.5).squareRoot()),1.0,6.0,no")
    #expect(report[3] == "same,4,7.0,0.0,7.0,7.0,yes")

    for (output, type) in [("z.npy", "float64"), ("z.csv", "float64")] {
      let apply = try folder.run(
        "normalize", "apply", "table.csv", "--scaler", "scaler.safetensors", "--output", output, "--type", type)
      #expect(apply.code == 0, "\(apply.errors)")
    }
    let z = try NPY.read(folder.path("z.npy"), as: Double.self)
    #expect(z.shape == [4, 3])
    #expect((0..<4).allSatisfy { z[$0, 2] == 0 })
    #expect(abs(z[0, 0] + 2 / (3.5).squareRoot()) < 1e-15)
    let (text, names) = try CSV.read(folder.path("z.csv"), as: Double.self)
    #expect(text.scalars == z.scalars && names == ["size", "width, mm", "same"])

    let inverse = try folder.run(
      "normalize", "inverse", "z.npy", "--scaler", "scaler.safetensors", "--output", "back.npy")
    #expect(inverse.code == 0, "\(inverse.errors)")
    let back = try NPY.read(folder.path("back.npy"), as: Double.self).scalars
    #expect(zip(back, [1, 10, 7, 2, 30, 7, 3, 20, 7, 6, 40, 7]).allSatisfy { abs($0 - $1) < 1e-12 })
  }

  @Test(arguments: ["minmax", "pca", "zca"]) func otherMethods(_ method: String) throws {
    let folder = try folder()
    let options = method == "minmax" ? ["--low", "-1", "--high", "1"] : []
    let fit = try Command(
      ["normalize", "fit", "table.csv", "--columns", "size", "width, mm", "--method", method, "--output", "s"]
        + options,
      in: folder
    ).outcome()
    #expect(fit.code == 0, "\(fit.errors)")
    let apply = try folder.run("normalize", "apply", "table.csv", "--scaler", "s", "--output", "z.npy")
    #expect(apply.code == 0 && apply.output.contains(method), "\(apply.errors)")
    let z = try NPY.read(folder.path("z.npy"), as: Float.self)
    #expect(z.shape == [4, 2])
    if method == "minmax" {
      #expect(z[0, 0] == -1 && z[3, 0] == 1)
    } else {
      #expect(abs((z * z).mean() - 1) < 1e-5)
    }
  }

  @Test func wrongUsage() throws {
    let folder = try folder()
    for (arguments, message) in [
      (["fit", "table.csv", "--output", "s", "--low", "1"], "--low, --high: expected --method minmax beside them"),
      (["fit", "x", "--output", "s", "--method", "minmax", "--low", "1"], "found 1.0 and 1.0"),
      (["fit", "x", "--output", "s", "--components", "2"], "--components: expected --method pca beside it"),
      (["fit", "x", "--output", "s", "--epsilon", "2"], "--epsilon: expected --method pca or zca beside it"),
      (["fit", "x", "--output", "s", "--method", "pca", "--missing", "mean"], "--missing: expected refuse or drop"),
      (["apply", "x", "--scaler", "s", "--output", "z.txt"], "extension .csv or .npy, found 'z.txt'"),
    ] {
      let outcome = try Command(["normalize"] + arguments, in: folder).outcome()
      #expect(outcome.code == 64 && outcome.errors.contains(message), "\(outcome.errors)")
    }
  }

  @Test func brokenFilesLeaveNothing() throws {
    let folder = try folder()
    _ = try folder.run("normalize", "fit", "table.csv", "--without", "id", "--output", "scaler.safetensors")
    try folder.write(Data("size,\"width, mm\",same\n1,2,3\n1,2,3,4\n".utf8), to: "ragged.csv")
    try folder.write(Data("size,\"width, mm\",same\n1,2,3\n1,nan,3\n".utf8), to: "nan.csv")
    try folder.write(Data("size,\"width, mm\",same\n1,2,3\n1".utf8), to: "cut.csv")
    try folder.write(Data("size,height\n1,2\n".utf8), to: "other.csv")
    try folder.write(Data("1,2,3\n".utf8), to: "plain.csv")
    for (input, message) in [
      ("table.csv", "table.csv: wrong format: expected numbers, found 'x1' in column 0 ('id') at row 0, line 2"),
      ("ragged.csv", "expected 3 fields in each row, found 4 at row 1, line 3"),
      ("nan.csv", "found the missing 'nan' in column 1 ('width, mm') at row 1, line 3"),
      ("cut.csv", "cut.csv: truncated: expected 3 fields in each row, found 1 in the last"),
      ("plain.csv", "expected a header of names, or to be told whether the first line is one"),
      ("missing.csv", "missing.csv: missing"),
    ] {
      let outcome = try folder.run("normalize", "fit", input, "--output", "new.safetensors")
      #expect(outcome.code == 1 && outcome.output.isEmpty, "\(outcome.output)")
      #expect(outcome.errors.hasPrefix("steppe: ") && outcome.errors.contains(message), "\(outcome.errors)")
      #expect(!folder.exists("new.safetensors"))
    }
    for (input, message) in [
      ("other.csv", "expected a column 'width, mm', which the normalization was fitted on, found size, height"),
      ("nan.csv", "found the missing 'nan' in column 1 ('width, mm') at row 1, line 3"),
    ] {
      let outcome = try folder.run(
        "normalize", "apply", input, "--scaler", "scaler.safetensors", "--output", "new.npy")
      #expect(outcome.code == 1 && outcome.errors.contains(message), "\(outcome.errors)")
      #expect(!folder.exists("new.npy"))
    }
    let scaler = try folder.run("normalize", "apply", "table.csv", "--scaler", "table.csv", "--output", "new.npy")
    #expect(scaler.code == 1 && scaler.errors.contains("table.csv"))
    let filled = try folder.run(
      "normalize", "apply", "nan.csv", "--scaler", "scaler.safetensors", "--output", "new.npy", "--missing", "mean")
    #expect(filled.code == 0 && filled.output.contains("1 numbers, taken as the mean"), "\(filled.output)")
  }
}
