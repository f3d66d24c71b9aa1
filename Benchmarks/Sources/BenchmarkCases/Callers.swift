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
    let meeting = Meeting(count)
    let done = DispatchGroup()
    for _ in 0..<count {
      done.enter()
      Thread.detachNewThread {
        meeting.call(body, for: duration, minimum: minimum)
        done.leave()
      }
    }
    done.wait()
    (latencies, seconds) = meeting.found()
  }
}

/// What the callers share.
private final class Meeting: Sendable {
  private let awaited: Atomic<Int>
  private let state = Mutex<(start: ContinuousClock.Instant?, end: ContinuousClock.Instant?, latencies: [Double])>(
    (nil, nil, []))

  init(_ count: Int) { awaited = Atomic(count) }

  func call(_ body: () -> Void, for duration: Duration, minimum: Int) {
    // The callers wait for one another, so that none has the machine to itself.
    awaited.subtract(1, ordering: .acquiringAndReleasing)
    while awaited.load(ordering: .acquiring) > 0 { sched_yield() }
    let clock = ContinuousClock()
    let start = state.withLock { state in
      state.start = state.start ?? clock.now
      return state.start!
    }
    var latencies: [Double] = []
    latencies.reserveCapacity(1 << 12)
    var last = clock.now
    repeat {
      body()
      let now = clock.now
      latencies.append((now - last) / .seconds(1))
      last = now
    } while last - start < duration || latencies.count < minimum
    state.withLock { state in
      state.end = max(state.end ?? last, last)
      state.latencies += latencies
    }
  }

  func found() -> (latencies: [Double], seconds: Double) {
    state.withLock { ($0.latencies, ($0.end! - $0.start!) / .seconds(1)) }
  }
}
