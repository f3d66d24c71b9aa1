import Steppe

/// Batch norm in training on shapes of each schedule: small and large matrices, few and many positions to a channel, both layouts. Then
/// the normalizations of rows and groups.
let normalizationCases: [BenchmarkCase] =
  normalizedShapes.flatMap { batchNormCases($0, .channelsFirst) }
  + normalizedShapes.filter { $0.count == 4 }.flatMap { batchNormCases($0, .channelsLast) }
  + featureShapes.flatMap { shape in
    normalizationCases("layernorm", shape, shape) { LayerNorm<Float>(shape.last!) }
      + normalizationCases("rmsnorm", shape, shape) { RMSNorm<Float>(shape.last!) }
  }
  + groupedShapes.flatMap { shape in
    [ChannelPlace.channelsFirst, .channelsLast].flatMap { layout in
      channelCases("groupnorm", shape, layout) { GroupNorm<Float>(shape[1], layout: layout) }
        + channelCases("instancenorm", shape, layout) { InstanceNorm<Float>(shape[1], layout: layout) }
    }
  }

/// `[N, C]` or `[N, C, H, W]`, whatever the layout in memory.
private let normalizedShapes = [
  [64, 256], [1024, 1024], [4096, 1024], [8192, 4096], [32, 64, 28, 28], [64, 64, 56, 56], [128, 256, 14, 14],
  [256, 512, 7, 7], [64, 2048, 7, 7], [16, 64, 56, 56],
]

/// Normalized over the last axis.
private let featureShapes = [[64, 256], [4096, 1024], [64, 128, 768], [8192, 4096]]

private let groupedShapes = [[32, 64, 28, 28], [64, 64, 56, 56]]

/// Channels last where `layout` says so.
private func channelCases(
  _ subject: String, _ shape: [Int], _ layout: ChannelPlace, _ layer: @escaping @Sendable () -> any Layer<Float>
) -> [BenchmarkCase] {
  layout == .channelsFirst
    ? normalizationCases(subject, shape, shape, layer)
    : normalizationCases(subject, shape, [shape[0]] + shape[2...] + [shape[1]], place: "nhwc/", layer)
}

private func batchNormCases(_ shape: [Int], _ layout: ChannelPlace) -> [BenchmarkCase] {
  channelCases("batchnorm", shape, layout) { BatchNorm<Float>(shape[1], layout: layout) }
}

/// A normalization in training, of `shape` as the name tells it and `stored` in memory.
private func normalizationCases(
  _ subject: String, _ shape: [Int], _ stored: [Int], place: String = "",
  _ make: @escaping @Sendable () -> any Layer<Float>
) -> [BenchmarkCase] {
  let bytes = bytes(shape.reduce(1, *))
  let data: @Sendable () -> (layer: any Layer<Float>, x: Tensor<Float>, dy: Tensor<Float>) = {
    (make(), normalData(stored, mean: 3), normalData(stored, seed: 2))
  }
  return [
    // x is read, y is written.
    BenchmarkCase("\(subject)/forward/\(place)\(text(shape))", .bytes(read: bytes, written: bytes)) {
      let (layer, x, _) = data()
      return { keep(layer.forward(x).output) }
    },
    // x and dy are read, dx is written.
    BenchmarkCase("\(subject)/backward/\(place)\(text(shape))", .bytes(read: 2 * bytes, written: bytes)) {
      let (layer, x, dy) = data()
      let pullback = layer.forward(x).pullback
      return {
        for parameter in layer.parameters { parameter.clearGradient() }
        keep(pullback(dy))
      }
    },
  ]
}
