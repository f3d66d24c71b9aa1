import Foundation
import Synchronization

/// Threads that call the same function at once, and what they saw.
public struct Callers {
  /// Seconds of each call, in no order.
  public let latencies: [Double]
  /// Seconds from the start to the last caller's end.
  public let seconds: Double

  /// Calls `body` on `count` threads for `duration` or, where that is longer, `minimum` times on each.
  public init(_ count: Int, for duration: Duration, minimum: Int = 1, _ body: @escaping @Sendable () -> Void) {
    let clock = ContinuousClock()
    let found = Mutex<[Double]>([])
    // The callers wait for one another, so that none has the machine to itself.
    let waiting = Atomic(count)
    let started = Mutex<ContinuousClock.Instant?>(nil)
    withThreads(count) {
      waiting.subtract(1, ordering: .acquiringAndReleasing)
      while waiting.load(ordering: .acquiring) > 0 { sched_yield() }
      let start = started.withLock { start in
        start = start ?? clock.now
        return start!
      }
      var mine: [Double] = []
      mine.reserveCapacity(1 << 12)
      var last = clock.now
      repeat {
        body()
        let now = clock.now
        mine.append((now - last) / .seconds(1))
        last = now
      } while last - start < duration || mine.count < minimum
      found.withLock { $0 += mine }
    }
    seconds = (clock.now - started.withLock { $0! }) / .seconds(1)
    latencies = found.withLock { $0 }
  }
}

/// Runs `body` on so many new threads and waits for all.
private func withThreads(_ count: Int, _ body: @Sendable () -> Void) {
  withoutActuallyEscaping(body) { body in
    let done = DispatchGroup()
    for _ in 0..<count {
      done.enter()
      Thread.detachNewThread {
        body()
        done.leave()
      }
    }
    done.wait()
  }
}
