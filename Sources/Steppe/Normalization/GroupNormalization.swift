import CSteppeKernels

/// How a tensor's values fall into groups that are normalized each by itself: `samples` × `groups`, each of `channels` channels with
/// `positions` values. γ and β have a value for each of groups · channels channels.
struct Grouping {
  let samples: Int
  let groups: Int
  let channels: Int
  let positions: Int
  /// Whether a sample's channels lie side by side at each of several positions, so that a group isn't contiguous.
  let isInterleaved: Bool

  init(samples: Int, groups: Int, channels: Int, positions: Int, layout: ChannelPlace = .channelsFirst) {
    self.samples = samples
    self.groups = groups
    self.channels = channels
    self.positions = positions
    isInterleaved = layout == .channelsLast && positions > 1
  }

  var allChannels: Int { groups * channels }
  var valuesPerGroup: Int { channels * positions }
  var sampleStride: Int { allChannels * positions }
  var count: Int { samples * sampleStride }
}

/// Statistics of groups, normalization by them and the gradients (Mathematics §6 to §8). Forward and backward read their input from memory once:
/// a group, or channels last a sample, is normalized while the cache holds it. Threads take a share of the groups each or, where those are
/// too few to share out and large, a share of every group.
struct GroupNormalization<Scalar: TensorScalar> {
  typealias Pointer = UnsafePointer<Scalar>
  typealias MutablePointer = UnsafeMutablePointer<Scalar>

  let shape: Grouping
  let epsilon: Double
  /// Whether the mean is taken out (not so in RMSNorm); interleaved groups always are.
  let isCentered: Bool

  /// Values below which a second thread is not worth its fork.
  private static var grain: Int { 2 * Parallel.elementGrain }

  /// What a thread takes as a whole: a group, or a sample whose groups are interleaved.
  private var units: Int { shape.isInterleaved ? shape.samples : shape.samples * shape.groups }
  private var valuesPerUnit: Int { shape.isInterleaved ? shape.sampleStride : shape.valuesPerGroup }

  /// The parts of each unit, or nil where whole units share the work out so that no thread idles for more than a quarter.
  private var split: Int? {
    let parts = Parallel.partCount(valuesPerUnit, grain: Self.grain)
    let threads = Parallel.threadCount
    let rounds = (units + threads - 1) / threads
    return parts > 1 && 4 * rounds * threads > 5 * units ? parts : nil
  }

  private func streams(tensors: Int) -> Bool {
    let bytes = (tensors + 1) * shape.count * MemoryLayout<Scalar>.stride
    return Double(bytes) > ChannelSchedule.lastLevelShare * Double(CacheSizes.last)
  }

  private func groups(_ rows: Range<Int>, stream: Bool) -> steppe_groups {
    steppe_groups(
      rows: rows.count, first: rows.lowerBound, period: shape.groups, channels: shape.channels,
      positions: shape.positions, values: shape.valuesPerGroup, epsilon: epsilon, centered: isCentered, stream: stream)
  }

  // MARK: Forward

