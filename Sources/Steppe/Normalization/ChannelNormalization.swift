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

/// Batch statistics, normalization and their gradients over the channels of one tensor (SPEC §4), as a ``ChannelSchedule`` orders them.
///
/// Sums are of x − shift with a shift near the mean, so that a large mean costs no accuracy: first the mean of a few values; where that
/// turns out to lie further from the mean than the deviation (an outlier among the few), the mean found, and the sums are taken again.
/// What is subtracted afterwards is the mean rounded to the scalar type, which is exact for values near it; the rounding's remainder
/// goes into the offset.
///
/// The entries are specialized by hand: generic code that another module calls is not, and each of its operations on a channel's
/// numbers would be a call.
struct ChannelNormalization<Scalar: TensorScalar> {
  typealias Pointer = UnsafePointer<Scalar>
  typealias MutablePointer = UnsafeMutablePointer<Scalar>

  let shape: ChannelShape
  let schedule: ChannelSchedule
  /// Results bypass the last-level cache where it cannot hold them beside what a pass reads.
  let streams: Bool

  /// - Parameters:
  ///   - tensors: How many tensors of this shape a pass reads, which share the cache.
  ///   - schedule: Where the caller has chosen it.
  init(_ shape: ChannelShape, tensors: Int = 1, schedule: ChannelSchedule? = nil) {
    let bytes = MemoryLayout<Scalar>.stride
    self.shape = shape
    self.schedule = schedule ?? ChannelSchedule(shape, scalarBytes: bytes, tensors: tensors)
    streams = Double((tensors + 1) * shape.count * bytes) > ChannelSchedule.lastLevelShare * Double(CacheSizes.last)
  }

  private var m: Double { Double(shape.valuesPerChannel) }
  private var fold: Int { shape.positions }

  // MARK: Forward

