import Foundation
import Steppe
import Testing

@Suite struct RoundTripTests {
  @Test func trainsEvaluatesAndPredicts() throws {
    let folder = try Folder.withData()
    let training = try folder.train("--hidden", "32", "--epochs", "4", "--batch-size", "32", "--output", "run")
    #expect(training.code == 0, "\(training.errors)")
    #expect(training.output.contains("test accuracy"))
    #expect(!training.errors.contains("\r"), "a line was rewritten where there is no terminal")
    #expect(training.errors.split(separator: "\n").count { $0.hasPrefix("epoch ") } == 4)
    for name in ["model.safetensors", "metrics.jsonl", "curves.csv"] { #expect(folder.exists("run/" + name)) }

    let metrics = try folder.metrics("run")
    #expect(metrics.count == 5)
    let configuration = try #require(metrics[0]["configuration"] as? [String: Any])
    #expect(configuration["batch_size"] as? Int == 32)
    #expect(metrics.dropFirst().map { $0["epoch"] as? Int } == [1, 2, 3, 4])
    #expect(metrics[4]["step"] as? Int == 4 * 13)
    #expect(try #require(metrics[4]["test_accuracy"] as? Double) > 0.9)
    #expect(try folder.text("run/curves.csv").split(separator: "\n").count == 5)

    let evaluation = try folder.run(
      "evaluate", "run/model.safetensors", "--test-images", "test-images.idx", "--test-labels", "test-labels.idx",
      "--output", "evaluation")
    #expect(evaluation.code == 0, "\(evaluation.errors)")
    #expect(evaluation.output.contains("folded"))
    let accuracy = try #require(metrics[4]["test_accuracy"] as? Double)
    #expect(evaluation.output.contains(String(format: "accuracy  %.2f %%", 100 * accuracy)), "\(evaluation.output)")
    let confusion = try folder.text("evaluation/confusion.csv").split(separator: "\n").dropFirst()
    let counts = confusion.map { $0.split(separator: ",").map { Double($0)! } }
    #expect(counts.joined().reduce(0, +) == 100)
    let correct = counts.indices.reduce(0) { $0 + counts[$1][$1 - counts.startIndex] }
    #expect(correct == (100 * accuracy).rounded())

    let toCSV = try folder.run(
      "predict", "run/model.safetensors", "--input", "test-images.idx", "--output", "classes.csv", "--probabilities")
    #expect(toCSV.code == 0, "\(toCSV.errors)")
    let rows = try folder.text("classes.csv").split(separator: "\n").map { $0.split(separator: ",") }
    #expect(rows[0].joined(separator: ",") == "row,class,name,probability,p0,p1,p2,p3")
    let labels = StripedImages(count: 100, seed: 2).labels
    #expect(Double(zip(rows.dropFirst(), labels).count { Int($0[1]) == $1 }) == (100 * accuracy).rounded())
    for row in rows.dropFirst() {
      #expect(abs(row[4...].reduce(0) { $0 + Double($1)! } - 1) < 1e-5)
      #expect(row[3] == row[4 + Int(row[1])!])
    }

    _ = try folder.run("predict", "run/model.safetensors", "--input", "test-images.idx", "--output", "classes.npy")
    let (classes, shape) = try NPY.readIntegers(folder.path("classes.npy"))
    #expect(shape == [100])
    #expect(classes == rows.dropFirst().map { Int($0[1])! })
    _ = try folder.run(
      "predict", "run/model.safetensors", "--input", "test-images.idx", "--output", "p.npy", "--probabilities")
    #expect(try NPY.read(folder.path("p.npy"), as: Float.self).shape == [100, 4])
  }

  /// Networks for images train, and their files tell what they are.
  @Test(arguments: [["resnet", "--depth", "8", "--width", "4"], ["vgg", "--width", "4"]])
  func networksForImages(_ model: [String]) throws {
    let folder = try Folder.withData()
    let options = ["--model"] + model + ["--epochs", "6", "--batch-size", "16", "--output", "run"]
    let training = try Command(["train"] + Folder.dataArguments + options, in: folder).outcome()
    #expect(training.code == 0, "\(training.errors)")
    #expect(training.errors.contains("1×8×8 to 4 classes"), "\(training.errors)")
    let accuracy = try #require(try folder.metrics("run").last?["test_accuracy"] as? Double)
    #expect(accuracy > 0.9)
    let evaluation = try folder.run(
      "evaluate", "run/model.safetensors", "--test-images", "test-images.idx", "--test-labels", "test-labels.idx")
    #expect(evaluation.code == 0, "\(evaluation.errors)")
    #expect(evaluation.output.contains(String(format: "accuracy  %.2f %%", 100 * accuracy)), "\(evaluation.output)")
    let prediction = try folder.run(
      "predict", "run/model.safetensors", "--input", "test-images.idx", "--output", "classes.npy")
    #expect(prediction.code == 0, "\(prediction.errors)")
    let labels = StripedImages(count: 100, seed: 2).labels
    let classes = try NPY.readIntegers(folder.path("classes.npy")).values
    #expect(Double(zip(classes, labels).count { $0 == $1 }) == (100 * accuracy).rounded())

    // Rows of features have no height and width.
    try NPY.write(Tensor<Float>.ones(shape: [400, 64]), to: folder.path("rows.npy"))
    let rows = try Command(
      ["train", "--train-images", "rows.npy", "--train-labels", "train-labels.idx", "--model"] + model, in: folder
    ).outcome()
    #expect(rows.code == 1)
    #expect(rows.errors.contains("rows.npy: expected images of shape [height, width]"), "\(rows.errors)")
  }

  /// Bytes in IDX, and the same numbers over 255 as floats in NPY, are one data set.
  @Test func takesNPYAsWell() throws {
    let folder = try Folder.withData()
    for (name, count, seed) in [("train", 400, 1), ("test", 100, 2)] as [(String, Int, UInt64)] {
      let images = StripedImages(count: count, seed: seed)
      let features = Tensor<Float>(shape: [count, 64], scalars: images.pixels.map { Float($0) * Float(1.0 / 255) })
      try NPY.write(features, to: folder.path(name + ".npy"))
      try NPY.write(images.labels, to: folder.path(name + "-labels.npy"))
    }
    let bytes = try folder.train("--hidden", "16", "--epochs", "1", "--output", "bytes")
    let floats = try folder.run(
      "train", "--train-images", "train.npy", "--train-labels", "train-labels.npy", "--test-images", "test.npy",
      "--test-labels", "test-labels.npy", "--hidden", "16", "--epochs", "1", "--output", "floats")
    #expect(bytes.code == 0 && floats.code == 0, "\(floats.errors)")
    let (a, b) = (try folder.metrics("bytes")[1]["loss"], try folder.metrics("floats")[1]["loss"])
    #expect(abs(try #require(a as? Double) - (try #require(b as? Double))) < 1e-4)
  }

  @Test(arguments: ["adam", "adamw", "rmsprop", "adagrad"]) func otherOptimizersLearn(_ name: String) throws {
    let folder = try Folder.withData()
    let outcome = try folder.train(
      "--hidden", "32", "--activation", "gelu", "--normalization", "none", "--optimizer", name, "--learning-rate",
      "0.005", "--epochs", "6", "--batch-size", "16", "--output", "run", "--quiet")
    #expect(outcome.code == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
    #expect(try #require(try folder.metrics("run").last?["test_accuracy"] as? Double) > 0.8)
  }

  @Test func heldOutExamplesStopTheRunAndChooseTheModel() throws {
    let folder = try Folder.withData()
    let outcome = try folder.train(
      "--hidden", "64", "--validation-fraction", "0.25", "--patience", "2", "--epochs", "60", "--schedule", "constant",
      "--output", "run")
    #expect(outcome.code == 0, "\(outcome.errors)")
    #expect(outcome.errors.contains("stopped: the validation loss has not fallen for 2 epochs"))
    let epochs = try folder.metrics("run").dropFirst()
    #expect(epochs.count < 60)
    let losses = try epochs.map { try #require($0["validation_loss"] as? Double) }
    let best = try #require(losses.indices.min { losses[$0] < losses[$1] })
    #expect(best == losses.count - 3)
    #expect(outcome.output.contains("best epoch           \(best + 1)\n"), "\(outcome.output)")
  }

  @Test func aModelWithoutMetadataIsRead() throws {
    let folder = try Folder.withData()
    var writer = SafetensorsWriter()
    writer.add(Tensor<Float>.ones(shape: [16, 64]), named: "0.weight")
    writer.add(Tensor<Float>.zeros(shape: [16]), named: "0.bias")
    writer.add(Tensor<Float>.ones(shape: [4, 16]), named: "2.weight")
    writer.add(Tensor<Float>([1, 0, 0, 0]), named: "2.bias")
    try writer.write(to: folder.path("torch.safetensors"))
    let outcome = try folder.run(
      "predict", "torch.safetensors", "--input", "test-images.idx", "--output", "classes.npy", "--mean", "0.5")
    #expect(outcome.code == 0, "\(outcome.errors)")
    #expect(try NPY.readIntegers(folder.path("classes.npy")).values == Array(repeating: 0, count: 100))
  }
}
