#if MPI
  import CMPI
  import Glibc

  /// Says on standard error which rank it was that died, where the launcher does not: MPICH's kills all others at once when one has died, and
  /// names a process that need not be the first. Open MPI's names the rank, and nothing is done here.
  public enum RankGuard {
    /// Goes on in a process of its own, for which the one that the launcher has started only waits: where it is ended by a signal, that one
    /// says so before the launcher learns of it.
    ///
    /// To be called at the very beginning of a program, while it has one thread, before ``Communicator/world()``.
    public static func start() {
      guard getenv("OMPI_COMM_WORLD_RANK") == nil, MPILaunch.isLaunched,
        let rank = getenv("PMI_RANK").map({ String(cString: $0) })
      else { return }
      let message = "steppe: rank \(rank) was ended by a signal: it was killed, or failed\n"
      steppe_guard(message, message.utf8.count)
    }
  }
#endif
