import CSteppeKernels
import Glibc
import Synchronization

/// A fork-join team: threads that spin for a moment after their last work and then park, so that at rest they use no processor.
///
/// A job has `slots`; slot `s` runs the parts `s`, `s + slots`, …. Each thread first claims the slot of its own number (the caller is
/// number 0), which keeps a range of a tensor with one core's cache, then whatever slots nobody has claimed: a thread that wakes late
/// costs nothing. Which thread runs a slot changes no result.
final class ThreadTeam: @unchecked Sendable {
  /// The process's team. A forked child gets its own: the parent's threads do not exist there.
  static var shared: ThreadTeam { registry.current.load(ordering: .acquiring).takeUnretainedValue() }

  private struct Registry: ~Copyable, Sendable {
    let current: Atomic<Unmanaged<ThreadTeam>>
    init() {
      // Teams are never freed: a forked child's copy of the parent's may stand in any state.
      current = Atomic(Unmanaged.passRetained(ThreadTeam()))
      pthread_atfork(nil, nil) {
        ThreadTeam.registry.current.store(Unmanaged.passRetained(ThreadTeam()), ordering: .releasing)
      }
    }
  }
  private static let registry = Registry()

  /// Whether the process is ending: the team's threads may then stand still for good, so that every caller runs its parts itself.
  static let isRetired = Atomic<Bool>(false)

  /// The job's number, and below it how many slots it has, so that one load tells a thread both.
  private static let slotBits: UInt64 = 16
  private let announced = Atomic<UInt64>(0)
  private let busy = Atomic<Bool>(false)
  private let unfinished = Atomic<Int>(0)
  private let parked = Atomic<Int>(0)
  /// The number of the last job in which each slot was claimed, a cache line apart.
  private let claims: UnsafeMutablePointer<Claim>
  /// Written by the holder of `busy` before a job is announced; read only by a thread that has claimed a slot of it.
  private var body: ((Int) -> Void)?
  private var parts = 0
  /// The caller's thread count, which a call within a part must cut its work by, whichever thread runs the part.
  private var threadCount = 0
  private var workers = 0
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>

  private struct Claim: ~Copyable {
    let job = Atomic<UInt64>(0)
    let padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
  }

  private init() {
    claims = .allocate(capacity: Parallel.maximumThreadCount)
    for slot in 0..<Parallel.maximumThreadCount { (claims + slot).initialize(to: Claim()) }
    mutex = .allocate(capacity: 1)
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
    condition = .allocate(capacity: 1)
    condition.initialize(to: pthread_cond_t())
    pthread_cond_init(condition, nil)
  }

  func run(parts: Int, slots: Int, _ body: (Int) -> Void) {
    // The team is at work for another host thread, or this is a call within a call.
    guard !Self.isRetired.load(ordering: .relaxed),
      busy.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged
    else {
      for part in 0..<parts { body(part) }
      return
    }
    startWorkers(slots - 1)
    withoutActuallyEscaping(body) { body in
      self.body = body
      self.parts = parts
      threadCount = Parallel.threadCount
      unfinished.store(slots, ordering: .relaxed)
      let job = (announced.load(ordering: .relaxed) >> Self.slotBits) + 1
      announced.store(job << Self.slotBits | UInt64(slots), ordering: .sequentiallyConsistent)
      if parked.load(ordering: .sequentiallyConsistent) > 0 {
        pthread_mutex_lock(mutex)
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
      }
      work(job: job, slots: slots, from: 0)
      var spins = 0
      while unfinished.load(ordering: .acquiring) > 0 {
        spins += 1
        if spins < 20_000 { steppe_spin_hint() } else { sched_yield() }
      }
      self.body = nil
    }
    busy.store(false, ordering: .releasing)
  }

  /// Runs every slot of `job` that is still free, beginning with `first`.
  private func work(job: UInt64, slots: Int, from first: Int) {
    for step in 0..<slots {
      let slot = (first + step) % slots
      let last = claims[slot].job.load(ordering: .relaxed)
      guard last < job,
        claims[slot].job.compareExchange(expected: last, desired: job, ordering: .acquiringAndReleasing).exchanged
      else { continue }
      // The claim holds the job open, so `body`, `parts` and `threadCount` are its own.
      func runParts() {
        for part in stride(from: slot, to: parts, by: slots) { body!(part) }
      }
      if Parallel.threadCount == threadCount {
        runParts()
      } else {
        Parallel.withThreadCount(threadCount) { runParts() }
      }
      unfinished.subtract(1, ordering: .acquiringAndReleasing)
    }
  }

  private func startWorkers(_ count: Int) {
    while workers < count {
      let start = Unmanaged.passRetained(Start(team: self, number: workers + 1)).toOpaque()
      var thread = pthread_t()
      let status = pthread_create(
        &thread, nil,
        { argument in
          let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
          start.team.workerLoop(number: start.number)
        }, start)
      guard status == 0 else {
        // The caller claims what no thread takes, so a refused thread only costs time.
        Unmanaged<Start>.fromOpaque(start).release()
        return
      }
      pthread_detach(thread)
      workers += 1
    }
  }

  private final class Start: Sendable {
    let team: ThreadTeam
    let number: Int
    init(team: ThreadTeam, number: Int) {
      self.team = team
      self.number = number
    }
  }

  private func workerLoop(number: Int) -> Never {
    // Signals belong to the host's threads.
    var signals = sigset_t()
    sigfillset(&signals)
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    var seen: UInt64 = 0
    while true {
      let word = awaitJob(after: seen)
      seen = word
      let slots = Int(word & (1 << Self.slotBits - 1))
      // A thread beyond the job's slots helps only with what nobody took.
      work(job: word >> Self.slotBits, slots: slots, from: number < slots ? number : 0)
    }
  }

  /// Spins for about 100 µs, so that a loop of short calls never pays for a wake-up, then parks.
  private func awaitJob(after seen: UInt64) -> UInt64 {
    let crowded = Parallel.threadCount > Parallel.availableProcessors
    let deadline = Clock.nanoseconds() + (crowded ? 2_000 : 100_000)
    repeat {
      for _ in 0..<64 {
        let word = announced.load(ordering: .acquiring)
        if word != seen { return word }
        steppe_spin_hint()
      }
    } while Clock.nanoseconds() < deadline
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    parked.add(1, ordering: .sequentiallyConsistent)
    defer { parked.subtract(1, ordering: .sequentiallyConsistent) }
    while true {
      let word = announced.load(ordering: .sequentiallyConsistent)
      if word != seen { return word }
      pthread_cond_wait(condition, mutex)
    }
  }
}

/// The monotonic clock.
package enum Clock {
  package static func nanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
