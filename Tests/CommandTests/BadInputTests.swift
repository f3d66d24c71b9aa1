import Foundation
import Steppe
import Testing

@Suite struct BadInputTests {
  /// Wrong usage ends with 64 and names the option.
  @Test(arguments: [
    (["train", "--threads", "0"], "--threads: expected 1 … 256, found 0"),
    (["train", "--threads", "many"], "--threads"),
    (["train", "--epochs", "0"], "--epochs: expected 1 … 16777216, found 0"),
    (["train", "--learning-rate", "-0.1"], "--learning-rate: expected a number above 0, found -0.1"),
    (["train", "--learning-rate", "nan"], "--learning-rate: expected a number above 0, found nan"),
    (["train", "--weight-decay", "-1"], "--weight-decay: expected 0 or more, found -1.0"),
    (["train", "--momentum", "1"], "--momentum: expected 0 or more and less than 1, found 1.0"),
    (["train", "--optimizer", "adam", "--momentum", "0.9"], "--momentum: expected sgd or rmsprop beside it"),
    (["train", "--batch-size", "1"], "--batch-size: expected at least 2 with --normalization batch"),
    (["train", "--hidden", "512,0"], "--hidden"),
    (["train", "--normalization", "group"], "--normalization"),
    (["train", "--patience", "3"], "--patience: expected --validation-fraction beside it, found none"),
    (["train", "--validation-fraction", "1"], "--validation-fraction: expected 0 or more and less than 1, found 1.0"),
    (["train", "--train-images", "x.npy"], "--train-images and --train-labels go together: expected both, found one"),
    (["train", "--resume", "--overwrite"], "--resume and --overwrite: expected one of them, found both"),
    (["train", "--model", "resnet", "--hidden", "5"], "--hidden: expected --model mlp beside it, found resnet"),
    (["train", "--depth", "20"], "--depth: expected --model resnet beside it, found mlp"),
    (["train", "--model", "vgg", "--depth", "20"], "--depth: expected --model resnet beside it, found vgg"),
    (["train", "--model", "resnet", "--depth", "21"], "--depth: expected one of 8, 14, 20, 26, … 1202, found 21"),
    (["train", "--model", "vgg", "--width", "0"], "--width: expected 1 … 4096, found 0"),
    (["evaluate"], "<model>"),
    (["predict", "m.safetensors", "--input", "x.npy", "--output", "x.txt"], "extension .csv or .npy, found 'x.txt'"),
    (["fly"], "fly"),
  ])
  func wrongUsage(_ arguments: [String], _ message: String) throws {
    let folder = try Folder()
    let outcome = try Command(arguments, in: folder).outcome()
    #expect(outcome.code == 64)
    #expect(outcome.errors.hasPrefix("steppe: "), "\(outcome.errors)")
    #expect(outcome.errors.contains(message), "\(outcome.errors)")
    #expect(outcome.errors.contains("Usage: steppe"), "\(outcome.errors)")
    #expect(outcome.output.isEmpty)
  }

  @Test func moreThreadsThanProcessorsAreAllowedAndSaid() throws {
    let outcome = try Folder().run("info", "--threads", "200")
    #expect(outcome.code == 0)
    #expect(outcome.errors.contains("note: 200 threads on"))
  }

  /// What may be wrong with the training images, and what is said.
  @Test func brokenDataFiles() throws {
    let folder = try Folder.withData()
    let images = try folder.bytes("train-images.idx")
    var wrongMagic = images
    wrongMagic[2] = 0x42
    try folder.write(Data(), to: "empty.idx")
    try folder.write(images.prefix(1000), to: "truncated.idx")
    try folder.write(wrongMagic, to: "magic.idx")
    try folder.write(Data([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 0xFF, 0xFF, 0xFF]), to: "broken.gz")
    try StripedImages(count: 10, seed: 1).write("few", in: folder)
    var features = Tensor<Float>.ones(shape: [400, 64])
    features[7, 3] = .nan
    try NPY.write(features, to: folder.path("nan.npy"))
    for (images, message) in [
      ("missing.idx", "missing.idx: missing: expected a readable file, found No such file"),
      ("empty.idx", "empty.idx: empty: expected an IDX or NPY file"),
      ("truncated.idx", "truncated.idx: truncated: expected 25600 bytes of uint8 data for shape [400, 8, 8]"),
      ("magic.idx", "magic.idx: wrong magic number: expected an IDX magic number"),
      ("broken.gz", "broken.gz: corrupted"),
      ("few-images.idx", "train-labels.idx: mismatch: expected 10 labels"),
      ("nan.npy", "nan.npy: not finite: expected finite features, found nan at row 7, column 3"),
      ("train-labels.idx", "train-labels.idx: mismatch: expected features with an axis of examples"),
    ] {
      let outcome = try folder.run(
        "train", "--train-images", images, "--train-labels", "train-labels.idx", "--output", "run")
      #expect(outcome.code == 1)
      #expect(outcome.errors.hasPrefix("steppe: " + message), "\(outcome.errors)")
      #expect(!folder.exists("run"), "a folder was made for \(images)")
    }
  }

