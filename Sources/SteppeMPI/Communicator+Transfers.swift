#if MPI
  import CMPI
  import Steppe
  import Synchronization

  // How a collective begins, moves on and ends.
  extension Communicator {
    /// How far a collective is when its requests are done.
    enum Progress {
      /// More requests have begun.
      case begun
      /// It waits for something that is no request.
      case waiting
      case done
    }

    /// A collective that is under way.
    final class Transfer {
      let what: String
      /// The rank's how manieth collective it is.
      let number: Int
      private unowned let ranks: Communicator
      fileprivate var requests: [UnsafeMutablePointer<steppe_mpi_request>] = []
      /// What comes when all requests are done.
      fileprivate var next: () throws(RankError) -> Progress = { .done }
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
        while true {
          while let request = requests.last {
            var done: Int32 = 0
            try MPILibrary.check("MPI_Test", steppe_mpi_test(request, &done))
            if done == 0 { return false }
            request.deallocate()
            requests.removeLast()
          }
          switch try next() {
          case .begun: continue
          case .waiting: return false
          case .done: break
          }
          break
        }
        (holder, next) = (nil, { .done })
        ranks.underWay[ObjectIdentifier(self)] = nil
        return true
      }
    }

    static func type<Scalar: TensorScalar>(of _: Scalar.Type) -> steppe_mpi_type {
      MemoryLayout<Scalar>.size == 4 ? STEPPE_MPI_FLOAT : STEPPE_MPI_DOUBLE
    }

    /// Bytes of a piece from which on a ring costs less than whole messages in fewer rounds.
    private static let leastPiece = 8192

    /// Begins the reduction of `count` values in place.
    ///
    /// - Parameters:
    ///   - holder: What holds the memory; it is kept until all is done.
    ///   - inBackground: Whether it goes on while other collectives begin and end.
    func begin(
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
      transfer.next = { [unowned transfer] () throws(RankError) in
        try ring.advance(&transfer.requests) ? .begun : .done
      }
      try library.lock.withLock { () throws(RankError) in
        do throws(RankError) { _ = try transfer.next() } catch {
          failure = failure ?? error
          throw error
        }
      }
      if inBackground { watch.move(transfer) }
      return transfer
    }

    /// Begins the sum of gradients that stand in memory that all ranks share.
    ///
    /// - Parameter onBroken: Called, in whichever thread, where a rank's numbers are not finite.
    func begin<Scalar: TensorScalar>(
      _ gradients: SharedGradients<Scalar>, _ ranges: [Range<Int>], _ what: String,
      onBroken: @escaping (_ range: Int, _ rank: Int) -> Void
    ) throws(RankError) -> Transfer {
      let transfer = try begin(what, on: main, pieces: [], holder: gradients) { _, _, _, _ in 0 }
      let number = library.lock.withLock { gradients.add(ranges, onBroken: onBroken) }
      transfer.next = { () throws(RankError) in gradients.advance(to: number) ? .done : .waiting }
      watch.move(transfer)
      return transfer
    }

    /// MPI counts in 32 bits.
    static func pieces(_ count: Int) -> [Range<Int>] {
      let most = 1 << 30
      return Swift.stride(from: 0, to: count, by: most).map { $0..<min(count, $0 + most) }
    }

    static func stride(of type: steppe_mpi_type) -> Int {
      switch type {
      case STEPPE_MPI_FLOAT: 4
      case STEPPE_MPI_BYTE: 1
      case STEPPE_MPI_MOMENTS: 8 * Int(STEPPE_MPI_MOMENT_NUMBERS)
      case STEPPE_MPI_STEP: 8 * Int(STEPPE_MPI_STEP_NUMBERS)
      default: 8
      }
    }

    typealias Start = (
      steppe_mpi_communicator, UnsafePointer<steppe_mpi_registry>, UnsafeMutablePointer<steppe_mpi_request>
    ) -> Int32

    func begin(
      _ what: String, on communicator: steppe_mpi_communicator, holder: Any, _ start: Start
    ) throws(RankError) -> Transfer {
      try begin(what, on: communicator, pieces: [0..<1], holder: holder) { start($1, $2, $3) }
    }

    func begin(
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
#endif
