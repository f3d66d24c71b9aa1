import Steppe

/// A whole training step of a classifier of images: forward, loss, backward, optimizer; and its matrix products alone.
let trainingCases: [BenchmarkCase] = [(100, 60), (128, 64), (512, 64), (512, 128), (512, 256), (1024, 256)].flatMap {
  hidden, batch in
  // Of a product and its two gradients the first layer skips that of its input.
  let products = Classifier.products(hidden)
  let operations = 2 * Double(batch) * (3 * products.reduce(0, +) - products[0])
  // The step goes over the weights once in each direction, and the optimizer over them, their gradients and its state.
  let weights = 4 * products.reduce(0, +)
  let name = "training-step/784-\(hidden)-\(hidden)-10/batch-\(batch)"
  return [
    BenchmarkCase(name, .operations(operations, read: 3 * weights, written: 3 * weights)) {
      let classifier = Classifier(hidden: hidden, batch: batch)
      return { classifier.step() }
    },
    BenchmarkCase("\(name)/products", .operations(operations, read: 2 * weights, written: weights)) {
      let layers = zip([784, hidden, hidden], [hidden, hidden, 10]).map { inputs, outputs in
        (x: normalData([batch, inputs]), weight: normalData([outputs, inputs]), dy: normalData([batch, outputs]))
      }
      return {
        for (x, weight, _) in layers { keep(x.matmul(weight, transposeRight: true)) }
        for (index, layer) in layers.enumerated().reversed() {
          keep(layer.dy.matmul(layer.x, transposeLeft: true))
          if index > 0 { keep(layer.dy.matmul(layer.weight)) }
        }
      }
    },
  ]
}

/// The same of a residual network of 20 layers with batch norm on images of 28 × 28.
let imageTrainingCases: [BenchmarkCase] = [64].map { batch in
  // The multiplications of a convolution for one image.
  func convolution(_ inputs: Int, _ outputs: Int, taps: Int = 9, places: Int) -> Double {
    Double(inputs * outputs * taps * places)
  }
  let first = convolution(1, 16, places: 784)
  var products = first + 6 * convolution(16, 16, places: 784)
  for (inputs, places) in [(16, 196), (32, 49)] {
    products += convolution(inputs, 2 * inputs, places: places)
    products += convolution(inputs, 2 * inputs, taps: 1, places: places)
    products += 5 * convolution(2 * inputs, 2 * inputs, places: places)
  }
  // Of a product and its two gradients the first layer skips that of its input.
  let operations = 2 * Double(batch) * (3 * products - first)
  return BenchmarkCase(
    "resnet/training-step/20-layers/28x28/batch-\(batch)", .operations(operations, read: 0, written: 0)
  ) {
    let classifier = Classifier(
      model: .resNet(depth: 20, channels: 1, classes: 10, seed: 1), input: [batch, 1, 28, 28])
    return { classifier.step() }
  }
}

/// A network, by default 784-h-h-10 with batch norm and ReLU, and what trains it.
struct Classifier {
  let model: Sequential<Float>
  private let optimizer: SGD<Float>
  private let x: Tensor<Float>
  private let labels: [Int]

  init(hidden: Int, batch: Int) {
    let model = Sequential<Float>(seed: 1) {
      for inputs in [784, hidden] {
        Dense(inputs, hidden, bias: false)
        BatchNorm(hidden)
        ReLU()
      }
      Dense(hidden, 10)
    }
    self.init(model: model, input: [batch, 784])
  }

  init(model: Sequential<Float>, input: [Int]) {
    var generator = RandomGenerator(seed: 1)
    x = Tensor<Float>.randomUniform(shape: input, using: &generator)
    labels = (0..<input[0]).map { $0 % 10 }
    self.model = model
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