  @Test func dataThatDoNotFit() throws {
    let folder = try Folder.withData()
    let classes = try folder.train("--classes", "3", "--output", "run")
    #expect(classes.code == 1)
    #expect(classes.errors.contains("train-labels.idx: out of range: expected labels in 0 ..< 3, found 3 at index"))

    try IDX.write(Array(repeating: 1, count: 100 * 9), shape: [100, 3, 3], to: folder.path("small.idx"))
    let shapes = try folder.run(
      "train", "--train-images", "train-images.idx", "--train-labels", "train-labels.idx", "--test-images", "small.idx",
      "--test-labels", "test-labels.idx")
    #expect(shapes.code == 1)
    #expect(shapes.errors.contains("small.idx: expected 64 features in each example"), "\(shapes.errors)")

    try StripedImages(count: 1, seed: 1).write("one", in: folder)
    let one = try folder.run(
      "train", "--train-images", "one-images.idx", "--train-labels", "one-labels.idx", "--output", "one")
    #expect(one.code == 1)
    #expect(one.errors.contains("a batch of one has no variance"), "\(one.errors)")

    let diverged = try folder.train("--normalization", "none", "--learning-rate", "1e30", "--output", "diverged")
    #expect(diverged.code == 1)
    #expect(diverged.errors.contains("not finite"), "\(diverged.errors)")
  }

  @Test func modelsThatDoNotFit() throws {
    let folder = try Folder.withData()
    #expect(try folder.train("--hidden", "8", "--epochs", "1", "--output", "run", "--quiet").code == 0)
    let model = try folder.bytes("run/model.safetensors")
    try folder.write(model.prefix(model.count - 5), to: "short.safetensors")
    var flipped = model
    flipped[model.count - 9] ^= 0x10
    try folder.write(flipped, to: "flipped.safetensors")
    try folder.write(Data("no model at all".utf8), to: "text.safetensors")
    try IDX.write(Array(repeating: 1, count: 50), shape: [2, 5, 5], to: folder.path("small.idx"))
    try FileManager.default.createSymbolicLink(atPath: folder.path("full.csv"), withDestinationPath: "/dev/full")
    for (model, input, output, message) in [
      ("none.safetensors", "test-images.idx", "c.csv", "none.safetensors: missing"),
      ("short.safetensors", "test-images.idx", "c.csv", "short.safetensors: truncated"),
      ("flipped.safetensors", "test-images.idx", "c.csv", "flipped.safetensors: corrupted"),
      ("text.safetensors", "test-images.idx", "c.csv", "text.safetensors: wrong magic number"),
      ("run/model.safetensors", "small.idx", "c.csv", "small.idx: expected examples of 64 features"),
      ("run/model.safetensors", "test-images.idx", "no/such/c.csv", "no/such/c.csv: cannot write"),
      ("run/model.safetensors", "test-images.idx", "full.csv", "full.csv: cannot write: expected room for"),
    ] {
      let outcome = try folder.run("predict", model, "--input", input, "--output", output)
      #expect(outcome.code == 1)
      #expect(outcome.errors.hasPrefix("steppe: \(message)"), "\(outcome.errors)")
      #expect(!folder.exists("c.csv"))
    }

    // Another architecture than the checkpoint's: the metrics were changed by hand.
    let metrics = try folder.text("run/metrics.jsonl")
    try folder.write(Data(metrics.replacingOccurrences(of: "[8]", with: "[9]").utf8), to: "run/metrics.jsonl")
    let other = try folder.run("train", "--output", "run", "--resume")
    #expect(other.code == 1)
    #expect(other.errors.contains("0.weight"), "\(other.errors)")
    try folder.write(
      Data(metrics.replacingOccurrences(of: "\"format\":1", with: "\"format\":7").utf8),
      to: "run/metrics.jsonl")
    let version = try folder.run("train", "--output", "run", "--resume")
    #expect(version.code == 1)
    #expect(version.errors.contains("metrics.jsonl: unsupported: expected format 1, found 7"), "\(version.errors)")
  }

