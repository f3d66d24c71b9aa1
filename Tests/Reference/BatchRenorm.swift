// Batch renormalization and mean-only batch normalization in Float64, as Mathematics §5 and §9 write them.

/// What batch renormalization has for each channel beside γ and β.
public struct RenormSettings: Sendable {
  public var runningMean: [Double]
  public var runningDeviation: [Double]
  public var rMax: Double
  public var dMax: Double
  public var epsilon: Double

  public init(
    runningMean: [Double], runningDeviation: [Double], rMax: Double, dMax: Double, epsilon: Double
  ) {
    (self.runningMean, self.runningDeviation) = (runningMean, runningDeviation)
    (self.rMax, self.dMax, self.epsilon) = (rMax, dMax, epsilon)
  }
}

/// y = γ·(x̂·r + d) + β, and each channel's μ, σ = √(σ² + ε), r and d.
public func batchRenormForward(
  _ x: [Double], _ index: ChannelIndex, gamma: [Double], beta: [Double], _ settings: RenormSettings
) -> (y: [Double], mean: [Double], deviation: [Double], r: [Double], d: [Double]) {
  let (xhat, mean, variance) = batchNormForward(
    x, index, gamma: gamma.map { _ in 1 }, beta: gamma.map { _ in 0 }, epsilon: settings.epsilon)
  let deviation = variance.map { ($0 + settings.epsilon).squareRoot() }
  let r = gamma.indices.map { j in
    min(max(deviation[j] / settings.runningDeviation[j], 1 / settings.rMax), settings.rMax)
  }
  let d = gamma.indices.map { j in
    min(max((mean[j] - settings.runningMean[j]) / settings.runningDeviation[j], -settings.dMax), settings.dMax)
  }
  var y = xhat
  for i in 0..<index.n {
    for j in 0..<index.c {
      for k in 0..<index.s {
        let p = index.place(i, j, k)
        y[p] = gamma[j] * (xhat[p] * r[j] + d[j]) + beta[j]
      }
    }
  }
  return (y, mean, deviation, r, d)
}

/// dx, dγ and dβ with r and d held constant: those of batch norm, of which y is γ·r·x̂ + (γ·d + β).
public func batchRenormBackward(
  _ x: [Double], dy: [Double], _ index: ChannelIndex, gamma: [Double], _ settings: RenormSettings
) -> (dx: [Double], dGamma: [Double], dBeta: [Double]) {
  let (_, _, _, r, d) = batchRenormForward(x, index, gamma: gamma, beta: gamma.map { _ in 0 }, settings)
  let norm = batchNormBackward(
    x, dy: dy, index, gamma: gamma.indices.map { gamma[$0] * r[$0] }, epsilon: settings.epsilon)
  return (norm.dx, gamma.indices.map { r[$0] * norm.dGamma[$0] + d[$0] * norm.dBeta[$0] }, norm.dBeta)
}

/// y = x − μ + b, dx = dy − Σdy/m and db = Σdy, and each channel's μ.
public func meanOnlyBatchNorm(
  _ x: [Double], dy: [Double], _ index: ChannelIndex, bias: [Double]
) -> (y: [Double], mean: [Double], dx: [Double], dBias: [Double]) {
  var (y, dx, means, sums) = (x, dy, [Double](), [Double]())
  let m = Double(index.n * index.s)
  for j in 0..<index.c {
    let origin = x[index.place(0, j, 0)]
    var (total, gradient) = (CompensatedSum(), CompensatedSum())
    for i in 0..<index.n {
      for k in 0..<index.s {
        total.add(x[index.place(i, j, k)] - origin)
        gradient.add(dy[index.place(i, j, k)])
      }
    }
    for i in 0..<index.n {
      for k in 0..<index.s {
        let p = index.place(i, j, k)
        y[p] = x[p] - origin - total.value / m + bias[j]
        dx[p] = dy[p] - gradient.value / m
      }
    }
    means.append(origin + total.value / m)
    sums.append(gradient.value)
  }
  return (y, means, dx, sums)
}
