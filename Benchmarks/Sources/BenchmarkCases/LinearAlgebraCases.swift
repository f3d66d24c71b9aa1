import Steppe

/// Matrix products m×k×n: a dense layer's on batches, square ones, a single row's; both scalar types; transposed as gradients need it.
let linearAlgebraCases: [BenchmarkCase] =
  [
    (64, 784, 128), (128, 784, 256), (128, 784, 512), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
    (1, 784, 512),
  ].map { m, k, n in product("matmul", m, k, n) { a, b in { keep(a.matmul(b)) } } }
  + [(256, 256, 256), (512, 512, 512)].map { m, k, n in
    let work = Work.operations(
      2 * Double(m * k * n), .double, read: bytes(m * k + k * n, of: Double.self),
      written: bytes(m * n, of: Double.self))
    return BenchmarkCase("matmul/double/\(text([m, k, n]))", work) {
      var generator = RandomGenerator(seed: 1)
      let a = Tensor<Double>.randomNormal(shape: [m, k], using: &generator)
      let b = Tensor<Double>.randomNormal(shape: [k, n], using: &generator)
      return { keep(a.matmul(b)) }
    }
  }
  + [
    // The gradient of a dense layer's weights, dyᵀ·x, and its output, x·Wᵀ.
    product("matmul/transpose-left", 512, 128, 784) { a, b in
      let a = a.transposed().copy()
      return { keep(a.matmul(b, transposeLeft: true)) }
    },
    product("matmul/transpose-right", 128, 784, 512) { a, b in
      let b = b.transposed().copy()
      return { keep(a.matmul(b, transposeRight: true)) }
    },
  ]

private func product(
  _ name: String, _ m: Int, _ k: Int, _ n: Int,
  _ make: @escaping @Sendable (_ a: Tensor<Float>, _ b: Tensor<Float>) -> () -> Void
) -> BenchmarkCase {
  let work = Work.operations(2 * Double(m * k * n), read: bytes(m * k + k * n), written: bytes(m * n))
  return BenchmarkCase("\(name)/\(text([m, k, n]))", work) { make(normalData([m, k]), normalData([k, n], seed: 2)) }
}

extension Tensor<Float> {
  /// The same values in row-major order.
  fileprivate func copy() -> Tensor { Tensor(shape: shape, scalars: scalars) }
}