  /// Numbers of a damaged file decide neither how much memory is taken nor what the program stops by.
  @Test func filesThatAskForTooMuch() throws {
    let folder = try Folder.withData()
    #expect(try folder.train("--hidden", "8", "--epochs", "1", "--output", "run", "--quiet").code == 0)
    let metrics = try folder.text("run/metrics.jsonl")
    for (old, new, message) in [
      ("[8]", "[1048576,1048576,1048576]", "whose weights fit the memory"),
      ("[8]", "[1073741824]", "whole numbers from 1 to 1048576 as 'hidden'"),
      ("\"threads\":\(Parallel.availableProcessors)", "\"threads\":100000", "from 1 to 256 as 'threads'"),
      ("\"momentum\":0.9", "\"momentum\":1", "as 'momentum'"),
      ("\"epochs\":1", "\"epochs\":1000000000000", "from 1 to 16777216 as 'epochs'"),
      ("\"classes\":null", "\"classes\":1099511627776", "from 1 to 1048576 as 'classes'"),
    ] {
      #expect(metrics.contains(old))
      try folder.write(Data(metrics.replacingOccurrences(of: old, with: new).utf8), to: "run/metrics.jsonl")
      let outcome = try folder.run("train", "--output", "run", "--resume")
      #expect(outcome.code == 1)
      #expect(outcome.errors.hasPrefix("steppe: ") && outcome.errors.contains(message), "\(outcome.errors)")
    }
    let asked = try folder.train("--hidden", "1048576,1048576,1048576", "--output", "large")
    #expect(asked.code == 1 && asked.errors.contains("whose weights fit the memory"), "\(asked.errors)")
    #expect(!folder.exists("large"))

    // Two small tensors, between which a model would have a large one.
    var writer = SafetensorsWriter()
    writer.add(Tensor<Float>.ones(shape: [1 << 20, 1]), named: "0.weight")
    writer.add(Tensor<Float>.ones(shape: [1 << 20, 1]), named: "2.weight")
    try writer.write(to: folder.path("gap.safetensors"))
    let gap = try folder.run("predict", "gap.safetensors", "--input", "test-images.idx", "--output", "c.csv")
    #expect(gap.code == 1)
    #expect(gap.errors.contains("'2.weight' of shape [outputs, 1048576]"), "\(gap.errors)")

    try IDX.write([], shape: [400, 0], to: folder.path("none.idx"))
    let none = try folder.run(
      "train", "--train-images", "none.idx", "--train-labels", "train-labels.idx", "--output", "none")
    #expect(none.code == 1 && none.errors.contains("none.idx: mismatch"), "\(none.errors)")
  }

  /// Rounding in sums must not stand in for a deviation that there is none of.
  @Test func constantFeaturesBecomeZero() throws {
    let folder = try Folder()
    let count = 20_000
    try NPY.write(Tensor<Float>(repeating: 0.7, shape: [count, 64]), to: folder.path("x.npy"))
    try NPY.write((0..<count).map { $0 % 2 }, to: folder.path("y.npy"))
    let outcome = try folder.run(
      "train", "--train-images", "x.npy", "--train-labels", "y.npy", "--hidden", "4", "--batch-size", "2000",
      "--epochs", "1", "--output", "run")
    #expect(outcome.code == 0, "\(outcome.errors)")
    let metadata = try SafetensorsFile(folder.path("run/model.safetensors")).metadata["steppe.model"] ?? ""
    #expect(metadata.contains("\"deviation\":1.0,") && metadata.contains("\"mean\":0.699999988"), "\(metadata)")
  }

  @Test func outputThatCannotBeWritten() throws {
    let folder = try Folder.withData()
    try folder.write(Data("a file".utf8), to: "file")
    let outcome = try folder.train("--output", "file/run")
    #expect(outcome.code == 1)
    #expect(outcome.errors.contains("file/run: cannot write"), "\(outcome.errors)")
    let full = Process()
    full.executableURL = URL(fileURLWithPath: "/bin/sh")
    full.arguments = ["-c", "'\(Command.program.path)' info > /dev/full 2> '\(folder.path("errors"))'"]
    try full.run()
    full.waitUntilExit()
    #expect(full.terminationStatus == 1)
    #expect(try folder.text("errors").contains("standard output: cannot write: No space left on device"))
  }
}