  /// y = γ·x̂ + β; for each group the shift, the remainder of the mean and the variance.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(x: Pointer, y: MutablePointer, gamma: Pointer, beta: Pointer) -> Storage<Double> {
    let statistics = Storage<Double>(count: 3 * shape.samples * shape.groups)
    let stream = streams(tensors: 1)
    if let split {
      let scratch = shape.isInterleaved ? Interleaved<Scalar>(channels: shape.allChannels, parts: split) : nil
      for unit in 0..<units {
        let (from, to) = (x + unit * valuesPerUnit, y + unit * valuesPerUnit)
        if let scratch {
          forwardInterleaved(from, to, gamma, beta, statistics.pointer + 3 * unit * shape.groups, scratch, stream)
        } else {
          forwardSplit(unit, split, from, to, gamma, beta, statistics.pointer + 3 * unit, stream)
        }
      }
      return statistics
    }
    Parallel.ranges(units, grain: max(1, Self.grain / valuesPerUnit)) { range in
      let start = range.lowerBound * valuesPerUnit
      guard shape.isInterleaved else {
        var groups = groups(range, stream: stream)
        Scalar.kernels.group_normalize(
          STEPPE_GROUP_ALL, &groups, x + start, y + start, gamma, beta, statistics.pointer + 3 * range.lowerBound)
        return
      }
      let scratch = Interleaved<Scalar>(channels: shape.allChannels)
      for sample in range {
        let start = sample * shape.sampleStride
        forwardInterleaved(
          x + start, y + start, gamma, beta, statistics.pointer + 3 * sample * shape.groups, scratch, stream)
      }
    }
    return statistics
  }

  // MARK: Backward

  /// dx where it is wanted, and the sums of dγ and dβ.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func backward(
    x: Pointer, dy: Pointer, dx: MutablePointer?, gamma: Pointer, statistics: Storage<Double>
  ) -> (dGamma: Tensor<Scalar>, dBeta: Tensor<Scalar>) {
    let stream = dx != nil && streams(tensors: 2)
    let split = split
    let parts = split ?? Parallel.partCount(units, grain: max(1, Self.grain / valuesPerUnit))
    let sums = ColumnSums(columns: shape.allChannels, parts: parts)
    if let split {
      let scratch = shape.isInterleaved ? Interleaved<Scalar>(channels: shape.allChannels, parts: split) : nil
      for unit in 0..<units {
        let start = unit * valuesPerUnit
        let (from, gradient, to) = (x + start, dy + start, dx.map { $0 + start })
        if let scratch {
          backwardInterleaved(
            from, gradient, to, gamma, statistics.pointer + 3 * unit * shape.groups, scratch, sums, stream)
        } else {
          backwardSplit(unit, split, from, gradient, to, gamma, statistics.pointer + 3 * unit, sums, stream)
        }
      }
    } else {
      Parallel.run(parts: parts) { part in
        let range = Parallel.range(part, of: parts, count: units)
        if range.isEmpty { return }
        let own = sums.part(part)
        guard shape.isInterleaved else {
          let start = range.lowerBound * valuesPerUnit
          let totals = Storage<Double>(count: 2 * range.count)
          var groups = groups(range, stream: stream)
          Scalar.kernels.group_gradient(
            STEPPE_GROUP_ALL, &groups, x + start, dy + start, dx.map { UnsafeMutableRawPointer($0 + start) }, gamma,
            statistics.pointer + 3 * range.lowerBound, totals.pointer, own.first, own.second)
          return
        }
        let scratch = Interleaved<Scalar>(channels: shape.allChannels)
        for sample in range {
          let start = sample * shape.sampleStride
          backwardInterleaved(
            x + start, dy + start, dx.map { $0 + start }, gamma, statistics.pointer + 3 * sample * shape.groups,
            scratch, own, stream)
        }
      }
    }
    sums.merge()
    withExtendedLifetime(statistics) {}
    func tensor(_ sums: UnsafeMutablePointer<Double>) -> Tensor<Scalar> {
      let tensor = Tensor<Scalar>(uninitialized: [shape.allChannels])
      for channel in 0..<shape.allChannels { tensor.address[channel] = Scalar(sums[channel]) }
      return tensor
    }
    return (tensor(sums.first), tensor(sums.second))
  }

  // MARK: One contiguous group, shared out

  /// Calls `body` for each piece of a range of a group's values that is whole channels, or a part of one: where it begins, with which
  /// of the group's channels, and how many channels and positions it has.
  private func forEachPiece(
    _ range: Range<Int>, _ body: (_ start: Int, _ channel: Int, _ channels: Int, _ positions: Int) -> Void
  ) {
    let s = shape.positions
    var start = range.lowerBound
    while start < range.upperBound {
      let (channel, position) = (start / s, start % s)
      let whole = position == 0 ? (range.upperBound - start) / s : 0
      let positions = whole > 0 ? s : min(s - position, range.upperBound - start)
      body(start, channel, max(1, whole), positions)
      start += max(1, whole) * positions
    }
  }

  private func piece(_ channels: Int, _ positions: Int, stream: Bool) -> steppe_groups {
    steppe_groups(
      rows: 1, first: 0, period: 1, channels: channels, positions: positions, values: shape.valuesPerGroup,
      epsilon: epsilon, centered: isCentered, stream: stream)
  }

  /// The range of a part of a group: whole cache lines.
  private func range(_ part: Int, of parts: Int) -> Range<Int> {
    Parallel.range(part, of: parts, count: shape.valuesPerGroup, multiple: 64 / MemoryLayout<Scalar>.stride)
  }

  private func forwardSplit(
    _ unit: Int, _ parts: Int, _ x: Pointer, _ y: MutablePointer, _ gamma: Pointer, _ beta: Pointer,
    _ statistics: UnsafeMutablePointer<Double>, _ stream: Bool
  ) {
    let first = unit % shape.groups * shape.channels
    let n = Double(shape.valuesPerGroup)
    let sums = ColumnSums(columns: 1, parts: parts)
    var shift = 0.0
    if isCentered {
      let few = min(shape.valuesPerGroup, 16)
      let start = Double(x[0])
      Scalar.kernels.run_moments(x, shape.valuesPerGroup / few, few, 1, start, sums.first, sums.second)
      let mean = Double(Scalar(start + sums.first[0] / Double(few)))
      shift = mean.isFinite ? mean : start
    }
    // As for whole groups, in the kernel.
    for _ in 0..<2 {
      Parallel.run(parts: parts) { part in
        let (own, range) = (sums.part(part), range(part, of: parts))
        (own.first[0], own.second[0]) = (0, 0)
        Scalar.kernels.run_moments(
          x + range.lowerBound, range.count, 1, range.count, shift, own.first, own.second)
      }
      sums.merge()
      let (distance, squares) = (isCentered ? sums.first[0] / n : 0, sums.second[0] / n)
      let spread = squares - distance * distance
      statistics[0] = Double(Scalar(shift + distance))
      statistics[1] = shift - statistics[0] + distance
      statistics[2] = spread < 0 ? 0 : spread
      if !(distance * distance > spread) { break }
      shift = statistics[0]
    }
    Parallel.run(parts: parts) { part in
      forEachPiece(range(part, of: parts)) { start, channel, channels, positions in
        var groups = piece(channels, positions, stream: stream)
        Scalar.kernels.group_normalize(
          STEPPE_GROUP_MAP, &groups, x + start, y + start, gamma + first + channel, beta + first + channel, statistics)
      }
    }
  }

  private func backwardSplit(
    _ unit: Int, _ parts: Int, _ x: Pointer, _ dy: Pointer, _ dx: MutablePointer?, _ gamma: Pointer,
    _ statistics: UnsafePointer<Double>, _ sums: ColumnSums, _ stream: Bool
  ) {
    let first = unit % shape.groups * shape.channels
    let totals = ColumnSums(columns: 1, parts: parts)
    Parallel.run(parts: parts) { part in
      let (own, total) = (sums.part(part), totals.part(part))
      forEachPiece(range(part, of: parts)) { start, channel, channels, positions in
        var groups = piece(channels, positions, stream: false)
        withUnsafeTemporaryAllocation(of: Double.self, capacity: 2) { pair in
          let pair = pair.baseAddress!
          Scalar.kernels.group_gradient(
            STEPPE_GROUP_SUMS, &groups, x + start, dy + start, nil, gamma + first + channel, statistics, pair,
            own.first + first + channel, own.second + first + channel)
          total.first[0] += pair[0]
          total.second[0] += pair[1]
        }
      }
    }
    guard let dx else { return }
    totals.merge()
    Parallel.run(parts: parts) { part in
      let own = sums.part(part)
      forEachPiece(range(part, of: parts)) { start, channel, channels, positions in
        var groups = piece(channels, positions, stream: stream)
        Scalar.kernels.group_gradient(
          STEPPE_GROUP_MAP, &groups, x + start, dy + start, dx + start, gamma + first + channel, statistics,
          totals.first, own.first, own.second)
      }
    }
  }

  // MARK: One sample, channels last: the matrix [positions, channels], in as many parts as `scratch` has

  private func forwardInterleaved(
    _ x: Pointer, _ y: MutablePointer, _ gamma: Pointer, _ beta: Pointer, _ statistics: UnsafeMutablePointer<Double>,
    _ scratch: Interleaved<Scalar>, _ stream: Bool
  ) {
    let (c, s) = (shape.allChannels, shape.positions)
    let few = min(s, 8)
    Scalar.kernels.reduce_columns(STEPPE_SUM, x, s / few * c, few, c, scratch.shift)
    let (shift, a, b, sums) = (scratch.shift, scratch.a, scratch.b, scratch.sums)
    for channel in 0..<c {
      let mean = shift[channel] / Scalar(few)
      shift[channel] = mean.isFinite ? mean : x[channel]
    }
    for _ in 0..<2 {
      scratch.overParts(s) { own, rows in
        Scalar.kernels.column_moments(
          x + rows.lowerBound * c, c, rows.count, c, shift, own.first, own.second)
      }
      var isNear = true
      for group in 0..<shape.groups {
        isNear = merge(group, statistics + 3 * group, scratch) && isNear
      }
      if isNear { break }
      for channel in 0..<c { shift[channel] = Scalar(Double(shift[channel]) + sums.first[channel] / Double(s)) }
    }
    for group in 0..<shape.groups {
      let own = statistics + 3 * group
      let rstd = 1 / (own[2] + epsilon).squareRoot()
      for channel in group * shape.channels..<(group + 1) * shape.channels {
        let scale = Double(gamma[channel]) * rstd
        shift[channel] = Scalar(own[0])
        a[channel] = Scalar(scale)
        b[channel] = Scalar(Double(beta[channel]) - own[1] * scale)
      }
    }
    scratch.overParts(s, clearing: false) { _, rows in
      let start = rows.lowerBound * c
      Scalar.kernels.column_normalize(
        STEPPE_IDENTITY, 0, x + start, c, y + start, c, rows.count, c, shift, a, b, true, stream)
    }
  }

  /// A group's statistics from its channels' sums, each by a shift of its own (Chan, Golub & LeVeque 1983); false where a shift was too
  /// far from its channel's mean for the group's variance.
  private func merge(
    _ group: Int, _ statistics: UnsafeMutablePointer<Double>, _ scratch: Interleaved<Scalar>
  ) -> Bool {
    let channels = group * shape.channels..<(group + 1) * shape.channels
    let (shift, first, second) = (scratch.shift, scratch.sums.first, scratch.sums.second)
    let part = 1 / Double(shape.positions)
    let origin = Double(shift[channels.lowerBound])
    var mean = 0.0
    for channel in channels { mean += Double(shift[channel]) - origin + first[channel] * part }
    mean /= Double(shape.channels)
    var (variance, farthest) = (0.0, 0.0)
    for channel in channels {
      let offset = first[channel] * part
      let between = Double(shift[channel]) - origin + offset - mean
      variance += max(0, second[channel] * part - offset * offset) + between * between
      farthest = max(farthest, offset * offset)
    }
    variance /= Double(shape.channels)
    // `max` drops a NaN.
    if !mean.isFinite { variance = .nan }
    statistics[0] = Double(Scalar(origin + mean))
    statistics[1] = origin - statistics[0] + mean
    statistics[2] = variance
    return !(farthest > variance)
  }

  private func backwardInterleaved(
    _ x: Pointer, _ dy: Pointer, _ dx: MutablePointer?, _ gamma: Pointer, _ statistics: UnsafePointer<Double>,
    _ scratch: Interleaved<Scalar>, _ sums: ColumnSums, _ stream: Bool
  ) {
    let (c, s) = (shape.allChannels, shape.positions)
    let (shift, a, b, e) = (scratch.shift, scratch.a, scratch.b, scratch.e)
    for group in 0..<shape.groups {
      let mean = Scalar(statistics[3 * group])
      for channel in group * shape.channels..<(group + 1) * shape.channels { shift[channel] = mean }
    }
    scratch.overParts(s) { own, rows in
      let start = rows.lowerBound * c
      Scalar.kernels.column_gradient_sums(
        x + start, c, dy + start, c, rows.count, c, shift, nil, nil, own.first, own.second)
    }
    let (gradients, products) = (scratch.sums.first, scratch.sums.second)
    let (dGamma, dBeta, n) = (sums.first, sums.second, Double(shape.valuesPerGroup))
    for group in 0..<shape.groups {
      let own = statistics + 3 * group
      let rstd = 1 / (own[2] + epsilon).squareRoot()
      let channels = group * shape.channels..<(group + 1) * shape.channels
      var (first, second) = (0.0, 0.0)
      for channel in channels {
        let sum = gradients[channel]
        let product = (products[channel] - own[1] * sum) * rstd
        dGamma[channel] += product
        dBeta[channel] += sum
        first += Double(gamma[channel]) * sum
        second += Double(gamma[channel]) * product
      }
      let slope = -rstd * rstd * second / n
      let rest = -rstd * first / n - slope * own[1]
      for channel in channels {
        a[channel] = Scalar(Double(gamma[channel]) * rstd)
        b[channel] = Scalar(slope)
        e[channel] = Scalar(rest)
      }
    }
    guard let dx else { return }
    scratch.overParts(s, clearing: false) { _, rows in
      let start = rows.lowerBound * c
      Scalar.kernels.column_gradient(
        x + start, c, dy + start, c, dx + start, c, rows.count, c, shift, nil, nil, a, b, e, true, stream, false)
    }
  }
}

