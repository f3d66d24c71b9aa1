// Statistics of a data set's features in exact arithmetic.

/// Mean and Σ(x − mean)² of numbers that are whole multiples of a power of two, as exact fractions (Mathematics §2).
///
/// With kᵢ = xᵢ/unit, S = Σkᵢ and Q = Σkᵢ²: mean = unit·S/n, and Σ(x − mean)² = unit²·(n·Q − S²)/n. Both numerators are integers.
public struct ExactMoments {
  private var count: Int128 = 0
  private var sum: Int128 = 0
  private var squares: Int128 = 0
  private let unit: Double
  private let base: Int128

  /// Moments of no numbers yet; `base`, a whole multiple of `unit`, is taken from each, which changes nothing but the integers' size.
  public init(unit: Double, base: Double = 0) {
    self.unit = unit
    self.base = Int128(base / unit)
  }

  /// Adds x, a whole multiple of the unit.
  public mutating func add(_ x: Double) {
    let k = Int128(exactly: x / unit)! - base
    count += 1
    sum += k
    squares += k * k
  }

  /// How far `mean`, as the sum of its parts, is from the exact mean.
  public func meanError(_ high: Double, _ low: Double = 0) -> Double {
    // unit·(base + S/n) − high − low: the whole parts cancel exactly.
    let (quotient, rest) = sum.quotientAndRemainder(dividingBy: count)
    let whole = Int128((high / unit).rounded())
    let fraction = high - Double(whole) * unit
    return (Double(base + quotient - whole) + Double(rest) / Double(count)) * unit - fraction - low
  }

  /// The mean, rounded to the nearest.
  public var mean: Double { Double(base) * unit + Double(sum) / Double(count) * unit }

  /// Σ(x − mean)², rounded to the nearest.
  public var squaredDistances: Double { Double(count * squares - sum * sum) / Double(count) * unit * unit }
}
