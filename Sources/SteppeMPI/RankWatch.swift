#if MPI
  import CMPI
  import Glibc
  import Steppe
  import Synchronization

  /// A thread that looks after the ranks: it answers others that ask how far this one is, and moves on what goes on in the background while
  /// the program computes. MPI libraries move messages only while one of their functions runs.
  final class RankWatch: @unchecked Sendable {
    /// The collectives that this rank has begun.
    let sequence = Atomic<Int>(0)
    /// Whether this rank does something that the others wait for as long as it takes.
    let isBusy = Atomic<Bool>(false)

    private let library: MPILibrary
    private let control: steppe_mpi_communicator
    private let rank: Int
    private let size: Int
    private let localSize: Int
    private let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    private var thread = pthread_t()
    private let isStopped = Atomic<Bool>(false)
    /// When messages were last moved, by whichever thread.
    private let lastMove = Atomic<UInt64>(0)
    /// Wakes the thread.
    private let event = steppe_event_descriptor()
    /// What goes on in the background, and what guards it.
    private var moving: [Communicator.Transfer] = []
    private let movingLock = Lock()
    /// Messages that may still be read by MPI; guarded by the library's lock.
    private var letters: [Letter] = []

    /// Nanoseconds between looks while something is under way.
    ///
    /// Where every processor of the machine computes, a look costs the program its own, which looks at each gradient by itself.
    private var short: Int { localSize * Parallel.threadCount < processors ? 50_000 : 1_000_000 }
    /// The same while nothing is.
    private static let long = 50_000_000
    /// How long an answer may take, in seconds.
    private static let answerTime = 3.0
    private static let (queryTag, answerTag): (Int32, Int32) = (1, 2)
    /// What no message has.
    static let noTag: Int32 = 3

    init(_ library: MPILibrary, _ control: steppe_mpi_communicator, rank: Int, size: Int, localSize: Int) {
      self.library = library
      self.control = control
      self.rank = rank
      self.size = size
      self.localSize = localSize
    }

    /// Begins to watch; a single rank has nobody to look after.
    func start() {
      guard size > 1 else { return }
      pthread_create(
        &thread, nil,
        { argument in
          Unmanaged<RankWatch>.fromOpaque(argument!).takeRetainedValue().run()
          return nil
        }, Unmanaged.passRetained(self).toOpaque())
    }

    func stop() {
      guard size > 1, !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
      wake()
      pthread_join(thread, nil)
    }

    /// Moves `transfer` on until it is done.
    func move(_ transfer: Communicator.Transfer) {
      guard size > 1 else { return }
      let isFirst = movingLock.withLock {
        moving.append(transfer)
        return moving.count == 1
      }
      if isFirst { wake() }
    }

    /// Moves on what goes on in the background, unless another thread is at it: whoever holds the library's lock moves messages too.
    func moveOn() {
      if movingLock.withLock({ !moving.isEmpty }) { moveOn {} }
    }

    private func moveOn(_ more: () -> Void) {
      let transfers = movingLock.withLock { moving }
      guard library.lock.tryLock() else { return }
      // An error comes up again in the thread that waits.
      let done = transfers.map { (try? $0.test()) ?? true }
      more()
      library.lock.unlock()
      lastMove.store(Clock.nanoseconds(), ordering: .relaxed)
      let finished = Set(zip(transfers, done).filter(\.1).map { ObjectIdentifier($0.0) })
      if !finished.isEmpty { movingLock.withLock { moving.removeAll { finished.contains(ObjectIdentifier($0)) } } }
    }

    private func wake() {
      var one: UInt64 = 1
      write(event, &one, 8)
    }

    private func run() {
      // Signals belong to the program's threads.
      var signals = sigset_t()
      sigfillset(&signals)
      pthread_sigmask(SIG_BLOCK, &signals, nil)
      var lastLook: UInt64 = 0
      var hasWork = false
      while !isStopped.load(ordering: .acquiring) {
        let pause = hasWork ? short : Self.long
        sleep(nanoseconds: pause)
        let now = Clock.nanoseconds()
        let isAnswerDue = now - lastLook > UInt64(Self.long) / 2
        // Where the program has looked meanwhile, this thread need not take its processor.
        if isAnswerDue || !hasWork || lastMove.load(ordering: .relaxed) + UInt64(pause) < now {
          moveOn {
            guard isAnswerDue else { return }
            answer()
            lastLook = now
          }
        }
        hasWork = movingLock.withLock { !moving.isEmpty }
      }
      close(event)
    }

    /// Waits until that time is over or something is to be moved.
    private func sleep(nanoseconds: Int) {
      // `poll` counts in milliseconds.
      var pause = timespec(tv_sec: 0, tv_nsec: nanoseconds % 1_000_000)
      if pause.tv_nsec > 0 { nanosleep(&pause, nil) }
      var descriptor = pollfd(fd: event, events: Int16(POLLIN), revents: 0)
      guard poll(&descriptor, 1, Int32(nanoseconds / 1_000_000)) > 0 else { return }
      var count: UInt64 = 0
      read(event, &count, 8)
    }

    // MARK: Questions and answers

    /// Numbers on their way to another rank, or from it.
    private final class Letter {
      let numbers: UnsafeMutablePointer<Int64>
      let request: UnsafeMutablePointer<steppe_mpi_request>
      static let count = 3
      static let bytes = Int32(8 * count)

      init(_ contents: [Int64] = []) {
        numbers = .allocate(capacity: Self.count)
        numbers.initialize(repeating: 0, count: Self.count)
        for (index, number) in contents.enumerated() { numbers[index] = number }
        request = .allocate(capacity: 1)
        request.initialize(to: steppe_mpi_request())
      }

      deinit {
        numbers.deallocate()
        request.deallocate()
      }

      /// Under the library's lock; a letter that can't be delivered counts as not done.
      var isDone: Bool {
        var done: Int32 = 0
        return steppe_mpi_test(request, &done) == 0 && done != 0
      }
    }

    /// Answers whoever has asked. Under the library's lock.
    private func answer() {
      letters.removeAll { $0.isDone }
      while true {
        var (found, sender): (Int32, Int32) = (0, 0)
        guard steppe_mpi_probe(control, Self.queryTag, &found, &sender) == 0, found != 0 else { return }
        let query = Letter()
        guard
          steppe_mpi_receive(control, query.numbers, Letter.bytes, sender, Self.queryTag, query.request) == 0
        else { return }
        // It has come already.
        while !query.isDone {}
        let reply = Letter([
          query.numbers[0], Int64(sequence.load(ordering: .acquiring)), isBusy.load(ordering: .acquiring) ? 1 : 0,
        ])
        guard steppe_mpi_send(control, reply.numbers, Letter.bytes, sender, Self.answerTag, reply.request) == 0 else {
          return
        }
        letters.append(reply)
      }
    }

    /// Asks every rank how far it is.
    ///
    /// - Throws: ``RankError`` that names the first rank that is silent, or has not begun `transfer` and does nothing that takes long.
    ///   Else the wait is worth going on.
    func examine(_ transfer: Communicator.Transfer, seconds: Double) throws(RankError) {
      let others = (0..<size).filter { $0 != rank }
      let replies = try library.lock.withLock { () throws(RankError) -> [(rank: Int, letter: Letter)] in
        var replies: [(rank: Int, letter: Letter)] = []
        for other in others {
          let (query, reply) = (Letter([Int64(transfer.number)]), Letter())
          // They last until MPI is done with them, if ever.
          letters += [query, reply]
          try MPILibrary.check(
            "MPI_Irecv",
            steppe_mpi_receive(control, reply.numbers, Letter.bytes, Int32(other), Self.answerTag, reply.request))
          try MPILibrary.check(
            "MPI_Isend",
            steppe_mpi_send(control, query.numbers, Letter.bytes, Int32(other), Self.queryTag, query.request))
          replies.append((other, reply))
        }
        return replies
      }
      var missing = replies
      let deadline = Clock.nanoseconds() + UInt64(Self.answerTime * 1e9)
      while !missing.isEmpty, Clock.nanoseconds() < deadline {
        library.lock.withLock {
          answer()
          missing.removeAll { $0.letter.isDone }
        }
        usleep(1000)
      }
      if let silent = missing.first {
        throw .silent(rank: silent.rank, waitingFor: transfer.what, seconds: seconds)
      }
      let late = replies.filter { Int($0.letter.numbers[1]) < transfer.number && $0.letter.numbers[2] == 0 }
      if let last = late.min(by: { $0.letter.numbers[1] < $1.letter.numbers[1] }) {
        throw .late(rank: last.rank, waitingFor: transfer.what, seconds: seconds)
      }
    }
  }
#endif
