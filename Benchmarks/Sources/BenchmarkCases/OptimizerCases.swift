@_spi(Benchmarks) import Steppe

/// Steps of optimizers alone, on as many parameters as the network 784-1024-1024-10 has.
let optimizerCases: [BenchmarkCase] = [
  // The parameter, its gradient and the state are read, all but the gradient are written: it becomes zero by being counted as nothing
  // (where OpenBLAS multiplies, zeros are written too).
  optimizerCase("sgd-momentum", tensors: 3) { SGD([$0], learningRate: 1e-6, momentum: 0.9, weightDecay: 0.01) },
  optimizerCase("adam", tensors: 4) { Adam([$0], learningRate: 1e-6, weightDecay: 0.01) },
]

private func optimizerCase(
  _ name: String, tensors: Int, _ make: @escaping @Sendable (Parameter<Float>) -> FusedOptimizer<Float>
) -> BenchmarkCase {
  let count = 1_850_000
  let work = Work.bytes(
    read: Double(tensors) * bytes(count), written: Double(tensors - 1) * bytes(count), inPlace: true)
  return BenchmarkCase("optimizer/\(name)/\(count)", work) {
    let parameter = Parameter(normalData([count]), name: "weight", decays: true)
    let optimizer = make(parameter)
    parameter.gradient = normalData([count], seed: 2)
    return {
      // The memory still holds the gradient of before, or zeros, which take as long; the weight decay keeps the state from fading to
      // numbers so small that processors are slow with them.
      parameter.countGradientAsGathered()
      optimizer.step()
    }
  }
}
