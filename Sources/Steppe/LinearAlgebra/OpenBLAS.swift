import COpenBLAS
import Glibc
import Synchronization

/// The library under ``Tensor/matmul(_:transposeLeft:transposeRight:)`` and the matrix factorizations.
///
/// Steppe cuts a product into slices for its own threads (see ``Parallel``) and calls OpenBLAS single-threaded on each.
/// OpenBLAS keeps one thread count for the whole process, so at its first call Steppe sets that count to 1, which the
/// host's own calls to OpenBLAS feel too. A host that needs the count for itself sets ``managesThreads`` to false, or
/// `STEPPE_OPENBLAS_THREADS=keep` in the environment: Steppe then leaves the count alone, and where it is above 1 hands
/// whole products to OpenBLAS's own threads.
///
/// A fork waits until Steppe's threads have left OpenBLAS, and its child may compute. Not so a fork during Steppe's very first use in
/// the process, by another thread than the one that forks: what is set up at that moment stays half made in the child, which hangs when it
/// computes. A program that forks from one thread and computes in others makes a first small product before it starts them.
///
/// At `exit`, or where `main` returns, OpenBLAS gives its memory back. Threads that still compute would be torn down in the middle, so
/// the exit waits until they have left OpenBLAS, a second at most, and lets none in again; the exiting thread itself may go on computing.
///
/// OpenBLAS's work buffers are finite and it ends the process when they run out, so at most 64 threads of Steppe's
/// stand inside it at once; others wait.
public enum OpenBLAS {
  /// The version, such as `0.3.21`.
  public static var version: String {
    let words = configuration.split(separator: " ")
    return words.count > 1 && words[0] == "OpenBLAS" ? String(words[1]) : configuration
  }

  /// How the library was built, in its own words.
  public static var configuration: String { String(cString: openblas_get_config()) }

  /// The processor whose kernels it chose, such as `SkylakeX`.
  public static var kernelName: String { String(cString: openblas_get_corename()) }

  /// Whether Steppe sets OpenBLAS's thread count to 1; true unless the environment says `STEPPE_OPENBLAS_THREADS=keep`.
  ///
  /// To be changed before the first call that reaches OpenBLAS: later the program stops.
  public static var managesThreads: Bool {
    get { manages.load(ordering: .relaxed) }
    set {
      require(
        newValue == managesThreads || !started.load(ordering: .acquiring),
        "OpenBLAS.managesThreads: to be set before the first call that reaches OpenBLAS")
      manages.store(newValue, ordering: .relaxed)
    }
  }

  /// Whether products are cut for our threads; false where a host keeps OpenBLAS's own at work.
  package static var isSingleThreaded: Bool { setup.isSingleThreaded }

  /// Calls `body`, which calls OpenBLAS, once there is room for this thread.
  @inline(__always)
  package static func call<Result>(_ body: () -> Result) -> Result {
    setup.enter()
    defer { setup.gate.leave() }
    return body()
  }

  private static let manages = Atomic<Bool>(getenv("STEPPE_OPENBLAS_THREADS").map { strcmp($0, "keep") != 0 } ?? true)
  private static let started = Atomic<Bool>(false)
  private static let forking = Lock()
  private static let setup = Setup(manages: managesThreads, started: started)

  /// How long an exit waits for threads inside OpenBLAS, which a factorization of a large matrix may keep for minutes.
  private static let patience: UInt64 = 1_000_000_000

  /// Called by `exit` before OpenBLAS's own end, which was registered earlier.
  private static func prepareForExit() {
    let deadline = Clock.nanoseconds() + patience
    // A fork by another thread has the gate to itself for a moment.
    while !forking.tryLock() {
      if Clock.nanoseconds() > deadline { return }
      usleep(50)
    }
    ThreadTeam.isRetired.store(true, ordering: .relaxed)
    setup.gate.shut(until: deadline)
    forking.unlock()
  }

  /// What the first call finds out and sets.
  private struct Setup: ~Copyable {
    let isSingleThreaded: Bool
    let gate: Gate
    /// An OpenMP build keeps the count for each thread, so that each sets it once; this key marks those that have.
    private let threadKey: pthread_key_t?

    init(manages: Bool, started: borrowing Atomic<Bool>) {
      started.store(true, ordering: .releasing)
      var key: pthread_key_t?
      if manages {
        openblas_set_num_threads(1)
        var new = pthread_key_t()
        if openblas_get_parallel() == 2, pthread_key_create(&new, nil) == 0 { key = new }
      }
      threadKey = key
      isSingleThreaded = manages || openblas_get_num_threads() == 1
      // A library built for fewer than 32 threads has only 50 work buffers.
      let threads = OpenBLAS.configuration.split(separator: "MAX_THREADS=").last.flatMap {
        Int($0.prefix { $0.isNumber })
      }
      gate = Gate(places: (threads ?? 1) >= 32 ? 64 : 48)
      // OpenBLAS's locks do not survive a fork while a thread holds one, so a fork waits until nobody stands inside.
      // The pool and the team make their own arrangements first: what is registered while a fork waits here does not
      // count for its child, and a fork must not hold the pool while it waits.
      _ = MemoryPool.limit
      _ = ThreadTeam.shared
      pthread_atfork(
        {
          OpenBLAS.forking.lock()
          if !OpenBLAS.setup.gate.isShut { OpenBLAS.setup.gate.close() }
        },
        {
          if !OpenBLAS.setup.gate.isShut { OpenBLAS.setup.gate.open() }
          OpenBLAS.forking.unlock()
        },
        {
          OpenBLAS.setup.gate.reset()
          ThreadTeam.isRetired.store(false, ordering: .relaxed)
          OpenBLAS.forking.unlock()
        })
      atexit { OpenBLAS.prepareForExit() }
    }

    @inline(__always)
    func enter() {
      gate.enter()
      if let threadKey, pthread_getspecific(threadKey) == nil {
        openblas_set_num_threads(1)
        pthread_setspecific(threadKey, UnsafeRawPointer(bitPattern: 1))
      }
    }
  }
}
