import BenchmarkCases
import CLimits
import Glibc
@_spi(Benchmarks) import Steppe

/// What the machine can do at most with the instruction set and the threads in use, found by loops that do nothing else.
struct Limits: Encodable {
  /// One place where data may be.
  struct Level: Encodable {
    let name: String
    /// The bytes that it holds for all threads together; nil for main memory.
    let bytes: Int?
    /// Bytes read and written in a second by a copy, in units of 10⁹.
    let copyRate: Double
    /// Bytes read in a second, in units of 10⁹.
    let readRate: Double
  }

  /// From the first cache to main memory.
  let levels: [Level]
  /// Operations in a second, in units of 10⁹, by multiplying and adding in registers.
  let floatRate: Double
  let doubleRate: Double

  /// Measures each limit for so long.
  init(_ loops: LimitLoops, duration: Duration) {
    levels = loops.places.indices.map { place in
      Level(
        name: loops.places[place].name, bytes: loops.places[place].bytes,
        copyRate: loops.rate(.copy(place), for: duration), readRate: loops.rate(.read(place), for: duration))
    }
    floatRate = loops.rate(.operations(.float), for: duration)
    doubleRate = loops.rate(.operations(.double), for: duration)
  }

  /// One of them.
  enum Kind {
    /// To and from a level, by its place among ``levels``.
    case copy(Int), read(Int)
    case operations(Work.Precision)
  }

  /// The limit that `work` runs into first: its operations at the peak rate, or its bytes through the smallest level that holds all it
  /// touches; and how much of it the work takes.
  func first(for work: Work) -> (kind: Kind, amount: Double) {
    let place = levels.firstIndex { work.workingSet <= Double($0.bytes ?? .max) }!
    // A copy's rate counts for whatever writes; where the writing does not matter, that of reading.
    let onlyReads = work.written < work.read / 8
    let bandwidth = onlyReads ? levels[place].readRate : levels[place].copyRate
    let peak = work.precision == .float ? floatRate : doubleRate
    return work.operations / peak > (work.read + work.written) / bandwidth
      ? (.operations(work.precision), work.operations)
      : (onlyReads ? .read(place) : .copy(place), work.read + work.written)
  }
}

/// The loops that run into the limits, with their memory, so that a limit can be measured whenever it is needed.
final class LimitLoops {
  /// Where data may be, from the first cache to main memory: what a level holds for all threads together, and how much the loops use.
  let places: [(name: String, bytes: Int?, used: Int)]
  private let loops = limit_loops_named(InstructionSet.current)!.pointee
  private let threads = Parallel.threadCount
  private let buffers: CopyBuffers

  init() {
    let sizes = Parallel.cacheSizes
    var places: [(name: String, bytes: Int?, used: Int)] = [
      ("L1", threads * sizes.level1, threads * sizes.level1 / 2),
      ("L2", threads * sizes.level2, threads * sizes.level2 / 2),
    ]
    if sizes.last > sizes.level2 { places.append(("L3", sizes.last, max(sizes.last, threads * sizes.level2) / 2)) }
    places.append(("memory", nil, max(256 << 20, 4 * max(sizes.last, threads * sizes.level2))))
    self.places = places
    buffers = CopyBuffers(threads: threads, bytesPerThread: places.last!.used / 2 / threads + 4096)
  }

  /// A limit's rate, in units of 10⁹ a second: the best within `duration`, as other programs can only slow a loop down.
  func rate(_ kind: Limits.Kind, for duration: Duration) -> Double {
    let (loops, threads, buffers) = (loops, threads, buffers)
    switch kind {
    case .copy(let place):
      let (part, times) = amounts(place)
      let streams = places[place].bytes == nil
      return Self.best(duration) {
        Parallel.run(parts: threads) { loops.copy(buffers.from($0), buffers.to($0), part, times, streams) }
        return 2 * Double(threads * part * times)
      }
    case .read(let place):
      let (part, times) = amounts(place)
      return Self.best(duration) {
        Parallel.run(parts: threads) { loops.read(buffers.from($0), part, times) }
        return Double(threads * part * times)
      }
    case .operations(let precision):
      let loop = precision == .float ? loops.multiply_add_float : loops.multiply_add_double
      return Self.best(duration) {
        var amount = 0.0
        withUnsafeMutablePointer(to: &amount) { amount in
          Parallel.run(parts: threads) { part in
            let done = loop(1 << 16)
            if part == 0 { amount.pointee = done }
          }
        }
        return amount * Double(threads)
      }
    }
  }

  /// The bytes that each thread copies or reads at a place, half of what the loops use there, and how many times for one timing.
  private func amounts(_ place: Int) -> (part: Int, times: Int) {
    let part = max(512, places[place].used / 2 / threads / 512 * 512)
    return (part, max(1, (1 << 24) / part))
  }

  private static func best(_ duration: Duration, _ body: () -> Double) -> Double {
    let clock = ContinuousClock()
    var rate = 0.0
    let end = clock.now + duration
    _ = body()
    repeat {
      let start = clock.now
      let amount = body()
      rate = max(rate, amount / ((clock.now - start) / .seconds(1)) / 1e9)
    } while clock.now < end
    return rate
  }
}

/// Two buffers for each thread.
private final class CopyBuffers {
  private let base: UnsafeMutableRawPointer
  private let distance: Int

  init(threads: Int, bytesPerThread: Int) {
    let hugePage = 2 << 20
    // Half a page and some lines more, so that a buffer and its copy do not meet in the same places of the first cache.
    distance = (bytesPerThread + 2048 + 255) / 256 * 256 + 192
    let size = (2 * threads * distance + hugePage - 1) / hugePage * hugePage
    base = .allocate(byteCount: size, alignment: hugePage)
    madvise(base, size, MADV_HUGEPAGE)
    memset(base, 1, size)
  }

  func from(_ thread: Int) -> UnsafeMutableRawPointer { base + 2 * thread * distance }
  func to(_ thread: Int) -> UnsafeMutableRawPointer { base + (2 * thread + 1) * distance }

  deinit { base.deallocate() }
}
