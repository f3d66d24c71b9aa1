#if MPI
  import CMPI
  import Glibc
  import Synchronization

  /// Says on standard error which rank it was that died, where the launcher does not: MPICH's kills all others at once when one has died, and
  /// names a process that need not be the first. Open MPI's names the rank, and nothing is done here.
  ///
  /// A small process waits beside this one for its end. Of those of one machine the first speaks.
  public enum RankGuard {
    private static let descriptor = Atomic<Int32>(-1)

    /// Begins to guard this process, which still runs one thread; before ``Communicator/world()``. Ended by ``Communicator/finish()``.
    public static func start() {
      guard descriptor.load(ordering: .relaxed) < 0, getenv("OMPI_COMM_WORLD_RANK") == nil,
        let rank = getenv("PMI_RANK").map({ String(cString: $0) })
      else { return }
      var host = [CChar](repeating: 0, count: 256)
      gethostname(&host, 255)
      let place = String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      // The launcher's process on this machine is the same for all of them.
      let lock = "/dev/shm/steppe-\(getuid())-\(getppid())"
      let message =
        "steppe: rank \(rank) (process \(getpid()) on \(place)) was the first to end: it was killed or failed\n"
      descriptor.store(steppe_guard(message, lock), ordering: .relaxed)
    }

    /// From now on this process may end.
    static func end() {
      let own = descriptor.exchange(-1, ordering: .relaxed)
      guard own >= 0 else { return }
      var byte: UInt8 = 1
      write(own, &byte, 1)
      close(own)
    }
  }
#endif
