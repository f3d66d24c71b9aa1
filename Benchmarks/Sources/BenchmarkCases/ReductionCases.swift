import Steppe

/// Sums of all elements: one that fits the cache, one that does not.
let reductionCases: [BenchmarkCase] = [1 << 16, 1 << 25].map { count in
  BenchmarkCase("sum/\(count)", .bytes(read: bytes(count), written: 0)) {
    let x = Tensor<Float>.ones(shape: [count])
    return { keep(x.sum()) }
  }
}
