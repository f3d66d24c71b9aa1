import CSteppeKernels

extension ChannelNormalization {
  // MARK: Statistics by columns

  func columnMoments(
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

  func rowMoments(
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
  func refined(
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
  func sampledShifts(_ x: Pointer, _ channels: Range<Int>) -> ColumnCoefficients<Scalar> {
    let result = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: 1)
    let samples = min(shape.samples, max(8, 32 / max(1, fold)))
    let start = x + channels.lowerBound * fold
    Scalar.kernels.reduce_columns(
      STEPPE_SUM, start, shape.samples / samples * shape.sampleStride, samples, channels.count * fold, result.column(0))
    Scalar.kernels.channel_shifts(channels.count, fold, samples, start, result.column(0))
    return result
  }

  func normalizeColumns(
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
  func columnGradientSums(
    _ x: Pointer, _ dy: Pointer, rows: Range<Int>, _ forward: ColumnCoefficients<Scalar>, _ sums: ColumnSums
  ) {
    let start = rows.lowerBound * shape.sampleStride + forward.channels.lowerBound * fold
    let masked = forward.count == 3
    Scalar.kernels.column_gradient_sums(
      x + start, shape.sampleStride, dy + start, shape.sampleStride, rows.count, forward.columns, forward.column(0),
      masked ? forward.column(1) : nil, masked ? forward.column(2) : nil, sums.first, sums.second)
    withExtendedLifetime((forward, sums)) {}
  }

  func applyGradient(
    _ x: Pointer, _ dy: Pointer, _ dx: MutablePointer, rows: Range<Int>, _ forward: ColumnCoefficients<Scalar>,
    _ c: ColumnCoefficients<Scalar>
  ) {
    let start = rows.lowerBound * shape.sampleStride + c.channels.lowerBound * fold
    let masked = forward.count == 3
    Scalar.kernels.column_gradient(
      x + start, shape.sampleStride, dy + start, shape.sampleStride, dx + start, shape.sampleStride, rows.count,
      c.columns, forward.column(0), masked ? forward.column(1) : nil, masked ? forward.column(2) : nil, c.column(0),
      c.column(1), c.column(2), true, streams, isFar)
    withExtendedLifetime((forward, c)) {}
  }

  // MARK: Statistics by runs

  func runMoments(
    _ x: Pointer, _ channel: Int, _ moments: ChannelMoments
  ) {
    var shift = sampledShift(x, channel)
    for _ in 0..<2 {
      let (sum, squares) = runSums(x, channel, 0..<shape.samples, shift)
      if finish(channel, shift: shift, sum: sum, squares: squares, moments) { return }
      shift = Scalar(moments.mean[channel])
    }
  }

  func splitRunMoments(
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

  func runSums(_ x: Pointer, _ channel: Int, _ samples: Range<Int>, _ shift: Scalar) -> (Double, Double) {
    var (sum, squares) = (0.0, 0.0)
    Scalar.kernels.run_moments(
      x + samples.lowerBound * shape.sampleStride + channel * fold, shape.sampleStride, samples.count, fold,
      Double(shift), &sum, &squares)
    return (sum, squares)
  }

  func runGradientSums(
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
  func sampledShift(_ x: Pointer, _ channel: Int) -> Scalar {
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
  func forEachPanel(
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
  func forEachChannel(
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
  func forEachSplitSum(
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
