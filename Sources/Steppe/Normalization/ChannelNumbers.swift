import CSteppeKernels

/// Mean and biased variance of each channel.
struct ChannelMoments {
  private let storage: Storage<Double>
  let channels: Int

  init(channels: Int) {
    storage = Storage(count: 3 * channels)
    self.channels = channels
  }

  var mean: UnsafeMutablePointer<Double> { storage.pointer }
  /// The mean less its rounding to the scalar type, to more digits than `mean` has room for.
  var remainder: UnsafeMutablePointer<Double> { storage.pointer + channels }
  var variance: UnsafeMutablePointer<Double> { storage.pointer + 2 * channels }

  var isFinite: Bool { Double.kernels.all_finite(mean, channels) && Double.kernels.all_finite(variance, channels) }

  /// A range of the channels as the kernels see them, each with `fold` columns of `values` values in all.
  func part(_ range: Range<Int>, fold: Int, values: Double, epsilon: Double = 0) -> steppe_channels {
    let first = range.lowerBound
    return steppe_channels(
      count: range.count, fold: fold, values: values, epsilon: epsilon, mean: mean + first,
      remainder: remainder + first,
      variance: variance + first)
  }
}

/// Coefficients of a range of channels, each repeated over the channel's columns, one row for each coefficient.
final class ColumnCoefficients<Scalar: TensorScalar> {
  let channels: Range<Int>
  let columns: Int
  let count: Int
  private let fold: Int
  private let storage: Storage<Scalar>

  init(channels: Range<Int>, fold: Int, count: Int) {
    self.channels = channels
    self.fold = fold
    self.count = count
    columns = channels.count * fold
    storage = Storage(count: columns * count)
  }

  func column(_ index: Int) -> UnsafeMutablePointer<Scalar> { storage.pointer + index * columns }

  /// For three coefficients.
  func fill(_ coefficients: (Int) -> (Scalar, Scalar, Scalar)) {
    for (place, channel) in channels.enumerated() {
      let c = coefficients(channel)
      for column in place * fold..<(place + 1) * fold {
        storage.pointer[column] = c.0
        storage.pointer[columns + column] = c.1
        storage.pointer[2 * columns + column] = c.2
      }
    }
  }
}

/// Two sums for each column, for one part of the work or several, all zero at the start.
struct ColumnSums {
  private let storage: Storage<Double>
  private let columns: Int
  private let parts: Int
  private let index: Int

  init(columns: Int, parts: Int = 1) {
    storage = Storage(count: 2 * columns * parts)
    storage.pointer.initialize(repeating: 0, count: 2 * columns * parts)
    self.columns = columns
    self.parts = parts
    index = 0
  }

  private init(_ whole: ColumnSums, part: Int) {
    storage = whole.storage
    columns = whole.columns
    parts = whole.parts
    index = part
  }

  var first: UnsafeMutablePointer<Double> { storage.pointer + 2 * index * columns }
  var second: UnsafeMutablePointer<Double> { first + columns }

  func part(_ part: Int) -> ColumnSums { ColumnSums(self, part: part) }

  /// Adds every part's sums to the first's, in their order.
  func merge() {
    for part in 1..<max(1, parts) {
      let other = self.part(part)
      Double.kernels.binary(STEPPE_ADD, first, 1, other.first, 1, first, 2 * columns)
    }
  }
}
