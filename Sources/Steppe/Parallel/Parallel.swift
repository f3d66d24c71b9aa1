import Glibc
import Synchronization

/// How Steppe uses the processors.
///
/// Work is cut into as many parts as there are threads, by a schedule that depends on the thread count alone: one thread count gives
/// one result, bitwise, whichever thread runs which part. Calls from several host threads are safe: one of them gets the team of
/// threads, the others run their parts themselves, with the same result. So do nested calls.
public enum Parallel {
  /// The most threads that ``threadCount`` may name.
  public static let maximumThreadCount = 256

  /// The processors that this process may use: its affinity mask, capped by its control group's quota.
  public static let availableProcessors = ProcessorLimits.available

  /// The threads that a call may use, the caller's own among them; 1 … ``maximumThreadCount``.
  ///
  /// At the start it is ``availableProcessors``, or the environment variable `STEPPE_NUM_THREADS`. More threads than processors are
  /// allowed, and slower.
  public static var threadCount: Int {
    get { override ?? configured.load(ordering: .relaxed) }
    set {
      require(
        (1...maximumThreadCount).contains(newValue),
        "Parallel.threadCount: expected 1 … \(maximumThreadCount), got \(newValue)")
      configured.store(newValue, ordering: .relaxed)
    }
  }

  /// Runs `body` with another thread count, for this task or thread alone.
  public static func withThreadCount<Result, Failure: Error>(
    _ count: Int, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    require(
      (1...maximumThreadCount).contains(count),
      "Parallel.withThreadCount: expected 1 … \(maximumThreadCount), got \(count)")
    // `withValue` rethrows untyped, so the typed error is carried past it.
    let result: Swift.Result<Result, Failure> = $override.withValue(count) {
      do throws(Failure) { return .success(try body()) } catch { return .failure(error) }
    }
    return try result.get()
  }

  @TaskLocal private static var override: Int?

  private static let configured = Atomic<Int>(initialThreadCount())

  private static func initialThreadCount() -> Int {
    if let text = getenv("STEPPE_NUM_THREADS"), let count = Int(String(cString: text)),
      (1...maximumThreadCount).contains(count)
    {
      return count
    }
    return min(availableProcessors, maximumThreadCount)
  }

  /// Calls `body(0)` … `body(parts − 1)`, at the same time as far as there are threads, and returns when all are done.
  ///
  /// The parts must not depend on each other's order. A call within a call runs its parts one after another.
  public static func run(parts: Int, _ body: (Int) -> Void) {
    let threads = min(parts, threadCount)
    if threads <= 1 {
      for part in 0..<max(parts, 0) { body(part) }
      return
    }
    ThreadTeam.shared.run(parts: parts, slots: threads, body)
  }

  /// Cuts `0 ..< count` into at most ``threadCount`` ranges of at least `grain`, whose bounds are multiples of `multiple` (all but the
  /// last end), and calls `body` on each.
  public static func ranges(_ count: Int, grain: Int = 1, multiple: Int = 1, _ body: (Range<Int>) -> Void) {
    guard count > 0 else { return }
    let parts = partCount(count, grain: grain)
    if parts == 1 { return body(0..<count) }
    run(parts: parts) { part in
      let range = Self.range(part, of: parts, count: count, multiple: multiple)
      if !range.isEmpty { body(range) }
    }
  }

  /// How many ranges ``ranges(_:grain:multiple:_:)`` makes.
  package static func partCount(_ count: Int, grain: Int) -> Int {
    count < 2 * grain ? 1 : max(1, min(threadCount, count / max(grain, 1)))
  }

  /// The part-th of `parts` nearly equal ranges of `0 ..< count`.
  package static func range(_ part: Int, of parts: Int, count: Int, multiple: Int = 1) -> Range<Int> {
    let units = (count + multiple - 1) / multiple
    let low = min(count, units * part / parts * multiple)
    let high = min(count, units * (part + 1) / parts * multiple)
    return low..<high
  }

  /// Elements below which a pass over memory is not worth a second thread (a fork and join cost about a microsecond).
  package static let elementGrain = 8192
}
