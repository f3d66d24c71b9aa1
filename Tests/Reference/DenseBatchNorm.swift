/// Dense, batch norm over its outputs and, where `relu`, max(·, 0) in Float64, with the size of what each result's roundings are
/// relative to.
public struct NaiveDenseBatchNorm {
  /// Values, and for each the size of its rounding errors in units of the scalar's epsilon.
  public typealias Result = (values: [Double], scales: [Double])

  public let rows: Int
  public let inputs: Int
  public let outputs: Int
  /// x [rows, inputs], W [outputs, inputs], b, γ and β [outputs].
  public let x: [Double]
  public let weight: [Double]
  public let gamma: [Double]
  public let relu: Bool

  /// z = x·Wᵀ + b
  public private(set) var z: Result
  /// Each channel's mean and biased variance.
  public let mean: Result
  public let variance: Result
  /// What ReLU takes.
  public private(set) var normalized: Result
  /// What it gives.
  public var output: Result { (relu ? normalized.values.map { max($0, 0) } : normalized.values, normalized.scales) }

  private var xhat: [Double]
  private let rstd: [Double]
  /// By how much a rounding of z, relative to the terms of its sum, grows in x̂ where σ is small against them.
  private let growth: [Double]

  public init(
    x: [Double], weight: [Double], bias: [Double], gamma: [Double], beta: [Double], rows: Int, inputs: Int,
    outputs: Int, epsilon: Double, relu: Bool
  ) {
    (self.rows, self.inputs, self.outputs, self.relu) = (rows, inputs, outputs, relu)
    (self.x, self.weight, self.gamma) = (x, weight, gamma)
    let size = rows * outputs
    var (values, scales) = ([Double](repeating: 0, count: size), [Double](repeating: 0, count: size))
    for i in 0..<rows {
      for c in 0..<outputs {
        var (sum, scale) = (bias[c], abs(bias[c]))
        for p in 0..<inputs {
          let term = x[i * inputs + p] * weight[c * inputs + p]
          sum += term
          scale += abs(term)
        }
        values[i * outputs + c] = sum
        scales[i * outputs + c] = scale
      }
    }
    z = (values, scales)
    xhat = values
    normalized = (values, scales)
    var (means, variances): (Result, Result) = (([], []), ([], []))
    var (rstds, growths): ([Double], [Double]) = ([], [])
    for c in 0..<outputs {
      var (total, largest) = (CompensatedSum(), 0.0)
      for i in 0..<rows {
        total.add(values[i * outputs + c])
        largest = max(largest, scales[i * outputs + c])
      }
      let mean = total.value / Double(rows)
      var squares = CompensatedSum()
      for i in 0..<rows {
        let d = values[i * outputs + c] - mean
        squares.add(d * d)
      }
      let variance = squares.value / Double(rows)
      let rstd = 1 / (variance + epsilon).squareRoot()
      let growth = 1 + rstd * largest
      for i in 0..<rows {
        let place = i * outputs + c
        xhat[place] = (values[place] - mean) * rstd
        normalized.values[place] = gamma[c] * xhat[place] + beta[c]
        normalized.scales[place] = growth * abs(gamma[c]) * (1 + abs(xhat[place])) + abs(beta[c])
      }
      means.values.append(mean)
      means.scales.append(largest)
      variances.values.append(variance)
      // (σ + δ)² − σ² for δ of a rounding's size.
      variances.scales.append(variance + 2 * variance.squareRoot() * largest + 1e-6 * largest * largest)
      rstds.append(rstd)
      growths.append(growth)
    }
    (mean, variance, rstd, growth) = (means, variances, rstds, growths)
  }

  public struct Gradients {
    public var x: Result
    public var weight: Result
    public var bias: Result
    public var gamma: Result
    public var beta: Result
  }

  /// The gradients of ⟨output, dy⟩: dβ = Σdh, dγ = Σdh·x̂, dz = γ·rstd·(dh − dβ/m − x̂·dγ/m), db = Σdz, dW = dzᵀ·x, dx = dz·W, with
  /// dh what ReLU lets pass of dy.
  public func gradients(_ dy: [Double]) -> Gradients {
    func zeros(_ count: Int) -> Result { ([Double](repeating: 0, count: count), [Double](repeating: 0, count: count)) }
    var result = Gradients(
      x: zeros(rows * inputs), weight: zeros(outputs * inputs), bias: zeros(outputs), gamma: zeros(outputs),
      beta: zeros(outputs))
    let m = Double(rows)
    for c in 0..<outputs {
      func passed(_ i: Int) -> Double {
        relu && normalized.values[i * outputs + c] <= 0 ? 0 : dy[i * outputs + c]
      }
      var (sum, product, sumSize, productSize) = (0.0, 0.0, 0.0, 0.0)
      for i in 0..<rows {
        let (dh, hat) = (passed(i), xhat[i * outputs + c])
        sum += dh
        product += dh * hat
        sumSize += abs(dh)
        productSize += abs(dh) * (1 + abs(hat))
      }
      (result.beta.values[c], result.beta.scales[c]) = (sum, sumSize)
      (result.gamma.values[c], result.gamma.scales[c]) = (product, growth[c] * productSize)
      for i in 0..<rows {
        let (dh, hat) = (passed(i), xhat[i * outputs + c])
        let dz = gamma[c] * rstd[c] * (dh - sum / m - hat * product / m)
        let scale =
          abs(gamma[c]) * rstd[c] * growth[c] * (abs(dh) + sumSize / m + (1 + abs(hat)) * productSize / m)
        result.bias.values[c] += dz
        result.bias.scales[c] += scale
        for p in 0..<inputs {
          result.weight.values[c * inputs + p] += dz * x[i * inputs + p]
          result.weight.scales[c * inputs + p] += scale * abs(x[i * inputs + p])
          result.x.values[i * inputs + p] += dz * weight[c * inputs + p]
          result.x.scales[i * inputs + p] += scale * abs(weight[c * inputs + p])
        }
      }
    }
    return result
  }
}
