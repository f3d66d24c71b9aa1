import Steppe

/// Convolutions of 3×3 with a padding of 1, from the first to the last stage of a network and from a single channel: the output, and the
/// output with all gradients; these with batch norm and ReLU behind, in both layouts.
let convolutionCases: [BenchmarkCase] = [
  ([32, 64, 56, 56], 64), ([32, 128, 28, 28], 128), ([32, 256, 14, 14], 256), ([32, 512, 7, 7], 512),
  ([64, 1, 28, 28], 32),
].flatMap { shape, outputs in
  let (places, depth) = (shape[0] * shape[2] * shape[3], shape[1] * 9)
  let operations = 2 * Double(places) * Double(depth) * Double(outputs)
  let (input, output, weight) = (bytes(shape.reduce(1, *)), bytes(places * outputs), bytes(depth * outputs))
  let name = "\(text(shape))-\(outputs)"
  return [
    BenchmarkCase("conv/forward/\(name)", .operations(operations, read: input + weight, written: output)) {
      let layer = Conv2D<Float>(shape[1], outputs, kernel: 3, padding: 1, seed: 1)
      let x = normalData(shape)
      return { keep(layer.forward(x).output) }
    },
    BenchmarkCase(
      "conv/training/\(name)",
      .operations(3 * operations, read: 2 * (input + output + weight), written: output + input + weight)
    ) {
      let layer = Conv2D<Float>(shape[1], outputs, kernel: 3, padding: 1, seed: 1)
      let x = normalData(shape)
      let dy = normalData([shape[0], outputs, shape[2], shape[3]], seed: 2)
      return {
        for parameter in layer.parameters { parameter.clearGradient() }
        keep(layer.forward(x).pullback(dy))
      }
    },
  ]
    + [ChannelPlace.channelsFirst, .channelsLast].map { layout in
      let isFirst = layout == .channelsFirst
      let shapes = [shape[1], outputs].map { channels in
        isFirst ? [shape[0], channels, shape[2], shape[3]] : [shape[0], shape[2], shape[3], channels]
      }
      return BenchmarkCase(
        "conv-bn-relu/training/\(isFirst ? "" : "nhwc/")\(name)",
        .operations(3 * operations, read: 2 * (input + weight) + 6 * output, written: 3 * output + input + weight)
      ) {
        let block = Sequential<Float>(seed: 1) {
          Conv2D(shape[1], outputs, kernel: 3, padding: 1, bias: false, layout: layout)
          BatchNorm(outputs, layout: layout)
          ReLU()
        }
        let (x, dy) = (normalData(shapes[0]), normalData(shapes[1], seed: 2))
        return {
          for parameter in block.parameters { parameter.clearGradient() }
          keep(block.forward(x).pullback(dy))
        }
      }
    }
}
