import Glibc
import Synchronization

/// A counting semaphore that costs one atomic addition each way while there is room.
package struct Gate: ~Copyable, @unchecked Sendable {
  private let places: Int
  /// Free places; below 0 the number of threads that wait.
  private let free: Atomic<Int>
  /// One post for each waiting thread that may go in.
  private let wakeUps: UnsafeMutablePointer<sem_t>
  /// The thread that has shut the gate for good, which alone still goes through; 0 for none.
  private let keeper = Atomic<pthread_t>(0)

  /// A gate for `places` threads.
  package init(places: Int) {
    self.places = places
    free = Atomic(places)
    wakeUps = .allocate(capacity: 1)
    sem_init(wakeUps, 0, 0)
  }

  deinit {
    sem_destroy(wakeUps)
    wakeUps.deallocate()
  }

  /// Goes in, after a wait where the gate is full.
  @inline(__always)
  package borrowing func enter() {
    if free.subtract(1, ordering: .acquiring).oldValue <= 0 { wait() }
  }

  /// Goes out, and lets a waiting thread in.
  @inline(__always)
  package borrowing func leave() {
    if free.add(1, ordering: .releasing).oldValue < 0 { sem_post(wakeUps) }
  }

  /// Waits until nobody stands inside, and keeps everybody out until ``open()``. Two threads must not do so at once.
  package borrowing func close() {
    for _ in 0..<places { enter() }
  }

  /// Ends ``close()``.
  package borrowing func open() {
    for _ in 0..<places { leave() }
  }

  /// Whether ``shut(until:)`` has been called.
  package var isShut: Bool { keeper.load(ordering: .acquiring) != 0 }

  /// Keeps everybody out for good but for this thread, and waits until nobody stands inside.
  ///
  /// It gives up the wait at `deadline` of ``Clock``: a thread inside may take long, or be this one.
  package borrowing func shut(until deadline: UInt64) {
    keeper.store(pthread_self(), ordering: .sequentiallyConsistent)
    // From here on nobody finds a place, and who already waits for one is woken to stand aside: what is missing are those inside.
    let before = free.subtract(Self.shutOut, ordering: .sequentiallyConsistent).oldValue
    for _ in 0..<max(0, -before) { sem_post(wakeUps) }
    while free.load(ordering: .acquiring) + Self.shutOut < places, Clock.nanoseconds() < deadline { usleep(50) }
  }

  /// More places than threads could ever ask for.
  private static var shutOut: Int { 1 << 40 }

  /// As new, when no other thread is left that knows the gate.
  package borrowing func reset() {
    keeper.store(0, ordering: .relaxed)
    free.store(places, ordering: .relaxed)
    sem_init(wakeUps, 0, 0)
  }

  @inline(never)
  private borrowing func wait() {
    if isKeptOut() { standAside() }
    if isShut { return }
    // A signal handler's return ends the wait early.
    while sem_wait(wakeUps) != 0 {}
    if isKeptOut() { standAside() }
  }

  private borrowing func isKeptOut() -> Bool {
    let keeper = keeper.load(ordering: .sequentiallyConsistent)
    return keeper != 0 && keeper != pthread_self()
  }

  /// Gives back the place asked for and stays until the process ends.
  private borrowing func standAside() -> Never {
    free.add(1, ordering: .releasing)
    while true { pause() }
  }
}
