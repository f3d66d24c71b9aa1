import Glibc
import Synchronization

/// A counting semaphore that costs one atomic addition each way while there is room.
package struct Gate: ~Copyable, @unchecked Sendable {
  private let places: Int
  /// Free places; below 0 the number of threads that wait.
  private let free: Atomic<Int>
  /// One post for each waiting thread that may go in.
  private let wakeUps: UnsafeMutablePointer<sem_t>

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

  /// As new, when no other thread is left that knows the gate.
  package borrowing func reset() {
    free.store(places, ordering: .relaxed)
    sem_init(wakeUps, 0, 0)
  }

  @inline(never)
  private borrowing func wait() {
    // A signal handler's return ends the wait early.
    while sem_wait(wakeUps) != 0 {}
  }
}
