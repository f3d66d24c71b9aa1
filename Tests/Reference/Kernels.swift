import Glibc

/// Functions of one number and of short lists in Float64, as their definitions say.
public enum NaiveKernels {
  /// 1 / (1 + exp(−x))
  public static func sigmoid(_ x: Double) -> Double { x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)) }

  /// Φ(x), the normal distribution function.
  public static func normalDistribution(_ x: Double) -> Double { erfc(-x / 2.0.squareRoot()) / 2 }

  /// φ(x), the normal density.
  public static func normalDensity(_ x: Double) -> Double { exp(-x * x / 2) / (2 * Double.pi).squareRoot() }

  /// x·Φ(x) and its derivative.
  public static func gelu(_ x: Double) -> (value: Double, slope: Double) {
    if x == -.infinity { return (0, 0) }
    return (x * normalDistribution(x), normalDistribution(x) + (x.isInfinite ? 0 : x * normalDensity(x)))
  }

  /// ½x(1 + tanh u) and its derivative, u = √(2/π)(x + 0.044715x³); with ½(1 + tanh u) = sigmoid(2u), which does not cancel.
  public static func geluTanh(_ x: Double) -> (value: Double, slope: Double) {
    // Far out x³ overflows, and the limits are reached.
    if abs(x) > 1e100 { return x > 0 ? (x, 1) : (0, 0) }
    let c = (2 / Double.pi).squareRoot()
    let u = c * (x + 0.044715 * x * x * x)
    let s = sigmoid(2 * u)
    return (x * s, s + x * 2 * s * sigmoid(-2 * u) * c * (1 + 3 * 0.044715 * x * x))
  }

  /// x·sigmoid(x) and its derivative.
  public static func silu(_ x: Double) -> (value: Double, slope: Double) {
    if x.isInfinite { return x > 0 ? (x, 1) : (0, 0) }
    let s = sigmoid(x)
    return (x * s, s + x * s * sigmoid(-x))
  }

  /// tanh x and its derivative 1 / cosh² x.
  public static func tangent(_ x: Double) -> (value: Double, slope: Double) {
    (tanh(x), x.isNaN ? x : abs(x) > 400 ? 0 : 1 / (cosh(x) * cosh(x)))
  }

  /// The sum of `terms` with Neumaier's compensation, so that it is the exact sum for our purposes.
  public static func sum(_ terms: [Double]) -> Double {
    var (sum, rest) = (0.0, 0.0)
    for term in terms {
      let next = sum + term
      rest += abs(sum) >= abs(term) ? (sum - next) + term : (term - next) + sum
      sum = next
    }
    return sum.isFinite ? sum + rest : sum
  }

  /// The first index of the greatest value, NaN counting as greatest.
  public static func indexOfMaximum(_ x: [Double]) -> Int {
    var best = 0
    for i in x.indices {
      if x[i].isNaN { return i }
      if x[i] > x[best] { best = i }
    }
    return best
  }
}