/// What is kept for each channel of a sample, and the parts in which its positions are walked.
private final class Interleaved<Scalar: TensorScalar> {
  let sums: ColumnSums
  private let channels: Int
  private let parts: Int
  private let coefficients: Storage<Scalar>

  init(channels: Int, parts: Int = 1) {
    self.channels = channels
    self.parts = parts
    coefficients = Storage(count: 4 * channels)
    sums = ColumnSums(columns: channels, parts: parts)
  }

  var shift: UnsafeMutablePointer<Scalar> { coefficients.pointer }
  var a: UnsafeMutablePointer<Scalar> { coefficients.pointer + channels }
  var b: UnsafeMutablePointer<Scalar> { coefficients.pointer + 2 * channels }
  var e: UnsafeMutablePointer<Scalar> { coefficients.pointer + 3 * channels }

  /// Calls `body` with each part's sums and positions; where the sums are cleared first they are merged afterwards.
  func overParts(_ positions: Int, clearing: Bool = true, _ body: (ColumnSums, Range<Int>) -> Void) {
    Parallel.run(parts: parts) { part in
      let own = sums.part(part)
      if clearing { own.first.update(repeating: 0, count: 2 * channels) }
      body(own, Parallel.range(part, of: parts, count: positions))
    }
    if clearing { sums.merge() }
  }
}

