import Steppe

/// Batch norm in training on shapes of each schedule: small and large matrices, few and many positions to a channel.
let normalizationCases: [BenchmarkCase] = normalizedShapes.flatMap { shape in
  let elements = Double(shape.reduce(1, *))
  let size = Double(MemoryLayout<Float>.size)
  return [
    // x is read, y is written.
    BenchmarkCase("batchnorm/forward/\(text(shape))", .bytes(2 * size * elements)) {
      let (layer, x, _) = batchNorm(shape)
      return { keep(layer.forward(x).output) }
    },
    // x and dy are read, dx is written.
    BenchmarkCase("batchnorm/backward/\(text(shape))", .bytes(3 * size * elements)) {
      let (layer, x, dy) = batchNorm(shape)
      let pullback = layer.forward(x).pullback
      return {
        layer.gamma.clearGradient()
        layer.beta.clearGradient()
        keep(pullback(dy))
      }
    },
  ]
}

private let normalizedShapes = [[64, 256], [4096, 1024], [256, 512, 7, 7], [32, 64, 28, 28]]

private func batchNorm(_ shape: [Int]) -> (layer: BatchNorm<Float>, x: Tensor<Float>, dy: Tensor<Float>) {
  (BatchNorm(shape[1]), normalData(shape, mean: 3), normalData(shape, seed: 2))
}
