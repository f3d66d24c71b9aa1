import CSteppeKernels

/// Σ over one feature's values, held in twice `Double`'s digits: their number, mean and Σ(x − mean)², the least and the greatest.
///
/// Two of them merge as if their values had been one list (Chan, Golub & LeVeque 1983; Mathematics §2).
package struct FeatureMoment: Sendable, Equatable {
  package var count = 0.0
  package var mean = DoubleDouble()
  /// M₂ = Σ(x − mean)²
  package var squares = DoubleDouble()
  package var minimum = Double.infinity
  package var maximum = -Double.infinity

  package init() {}

  /// Takes in `count` more values: their mean, and their own M₂.
  mutating func merge(count other: Double, mean otherMean: DoubleDouble, squares otherSquares: DoubleDouble) {
    guard other > 0 else { return }
    guard count > 0 else {
      (count, mean, squares) = (other, otherMean, otherSquares)
      return
    }
    let total = count + other
    // Both means may be large and near each other: the high parts' difference is exact then.
    let distance = (otherMean.high - mean.high) + (otherMean.low - mean.low)
    mean.add(distance * (other / total))
    squares.add(otherSquares.high)
    squares.add(otherSquares.low)
    squares.add(distance * distance * (count * (other / total)))
    count = total
  }

  mutating func merge(_ other: FeatureMoment) {
    merge(count: other.count, mean: other.mean, squares: other.squares)
    minimum = min(minimum, other.minimum)
    maximum = max(maximum, other.maximum)
  }
}

/// high + low, a sum that keeps what its rounding loses.
package struct DoubleDouble: Sendable, Equatable {
  package var high = 0.0
  package var low = 0.0

  /// The sum of two numbers, exactly (Knuth's TwoSum).
  init(sum a: Double = 0, _ b: Double = 0) {
    high = a + b
    let part = high - a
    low = (a - (high - part)) + (b - part)
    // What infinity loses is no number.
    if !high.isFinite { low = 0 }
  }

  package init(high: Double, low: Double) {
    self.high = high
    self.low = low
  }

  mutating func add(_ x: Double) {
    let sum = DoubleDouble(sum: high, x)
    self = DoubleDouble(sum: sum.high, sum.low + low)
  }
}

