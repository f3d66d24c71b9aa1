import Glibc

/// What a process can know of MPI without it.
public enum MPILaunch {
  /// Whether this library was built with MPI, by the package's trait `MPI`. Without it this enumeration is all that there is of it.
  public static var isAvailable: Bool {
    #if MPI
      true
    #else
      false
    #endif
  }

  /// Whether `mpirun`, or a batch system in its place, has started this process as one of several.
  ///
  /// A process that is alone counts as not launched, whatever it has inherited from the shell of a batch system.
  public static var isLaunched: Bool { processCount > 1 }

  /// How many processes were started together; 1 where nothing is known of others.
  static var processCount: Int {
    func number(_ name: String) -> Int? { getenv(name).flatMap { Int(String(cString: $0)) } }
    // Open MPI's and MPICH's.
    if let size = number("OMPI_COMM_WORLD_SIZE") ?? number("PMI_SIZE") { return size }
    // The interface that batch systems have tells only the rank; Slurm says beside it how many there are.
    guard let rank = number("PMIX_RANK") else { return 1 }
    return max(rank + 1, number("SLURM_STEP_NUM_TASKS") ?? 1)
  }
}
