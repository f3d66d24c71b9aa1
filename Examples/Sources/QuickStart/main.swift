// A normalized network from its definition to inference: train, evaluate, save, load, fold, predict.
import Foundation
import Steppe

// Three spiral arms in the plane, to be told apart. The features are badly scaled on purpose: one spans hundreds, one is far from 0.
func spirals(_ count: Int, using generator: inout RandomGenerator) throws -> Dataset<Float> {
  let labels = (0..<count).map { $0 % 3 }
  let points = labels.map { arm -> [Float] in
    let radius = generator.uniform()
    let angle = 4 * radius + Double(arm) * 2 * .pi / 3 + 0.3 * (generator.uniform() - 0.5)
    return [Float(300 * radius * cos(angle)), Float(1000 + radius * sin(angle))]
  }
  return try Dataset(features: Tensor(points), labels: labels)
}

// Layers stand in order; the seed chooses their first weights.
func network() -> Sequential<Float> {
  Sequential<Float>(seed: 1) {
    BatchNorm(2)
    for inputs in [2, 64] {
      Dense(inputs, 64, bias: false)  // the normalization that follows has an offset of its own
      BatchNorm(64)
      ReLU()
    }
    Dense(64, 3)
  }
}

var generator = RandomGenerator(seed: 7)
let training = try spirals(3000, using: &generator)
let test = try spirals(1000, using: &generator)

// Train. The example OwnLoop writes out what `fit` does.
let model = network()
let trainer = Trainer(model: model, optimizer: SGD(model.parameters, learningRate: 0.1, momentum: 0.9))
trainer.configuration.epochs = 20
trainer.configuration.batchSize = 100
try trainer.fit(training: training) { progress in
  if let record = progress.record, record.epoch % 5 == 0 { print("epoch \(record.epoch): loss \(record.trainingLoss)") }
  return .continue
}

// Evaluate: by the running statistics, which a call uses and `forward` gathers. There is no mode to switch.
let trained = try evaluate(model, on: test).accuracy

// Save, and load into another network. The file is safetensors with PyTorch's names.
let path = FileManager.default.temporaryDirectory.path + "/steppe-quickstart-\(getpid()).safetensors"
defer { unlink(path) }
try model.save(to: path)
let reloaded = network()
try reloaded.load(from: path)

// Fold: batch norm disappears into the weights. What is left is an immutable value for any number of tasks at once.
let folded = reloaded.folded()
let classes = await withTaskGroup { group in
  for start in stride(from: 0, to: test.count, by: 250) {
    group.addTask { (start, folded(test.subset(start..<start + 250).features).argmaxOfRows()) }
  }
  var parts: [Int: [Int]] = [:]
  for await (start, part) in group { parts[start] = part }
  return parts.keys.sorted().flatMap { parts[$0]! }
}
let served = Double(zip(classes, test.labels).count { $0 == $1 }) / Double(test.count)

print("accuracy on new points: \(trained) trained, \(served) saved, loaded, folded and served by four tasks")
guard trained > 0.95, abs(trained - served) <= 0.002 else {
  print("the accuracy is lower than expected")
  exit(1)
}
