/// The value below which `percent` per cent of `values` lie, between neighbours in a straight line (NumPy's default); NaN where there is
/// none.
public func percentile(_ percent: Double, of values: [Double]) -> Double {
  let sorted = values.sorted()
  guard let last = sorted.last else { return .nan }
  let place = percent / 100 * Double(sorted.count - 1)
  let below = Int(place)
  guard below + 1 < sorted.count else { return last }
  let share = place - Double(below)
  return share > 0 ? sorted[below] + share * (sorted[below + 1] - sorted[below]) : sorted[below]
}

/// The middle one of `values`, or the mean of the two in the middle.
public func median(_ values: [Double]) -> Double { percentile(50, of: values) }

/// What a note says of the seeds.
func repeated(_ seeds: Int) -> String { seeds == 1 ? "One seed." : "Median and range of \(seeds) seeds." }

/// The median and the range of what several seeds gave.
public struct Spread: Equatable, Sendable {
  public let median: Double
  public let least: Double
  public let greatest: Double

  /// The middle and the ends of another range, such as percentiles.
  public init(_ least: Double, _ median: Double, _ greatest: Double) {
    (self.least, self.median, self.greatest) = (least, median, greatest)
  }

  /// Of values that are all finite; nil where there is none.
  public init?(_ values: [Double]) {
    guard let least = values.min(), let greatest = values.max() else { return nil }
    (self.least, self.greatest) = (least, greatest)
    median = SteppeExperiments.median(values)
  }

  /// `12 (10 … 13)`, each number by `format`; the median alone where the range is no wider.
  func text(_ format: (Double) -> String) -> String {
    let ends = [least, greatest].map(format)
    let middle = format(median)
    return ends == [middle, middle] ? middle : "\(middle) (\(ends[0]) … \(ends[1]))"
  }
}
