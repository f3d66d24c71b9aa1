#if MPI
  import CMPI
  import Glibc
  import Steppe
  import Synchronization

  /// The processes that `mpirun` started together, each with its number, its rank.
  ///
  /// ```swift
  /// let ranks = try Communicator.world()
  /// var sums = [Double(ranks.rank)]
  /// try ranks.allReduce(&sums)                  // 0 + 1 + 2 on each of three ranks
  /// try ranks.finish()
  /// ```
  ///
  /// What is called a collective here must be called by all ranks, in the same order and with the same sizes. A program that was not started
  /// by `mpirun` is the only rank of its own.
  ///
  /// **No rank waits for ever.** A collective for which a rank has not come within ``timeout`` asks every rank how far it is, by messages
  /// that a thread of its own answers, and throws a ``RankError`` that names the rank that is silent, or behind. After an error nothing more
  /// is exchanged: every later collective throws the same. ``abort(code:)`` then ends the other ranks too.
  ///
  /// Collectives are begun on one thread at a time, and the program's own calls into MPI, if it makes any, must not run at the same time.
  public final class Communicator: @unchecked Sendable {
    /// This process's number, from 0.
    public let rank: Int
    /// The number of processes.
    public let size: Int
    /// How many of them run on this machine.
    public let localSize: Int
    /// How long a collective waits for a rank that does not come, in seconds, before it asks; 20 at the start.
    public var timeout = 20.0

    let library: MPILibrary
    let health: StepHealth
    /// Apart from each other, so that messages of different purposes never meet.
    let main, background, control, ringMessages: steppe_mpi_communicator
    /// How many rings have begun.
    var rings = 0
    let watch: RankWatch
    /// What the first error was. Guarded by the library's lock, as is what follows.
    var failure: RankError?
    /// What has begun and is not done: MPI may use its memory. After an error that stays so to the end of the process.
    var underWay: [ObjectIdentifier: Transfer] = [:]
    /// Whether gradients go by memory that the ranks share, where there is room: at the start, whether all run on this machine.
    package var sharesMemory: Bool
    /// The pieces of it, the same on all ranks.
    var sharedMemory: [SharedMemory] = []

    /// The communicator of all processes; MPI is started at the first call.
    ///
    /// - Throws: ``RankError`` of MPI.
    public static func world() throws(RankError) -> Communicator { try shared.get() }

    private static let shared: Result<Communicator, RankError> = {
      do throws(RankError) { return .success(try Communicator(MPILibrary.shared.get())) } catch {
        return .failure(error)
      }
    }()

    /// The machine that this rank runs on.
    public var host: String { MPILibrary.text { steppe_mpi_host($0) } }

    /// The MPI library and its version, such as `Open MPI v4.1.4`.
    public static var library: String {
      let text = MPILibrary.text { steppe_mpi_library($0) }
      // How it was built follows behind.
      let words = text.prefix { $0 != "," }.split { $0 == " " || $0 == "\t" }.prefix(3)
      return words.joined(separator: " ")
    }

    private init(_ library: MPILibrary) throws(RankError) {
      self.library = library
      func duplicate() throws(RankError) -> steppe_mpi_communicator {
        var result = steppe_mpi_communicator()
        try MPILibrary.check("MPI_Comm_dup", steppe_mpi_duplicate_world(&result))
        return result
      }
      (main, background, control, ringMessages) = (
        try duplicate(), try duplicate(), try duplicate(), try duplicate()
      )
      var (rank, size, local): (Int32, Int32, Int32) = (0, 1, 1)
      try MPILibrary.check("MPI_Comm_rank", steppe_mpi_rank(main, &rank))
      try MPILibrary.check("MPI_Comm_size", steppe_mpi_size(main, &size))
      try MPILibrary.check("MPI_Comm_split_type", steppe_mpi_local_size(main, &local))
      (self.rank, self.size, localSize) = (Int(rank), Int(size), Int(local))
      sharesMemory = size > 1 && local == size
      health = StepHealth(rank: self.rank, size: self.size)
      watch = RankWatch(library, control, rank: self.rank, size: self.size, localSize: localSize)
      watch.start()
    }

    /// Ends MPI, with all ranks; the last thing that a program does with it. A rank that ends without it ends the others.
    ///
    /// - Throws: ``RankError``; where another rank is missing, this one waits as long as a collective would.
    public func finish() throws(RankError) {
      try barrier()
      watch.stop()
      moveRest()
      library.lock.lock()
      defer { library.lock.unlock() }
      try MPILibrary.check("MPI_Finalize", steppe_mpi_finish())
    }

    /// Lets the library move what it has to for a moment, such as connections that are still being made.
    ///
    /// MPICH 4.0 over UCX leaves that to MPI_Finalize, where a rank that is done waits for the others and moves nothing more: over
    /// TCP they may wait for it for ever (pmodels/mpich#6596).
    private func moveRest() {
      guard size > localSize else { return }
      let end = Clock.nanoseconds() + 100_000_000
      while Clock.nanoseconds() < end {
        var (found, rank): (Int32, Int32) = (0, 0)
        library.lock.withLock { _ = steppe_mpi_probe(control, RankWatch.noTag, &found, &rank) }
        usleep(200)
      }
    }

    /// Ends all ranks at once.
    public func abort(code: Int32 = 1) -> Never {
      // What this process has said is on its way through the launcher, which may drop it when it is told to end.
      fflush(nil)
      usleep(200_000)
      // Without the lock: another thread may hold it for good.
      _ = steppe_mpi_abort(code)
      _exit(code)
    }

    /// Runs `body`, which may take long without a collective, such as writing a file while the other ranks wait: they do.
    public func busy<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
      watch.isBusy.store(true, ordering: .releasing)
      defer { watch.isBusy.store(false, ordering: .releasing) }
      return try body()
    }

    /// Runs `body` on each rank; where it throws on one, all throw that as ``RankError/failed(rank:reason:)`` of the first such rank. A
    /// collective.
    public func agree<Result>(_ body: () throws -> Result) throws -> Result {
      let result = Swift.Result { try body() }
      var reason: String?
      if case .failure(let error) = result { reason = Self.reason(error) }
      let first = try firstRank(reason != nil)
      if let first { throw RankError.failed(rank: first, reason: try text(reason ?? "", from: first)) }
      return try result.get()
    }

    /// The first of the ranks on which `holds`; nil where there is none. A collective.
    func firstRank(_ holds: Bool) throws(RankError) -> Int? {
      var number = [holds ? Double(rank) : .infinity]
      try allReduce(&number, .minimum)
      return number[0].isFinite ? Int(number[0]) : nil
    }

    /// The text of the rank `root`. A collective.
    func text(_ text: String, from root: Int) throws(RankError) -> String {
      String(decoding: try broadcast(Array(text.utf8), from: root), as: UTF8.self)
    }

    /// What an error says, without a rank that it names already.
    static func reason(_ error: any Error) -> String {
      if case RankError.failed(_, let reason) = error { reason } else { "\(error)" }
    }
  }
#endif
