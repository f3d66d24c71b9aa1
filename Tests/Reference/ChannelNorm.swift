// Batch normalization by ℓ₁ and ℓ∞ in Float64, as Mathematics §12 writes it.

/// y, each channel's mean and s², and dx, dγ and dβ.
public func normBatchNorm(
  _ x: [Double], dy: [Double], _ index: ChannelIndex, greatest: Bool, gamma: [Double], beta: [Double], epsilon: Double
) -> (y: [Double], mean: [Double], square: [Double], dx: [Double], dGamma: [Double], dBeta: [Double]) {
  var (y, dx) = (x, dy)
  var (means, squares, dGammas, dBetas) = ([Double](), [Double](), [Double](), [Double]())
  let m = Double(index.n * index.s)
  for j in 0..<index.c {
    let places = (0..<index.n).flatMap { i in (0..<index.s).map { index.place(i, j, $0) } }
    let origin = x[places[0]]
    var total = CompensatedSum()
    for p in places { total.add(x[p] - origin) }
    let u = places.map { x[$0] - origin - total.value / m }
    var sizes = CompensatedSum()
    for value in u { sizes.add(abs(value)) }
    let s = greatest ? u.reduce(0) { max($0, abs($1)) } : sizes.value / m
    let rho = 1 / (s * s + epsilon).squareRoot()
    let extremes = Double(u.count { abs($0) == s })
    var (gradients, products) = (CompensatedSum(), CompensatedSum())
    for (p, u) in zip(places, u) {
      gradients.add(dy[p])
      products.add(dy[p] * u * rho)
    }
    let (dBeta, dGamma) = (gradients.value, products.value)
    // z = γ·ρ·dy − γ·dγ·s·ρ²·h
    let z = zip(places, u).map { p, u in
      let sign: Double = u > 0 ? 1 : u < 0 ? -1 : 0
      let h = greatest ? (abs(u) == s ? sign / extremes : 0) : sign / m
      return gamma[j] * rho * dy[p] - gamma[j] * dGamma * s * rho * rho * h
    }
    let meanZ = z.reduce(0, +) / m
    for (k, p) in places.enumerated() {
      y[p] = gamma[j] * u[k] * rho + beta[j]
      dx[p] = z[k] - meanZ
    }
    means.append(origin + total.value / m)
    squares.append(s * s)
    dGammas.append(dGamma)
    dBetas.append(dBeta)
  }
  return (y, means, squares, dx, dGammas, dBetas)
}
