import Steppe

/// Matrix products: a square one, a dense layer's on a batch, and a single row's.
let linearAlgebraCases: [BenchmarkCase] = [(512, 512, 512), (128, 784, 512), (1, 784, 512)].map { m, k, n in
  BenchmarkCase("matmul/\(text([m, k, n]))", .operations(2 * Double(m * k * n))) {
    let (a, b) = (normalData([m, k]), normalData([k, n], seed: 2))
    return { keep(a.matmul(b)) }
  }
}