/// γ and β of a layer that normalizes groups, and its passes over tensors.
struct GroupAffine<Scalar: TensorScalar> {
  let gamma: Parameter<Scalar>
  let beta: Parameter<Scalar>
  let epsilon: Double
  var isCentered = true

  func forward(
    _ input: Tensor<Scalar>, _ shape: Grouping
  ) -> (output: Tensor<Scalar>, statistics: Storage<Double>, pullback: Pullback<Scalar>) {
    let x = input.contiguous()
    let g = gamma.value.contiguous()
    let work = GroupNormalization<Scalar>(shape: shape, epsilon: epsilon, isCentered: isCentered)
    let (output, statistics) = Self.normalized(x, g, beta.value, work)
    let (gamma, beta) = (gamma, beta)
    let pullback = Pullback<Scalar>(shape: output.shape) { gradient, needsInput in
      let dy = gradient.contiguous()
      let dx = needsInput ? Tensor<Scalar>(uninitialized: x.shape) : nil
      let sums = work.backward(
        x: x.address, dy: dy.address, dx: dx?.address, gamma: g.address, statistics: statistics)
      withExtendedLifetime((x, dy, g)) {}
      for (parameter, values) in [(gamma, sums.dGamma), (beta, sums.dBeta)] where parameter.isTrainable {
        parameter.accumulate(values.reshaped(parameter.value.shape))
      }
      return dx
    }
    return (output, statistics, pullback)
  }

  /// Evaluation, as a value that outlives the layer.
  func evaluation() -> @Sendable (Tensor<Scalar>, Grouping) -> Tensor<Scalar> {
    let (g, b, epsilon, isCentered) = (gamma.value.contiguous(), beta.value, epsilon, isCentered)
    return { input, shape in
      let work = GroupNormalization<Scalar>(shape: shape, epsilon: epsilon, isCentered: isCentered)
      return Self.normalized(input.contiguous(), g, b, work).output
    }
  }

  private static func normalized(
    _ x: Tensor<Scalar>, _ gamma: Tensor<Scalar>, _ beta: Tensor<Scalar>, _ work: GroupNormalization<Scalar>
  ) -> (output: Tensor<Scalar>, statistics: Storage<Double>) {
    let b = beta.contiguous()
    let output = Tensor<Scalar>(uninitialized: x.shape)
    let statistics = work.forward(x: x.address, y: output.address, gamma: gamma.address, beta: b.address)
    withExtendedLifetime((x, gamma, b)) {}
    return (output, statistics)
  }
}
