/// How a loss function makes one number of many; the gradient is that number's.
public enum LossReduction: Sendable {
  /// The mean.
  case mean
  /// The sum.
  case sum

  /// What each of `count` terms is multiplied by: not finite for the mean of none, whose value is NaN.
  func scale(_ count: Int) -> Double {
    switch self {
    case .mean: 1 / Double(count)
    case .sum: 1
    }
  }
}
