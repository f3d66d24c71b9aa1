import Steppe

/// Batch norm in training on shapes of each schedule: small and large matrices, few and many positions to a channel, both layouts.
let normalizationCases: [BenchmarkCase] =
  normalizedShapes.flatMap { batchNormCases($0, .channelsFirst) }
  + normalizedShapes.filter { $0.count == 4 }.flatMap { batchNormCases($0, .channelsLast) }

/// `[N, C]` or `[N, C, H, W]`, whatever the layout in memory.
private let normalizedShapes = [
  [64, 256], [1024, 1024], [4096, 1024], [8192, 4096], [32, 64, 28, 28], [64, 64, 56, 56], [128, 256, 14, 14],
  [256, 512, 7, 7], [64, 2048, 7, 7], [16, 64, 56, 56],
]

private func batchNormCases(_ shape: [Int], _ layout: ChannelPlace) -> [BenchmarkCase] {
  let bytes = bytes(shape.reduce(1, *))
  let place = layout == .channelsLast ? "nhwc/" : ""
  let stored = layout == .channelsLast ? [shape[0]] + shape[2...] + [shape[1]] : shape
  let data: @Sendable () -> (layer: BatchNorm<Float>, x: Tensor<Float>, dy: Tensor<Float>) = {
    (BatchNorm(shape[1], layout: layout), normalData(stored, mean: 3), normalData(stored, seed: 2))
  }
  return [
    // x is read, y is written.
    BenchmarkCase("batchnorm/forward/\(place)\(text(shape))", .bytes(read: bytes, written: bytes)) {
      let (layer, x, _) = data()
      return { keep(layer.forward(x).output) }
    },
    // x and dy are read, dx is written.
    BenchmarkCase("batchnorm/backward/\(place)\(text(shape))", .bytes(read: 2 * bytes, written: bytes)) {
      let (layer, x, dy) = data()
      let pullback = layer.forward(x).pullback
      return {
        layer.gamma.clearGradient()
        layer.beta.clearGradient()
        keep(pullback(dy))
      }
    },
  ]
}
