import Steppe

/// A whole training step of the default network: forward, loss, backward, optimizer.
let trainingCases: [BenchmarkCase] = [64, 256].map { batch in
  let widths = [784, 512, 512, 10]
  let products = zip(widths, widths.dropFirst()).map { Double($0 * $1) }
  // Of a product and its two gradients the first layer skips that of its input.
  let operations = 2 * Double(batch) * (3 * products.reduce(0, +) - products[0])
  return BenchmarkCase("training-step/784-512-512-10/batch-\(batch)", .operations(operations)) {
    var generator = RandomGenerator(seed: 1)
    let x = Tensor<Float>.randomUniform(shape: [batch, widths[0]], using: &generator)
    let labels = (0..<batch).map { $0 % 10 }
    let model = Sequential<Float>(seed: 1) {
      for (inputs, outputs) in zip(widths, widths.dropFirst().dropLast()) {
        Dense(inputs, outputs, bias: false)
        BatchNorm(outputs)
        ReLU()
      }
      Dense(512, 10)
    }
    let optimizer = SGD(model.parameters, learningRate: 0.01, momentum: 0.9)
    return {
      let (logits, pullback) = model.forward(x)
      pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)
      optimizer.step()
    }
  }
}
