@_spi(Benchmarks) import Steppe

/// Steps of optimizers alone, on as many parameters as the network 784-1024-1024-10 has.
let optimizerCases: [BenchmarkCase] = [
  // The parameter, its gradient (which is cleared) and the state are read and written.
  optimizerCase("sgd-momentum", tensors: 3) { SGD([$0], learningRate: 1e-6, momentum: 0.9, weightDecay: 0.01) },
  optimizerCase("adam", tensors: 4) { Adam([$0], learningRate: 1e-6, weightDecay: 0.01) },
]

private func optimizerCase(
  _ name: String, tensors: Int, _ make: @escaping @Sendable (Parameter<Float>) -> FusedOptimizer<Float>
) -> BenchmarkCase {
  let count = 1_850_000
  let bytes = Double(tensors) * bytes(count)
  return BenchmarkCase("optimizer/\(name)/\(count)", .bytes(read: bytes, written: bytes, inPlace: true)) {
    let parameter = Parameter(normalData([count]), name: "weight", decays: true)
    let optimizer = make(parameter)
    parameter.gradient = normalData([count], seed: 2)
    return {
      // After the first step the gradient is zero, which takes as long as any other; the weight decay keeps the state from fading to
      // numbers so small that processors are slow with them.
      parameter.countGradientAsGathered()
      optimizer.step()
    }
  }
}