  /// y = f(γ·x̂ + β) by the batch's own statistics, which it returns; `gamma` and `beta` have a value for each channel. With a residual
  /// y = max(γ·x̂ + β + residual, 0). `produce` writes x itself, panel by panel, each just before its statistics are taken: for a
  /// schedule of columns. `adjust` comes between a range of channels' statistics, which it may change, and the use of their `gamma` and
  /// `beta`, which it may write.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(
    x: Pointer, y: MutablePointer, gamma: Pointer, beta: Pointer, epsilon: Double, activation: Activation,
    residual: Pointer? = nil, produce: (_ channels: Range<Int>) -> Void = { _ in },
    adjust: (_ channels: Range<Int>, _ moments: ChannelMoments) -> Void = { _, _ in }
  ) -> ChannelMoments {
    precondition(residual == nil || activation == .relu)
    let moments = ChannelMoments(channels: shape.channels)
    switch schedule {
    case .columns(let parts, let panel, let unit):
      forEachPanel(parts: parts, width: panel, unit: unit) { channels in
        produce(channels)
        columnMoments(x, channels, moments)
        adjust(channels, moments)
        let scratch = affine(channels, moments, gamma, beta, epsilon)
        normalizeColumns(x, y, rows: 0..<shape.samples, scratch, activation, residual)
      }
    case .rows(let parts):
      rowMoments(x, parts: parts, moments)
      adjust(0..<shape.channels, moments)
      let scratch = affine(0..<shape.channels, moments, gamma, beta, epsilon)
      Parallel.run(parts: parts) { part in
        let rows = Parallel.range(part, of: parts, count: shape.samples)
        normalizeColumns(x, y, rows: rows, scratch, activation, residual)
      }
    case .runs, .splitRuns:
      forEachChannel { channel in
        runMoments(x, channel, moments)
        adjust(channel..<channel + 1, moments)
      } merged: {
        splitRunMoments(x, moments)
        adjust(0..<shape.channels, moments)
      } then: { channel, samples in
        let c = affine(channel, moments, gamma, beta, epsilon)
        let start = samples.lowerBound * shape.sampleStride + channel * fold
        if let residual {
          Scalar.kernels.run_normalize_residual(
            x + start, residual + start, y + start, shape.sampleStride, samples.count, fold, Double(c.0), Double(c.1),
            Double(c.2), true, streams)
        } else {
          Scalar.kernels.run_normalize(
            activation.kernel, activation.parameter, x + start, y + start, shape.sampleStride, samples.count, fold,
            Double(c.0), Double(c.1), Double(c.2), true, streams)
        }
      }
    }
    return moments
  }

  /// y = f((x − shift)·scale + offset) with given coefficients for each channel: evaluation.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func apply(
    x: Pointer, y: MutablePointer, activation: Activation = .identity, _ coefficients: (Int) -> (Scalar, Scalar, Scalar)
  ) {
    if fold >= ChannelSchedule.longRun {
      // One stretch after another in memory's order.
      let runs = shape.samples * shape.channels
      Parallel.ranges(runs, grain: max(1, Parallel.elementGrain / fold)) { range in
        for run in range {
          let c = coefficients(run % shape.channels)
          Scalar.kernels.run_normalize(
            activation.kernel, activation.parameter, x + run * fold, y + run * fold, fold, 1, fold, Double(c.0),
            Double(c.1), Double(c.2), false, streams)
        }
      }
      return
    }
    let scratch = ColumnCoefficients<Scalar>(channels: 0..<shape.channels, fold: fold, count: 3)
    scratch.fill(coefficients)
    let grain = max(1, Parallel.elementGrain / max(1, shape.sampleStride))
    Parallel.ranges(shape.samples, grain: grain) { rows in
      normalizeColumns(x, y, rows: rows, scratch, activation, backwards: false)
    }
  }

  // MARK: Backward

  /// dβ = Σdy and dγ = Σdy·x̂ into `dBeta` and `dGamma`, and dx = γ·rstd·(dy − dβ/m − x̂·dγ/m) where `dx` is wanted.
  ///
  /// `activation`, the identity or ReLU, is what `forward` fused: for ReLU, `dy` is the gradient behind it, and the elements that it
  /// held back, found by computing them once more, add nothing. `consume` takes dx, a thread's whole range of channels as soon as that is
  /// done: for a schedule of columns. `adjust` may change a range of channels' dγ and dβ before dx is made of them.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func backward(
    x: Pointer, dy: Pointer, dx: MutablePointer?, gamma: Pointer, beta: Pointer, moments: ChannelMoments,
    epsilon: Double,
    activation: Activation = .identity, dGamma: UnsafeMutablePointer<Double>, dBeta: UnsafeMutablePointer<Double>,
    consume: (_ channels: Range<Int>) -> Void = { _ in }, adjust: (_ channels: Range<Int>) -> Void = { _ in }
  ) {
    precondition(activation == .identity || activation == .relu)
    let masked = activation == .relu
    let forwards = { (channels: Range<Int>) in
      affine(channels, moments, masked ? gamma : nil, beta, epsilon)
    }
    let slopes = { (channels: Range<Int>) in
      let result = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: 3)
      var part = moments.part(channels, fold: fold, values: m, epsilon: epsilon)
      let first = channels.lowerBound
      Scalar.kernels.channel_slopes(
        &part, gamma + first, dGamma + first, dBeta + first, result.column(0), result.column(1), result.column(2))
      return result
    }
    let finish = { (channels: Range<Int>, sums: ColumnSums) in
      var part = moments.part(channels, fold: fold, values: m, epsilon: epsilon)
      Scalar.kernels.channel_gradients(
        &part, sums.first, sums.second, dGamma + channels.lowerBound, dBeta + channels.lowerBound)
      withExtendedLifetime(sums) {}
    }
    switch schedule {
    case .columns(let parts, let panel, let unit):
      forEachPanel(parts: parts, width: panel, unit: unit) { channels in
        let (forward, sums) = (forwards(channels), ColumnSums(columns: channels.count * fold))
        columnGradientSums(x, dy, rows: 0..<shape.samples, forward, sums)
        finish(channels, sums)
        adjust(channels)
        guard let dx else { return }
        applyGradient(x, dy, dx, rows: 0..<shape.samples, forward, slopes(channels))
      } then: {
        consume($0)
      }
    case .rows(let parts):
      let forward = forwards(0..<shape.channels)
      let sums = ColumnSums(columns: shape.sampleStride, parts: parts)
      Parallel.run(parts: parts) { part in
        columnGradientSums(
          x, dy, rows: Parallel.range(part, of: parts, count: shape.samples), forward, sums.part(part))
      }
      sums.merge()
      finish(0..<shape.channels, sums)
      adjust(0..<shape.channels)
      guard let dx else { return }
      let scratch = slopes(0..<shape.channels)
      Parallel.run(parts: parts) { part in
        applyGradient(x, dy, dx, rows: Parallel.range(part, of: parts, count: shape.samples), forward, scratch)
      }
    case .runs, .splitRuns:
      let sums = { (channel: Int, samples: Range<Int>) in
        runGradientSums(x, dy, masked, affine(channel, moments, gamma, beta, epsilon), channel, samples)
      }
      forEachChannel { channel in
        let (sum, product) = sums(channel, 0..<shape.samples)
        finishGradient(channel, sum, product, moments, epsilon, dGamma, dBeta)
        adjust(channel..<channel + 1)
      } merged: {
        forEachSplitSum(sums) { channel, sum, product in
          finishGradient(channel, sum, product, moments, epsilon, dGamma, dBeta)
          adjust(channel..<channel + 1)
        }
      } then: { channel, samples in
        guard let dx else { return }
        let forward = affine(channel, moments, gamma, beta, epsilon)
        let c = gradient(channel, moments, gamma, epsilon, dGamma, dBeta)
        let start = samples.lowerBound * shape.sampleStride + channel * fold
        Scalar.kernels.run_gradient(
          x + start, dy + start, dx + start, shape.sampleStride, samples.count, fold, Double(c.0), masked,
          Double(forward.1), Double(forward.2), Double(c.1), Double(c.2), Double(c.3), true, streams)
      }
    }
  }

  // MARK: Channels' coefficients

  /// shift, scale and offset of channels for y = (x − shift)·scale + offset, each over its columns; without `gamma` the shift alone.
  private func affine(
    _ channels: Range<Int>, _ moments: ChannelMoments, _ gamma: Pointer?, _ beta: Pointer, _ epsilon: Double
  ) -> ColumnCoefficients<Scalar> {
    let result = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: gamma == nil ? 1 : 3)
    var part = moments.part(channels, fold: fold, values: m, epsilon: epsilon)
    let first = channels.lowerBound
    if let gamma {
      Scalar.kernels.channel_affine(
        &part, gamma + first, beta + first, result.column(0), result.column(1), result.column(2))
    } else {
      Scalar.kernels.channel_affine(&part, nil, nil, result.column(0), nil, nil)
    }
    return result
  }

  /// shift, scale and offset of channel c for y = (x − shift)·scale + offset.
  private func affine(
    _ c: Int, _ moments: ChannelMoments, _ gamma: Pointer, _ beta: Pointer,
    _ epsilon: Double
  ) -> (Scalar, Scalar, Scalar) {
    let shift = Scalar(moments.mean[c])
    let scale = Double(gamma[c]) / (moments.variance[c] + epsilon).squareRoot()
    return (shift, Scalar(scale), Scalar(Double(beta[c]) - moments.remainder[c] * scale))
  }

  /// shift, a, b and e of channel c for dx = a·dy + b·(x − shift) + e.
  private func gradient(
    _ c: Int, _ moments: ChannelMoments, _ gamma: Pointer, _ epsilon: Double,
    _ dGamma: UnsafePointer<Double>, _ dBeta: UnsafePointer<Double>
  ) -> (Scalar, Scalar, Scalar, Scalar) {
    let shift = Scalar(moments.mean[c])
    let rstd = 1 / (moments.variance[c] + epsilon).squareRoot()
    let a = Double(gamma[c]) * rstd
    let b = -a * rstd * dGamma[c] / m
    return (shift, Scalar(a), Scalar(b), Scalar(-a * dBeta[c] / m - b * moments.remainder[c]))
  }

  /// dγ and dβ of channel c from Σdy and Σdy·(x − shift).
  private func finishGradient(
    _ c: Int, _ sum: Double, _ product: Double, _ moments: ChannelMoments,
    _ epsilon: Double, _ dGamma: UnsafeMutablePointer<Double>, _ dBeta: UnsafeMutablePointer<Double>
  ) {
    dBeta[c] = sum
    dGamma[c] = (product - moments.remainder[c] * sum) / (moments.variance[c] + epsilon).squareRoot()
  }

  /// Mean and variance of channel c from the sums of x − shift and its squares; false where the shift was too far off for the variance.
  private func finish(
    _ c: Int, shift: Scalar, sum: Double, squares: Double, _ moments: ChannelMoments
  ) -> Bool {
    let distance = sum / m
    let mean = Double(shift) + distance
    moments.mean[c] = mean
    moments.remainder[c] = Double(shift) - Double(Scalar(mean)) + distance
    let spread = squares / m - distance * distance
    moments.variance[c] = spread < 0 ? 0 : spread
    // The rounding of the squares is relative to spread + distance², so that distance² must not exceed the spread.
    return !(distance * distance > spread)
  }

  // MARK: Statistics by columns

  private func columnMoments(
    _ x: Pointer, _ channels: Range<Int>, _ moments: ChannelMoments
  ) {
    refined(channels, x, moments) { shift in
      let sums = ColumnSums(columns: channels.count * fold)
      Scalar.kernels.column_moments(
        x + channels.lowerBound * fold, shape.sampleStride, shape.samples, channels.count * fold, shift.column(0),
        sums.first, sums.second)
      withExtendedLifetime(shift) {}
      return sums
    }
  }

  private func rowMoments(
    _ x: Pointer, parts: Int, _ moments: ChannelMoments
  ) {
    refined(0..<shape.channels, x, moments) { shift in
      let sums = ColumnSums(columns: shape.sampleStride, parts: parts)
      Parallel.run(parts: parts) { part in
        let rows = Parallel.range(part, of: parts, count: shape.samples)
        let own = sums.part(part)
        Scalar.kernels.column_moments(
          x + rows.lowerBound * shape.sampleStride, shape.sampleStride, rows.count, shape.sampleStride, shift.column(0),
          own.first, own.second)
      }
      withExtendedLifetime(shift) {}
      sums.merge()
      return sums
    }
  }

  /// Takes `sums` by a sampled shift, and once more by the mean found where a channel's sample lay too far off.
  private func refined(
    _ channels: Range<Int>, _ x: Pointer, _ moments: ChannelMoments,
    _ sums: (ColumnCoefficients<Scalar>) -> ColumnSums
  ) {
    let shift = sampledShifts(x, channels)
    var part = moments.part(channels, fold: fold, values: m)
    for _ in 0..<2 {
      let found = sums(shift)
      let isNear = Scalar.kernels.channel_moments(&part, shift.column(0), found.first, found.second)
      withExtendedLifetime((found, shift)) {}
      if isNear { return }
      Scalar.kernels.channel_affine(&part, nil, nil, shift.column(0), nil, nil)
    }
  }

  /// A value near each channel's mean, repeated over its columns: the mean of a few rows, with so many values to a channel that none
  /// among thousands of ordinary channels misses its mean by a deviation, which would cost all of them a second pass.
  private func sampledShifts(_ x: Pointer, _ channels: Range<Int>) -> ColumnCoefficients<Scalar> {
    let result = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: 1)
    let samples = min(shape.samples, max(8, 32 / max(1, fold)))
    let start = x + channels.lowerBound * fold
    Scalar.kernels.reduce_columns(
      STEPPE_SUM, start, shape.samples / samples * shape.sampleStride, samples, channels.count * fold, result.column(0))
    Scalar.kernels.channel_shifts(channels.count, fold, samples, start, result.column(0))
    return result
  }

  private func normalizeColumns(
    _ x: Pointer, _ y: MutablePointer, rows: Range<Int>, _ c: ColumnCoefficients<Scalar>, _ activation: Activation,
    _ residual: Pointer? = nil, backwards: Bool = true
  ) {
    let start = rows.lowerBound * shape.sampleStride + c.channels.lowerBound * fold
    defer { withExtendedLifetime(c) {} }
    if let residual {
      Scalar.kernels.column_normalize_residual(
        x + start, shape.sampleStride, residual + start, shape.sampleStride, y + start, shape.sampleStride, rows.count,
        c.columns, c.column(0), c.column(1), c.column(2), backwards, streams)
      return
    }
    Scalar.kernels.column_normalize(
      activation.kernel, activation.parameter, x + start, shape.sampleStride, y + start, shape.sampleStride, rows.count,
      c.columns, c.column(0), c.column(1), c.column(2), backwards, streams)
  }

  /// `forward` holds the shift, and where a ReLU was fused the scale and the offset.
  private func columnGradientSums(
    _ x: Pointer, _ dy: Pointer, rows: Range<Int>, _ forward: ColumnCoefficients<Scalar>, _ sums: ColumnSums
  ) {
    let start = rows.lowerBound * shape.sampleStride + forward.channels.lowerBound * fold
    let masked = forward.count == 3
    Scalar.kernels.column_gradient_sums(
      x + start, shape.sampleStride, dy + start, shape.sampleStride, rows.count, forward.columns, forward.column(0),
      masked ? forward.column(1) : nil, masked ? forward.column(2) : nil, sums.first, sums.second)
    withExtendedLifetime((forward, sums)) {}
  }

  private func applyGradient(
    _ x: Pointer, _ dy: Pointer, _ dx: MutablePointer, rows: Range<Int>, _ forward: ColumnCoefficients<Scalar>,
    _ c: ColumnCoefficients<Scalar>
  ) {
    let start = rows.lowerBound * shape.sampleStride + c.channels.lowerBound * fold
    let masked = forward.count == 3
    Scalar.kernels.column_gradient(
      x + start, shape.sampleStride, dy + start, shape.sampleStride, dx + start, shape.sampleStride, rows.count,
      c.columns, forward.column(0), masked ? forward.column(1) : nil, masked ? forward.column(2) : nil, c.column(0),
      c.column(1), c.column(2), true, streams)
    withExtendedLifetime((forward, c)) {}
  }

  // MARK: Statistics by runs

  private func runMoments(
    _ x: Pointer, _ channel: Int, _ moments: ChannelMoments
  ) {
    var shift = sampledShift(x, channel)
    for _ in 0..<2 {
      let (sum, squares) = runSums(x, channel, 0..<shape.samples, shift)
      if finish(channel, shift: shift, sum: sum, squares: squares, moments) { return }
      shift = Scalar(moments.mean[channel])
    }
  }

  private func splitRunMoments(
    _ x: Pointer, _ moments: ChannelMoments
  ) {
    var shifts = (0..<shape.channels).map { sampledShift(x, $0) }
    for _ in 0..<2 {
      var isNear = true
      forEachSplitSum { channel, samples in
        runSums(x, channel, samples, shifts[channel])
      } finish: { channel, sum, squares in
        let near = finish(channel, shift: shifts[channel], sum: sum, squares: squares, moments)
        isNear = isNear && near
      }
      if isNear { return }
      shifts = (0..<shape.channels).map { Scalar(moments.mean[$0]) }
    }
  }

  private func runSums(_ x: Pointer, _ channel: Int, _ samples: Range<Int>, _ shift: Scalar) -> (Double, Double) {
    var (sum, squares) = (0.0, 0.0)
    Scalar.kernels.run_moments(
      x + samples.lowerBound * shape.sampleStride + channel * fold, shape.sampleStride, samples.count, fold,
      Double(shift), &sum, &squares)
    return (sum, squares)
  }

  private func runGradientSums(
    _ x: Pointer, _ dy: Pointer, _ masked: Bool, _ forward: (Scalar, Scalar, Scalar), _ channel: Int,
    _ samples: Range<Int>
  ) -> (Double, Double) {
    var (sum, product) = (0.0, 0.0)
    let start = samples.lowerBound * shape.sampleStride + channel * fold
    Scalar.kernels.run_gradient_sums(
      x + start, dy + start, shape.sampleStride, samples.count, fold, Double(forward.0), masked, Double(forward.1),
      Double(forward.2), &sum, &product)
    return (sum, product)
  }

  /// The mean of a few values of a channel from all over it.
  private func sampledShift(_ x: Pointer, _ channel: Int) -> Scalar {
    let samples = min(8, shape.samples)
    let places = min(4, fold)
    var sum = 0.0
    for sample in 0..<samples {
      let run = x + sample * (shape.samples / samples) * shape.sampleStride + channel * fold
      for place in 0..<places { sum += Double(run[place * (fold / places)]) }
    }
    let shift = Scalar(sum / Double(samples * places))
    return shift.isFinite ? shift : x[channel * fold]
  }

  // MARK: The order of the work

  /// Calls `body` for each panel, and `then` for a part's whole range when its panels are done.
  private func forEachPanel(
    parts: Int, width: Int, unit: Int, _ body: (Range<Int>) -> Void, then: (Range<Int>) -> Void = { _ in }
  ) {
    Parallel.run(parts: parts) { part in
      let own = Parallel.range(part, of: parts, count: shape.channels, multiple: unit)
      for low in stride(from: own.lowerBound, to: own.upperBound, by: width) {
        body(low..<min(low + width, own.upperBound))
      }
      if !own.isEmpty { then(own) }
    }
  }

  /// Runs: a part takes each of its channels through `whole` and `then` while the cache holds it. Split runs: `merged`, then `then`.
  private func forEachChannel(
    _ whole: (_ channel: Int) -> Void, merged: () -> Void,
    then: (_ channel: Int, _ samples: Range<Int>) -> Void
  ) {
    switch schedule {
    case .runs(let parts):
      Parallel.run(parts: parts) { part in
        for channel in Parallel.range(part, of: parts, count: shape.channels) {
          whole(channel)
          then(channel, 0..<shape.samples)
        }
      }
    case .splitRuns(let splits):
      merged()
      Parallel.run(parts: splits * shape.channels) { part in
        then(part / splits, Parallel.range(part % splits, of: splits, count: shape.samples))
      }
    default: break
    }
  }

  /// Two sums for each piece of each channel, at the same time, then merged in the pieces' order.
  private func forEachSplitSum(
    _ sums: (_ channel: Int, _ samples: Range<Int>) -> (Double, Double),
    finish: (_ channel: Int, _ first: Double, _ second: Double) -> Void
  ) {
    guard case .splitRuns(let splits) = schedule else { return }
    let partials = Storage<Double>(count: 2 * splits * shape.channels)
    let pointer = partials.pointer
    Parallel.run(parts: splits * shape.channels) { part in
      let (first, second) = sums(part / splits, Parallel.range(part % splits, of: splits, count: shape.samples))
      pointer[2 * part] = first
      pointer[2 * part + 1] = second
    }
    for channel in 0..<shape.channels {
      var (first, second) = (0.0, 0.0)
      for part in channel * splits..<(channel + 1) * splits {
        first += pointer[2 * part]
        second += pointer[2 * part + 1]
      }
      finish(channel, first, second)
    }
    withExtendedLifetime(partials) {}
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
