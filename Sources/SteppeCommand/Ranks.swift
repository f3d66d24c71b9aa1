import ArgumentParser
import Glibc
import Steppe
import SteppeMPI

/// The processes in which a command runs: those that `mpirun` started, or this one alone.
struct Ranks {
  #if MPI
    let communicator: Communicator?
  #endif

  /// Joins the others where `mpirun` has started this process with others, or that is `asked` for.
  ///
  /// The processors of a machine are shared out among its ranks, unless something else says how many threads each has.
  static func join(asked: Bool) throws -> Ranks {
    #if MPI
      guard asked || MPILaunch.isLaunched else { return Ranks(communicator: nil) }
      RankGuard.start()
      let communicator = try Communicator.world()
      // A launcher that has bound each rank to processors of its own has shared them out already.
      let share = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)) / communicator.localSize)
      if getenv("STEPPE_NUM_THREADS") == nil, communicator.size > 1 {
        Parallel.threadCount = min(Parallel.threadCount, share)
      }
      return Ranks(communicator: communicator)
    #else
      guard !asked, !MPILaunch.isLaunched else {
        throw Failure(
          (asked ? "--distributed" : "mpirun")
            + ": expected a steppe that was built with MPI, found one without; with MPI "
            + "installed (script/setup --mpi) it is built by: swift build -c release --traits MPI --product steppe")
      }
      return Ranks()
    #endif
  }

  /// How many there are.
  var count: Int {
    #if MPI
      communicator?.size ?? 1
    #else
      1
    #endif
  }

  /// Whether this process writes files and speaks for all.
  var isFirst: Bool {
    #if MPI
      communicator.map { $0.rank == 0 } ?? true
    #else
      true
    #endif
  }

  /// Runs `body`, and ends all ranks with it: together where all know of its end, at once where one alone has failed.
  func run(_ body: () throws -> Void) throws {
    #if MPI
      guard let communicator else { return try body() }
      do {
        try body()
        try communicator.finish()
      } catch let agreed as Agreed {
        try? communicator.finish()
        throw agreed.error
      } catch let error as RankError where error.isKnownToAll {
        try? communicator.finish()
        throw isFirst ? error : ExitCode.failure
      } catch {
        Console.error(
          "steppe: \(error is RankError ? "" : "rank \(communicator.rank): ")\(RootCommand.message(for: error))")
        communicator.abort(code: RootCommand.exitCode(for: error).rawValue)
      }
    #else
      try body()
    #endif
  }

  /// What `body` returns, which the other ranks wait for as long as it takes. Where it throws on one of them all end, and that one says why.
  func agree<Result>(_ body: () throws -> Result) throws -> Result {
    #if MPI
      guard let communicator else { return try body() }
      let result = Swift.Result { try communicator.busy(body) }
      do {
        return try communicator.agree { try result.get() }
      } catch RankError.failed(let rank, _) {
        if rank == communicator.rank, case .failure(let error) = result {
          throw Agreed(error: rank == 0 ? error : Failure("rank \(rank): \(RootCommand.message(for: error))"))
        }
        throw Agreed(error: ExitCode.failure)
      }
    #else
      return try body()
    #endif
  }

  /// The first rank's text.
  func share(_ text: String) throws -> String {
    #if MPI
      guard let communicator else { return text }
      return String(decoding: try communicator.broadcast(Array(text.utf8)), as: UTF8.self)
    #else
      return text
    #endif
  }

  /// An error that every rank knows to end with.
  func ending(with error: any Error) -> any Error {
    #if MPI
      communicator == nil ? error : Agreed(error: error)
    #else
      error
    #endif
  }

  /// Which rank is which process, for whoever reads of one that has ended; nil where there is one alone.
  func list() throws -> String? {
    #if MPI
      guard let communicator, communicator.size > 1 else { return nil }
      let names = try communicator.allGather(Array("process \(getpid()) on \(communicator.host)".utf8))
      let list = names.enumerated().map { "\($0) is \(String(decoding: $1, as: UTF8.self))" }
      return "\(communicator.size) ranks on \(Communicator.library): \(list.joined(separator: ", "))"
    #else
      return nil
    #endif
  }

  /// Makes `trainer` train on all ranks.
  func distribute(_ trainer: Trainer<Float>) {
    #if MPI
      guard let communicator else { return }
      trainer.model.synchronized(over: communicator)
      trainer.distribute(over: communicator)
    #endif
  }
}

#if MPI
  /// An error after which all ranks end together.
  private struct Agreed: Error {
    let error: any Error
  }
#endif
