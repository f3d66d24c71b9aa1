// Weight and spectral normalization in Float64, as Mathematics §9 and §10 write them: weights [outputs, rest].

/// w = g·v/‖v‖ by rows, and from dw the gradients dg = ⟨dw, v⟩/‖v‖ and dv = g/‖v‖·dw − g·dg/‖v‖²·v.
public func weightNorm(
  v: [Double], g: [Double], dw: [Double], columns: Int
) -> (w: [Double], dg: [Double], dv: [Double]) {
  var (w, dg, dv) = (v, g, dw)
  for row in g.indices {
    let places = row * columns..<(row + 1) * columns
    var (squares, product) = (CompensatedSum(), CompensatedSum())
    for p in places {
      squares.add(v[p] * v[p])
      product.add(dw[p] * v[p])
    }
    let norm = squares.value.squareRoot()
    dg[row] = product.value / norm
    for p in places {
      w[p] = g[row] * v[p] / norm
      dv[p] = g[row] / norm * dw[p] - g[row] * dg[row] / (norm * norm) * v[p]
    }
  }
  return (w, dg, dv)
}

/// One power iteration on W: u ← Wv/‖Wv‖, v ← Wᵀu/‖Wᵀu‖, σ = uᵀWv.
public func powerIteration(
  w: [Double], v: [Double], rows: Int
) -> (u: [Double], v: [Double], sigma: Double) {
  func unit(_ x: [Double]) -> (vector: [Double], length: Double) {
    let length = x.reduce(0) { $0 + $1 * $1 }.squareRoot()
    return (x.map { $0 / length }, length)
  }
  let columns = v.count
  let u = unit((0..<rows).map { r in (0..<columns).reduce(0) { $0 + w[r * columns + $1] * v[$1] } }).vector
  let (newV, sigma) = unit((0..<columns).map { c in (0..<rows).reduce(0) { $0 + w[$1 * columns + c] * u[$1] } })
  return (u, newV, sigma)
}

/// dW = (dŴ − ⟨dŴ, Ŵ⟩·u·vᵀ)/σ with Ŵ = W/σ.
public func spectralNormBackward(
  w: [Double], dw: [Double], u: [Double], v: [Double], sigma: Double
) -> [Double] {
  var along = CompensatedSum()
  for p in w.indices { along.add(dw[p] * w[p] / sigma) }
  return w.indices.map { p in (dw[p] - along.value * u[p / v.count] * v[p % v.count]) / sigma }
}
