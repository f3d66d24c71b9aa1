import Steppe

/// Matrix products: a square one, a dense layer's on a batch, and a single row's.
let linearAlgebraCases: [BenchmarkCase] = [(512, 512, 512), (128, 784, 512), (1, 784, 512)].map { m, k, n in
  BenchmarkCase("matmul/\(text([m, k, n]))", .operations(2 * Double(m * k * n))) {
    var generator = RandomGenerator(seed: 1)
    let a = Tensor<Float>.randomNormal(shape: [m, k], using: &generator)
    let b = Tensor<Float>.randomNormal(shape: [k, n], using: &generator)
    return { keep(a.matmul(b)) }
  }
}
