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
    private let main, background, control, ringMessages: steppe_mpi_communicator
    /// How many rings have begun.
    private var rings = 0
    /// Bytes of a piece from which on a ring costs less than whole messages in fewer rounds.
    private static let leastPiece = 8192
    let watch: RankWatch
    /// What the first error was. Guarded by the library's lock, as is what follows.
    private var failure: RankError?
    /// What has begun and is not done: MPI may use its memory. After an error that stays so to the end of the process.
    private var underWay: [ObjectIdentifier: Transfer] = [:]

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
      let memory = ExchangeMemory.copying(values)
      try finish(begin(allReduce: memory, count: values.count, STEPPE_MPI_DOUBLE, reduction.operation, "an all-reduce"))
      memory.read(&values)
    }

    /// Merges what a training step came to, ``STEPPE_MPI_STEP_NUMBERS`` numbers. A collective.
    func merge(step numbers: inout [Double]) throws(RankError) {
      let memory = ExchangeMemory.copying(numbers)
      try finish(begin(allReduce: memory, count: 1, STEPPE_MPI_STEP, STEPPE_MPI_MERGE, "the end of a training step"))
      memory.read(&numbers)
    }

    /// Makes `tensor` that of all ranks, reduced element by element. A collective.
    public func allReduce<Scalar: TensorScalar>(
      _ tensor: inout Tensor<Scalar>, _ reduction: Reduction = .sum
    ) throws(RankError) {
      tensor.makeWritable()
      if reduction == .sum {
        return try finish(begin(sum: tensor.address, count: tensor.count, "an all-reduce", holder: tensor))
      }
      try finish(
        begin(
          allReduce: tensor.address, count: tensor.count, Self.type(of: Scalar.self), reduction.operation,
          "an all-reduce", holder: tensor))
    }

    /// Makes `tensor`, of the same shape on all ranks, that of the rank `root`. A collective.
    public func broadcast<Scalar: TensorScalar>(_ tensor: inout Tensor<Scalar>, from root: Int = 0) throws(RankError) {
      tensor.makeWritable()
      try broadcast(tensor.address, count: tensor.count, Self.type(of: Scalar.self), from: root, holder: tensor)
    }

    /// The bytes of the rank `root`, however many. A collective.
    public func broadcast(_ bytes: [UInt8], from root: Int = 0) throws(RankError) -> [UInt8] {
      func exchange<Element>(_ values: inout [Element], _ type: steppe_mpi_type) throws(RankError) {
        let memory = ExchangeMemory.copying(values)
        try broadcast(memory.pointer, count: values.count, type, from: root, holder: memory)
        memory.read(&values)
      }
      var count = [Int64(bytes.count)]
      try exchange(&count, STEPPE_MPI_INT64)
      var result = rank == root ? bytes : [UInt8](repeating: 0, count: Int(count[0]))
      try exchange(&result, STEPPE_MPI_BYTE)
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
      try finish(
        begin("a barrier", on: main, holder: ()) { communicator, _, request in steppe_mpi_barrier(communicator, request)
        })
    }

    // MARK: Beginning and finishing

    /// A collective that is under way.
    final class Transfer {
      let what: String
      /// The rank's how manieth collective it is.
      let number: Int
      private unowned let ranks: Communicator
      fileprivate var requests: [UnsafeMutablePointer<steppe_mpi_request>] = []
      /// Begins what comes when all requests are done; whether there was anything.
      fileprivate var next: () throws(RankError) -> Bool = { false }
      /// What holds the memory that it works on.
      private var holder: Any?

      fileprivate init(_ what: String, number: Int, _ ranks: Communicator, holder: Any) {
        self.what = what
        self.number = number
        self.ranks = ranks
        self.holder = holder
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
        (holder, next) = (nil, { false })
        ranks.underWay[ObjectIdentifier(self)] = nil
        return true
      }
    }

    static func type<Scalar: TensorScalar>(of _: Scalar.Type) -> steppe_mpi_type {
      MemoryLayout<Scalar>.size == 4 ? STEPPE_MPI_FLOAT : STEPPE_MPI_DOUBLE
    }

    /// Begins the reduction of `count` values in place.
    ///
    /// - Parameters:
    ///   - holder: What holds the memory; it is kept until all is done.
    ///   - inBackground: Whether it goes on while other collectives begin and end.
    private func begin(
      allReduce values: UnsafeMutableRawPointer, count: Int, _ type: steppe_mpi_type, _ operation: steppe_mpi_operation,
      _ what: String, holder: Any, inBackground: Bool = false
    ) throws(RankError) -> Transfer {
      let transfer = try begin(
        what, on: inBackground ? background : main, pieces: Self.pieces(count), holder: holder
      ) { range, communicator, registry, request in
        let start = values + range.lowerBound * Self.stride(of: type)
        return steppe_mpi_all_reduce(communicator, registry, start, Int32(range.count), type, operation, request)
      }
      if inBackground { watch.move(transfer) }
      return transfer
    }

    /// The same in memory of its own.
    func begin(
      allReduce memory: ExchangeMemory, count: Int, _ type: steppe_mpi_type, _ operation: steppe_mpi_operation,
      _ what: String
    ) throws(RankError) -> Transfer {
      try begin(allReduce: memory.pointer, count: count, type, operation, what, holder: memory)
    }

    /// Begins the sum of `count` numbers in place.
    ///
    /// Many go around the ranks' ring in as many pieces, once to be summed and once as sums (Patarasuk & Yuan 2009): each rank sends less than
    /// twice their bytes, however many ranks there are. Open MPI's own non-blocking all-reduce sends all of them in each of 2·log₂ K rounds
    /// where the result takes the place of what is reduced.
    ///
    /// - Parameters:
    ///   - holder: What holds the memory; it is kept until all is done.
    ///   - inBackground: Whether it goes on while other collectives begin and end.
    ///   - onBroken: Called, in whichever thread, where numbers are not finite: of this rank, or of the one before it in the ring.
    func begin<Scalar: TensorScalar>(
      sum values: UnsafeMutablePointer<Scalar>, count: Int, _ what: String, holder: Any, inBackground: Bool = false,
      onBroken: ((_ place: Int, _ isOwn: Bool) -> Void)? = nil
    ) throws(RankError) -> Transfer {
      let bytes = count * MemoryLayout<Scalar>.stride
      guard size > 1, bytes >= size * Self.leastPiece, bytes / size < 1 << 30 else {
        if let onBroken, !Scalar.kernels.all_finite(values, count) {
          onBroken((0..<count).first { !values[$0].isFinite } ?? 0, true)
        }
        return try begin(
          allReduce: values, count: count, Self.type(of: Scalar.self), STEPPE_MPI_SUM, what, holder: holder,
          inBackground: inBackground)
      }
      let transfer = try begin(what, on: main, pieces: [], holder: holder) { _, _, _, _ in 0 }
      rings += 1
      // Messages of one ring never meet those of another.
      let ring = Ring(
        values, count: count, rank: rank, size: size, tag: Int32(16 + rings % 16_384), rings: ringMessages,
        onBroken: onBroken)
      transfer.next = { [unowned transfer] () throws(RankError) in try ring.advance(&transfer.requests) }
      try library.lock.withLock { () throws(RankError) in
        do throws(RankError) { _ = try transfer.next() } catch {
          failure = failure ?? error
          throw error
        }
      }
      if inBackground { watch.move(transfer) }
      return transfer
    }

    private func broadcast(
      _ values: UnsafeMutableRawPointer, count: Int, _ type: steppe_mpi_type, from root: Int, holder: Any
    ) throws(RankError) {
      require((0..<size).contains(root), "Communicator.broadcast: expected a rank in 0 ..< \(size), got \(root)")
      try finish(
        begin("a broadcast", on: main, pieces: Self.pieces(count), holder: holder) {
          range, communicator, registry, request in
          let start = values + range.lowerBound * Self.stride(of: type)
          return steppe_mpi_broadcast(communicator, registry, start, Int32(range.count), type, Int32(root), request)
        })
    }

    private func gathered<Element>(_ values: [Element], _ type: steppe_mpi_type) throws(RankError) -> [Element] {
      guard let first = values.first else { return [] }
      let own = ExchangeMemory.copying(values)
      var result = [Element](repeating: first, count: size * values.count)
      let all = ExchangeMemory.copying(result)
      let count = Int32(values.count)
      try finish(
        begin("a gathering", on: main, holder: [own, all]) { communicator, registry, request in
          steppe_mpi_all_gather(communicator, registry, own.pointer, count, type, all.pointer, request)
        })
      all.read(&result)
      return result
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
      _ what: String, on communicator: steppe_mpi_communicator, holder: Any, _ start: Start
    ) throws(RankError) -> Transfer {
      try begin(what, on: communicator, pieces: [0..<1], holder: holder) { start($1, $2, $3) }
    }

    private func begin(
      _ what: String, on communicator: steppe_mpi_communicator, pieces: [Range<Int>], holder: Any,
      _ start: (
        Range<Int>, steppe_mpi_communicator, UnsafePointer<steppe_mpi_registry>,
        UnsafeMutablePointer<steppe_mpi_request>
      ) -> Int32
    ) throws(RankError) -> Transfer {
      library.lock.lock()
      defer { library.lock.unlock() }
      if let failure { throw failure }
      let number = watch.sequence.add(1, ordering: .acquiringAndReleasing).newValue
      let transfer = Transfer(what, number: number, self, holder: holder)
      underWay[ObjectIdentifier(transfer)] = transfer
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
          // What goes on in the background gets the time that this one waits.
          watch.moveOn()
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

    /// The transfers of which MPI may use the memory.
    package var transferCount: Int { library.lock.withLock { underWay.count } }
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

  /// Memory with a copy of what stands elsewhere, for MPI to work on.
  final class ExchangeMemory {
    let pointer: UnsafeMutableRawPointer
    private let byteCount: Int

    init(_ bytes: UnsafeRawBufferPointer) {
      byteCount = bytes.count
      pointer = .allocate(byteCount: max(byteCount, 1), alignment: 64)
      // Nothing has no address.
      if let address = bytes.baseAddress { pointer.copyMemory(from: address, byteCount: byteCount) }
    }

    static func copying<Element>(_ values: [Element]) -> ExchangeMemory {
      values.withUnsafeBytes { ExchangeMemory($0) }
    }

    deinit { pointer.deallocate() }

    /// Copies it back to where it came from.
    func read(into bytes: UnsafeMutableRawBufferPointer) {
      bytes.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: byteCount))
    }

    func read<Element>(_ values: inout [Element]) { values.withUnsafeMutableBytes { read(into: $0) } }
  }
#endif
