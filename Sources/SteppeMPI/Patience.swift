#if MPI
  import Glibc
  import Steppe

  /// How a wait goes on: at once for what takes microseconds, then leaving the processor to others, then asleep between looks.
  struct Patience {
    private let start = Clock.nanoseconds()
    private var last = Clock.nanoseconds()
    private var looks = 0
    private let limit: Double

    init(seconds: Double) { limit = seconds }

    /// Since the beginning.
    var seconds: Double { Double(Clock.nanoseconds() - start) * 1e-9 }

    mutating func renew() { last = Clock.nanoseconds() }

    /// Waits for a moment; whether the time is over.
    mutating func isOver() -> Bool {
      looks += 1
      // The ranks may be more than the processors: whom this one waits for may need its own.
      if looks < 20 { return false }
      sched_yield()
      if looks % 16 != 0 { return false }
      let waited = Double(Clock.nanoseconds() - last) * 1e-9
      if waited > 0.02 { usleep(200) }
      return waited > limit
    }
  }
#endif
