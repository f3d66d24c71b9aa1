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

  /// Measures each limit for so long, and takes the best: other programs can only slow a loop down.
  init(duration: Duration) {
    let loops = limit_loops_named(InstructionSet.current)!.pointee
    let threads = Parallel.threadCount
    let sizes = Parallel.cacheSizes
    var places: [(name: String, bytes: Int?, used: Int)] = [
      ("L1", threads * sizes.level1, threads * sizes.level1 / 2),
      ("L2", threads * sizes.level2, threads * sizes.level2 / 2),
    ]
    if sizes.last > sizes.level2 { places.append(("L3", sizes.last, max(sizes.last, threads * sizes.level2) / 2)) }
    places.append(("memory", nil, max(256 << 20, 4 * max(sizes.last, threads * sizes.level2))))

    let buffers = CopyBuffers(threads: threads, bytesPerThread: places.last!.used / 2 / threads + 4096)
    levels = places.map { name, bytes, used in
      // Half of it is copied to the other half.
      let part = max(512, used / 2 / threads / 512 * 512)
      let times = max(1, (1 << 24) / part)
      let amount = Double(threads * part * times)
      let copy = Self.best(duration) {
        Parallel.run(parts: threads) {
          loops.copy(buffers.from($0), buffers.to($0), part, times, bytes == nil)
        }
        return 2 * amount
      }
      let read = Self.best(duration) {
        Parallel.run(parts: threads) { loops.read(buffers.from($0), part, times) }
        return amount
      }
      return Level(name: name, bytes: bytes, copyRate: copy, readRate: read)
    }
    func operations(_ loop: (Int) -> Double) -> Double {
      Self.best(duration) {
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
    floatRate = operations { loops.multiply_add_float($0) }
    doubleRate = operations { loops.multiply_add_double($0) }
  }

  /// How far the limit that differs most has moved, as a factor above 1.
  func change(to other: Limits) -> Double {
    func all(_ limits: Limits) -> [Double] {
      limits.levels.flatMap { [$0.copyRate, $0.readRate] } + [limits.floatRate, limits.doubleRate]
    }
    return zip(all(self), all(other)).map { max($0 / $1, $1 / $0) }.max()!
  }

  /// The best rate, in units of 10⁹ a second, of a body that returns how much it did.
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

  /// The least seconds that `work` can take: its operations at the peak rate, or its bytes through the smallest level that holds all it
  /// touches, whichever is more.
  func leastSeconds(_ work: Work) -> Double {
    let peak = work.precision == .float ? floatRate : doubleRate
    let level = levels.first { work.workingSet <= Double($0.bytes ?? .max) }!
    // A copy's rate counts for whatever writes; where the writing does not matter, that of reading.
    let bandwidth = work.written < work.read / 8 ? level.readRate : level.copyRate
    return max(work.operations / peak, (work.read + work.written) / bandwidth) / 1e9
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
