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
    let health = StepHealth()
    /// Apart from each other, so that messages of different purposes never meet.
    private let main, background, control, ringMessages: steppe_mpi_communicator
    /// How many rings have begun.
    private var rings = 0
    /// Bytes of a piece from which on a ring costs less than whole messages in fewer rounds.
    private static let leastPiece = 8192
    let watch: RankWatch
    /// What the first error was. Guarded by the library's lock.
    private var failure: RankError?

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
      watch = RankWatch(library, control, rank: self.rank, size: self.size, localSize: localSize)
      watch.start()
    }

    /// Ends MPI, with all ranks; the last thing that a program does with it. A rank that ends without it ends the others.
    ///
    /// - Throws: ``RankError``; where another rank is missing, this one waits as long as a collective would.
    public func finish() throws(RankError) {
      try barrier()
      watch.stop()
      library.lock.lock()
      defer { library.lock.unlock() }
      try MPILibrary.check("MPI_Finalize", steppe_mpi_finish())
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

    // MARK: Collectives

    /// How the values of all ranks become one.
    public enum Reduction: Sendable {
      /// Their sum.
      case sum
      /// The least.
      case minimum
      /// The greatest.
      case maximum

      var operation: steppe_mpi_operation {
        switch self {
        case .sum: STEPPE_MPI_SUM
        case .minimum: STEPPE_MPI_MIN
        case .maximum: STEPPE_MPI_MAX
        }
      }
    }

    /// Makes `values` those of all ranks, reduced element by element. A collective.
    ///
    /// The result is the same bits on every rank, and again with the same number of ranks.
    public func allReduce(_ values: inout [Double], _ reduction: Reduction = .sum) throws(RankError) {
      let count = values.count
      try withMemory(of: &values) { memory throws(RankError) in
        try finish(begin(allReduce: memory, count: count, STEPPE_MPI_DOUBLE, reduction.operation, "an all-reduce"))
      }
    }

    /// Makes `tensor` that of all ranks, reduced element by element. A collective.
    public func allReduce<Scalar: TensorScalar>(
      _ tensor: inout Tensor<Scalar>, _ reduction: Reduction = .sum
    ) throws(RankError) {
      tensor.makeWritable()
      if reduction == .sum { return try finish(begin(sum: tensor.address, count: tensor.count, "an all-reduce")) }
      try finish(
        begin(
          allReduce: tensor.address, count: tensor.count, Self.type(of: Scalar.self), reduction.operation,
          "an all-reduce"))
    }

    /// Makes `tensor`, of the same shape on all ranks, that of the rank `root`. A collective.
    public func broadcast<Scalar: TensorScalar>(_ tensor: inout Tensor<Scalar>, from root: Int = 0) throws(RankError) {
      tensor.makeWritable()
      try broadcast(tensor.address, count: tensor.count, Self.type(of: Scalar.self), from: root)
    }

    /// The bytes of the rank `root`, however many. A collective.
    public func broadcast(_ bytes: [UInt8], from root: Int = 0) throws(RankError) -> [UInt8] {
      var count = [Int64(bytes.count)]
      try withMemory(of: &count) { memory throws(RankError) in
        try broadcast(memory, count: 1, STEPPE_MPI_INT64, from: root)
      }
      var result = rank == root ? bytes : [UInt8](repeating: 0, count: Int(count[0]))
      let length = result.count
      try withMemory(of: &result) { memory throws(RankError) in
        try broadcast(memory, count: length, STEPPE_MPI_BYTE, from: root)
      }
      return result
    }

    /// The bytes of every rank, in the order of ranks; each may have another number of them. A collective.
    public func allGather(_ bytes: [UInt8]) throws(RankError) -> [[UInt8]] {
      let counts = try allGather([Int64(bytes.count)]).map { Int($0[0]) }
      let longest = counts.max() ?? 0
      let padded = bytes + [UInt8](repeating: 0, count: longest - bytes.count)
      let all = try gathered(padded, STEPPE_MPI_BYTE)
      return counts.enumerated().map { Array(all[$0 * longest..<$0 * longest + $1]) }
    }

    /// The numbers of every rank, as many on each, in the order of ranks. A collective.
    func allGather(_ numbers: [Int64]) throws(RankError) -> [[Int64]] {
      let all = try gathered(numbers, STEPPE_MPI_INT64)
      return (0..<size).map { Array(all[$0 * numbers.count..<($0 + 1) * numbers.count]) }
    }

    /// Returns when all ranks have come here. A collective.
    public func barrier() throws(RankError) {
      try finish(begin("a barrier", on: main) { communicator, _, request in steppe_mpi_barrier(communicator, request) })
    }

    // MARK: Beginning and finishing

    /// A collective that is under way; what it works on must stay where it is until it is done.
    final class Transfer {
      let what: String
      /// The rank's how manieth collective it is.
      let number: Int
      fileprivate var requests: [UnsafeMutablePointer<steppe_mpi_request>] = []
      /// Begins what comes when all requests are done; whether there was anything.
      fileprivate var next: () throws(RankError) -> Bool = { false }

      fileprivate init(_ what: String, number: Int) {
        self.what = what
        self.number = number
      }

      deinit { for request in requests { request.deallocate() } }

      /// What went wrong, which may have come up in another thread than the one that waits.
      private var error: RankError?

      /// Moves it on, under the library's lock; whether it is done.
      func test() throws(RankError) -> Bool {
        if let error { throw error }
        do throws(RankError) { return try moved() } catch {
          self.error = error
          throw error
        }
      }

      private func moved() throws(RankError) -> Bool {
        repeat {
          while let request = requests.last {
            var done: Int32 = 0
            try MPILibrary.check("MPI_Test", steppe_mpi_test(request, &done))
            if done == 0 { return false }
            request.deallocate()
            requests.removeLast()
          }
        } while try next()
        return true
      }
    }

    static func type<Scalar: TensorScalar>(of _: Scalar.Type) -> steppe_mpi_type {
      MemoryLayout<Scalar>.size == 4 ? STEPPE_MPI_FLOAT : STEPPE_MPI_DOUBLE
    }

    /// Begins the reduction of `count` values in place; in the background it goes on while other collectives begin and end.
    func begin(
      allReduce values: UnsafeMutableRawPointer, count: Int, _ type: steppe_mpi_type, _ operation: steppe_mpi_operation,
      _ what: String, inBackground: Bool = false
    ) throws(RankError) -> Transfer {
      let transfer = try begin(
        what, on: inBackground ? background : main, pieces: Self.pieces(count)
      ) { range, communicator, registry, request in
        let start = values + range.lowerBound * Self.stride(of: type)
        return steppe_mpi_all_reduce(communicator, registry, start, Int32(range.count), type, operation, request)
      }
      if inBackground { watch.move(transfer) }
      return transfer
    }

    /// Begins the sum of `count` numbers in place.
    ///
    /// Many go around the ranks' ring in as many pieces, once to be summed and once as sums (Patarasuk & Yuan 2009): each rank sends less than
    /// twice their bytes, however many ranks there are. Open MPI's own non-blocking all-reduce sends all of them in each of 2·log₂ K rounds
    /// where the result takes the place of what is reduced.
    func begin<Scalar: TensorScalar>(
      sum values: UnsafeMutablePointer<Scalar>, count: Int, _ what: String, inBackground: Bool = false
    ) throws(RankError) -> Transfer {
      let bytes = count * MemoryLayout<Scalar>.stride
      guard size > 1, bytes >= size * Self.leastPiece, bytes / size < 1 << 30 else {
        return try begin(
          allReduce: values, count: count, Self.type(of: Scalar.self), STEPPE_MPI_SUM, what, inBackground: inBackground)
      }
      let transfer = try begin(what, on: main, pieces: []) { _, _, _, _ in 0 }
      rings += 1
      // Messages of one ring never meet those of another.
      let ring = Ring(
        values, count: count, rank: rank, size: size, tag: Int32(16 + rings % 16_384), rings: ringMessages)
      transfer.next = { [unowned transfer] () throws(RankError) in try ring.advance(&transfer.requests) }
      library.lock.lock()
      defer { library.lock.unlock() }
      _ = try transfer.next()
      if inBackground { watch.move(transfer) }
      return transfer
    }

    private func broadcast(
      _ values: UnsafeMutableRawPointer, count: Int, _ type: steppe_mpi_type, from root: Int
    ) throws(RankError) {
      require((0..<size).contains(root), "Communicator.broadcast: expected a rank in 0 ..< \(size), got \(root)")
      try finish(
        begin("a broadcast", on: main, pieces: Self.pieces(count)) { range, communicator, registry, request in
          let start = values + range.lowerBound * Self.stride(of: type)
          return steppe_mpi_broadcast(communicator, registry, start, Int32(range.count), type, Int32(root), request)
        })
    }

    private func gathered<Element>(_ values: [Element], _ type: steppe_mpi_type) throws(RankError) -> [Element] {
      guard let first = values.first else { return [] }
      var own = values
      var all = [Element](repeating: first, count: size * values.count)
      let count = Int32(values.count)
      try withMemory(of: &own) { from throws(RankError) in
        try withMemory(of: &all) { to throws(RankError) in
          try finish(
            begin("a gathering", on: main) { communicator, registry, request in
              steppe_mpi_all_gather(communicator, registry, from, count, type, to, request)
            })
        }
      }
      return all
    }

    /// MPI counts in 32 bits.
    private static func pieces(_ count: Int) -> [Range<Int>] {
      let most = 1 << 30
      return Swift.stride(from: 0, to: count, by: most).map { $0..<min(count, $0 + most) }
    }

    private static func stride(of type: steppe_mpi_type) -> Int {
      switch type {
      case STEPPE_MPI_FLOAT: 4
      case STEPPE_MPI_BYTE: 1
      case STEPPE_MPI_MOMENTS: 8 * Int(STEPPE_MPI_MOMENT_NUMBERS)
      case STEPPE_MPI_STEP: 8 * Int(STEPPE_MPI_STEP_NUMBERS)
      default: 8
      }
    }

    private typealias Start = (
      steppe_mpi_communicator, UnsafePointer<steppe_mpi_registry>, UnsafeMutablePointer<steppe_mpi_request>
    ) -> Int32

    private func begin(
      _ what: String, on communicator: steppe_mpi_communicator, _ start: Start
    ) throws(RankError) -> Transfer {
      try begin(what, on: communicator, pieces: [0..<1]) { start($1, $2, $3) }
    }

    private func begin(
      _ what: String, on communicator: steppe_mpi_communicator, pieces: [Range<Int>],
      _ start: (
        Range<Int>, steppe_mpi_communicator, UnsafePointer<steppe_mpi_registry>,
        UnsafeMutablePointer<steppe_mpi_request>
      ) -> Int32
    ) throws(RankError) -> Transfer {
      library.lock.lock()
      defer { library.lock.unlock() }
      if let failure { throw failure }
      let number = watch.sequence.add(1, ordering: .acquiringAndReleasing).newValue
      let transfer = Transfer(what, number: number)
      for piece in pieces {
        let request = UnsafeMutablePointer<steppe_mpi_request>.allocate(capacity: 1)
        request.initialize(to: steppe_mpi_request())
        transfer.requests.append(request)
        do throws(RankError) {
          try MPILibrary.check(what, start(piece, communicator, library.registry, request))
        } catch {
          failure = error
          throw error
        }
      }
      return transfer
    }

    /// Returns when `transfer` is done.
    func finish(_ transfer: Transfer) throws(RankError) {
      do throws(RankError) {
        var patience = Patience(seconds: timeout)
        while try !library.lock.withLock({ () throws(RankError) in try transfer.test() }) {
          if patience.isOver() {
            try watch.examine(transfer, seconds: patience.seconds)
            patience.renew()
          }
        }
      } catch {
        library.lock.withLock { failure = failure ?? error }
        throw error
      }
    }

    /// The error after which nothing more is exchanged.
    func checkFailure() throws(RankError) {
      if let failure = library.lock.withLock({ failure }) { throw failure }
    }
  }

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

  /// The memory of an array's elements for MPI.
  private func withMemory<Element, Result>(
    of array: inout [Element], _ body: (UnsafeMutableRawPointer) throws(RankError) -> Result
  ) throws(RankError) -> Result {
    // `withUnsafeMutableBytes` rethrows untyped, so the typed error is carried past it.
    let result: Swift.Result<Result, RankError> = array.withUnsafeMutableBytes { bytes in
      // An empty array has no address, and nothing is read of it.
      let address = bytes.baseAddress ?? UnsafeMutableRawPointer(bitPattern: 16)!
      do throws(RankError) { return .success(try body(address)) } catch { return .failure(error) }
    }
    return try result.get()
  }
#endif
