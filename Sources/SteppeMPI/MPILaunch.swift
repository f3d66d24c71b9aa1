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

  /// Whether `mpirun`, or a batch system in its place, has started this process.
  public static var isLaunched: Bool {
    // MPICH's, Open MPI's, and that of the interface which batch systems have.
    ["PMI_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK"].contains { (name: String) in getenv(name) != nil }
  }
}
