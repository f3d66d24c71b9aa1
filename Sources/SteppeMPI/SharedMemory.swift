#if MPI
  import CMPI
  import Glibc
  import Steppe

  /// Memory that all ranks of one machine share. It goes when no rank has it any more, each of its own accord.
  final class SharedMemory {
    let pointer: UnsafeMutableRawPointer
    let byteCount: Int

    /// Maps what another rank, or this one, has made.
    fileprivate init?(_ path: String, bytes: Int) {
      guard let memory = steppe_shared_map(path, bytes) else { return nil }
      (pointer, byteCount) = (memory, bytes)
    }

    deinit { munmap(pointer, byteCount) }
  }

  extension Communicator {
    /// Memory that the ranks share; nil where not all of them run on this machine, or it has no room. A collective.
    ///
    /// What nobody holds any more serves again, or goes where it is too small.
    func share(bytes: Int) throws(RankError) -> SharedMemory? {
      guard sharesMemory else { return nil }
      // The same on all ranks, which have taken each together; whether it is free may differ: 2 for what is and has room, 1 for what is.
      var offers = sharedMemory.indices.map { index in
        isKnownUniquelyReferenced(&sharedMemory[index]) ? (sharedMemory[index].byteCount >= bytes ? 2.0 : 1) : 0
      }
      if !offers.isEmpty { try allReduce(&offers, .minimum) }
      if let index = offers.firstIndex(of: 2) { return sharedMemory[index] }
      sharedMemory = zip(sharedMemory, offers).filter { $1 == 0 }.map { $0.0 }

      var path: String?
      if rank == 0 {
        let name = "/dev/shm/steppe-\(getpid())-\(UInt64.random(in: .min ... .max))"
        if steppe_shared_make(name, bytes) == 0 { path = name }
      }
      // Under its name only until each rank has it.
      defer { if rank == 0, let path { unlink(path) } }
      let name = try broadcast(Array((path ?? "none").utf8))
      let memory = SharedMemory(String(decoding: name, as: UTF8.self), bytes: bytes)
      var isThere = [memory == nil ? 0.0 : 1]
      try allReduce(&isThere, .minimum)
      guard isThere == [1], let memory else { return nil }
      sharedMemory.append(memory)
      return memory
    }

    /// How many pieces of memory the ranks share.
    package var sharedMemoryCount: Int { sharedMemory.count }
  }
#endif
