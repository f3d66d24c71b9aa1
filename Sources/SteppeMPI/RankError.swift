#if MPI
  /// Why ranks can't work together, or no longer.
  ///
  /// Its description is one line for people, and names the rank where one is to blame.
  public enum RankError: Error, Equatable, CustomStringConvertible {
    /// A call of MPI failed; the text is MPI's own.
    case mpi(call: String, text: String)
    /// A rank gives no sign of life: its process has ended, stands still or can't be reached.
    case silent(rank: Int, waitingFor: String, seconds: Double)
    /// A rank lives, but has not come to where the others wait for it.
    case late(rank: Int, waitingFor: String, seconds: Double)
    /// Something went wrong on one rank, which all others then learn.
    case failed(rank: Int, reason: String)
    /// The ranks were started with different programs, models, data or settings.
    case different([RankDifference])
    /// Copies of a value that all ranks must hold alike have come apart.
    case drifted(ranks: [Int], name: String, step: Int)

    /// Whether every rank throws it, so that one can speak for all and they can end together; else it may be this rank's alone.
    public var isKnownToAll: Bool {
      switch self {
      case .failed, .different, .drifted: true
      case .mpi, .silent, .late: false
      }
    }

    /// One line with the rank and all that is known.
    public var description: String {
      switch self {
      case .mpi(let call, let text): "\(call): \(text)"
      case .silent(let rank, let waiting, let seconds):
        "rank \(rank) gives no sign of life: its process has ended or stands still (the others have waited "
          + "\(Int(seconds)) s for it in \(waiting))"
      case .late(let rank, let waiting, let seconds):
        "rank \(rank) hangs: it has not come to \(waiting), where the others have waited \(Int(seconds)) s for it"
      case .failed(let rank, let reason): "rank \(rank): \(reason)"
      case .different(let differences):
        "the ranks differ: " + differences.map(\.description).joined(separator: "; ")
      case .drifted(let ranks, let name, let step):
        "'\(name)' is no longer the same on all ranks after step \(step): it differs on "
          + (ranks.count == 1 ? "rank " : "ranks ") + ranks.map(String.init).joined(separator: ", ")
      }
    }
  }

  /// A setting that is not the same on two ranks.
  public struct RankDifference: Sendable, Equatable, CustomStringConvertible {
    /// The setting, such as `seed`.
    public let name: String
    /// What it is on rank 0.
    public let first: String
    /// The first rank that has another.
    public let rank: Int
    /// What it is there.
    public let other: String

    /// `seed: 1 on rank 0, 2 on rank 3`.
    public var description: String { "\(name): \(first) on rank 0, \(other) on rank \(rank)" }
  }
#endif
