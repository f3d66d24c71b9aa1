#if MPI
  import CMPI
  import Steppe

  /// Memory that all ranks of one machine share, as MPI gives it out: it is all ranks' at once, to be taken and given back together.
  final class SharedMemory {
    let pointer: UnsafeMutableRawPointer
    let byteCount: Int
    private var window: steppe_mpi_window

    /// What the memory is aligned to.
    private static let alignment = 128

    /// A collective that waits for all ranks. Under the library's lock.
    init(bytes: Int, over communicator: steppe_mpi_communicator) throws(RankError) {
      var memory: UnsafeMutableRawPointer?
      window = steppe_mpi_window()
      try MPILibrary.check(
        "MPI_Win_allocate_shared", steppe_mpi_share(communicator, bytes + Self.alignment, &window, &memory))
      pointer = memory!.alignedUp(toMultipleOf: Self.alignment)
      byteCount = bytes
    }

    /// Gives it back to MPI. A collective that waits for all ranks; under the library's lock.
    func free() throws(RankError) { try MPILibrary.check("MPI_Win_free", steppe_mpi_unshare(&window)) }
  }

  /// Who has given memory that ranks share to parameters.
  protocol SharedMemoryUser: AnyObject {
    /// Moves everything out of it.
    func leaveSharedMemory()
  }

  extension Communicator {
    /// Memory that the ranks share; nil where not all of them run on this machine, or it has no room. A collective.
    ///
    /// What nobody holds any more serves again: to give it back would take all ranks at the moment at which one is done with it.
    func share(bytes: Int) throws(RankError) -> SharedMemory? {
      guard sharesMemory else { return nil }
      // The same on all ranks, which have taken each together; whether it is free may differ.
      var offers = sharedMemory.indices.map { index in
        isKnownUniquelyReferenced(&sharedMemory[index]) && sharedMemory[index].byteCount >= bytes ? 1.0 : 0
      }
      offers.append(steppe_shared_room() > bytes + bytes / 8 ? 1 : 0)
      try allReduce(&offers, .minimum)
      if let index = offers.dropLast().firstIndex(of: 1) { return sharedMemory[index] }
      guard offers.last == 1 else { return nil }
      let memory = try library.lock.withLock { () throws(RankError) in try SharedMemory(bytes: bytes, over: main) }
      sharedMemory.append(memory)
      return memory
    }

    /// Calls `user` before the memory goes, where it still exists then.
    func noteUser(_ user: any SharedMemoryUser) {
      sharedMemoryUsers.removeAll { $0.user == nil }
      sharedMemoryUsers.append(WeakUser(user: user))
    }

    /// Gives all of it back to MPI. A collective.
    func leaveSharedMemory() throws(RankError) {
      for entry in sharedMemoryUsers { entry.user?.leaveSharedMemory() }
      sharedMemoryUsers = []
      let all = sharedMemory
      sharedMemory = []
      try library.lock.withLock { () throws(RankError) in
        for memory in all { try memory.free() }
      }
    }

    /// How many pieces of memory MPI has given out.
    package var sharedMemoryCount: Int { sharedMemory.count }

    struct WeakUser {
      weak var user: (any SharedMemoryUser)?
    }
  }
#endif
