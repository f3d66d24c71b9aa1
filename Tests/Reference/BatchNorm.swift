// Batch normalization in Float64, as Mathematics §4 writes it.

/// x [N, C, S] or, channels last, [N, S, C]: the place of one value.
public struct ChannelIndex: Sendable {
  public var n: Int
  public var c: Int
  public var s: Int
  public var channelsLast: Bool

  public init(n: Int, c: Int, s: Int, channelsLast: Bool) {
    (self.n, self.c, self.s, self.channelsLast) = (n, c, s, channelsLast)
  }

  public func place(_ i: Int, _ j: Int, _ k: Int) -> Int { channelsLast ? (i * s + k) * c + j : (i * c + j) * s + k }
}

/// y, and each channel's mean and biased variance.
///
/// The sums are of x minus the channel's first value and compensated (Neumaier), so that the reference itself does not lose what it is
/// to judge.
public func batchNormForward(
  _ x: [Double], _ index: ChannelIndex, gamma: [Double], beta: [Double], epsilon: Double
) -> (y: [Double], mean: [Double], variance: [Double]) {
  var y = [Double](repeating: .nan, count: x.count)
  var means: [Double] = []
  var variances: [Double] = []
  let m = Double(index.n * index.s)
  for j in 0..<index.c {
    let origin = x[index.place(0, j, 0)]
    // μ − origin = Σ(x − origin)/m
    var total = CompensatedSum()
    for i in 0..<index.n { for k in 0..<index.s { total.add(x[index.place(i, j, k)] - origin) } }
    let offset = total.value / m
    // σ² = Σ(x − μ)²/m
    var squares = CompensatedSum()
    for i in 0..<index.n {
      for k in 0..<index.s {
        let d = x[index.place(i, j, k)] - origin - offset
        squares.add(d * d)
      }
    }
    let variance = squares.value / m
    // y = γ·x̂ + β
    for i in 0..<index.n {
      for k in 0..<index.s {
        let p = index.place(i, j, k)
        y[p] = gamma[j] * (x[p] - origin - offset) / (variance + epsilon).squareRoot() + beta[j]
      }
    }
    means.append(origin + offset)
    variances.append(variance)
  }
  return (y, means, variances)
}

/// dx, dγ and dβ: dβ = Σdy, dγ = Σdy·x̂, dx = γ·rstd·(dy − dβ/m − x̂·dγ/m).
public func batchNormBackward(
  _ x: [Double], dy: [Double], _ index: ChannelIndex, gamma: [Double], epsilon: Double
) -> (dx: [Double], dGamma: [Double], dBeta: [Double], rstd: [Double]) {
  let ones = [Double](repeating: 1, count: index.c)
  let zeros = [Double](repeating: 0, count: index.c)
  let (xhat, _, variance) = batchNormForward(x, index, gamma: ones, beta: zeros, epsilon: epsilon)
  var dx = [Double](repeating: .nan, count: x.count)
  var (dGamma, dBeta, rstds) = (zeros, zeros, zeros)
  let m = Double(index.n * index.s)
  for j in 0..<index.c {
    var (gammaSum, betaSum) = (CompensatedSum(), CompensatedSum())
    for i in 0..<index.n {
      for k in 0..<index.s {
        let p = index.place(i, j, k)
        betaSum.add(dy[p])
        gammaSum.add(dy[p] * xhat[p])
      }
    }
    let rstd = 1 / (variance[j] + epsilon).squareRoot()
    for i in 0..<index.n {
      for k in 0..<index.s {
        let p = index.place(i, j, k)
        dx[p] = gamma[j] * rstd * (dy[p] - betaSum.value / m - xhat[p] * gammaSum.value / m)
      }
    }
    (dGamma[j], dBeta[j], rstds[j]) = (gammaSum.value, betaSum.value, rstd)
  }
  return (dx, dGamma, dBeta, rstds)
}

/// A running sum that keeps what each addition rounds away (Neumaier 1974).
public struct CompensatedSum {
  private var sum = 0.0
  private var rest = 0.0

  public init() {}

  public mutating func add(_ x: Double) {
    let next = sum + x
    rest += abs(sum) >= abs(x) ? (sum - next) + x : (x - next) + sum
    sum = next
  }

  public var value: Double { sum + rest }
}
