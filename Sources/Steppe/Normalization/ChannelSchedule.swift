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

  /// The values of one channel, m in the formulas.
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
///   read once and written once. Ranges and panels are multiples of `unit` channels.
/// - `rows`: a channel's values do not fit the cache beside their neighbours, or a panel's rows would be so short that memory's
///   prefetchers stand idle. Each part owns a range of samples; the parts' sums are merged in their order, and the second pass walks
///   backwards to meet what the last-level cache still holds.
/// - `runs`: positions are many, so a channel is a few long stretches. A part owns whole channels.
/// - `splitRuns`: as `runs`, where the channels are too few to share out evenly: each channel's samples are cut as well.
enum ChannelSchedule: Equatable {
  case columns(parts: Int, panel: Int, unit: Int)
  case rows(parts: Int)
  case runs(parts: Int)
  case splitRuns(splits: Int)

  /// Values for which a second part pays: two small passes, and what is set up for each part.
  static let grain = 2 * Parallel.elementGrain
  /// Positions from which one channel's stretch is long enough for a loop of its own.
  static let longRun = 256
  /// Positions from which a stretch with its channel's coefficients in registers is faster than with coefficients for each column.
  static let shortRun = 16
  /// The part of the second-level cache that a panel may take: the results and the stack need room too.
  static let panelShare = 0.5
  /// A panel of the fewest channels whose columns are whole cache lines may be this large, relative to the second-level cache: reading
  /// the end of a panel again from the last level costs less than panels whose rows share lines.
  static let evenPanelShare = 2.0
  /// Bytes of a panel's row below which rows of the whole matrix are faster, although the last-level cache or memory is read twice.
  static let wideRow = 2048
  /// The part of the last-level cache from which on results bypass it, as what is read and written would not both stay in it.
  static let lastLevelShare = 0.8
  /// As many times the last-level cache as what a pass reads, and it is as good as all in memory.
  static let farShare = 6.0

  init(_ shape: ChannelShape, scalarBytes: Int, tensors: Int, threads: Int = Parallel.threadCount) {
    let threads = shape.count < 2 * Self.grain ? 1 : min(threads, shape.count / Self.grain)
    /// Whether ranges of whole units share the channels out so that no thread idles for more than a quarter.
    func sharesOut(_ unit: Int) -> Bool {
      let rounds = (shape.channels + threads * unit - 1) / (threads * unit)
      return 4 * rounds * threads * unit <= 5 * shape.channels
    }
    if shape.positions >= Self.longRun {
      if sharesOut(1) || shape.samples < 2 {
        self = .runs(parts: min(threads, shape.channels))
      } else {
        self = .splitRuns(splits: min(shape.samples, max(2, 4 * threads / shape.channels)))
      }
      return
    }
    let channelBytes = shape.positions * scalarBytes
    // The fewest channels whose columns are whole cache lines.
    let even = max(1, 64 >> channelBytes.trailingZeroBitCount)
    let unit = sharesOut(even) ? even : 1
    let room = Int(Self.panelShare * Double(CacheSizes.level2)) / max(1, shape.samples * tensors * channelBytes)
    let panel = Self.panel(of: shape.channels, parts: threads, room: room, unit: unit)
    let panelBytes = panel * shape.samples * tensors * channelBytes
    // Merging the parts' sums takes parts · columns steps on one thread, a pass samples · columns / parts steps on each.
    let merges = shape.samples >= 4 * threads * threads
    let isWide = panel >= shape.channels || panel * channelBytes >= Self.wideRow
    let fits = Double(panelBytes) <= Self.evenPanelShare * Double(CacheSizes.level2)
    if merges, !isWide || !fits || !sharesOut(unit) {
      self = .rows(parts: threads)
    } else {
      self = .columns(parts: threads, panel: panel, unit: unit)
    }
  }

  /// The channels of a panel, of which at most `room` fit the cache: panels of equal size within a part.
  private static func panel(of channels: Int, parts: Int, room: Int, unit: Int) -> Int {
    let perPart = ((channels + unit - 1) / unit + parts - 1) / parts * unit
    let most = max(unit, room / unit * unit)
    let panels = (perPart + most - 1) / most
    return ((perPart + panels - 1) / panels + unit - 1) / unit * unit
  }

  /// The schedule of columns for a matrix that a product writes or reads in the same parts, or nil where its columns do not fit the
  /// cache, or are too few for the threads. The work that counts is the product's, `depth` multiplications for each element.
  static func columns(
    ofProduct shape: ChannelShape, depth: Int, scalarBytes: Int, tensors: Int, threads: Int = Parallel.threadCount
  ) -> ChannelSchedule? {
    let unit = 64 / scalarBytes
    let wanted = max(1, min(threads, shape.count * depth / ProductCut.forkAndJoin))
    let parts = min(wanted, (shape.channels + unit - 1) / unit)
    let room = Int(panelShare * Double(CacheSizes.level2)) / max(1, shape.samples * tensors * scalarBytes)
    // A panel of less than two cache lines a row would keep the product's tiles half empty.
    guard room >= min(2 * unit, shape.channels), 2 * parts > wanted else { return nil }
    return .columns(parts: parts, panel: panel(of: shape.channels, parts: parts, room: room, unit: unit), unit: unit)
  }
}
