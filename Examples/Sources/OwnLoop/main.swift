// A training loop of one's own on one's own data: regression, with a learning rate schedule and gradient clipping.
import Foundation
import Steppe

// The data: any arrays will do. Here the height of a hill over two coordinates, with noise.
var generator = RandomGenerator(seed: 3)
let places = (0..<2000).map { _ in [4 * generator.uniform() - 2, 4 * generator.uniform() - 2] }
let heights = places.map { [exp(-$0[0] * $0[0] - $0[1] * $0[1]) + 0.02 * (generator.uniform() - 0.5)] }
let (x, y) = (Tensor<Double>(places), Tensor<Double>(heights))  // [2000, 2] and [2000, 1]

let model = Sequential<Double>(seed: 1) {
  Dense(2, 64, bias: false)
  BatchNorm(64)
  Tanh()
  Dense(64, 32)
  Tanh()
  Dense(32, 1)
}

let epochs = 40
let batchSize = 100
let optimizer = Adam(model.parameters)
optimizer.maximumGradientNorm = 1
let schedule = Warmup(steps: 40, then: CosineDecay(initial: 0.02, final: 0, steps: epochs * x.shape[0] / batchSize))

for epoch in 1...epochs {
  let order = generator.permutation(x.shape[0])
  for start in stride(from: 0, to: order.count, by: batchSize) {
    let rows = Array(order[start..<start + batchSize])
    optimizer.learningRate = schedule.rate(at: optimizer.stepCount)
    let (prediction, pullback) = model.forward(x.gathering(rows: rows))
    let (_, gradient) = meanSquaredError(prediction, y.gathering(rows: rows))
    pullback.accumulate(gradient)
    optimizer.step()
  }
  if epoch % 10 == 0 { print("epoch \(epoch): mean squared error \(meanSquaredError(model(x), y).loss)") }
}

let top = model(Tensor([[0, 0]])).scalar
print("height at the top: \(top), truly 1")
guard abs(top - 1) < 0.1 else {
  print("the network has not learned the hill")
  exit(1)
}
