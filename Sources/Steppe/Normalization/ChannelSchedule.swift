/// Where the channel axis of a tensor stands.
public enum ChannelPlace: Sendable, Equatable {
  /// `[N, C]` or `[N, C, …spatial]`, PyTorch's order.
  case channelsFirst
  /// `[N, …spatial, C]`.
  case channelsLast
}

/// A tensor as the normalization kernels see it: `samples` × `channels` × `positions` in that order in memory, where channels-last data
/// has all its positions among the samples.
struct ChannelShape: Equatable {
  let samples: Int
  let channels: Int
  let positions: Int

  /// The values of one channel, SPEC's m.
  var valuesPerChannel: Int { samples * positions }
  /// The distance between the samples.
  var sampleStride: Int { channels * positions }
  var count: Int { samples * sampleStride }

  init(shape: [Int], place: ChannelPlace) {
    switch place {
    case .channelsFirst:
      samples = shape[0]
      channels = shape[1]
      positions = shape[2...].reduce(1, *)
    case .channelsLast:
      samples = shape.dropLast().reduce(1, *)
      channels = shape.last!
      positions = 1
    }
  }
}

/// How the work on a tensor's channels is cut and in which order memory is visited: the one place where shape, cache sizes and thread
/// count decide.
///
/// - `columns`: the tensor is the matrix `[samples, channels · positions]`. A part owns a range of channels and goes through it in
///   panels that stay in the second-level cache between the pass that takes statistics and the pass that normalizes, so main memory is
///   read once and written once.
/// - `rows`: a channel's values do not fit the cache beside their neighbours, so each part owns a range of samples; the parts' sums are
///   merged in their order, and the second pass walks backwards to meet what the last-level cache still holds.
/// - `runs`: positions are many, so a channel is a few long stretches. A part owns whole channels.
/// - `splitRuns`: as `runs`, where the channels are too few to share out evenly: each channel's samples are cut as well.
enum ChannelSchedule: Equatable {
  case columns(parts: Int, panel: Int)
  case rows(parts: Int)
  case runs(parts: Int)
  case splitRuns(splits: Int)

  /// Positions from which one channel's stretch is long enough for a loop of its own.
  static let longRun = 256
  /// The part of the second-level cache that a panel may take: the results and the stack need room too.
  static let panelShare = 0.5
  /// Columns below which a panel's rows are too short for the memory's prefetchers (256 bytes of Float).
  static let narrowPanel = 64

  /// The schedule of columns for a matrix that a product writes or reads in the same parts, or nil where its columns do not fit the
  /// cache. The work that counts is the product's, `depth` multiplications for each element.
  static func columns(
    ofProduct shape: ChannelShape, depth: Int, scalarBytes: Int, tensors: Int, threads: Int = Parallel.threadCount
  ) -> ChannelSchedule? {
    let threads = max(1, min(threads, shape.count * depth / ProductCut.forkAndJoin))
    let schedule = ChannelSchedule(shape, scalarBytes: scalarBytes, tensors: tensors, exactly: threads)
    if case .columns = schedule { return schedule }
    return nil
  }

  init(_ shape: ChannelShape, scalarBytes: Int, tensors: Int, threads: Int = Parallel.threadCount) {
    let threads = shape.count < 2 * Parallel.elementGrain ? 1 : min(threads, shape.count / Parallel.elementGrain)
    self.init(shape, scalarBytes: scalarBytes, tensors: tensors, exactly: threads)
  }

  private init(_ shape: ChannelShape, scalarBytes: Int, tensors: Int, exactly threads: Int) {
    if shape.positions >= Self.longRun {
      // Rounds of whole channels leave threads idle in the last one; accept a quarter.
      let rounds = (shape.channels + threads - 1) / threads
      if Double(rounds * threads) <= 1.25 * Double(shape.channels) || shape.samples < 2 {
        self = .runs(parts: min(threads, shape.channels))
      } else {
        self = .splitRuns(splits: min(shape.samples, max(2, 4 * threads / shape.channels)))
      }
      return
    }
    let columnBytes = max(1, shape.samples * tensors * scalarBytes)
    let room = Int(Self.panelShare * Double(CacheSizes.level2)) / columnBytes
    // Whole cache lines where columns are channels.
    let unit = shape.positions == 1 ? 64 / scalarBytes : 1
    let needed = shape.positions == 1 ? min(Self.narrowPanel, shape.channels) : shape.positions
    let units = (shape.channels + unit - 1) / unit
    if room >= needed, units >= threads || threads == 1 {
      let channels = max(unit, room / shape.positions / unit * unit)
      // Parts of equal size; panels of equal size within a part.
      let perPart = (units + threads - 1) / threads * unit
      let panels = (perPart + channels - 1) / channels
      let panel = ((perPart + panels - 1) / panels + unit - 1) / unit * unit
      self = .columns(parts: threads, panel: panel)
    } else {
      self = .rows(parts: threads)
    }
  }
}
