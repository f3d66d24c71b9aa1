import Steppe

/// A whole training step of a classifier of images: forward, loss, backward, optimizer.
let trainingCases: [BenchmarkCase] = [(100, 60), (128, 64), (512, 64), (512, 128), (512, 256), (1024, 256)].map {
  hidden, batch in
  // Of a product and its two gradients the first layer skips that of its input.
  let products = Classifier.products(hidden)
  let operations = 2 * Double(batch) * (3 * products.reduce(0, +) - products[0])
  // The step goes over the weights once in each direction, and the optimizer over them, their gradients and its state.
  let weights = 4 * products.reduce(0, +)
  return BenchmarkCase(
    "training-step/784-\(hidden)-\(hidden)-10/batch-\(batch)",
    .operations(operations, read: 3 * weights, written: 3 * weights)
  ) {
    let classifier = Classifier(hidden: hidden, batch: batch)
    return { classifier.step() }
  }
}

/// The network 784-h-h-10 with batch norm and ReLU, and what trains it.
struct Classifier {
  let model: Sequential<Float>
  private let optimizer: SGD<Float>
  private let x: Tensor<Float>
  private let labels: [Int]

  init(hidden: Int, batch: Int) {
    var generator = RandomGenerator(seed: 1)
    x = Tensor<Float>.randomUniform(shape: [batch, 784], using: &generator)
    labels = (0..<batch).map { $0 % 10 }
    model = Sequential<Float>(seed: 1) {
      for inputs in [784, hidden] {
        Dense(inputs, hidden, bias: false)
        BatchNorm(hidden)
        ReLU()
      }
      Dense(hidden, 10)
    }
    optimizer = SGD(model.parameters, learningRate: 0.01, momentum: 0.9)
  }

  func step() {
    let (logits, pullback) = model.forward(x)
    pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)
    optimizer.step()
  }

  /// The sizes of the weight matrices.
  static func products(_ hidden: Int) -> [Double] {
    [784 * hidden, hidden * hidden, hidden * 10].map(Double.init)
  }
}
