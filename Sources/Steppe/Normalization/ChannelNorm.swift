import CSteppeKernels

/// What ``BatchNorm`` divides a channel's values by, less their mean (Santurkar et al. 2018, arXiv 1805.11604; Mathematics §12).
public enum ChannelNorm: Sendable, Equatable {
  /// The mean of |x − μ|.
  case l1
  /// The deviation, √(mean of (x − μ)²): batch normalization.
  case l2
  /// The greatest |x − μ|.
  case lInfinity
}

/// The passes over a tensor's channels that norms other than ℓ₂ need beside batch norm's: s, which is put in the deviation's place, and the
/// gradient through it.
///
/// A range of channels is taken as columns of a matrix with a row for each sample.
final class ChannelNormWork<Scalar: TensorScalar> {
  typealias Pointer = UnsafePointer<Scalar>
  typealias MutablePointer = UnsafeMutablePointer<Scalar>

  private let shape: ChannelShape
  private let kind: steppe_norm
  /// For each channel Σ sign(x − μ), where the norm is ℓ₁.
  private let signs: Storage<Double>
  /// For each channel the greatest |x − μ| as the kernels find it, where the norm is ℓ∞.
  private let greatest: Storage<Scalar>

  /// Nil for ℓ₂, which needs nothing more.
  init?(_ norm: ChannelNorm, _ shape: ChannelShape) {
    switch norm {
    case .l1: kind = STEPPE_NORM_ABSOLUTE
    case .l2: return nil
    case .lInfinity: kind = STEPPE_NORM_GREATEST
    }
    self.shape = shape
    signs = Storage(count: shape.channels)
    greatest = Storage(count: shape.channels)
  }

  private var fold: Int { shape.positions }
  private var m: Double { Double(shape.valuesPerChannel) }

  /// Cuts the samples into parts, at most one for each thread.
  private func parts(_ channels: Range<Int>) -> Int {
    Parallel.partCount(shape.samples, grain: max(1, 2 * Parallel.elementGrain / max(1, channels.count * fold)))
  }

  private func start(_ rows: Range<Int>, _ channels: Range<Int>) -> Int {
    rows.lowerBound * shape.sampleStride + channels.lowerBound * fold
  }

