import CSteppeKernels

/// Batch statistics, normalization and their gradients over the channels of one tensor (Mathematics §4), as a ``ChannelSchedule`` orders them.
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
  /// A pass over rows reads so much more than the last-level cache holds that next to nothing of it is there.
  let isFar: Bool

  /// - Parameters:
  ///   - tensors: How many tensors of this shape a pass reads, which share the cache.
  ///   - schedule: Where the caller has chosen it.
  init(_ shape: ChannelShape, tensors: Int = 1, schedule: ChannelSchedule? = nil) {
    let bytes = MemoryLayout<Scalar>.stride
    self.shape = shape
    self.schedule = schedule ?? ChannelSchedule(shape, scalarBytes: bytes, tensors: tensors)
    let last = Double(CacheSizes.last)
    streams = Double((tensors + 1) * shape.count * bytes) > ChannelSchedule.lastLevelShare * last
    if case .rows = self.schedule {
      isFar = Double(tensors * shape.count * bytes) > ChannelSchedule.farShare * last
    } else {
      isFar = false
    }
  }

  var m: Double { Double(shape.valuesPerChannel) }
  var fold: Int { shape.positions }

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

  /// The same where the moments are known. The end of x, which was written last, comes first.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(
    x: Pointer, y: MutablePointer, gamma: Pointer, beta: Pointer, epsilon: Double, activation: Activation,
    residual: Pointer? = nil, moments: ChannelMoments
  ) {
    // By the same kernel or code as backward has, which computes the result again.
    let long = fold >= ChannelSchedule.longRun
    let all = long ? nil : affine(0..<shape.channels, moments, gamma, beta, epsilon)
    apply(x: x, y: y, activation: activation, residual: residual, backwards: true) { channel in
      guard let all else { return affine(channel, moments, gamma, beta, epsilon) }
      return (all.column(0)[channel * fold], all.column(1)[channel * fold], all.column(2)[channel * fold])
    }
    withExtendedLifetime(all) {}
  }

  /// y = f((x − shift)·scale + offset) with given coefficients for each channel, as in evaluation; with a residual, as `forward` has it.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func apply(
    x: Pointer, y: MutablePointer, activation: Activation = .identity, residual: Pointer? = nil,
    backwards: Bool = false, _ coefficients: (Int) -> (Scalar, Scalar, Scalar)
  ) {
    if fold >= ChannelSchedule.shortRun {
      // One stretch after another in memory's order.
      let c = ColumnCoefficients<Scalar>(channels: 0..<shape.channels, fold: 1, count: 3)
      c.fill(coefficients)
      Parallel.ranges(shape.samples * shape.channels, grain: max(1, Parallel.elementGrain / fold)) { runs in
        Scalar.kernels.channels_normalize(
          activation.kernel, activation.parameter, x, residual, y, runs.lowerBound, runs.count, fold, shape.channels,
          c.column(0), c.column(1), c.column(2), backwards, streams)
      }
      return withExtendedLifetime(c) {}
    }
    let scratch = ColumnCoefficients<Scalar>(channels: 0..<shape.channels, fold: fold, count: 3)
    scratch.fill(coefficients)
    let grain = max(1, Parallel.elementGrain / max(1, shape.sampleStride))
    Parallel.ranges(shape.samples, grain: grain) { rows in
      normalizeColumns(x, y, rows: rows, scratch, activation, residual, backwards: backwards)
    }
  }

  // MARK: Backward

  /// dβ = Σdy and dγ = Σdy·x̂ into `dBeta` and `dGamma`, and dx = γ·rstd·(dy − dβ/m − x̂·dγ/m) where `dx` is wanted.
  ///
  /// `activation`, the identity or ReLU, is what `forward` fused: for ReLU, `dy` is the gradient behind it, and the elements that it
  /// held back, found by computing them once more, add nothing. `consume` takes dx, a thread's whole range of channels as soon as that is
  /// done: for a schedule of columns. `adjust` may change a range of channels' dγ and dβ before dx is made of them, and `values` says how
  /// many values of a channel they then are the sums of; by default this tensor's.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func backward(
    x: Pointer, dy: Pointer, dx: MutablePointer?, gamma: Pointer, beta: Pointer, moments: ChannelMoments,
    epsilon: Double,
    activation: Activation = .identity, values: Int? = nil, dGamma: UnsafeMutablePointer<Double>,
    dBeta: UnsafeMutablePointer<Double>,
    consume: (_ channels: Range<Int>) -> Void = { _ in }, adjust: (_ channels: Range<Int>) -> Void = { _ in }
  ) {
    precondition(activation == .identity || activation == .relu)
    let masked = activation == .relu
    let all = values.map { Double($0) } ?? m
    let forwards = { (channels: Range<Int>) in
      affine(channels, moments, masked ? gamma : nil, beta, epsilon)
    }
    let slopes = { (channels: Range<Int>) in
      let result = ColumnCoefficients<Scalar>(channels: channels, fold: fold, count: 3)
      var part = moments.part(channels, fold: fold, values: all, epsilon: epsilon)
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
        }
        adjust(0..<shape.channels)
      } then: { channel, samples in
        guard let dx else { return }
        let forward = affine(channel, moments, gamma, beta, epsilon)
        let c = gradient(channel, moments, gamma, epsilon, dGamma, dBeta, values: all)
        let start = samples.lowerBound * shape.sampleStride + channel * fold
        Scalar.kernels.run_gradient(
          x + start, dy + start, dx + start, shape.sampleStride, samples.count, fold, Double(c.0), masked,
          Double(forward.1), Double(forward.2), Double(c.1), Double(c.2), Double(c.3), true, streams)
      }
    }
  }

  // MARK: Channels' coefficients

  /// shift, scale and offset of channels for y = (x − shift)·scale + offset, each over its columns; without `gamma` the shift alone.
  func affine(
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
  func affine(
    _ c: Int, _ moments: ChannelMoments, _ gamma: Pointer, _ beta: Pointer,
    _ epsilon: Double
  ) -> (Scalar, Scalar, Scalar) {
    let shift = Scalar(moments.mean[c])
    let scale = Double(gamma[c]) / (moments.variance[c] + epsilon).squareRoot()
    return (shift, Scalar(scale), Scalar(Double(beta[c]) - moments.remainder[c] * scale))
  }

  /// shift, a, b and e of channel c for dx = a·dy + b·(x − shift) + e.
  func gradient(
    _ c: Int, _ moments: ChannelMoments, _ gamma: Pointer, _ epsilon: Double,
    _ dGamma: UnsafePointer<Double>, _ dBeta: UnsafePointer<Double>, values: Double
  ) -> (Scalar, Scalar, Scalar, Scalar) {
    let shift = Scalar(moments.mean[c])
    let rstd = 1 / (moments.variance[c] + epsilon).squareRoot()
    let a = Double(gamma[c]) * rstd
    let b = -a * rstd * dGamma[c] / values
    return (shift, Scalar(a), Scalar(b), Scalar(-a * dBeta[c] / values - b * moments.remainder[c]))
  }

  /// dγ and dβ of channel c from Σdy and Σdy·(x − shift).
  func finishGradient(
    _ c: Int, _ sum: Double, _ product: Double, _ moments: ChannelMoments,
    _ epsilon: Double, _ dGamma: UnsafeMutablePointer<Double>, _ dBeta: UnsafeMutablePointer<Double>
  ) {
    dBeta[c] = sum
    dGamma[c] = (product - moments.remainder[c] * sum) / (moments.variance[c] + epsilon).squareRoot()
  }

  /// Mean and variance of channel c from the sums of x − shift and its squares; false where the shift was too far off for the variance.
  func finish(
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
}