/// Gathers the moments of features from rows, some at a time; for one thread.
///
/// Rows are summed as x − shift with a shift that stays for a segment of rows: the first value of each feature for the first 16 rows, then
/// the mean so far, for as many rows as there were before but no more than 512. Within a segment the sums run in `Double`. They are so few
/// that rounding costs less than 1e-14; and what cancels in Σd² − (Σd)²/n is bounded: in the first segment by its 16 rows, for one of them
/// is the shift; later by the rows before, which are no fewer and as far from this segment's mean. Segments are merged in
/// ``DoubleDouble``.
package final class FeatureMoments {
  package private(set) var features: [FeatureMoment]
  private let count: Int
  private let memory: Storage<Double>
  /// The rows of the current segment, and those before it.
  private var (pending, merged) = (0, 0)
  private static let firstSegment = 16
  private static let longestSegment = 512

  package init(features count: Int) {
    self.count = count
    features = Array(repeating: FeatureMoment(), count: count)
    memory = Storage(count: 4 * count)
    memory.pointer.update(repeating: 0, count: 4 * count)
  }

  private var shift: UnsafeMutablePointer<Double> { memory.pointer }
  private var sums: UnsafeMutablePointer<Double> { memory.pointer + count }
  private var squares: UnsafeMutablePointer<Double> { memory.pointer + 2 * count }
  /// The values of the segment that are missing.
  private var missing: UnsafeMutablePointer<Double> { memory.pointer + 3 * count }

  /// Adds rows of `count` values each.
  ///
  /// - Returns: Whether all values were finite; else the moments are of no more use.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  package func add<Scalar: TensorScalar>(_ x: UnsafePointer<Scalar>, rows: Int) -> Bool {
    withExtremes(of: Scalar.self) { least, greatest in
      var row = 0
      while row < rows {
        if pending == 0 { beginSegment { Double(x[row * count + $0]) } }
        let taken = min(segment - pending, rows - row)
        sum(x + row * count, rows: taken, least, greatest)
        row += taken
      }
      var isFinite = true
      for index in 0..<count {
        let (low, high) = (Double(least[index]), Double(greatest[index]))
        features[index].minimum = min(features[index].minimum, low)
        features[index].maximum = max(features[index].maximum, high)
        // NaN passes comparisons by and stays in the sums.
        let isNumber = !sums[index].isNaN && !features[index].mean.high.isNaN
        isFinite = isFinite && isNumber && low > -.infinity && high < .infinity
      }
      return isFinite || rows == 0
    }
  }

  /// Adds finite rows in which NaN stands for what is missing; it is written over.
  package func add(filling x: UnsafeMutablePointer<Double>, rows: Int) {
    // A feature that had no value yet takes the first one here as its shift.
    if features.contains(where: { $0.count == 0 }) { endSegment() }
    var present = [Int](repeating: rows, count: count)
    withExtremes(of: Double.self) { least, greatest in
      var row = 0
      while row < rows {
        if pending == 0 {
          beginSegment { index in
            stride(from: row * count + index, to: rows * count, by: count).lazy.map { x[$0] }.first { !$0.isNaN } ?? 0
          }
        }
        let taken = min(segment - pending, rows - row)
        for place in row * count..<(row + taken) * count where x[place].isNaN {
          let index = place % count
          // It adds nothing to the sums, and lies among the values that there are.
          x[place] = shift[index]
          missing[index] += 1
          present[index] -= 1
        }
        sum(x + row * count, rows: taken, least, greatest)
        row += taken
      }
      for index in 0..<count where present[index] > 0 {
        features[index].minimum = min(features[index].minimum, least[index])
        features[index].maximum = max(features[index].maximum, greatest[index])
      }
    }
  }

  private func withExtremes<Scalar: TensorScalar, Result>(
    of _: Scalar.Type,
    _ body: (_ least: UnsafeMutablePointer<Scalar>, _ greatest: UnsafeMutablePointer<Scalar>) -> Result
  ) -> Result {
    let extremes = Storage<Scalar>(count: 2 * count)
    defer { withExtendedLifetime(extremes) {} }
    let (least, greatest) = (extremes.pointer, extremes.pointer + count)
    least.update(repeating: .infinity, count: count)
    greatest.update(repeating: -.infinity, count: count)
    return body(least, greatest)
  }

  /// Adds rows that the segment has room for, and ends it where it is full.
  private func sum<Scalar: TensorScalar>(
    _ x: UnsafePointer<Scalar>, rows: Int, _ least: UnsafeMutablePointer<Scalar>,
    _ greatest: UnsafeMutablePointer<Scalar>
  ) {
    Scalar.kernels.feature_moments(x, count, rows, count, shift, sums, squares, least, greatest)
    pending += rows
    if pending == segment { endSegment() }
  }

  /// The rows of the current segment, when it is full.
  private var segment: Int { min(Self.longestSegment, max(Self.firstSegment, merged)) }

  /// - Parameter first: A value of a feature that has none yet.
  private func beginSegment(_ first: (Int) -> Double) {
    for index in 0..<count {
      shift[index] = features[index].count > 0 ? features[index].mean.high : first(index)
    }
  }

  private func endSegment() {
    guard pending > 0 else { return }
    for index in 0..<count {
      let number = Double(pending) - missing[index]
      if number > 0 {
        let rest = sums[index] / number
        // Beyond Double the squares are infinite, and what would be taken from them too.
        let within = squares[index].isFinite ? max(0, squares[index] - sums[index] * rest) : .infinity
        features[index].merge(
          count: number, mean: DoubleDouble(sum: shift[index], rest),
          squares: DoubleDouble(high: within, low: 0))
      }
    }
    sums.update(repeating: 0, count: 3 * count)
    merged += pending
    pending = 0
  }

  /// The moments of all rows so far.
  package func finished() -> [FeatureMoment] {
    endSegment()
    return features
  }
}