  /// Puts s² in the variance's place.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func measure(_ x: Pointer, _ channels: Range<Int>, _ moments: ChannelMoments) {
    if kind == STEPPE_NORM_ABSOLUTE {
      forEachSum(x, channels, moments) { channel, sum, sign in
        let size = sum / m
        moments.variance[channel] = size * size
        signs.pointer[channel] = sign
      }
      return
    }
    let (parts, columns) = (parts(channels), channels.count * fold)
    let most = Storage<Scalar>(count: parts * columns)
    let centers = centers(channels, moments)
    let from = most.pointer
    Scalar.kernels.fill(0, from, parts * columns)
    Parallel.run(parts: parts) { part in
      let rows = Parallel.range(part, of: parts, count: shape.samples)
      Scalar.kernels.column_greatest(
        x + start(rows, channels), shape.sampleStride, rows.count, columns, centers.column(0), centers.column(1),
        from + part * columns)
    }
    for part in 1..<max(1, parts) {
      Scalar.kernels.binary(STEPPE_MAXIMUM, from, 1, from + part * columns, 1, from, columns)
    }
    for (place, channel) in channels.enumerated() {
      let size = Scalar.kernels.reduce(STEPPE_REDUCE_MAXIMUM, from + place * fold, fold)
      greatest.pointer[channel] = Scalar(size)
      moments.variance[channel] = size * size
    }
    withExtendedLifetime((most, centers)) {}
  }

  /// dx from dβ = Σdy and dγ = Σdy·x̂: with ρ = 1/√(s² + ε) and h = ∂s/∂(x − μ), γ·ρ·dy − γ·dγ·s·ρ²·h less its mean over the channel.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func gradient(
    _ x: Pointer, _ dy: Pointer, into dx: MutablePointer, _ channels: Range<Int>, gamma: Pointer,
    _ moments: ChannelMoments, epsilon: Double, dGamma: UnsafePointer<Double>, dBeta: UnsafePointer<Double>
  ) {
    let columns = channels.count * fold
    let coefficients = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: 6)
    /// With h = k/share, k the sign of x − μ where it counts and `sum` that of all k.
    func set(_ channel: Int, share: Double, sum: Double) {
      let (square, mean) = (moments.variance[channel], moments.mean[channel])
      let a = Double(gamma[channel]) / (square + epsilon).squareRoot()
      let b = -Double(gamma[channel]) * dGamma[channel] * square.squareRoot() / (square + epsilon) / share
      let e = -(a * dBeta[channel] + b * sum) / m
      let values = (
        Scalar(mean), Scalar(moments.remainder[channel]), greatest.pointer[channel], Scalar(a), Scalar(b), Scalar(e)
      )
      let first = (channel - channels.lowerBound) * fold
      for column in first..<first + fold {
        coefficients.column(0)[column] = values.0
        coefficients.column(1)[column] = values.1
        coefficients.column(2)[column] = values.2
        coefficients.column(3)[column] = values.3
        coefficients.column(4)[column] = values.4
        coefficients.column(5)[column] = values.5
      }
    }
    if kind == STEPPE_NORM_ABSOLUTE {
      for channel in channels { set(channel, share: m, sum: signs.pointer[channel]) }
    } else {
      // The greatest may be there several times: they share the gradient.
      forEachSum(x, channels, moments) { channel, count, sum in set(channel, share: count, sum: sum) }
    }
    let parts = parts(channels)
    Parallel.run(parts: parts) { part in
      let rows = Parallel.range(part, of: parts, count: shape.samples)
      let place = start(rows, channels)
      Scalar.kernels.column_norm_gradient(
        kind, x + place, shape.sampleStride, dy + place, shape.sampleStride, dx + place, shape.sampleStride, rows.count,
        columns, coefficients.column(0), coefficients.column(1), coefficients.column(2), coefficients.column(3),
        coefficients.column(4), coefficients.column(5))
    }
    withExtendedLifetime(coefficients) {}
  }

  /// The mean's rounding, what it lacks and the greatest size, repeated over each channel's columns.
  private func centers(_ channels: Range<Int>, _ moments: ChannelMoments) -> ColumnCoefficients<Scalar> {
    let result = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: 3)
    result.fill { (Scalar(moments.mean[$0]), Scalar(moments.remainder[$0]), greatest.pointer[$0]) }
    return result
  }

  /// Each channel's Σ|x − μ| and signs, or how often the greatest is there, and its signs.
  private func forEachSum(
    _ x: Pointer, _ channels: Range<Int>, _ moments: ChannelMoments,
    _ body: (_ channel: Int, _ first: Double, _ second: Double) -> Void
  ) {
    let (parts, columns) = (parts(channels), channels.count * fold)
    let sums = ColumnSums(columns: columns, parts: parts)
    let centers = centers(channels, moments)
    Parallel.run(parts: parts) { part in
      let rows = Parallel.range(part, of: parts, count: shape.samples)
      let own = sums.part(part)
      Scalar.kernels.column_norm_sums(
        kind, x + start(rows, channels), shape.sampleStride, rows.count, columns, centers.column(0), centers.column(1),
        centers.column(2), own.first, own.second)
    }
    sums.merge()
    for (place, channel) in channels.enumerated() {
      let (first, second) = (sums.first + place * fold, sums.second + place * fold)
      body(channel, Double.kernels.reduce(STEPPE_SUM, first, fold), Double.kernels.reduce(STEPPE_SUM, second, fold))
    }
    withExtendedLifetime((sums, centers)) {}
  }
}
