#if MPI
  import Steppe

  /// What first went wrong in a step, as far as this rank has seen it.
  ///
  /// A number that is not finite is on all ranks after the next exchange; the rank that had it first is to blame. So the places of a step are
  /// ordered as what is not finite spreads: the exchanges within forward and backward, as all ranks pass them, then what a rank found out by
  /// itself, then the gradients, which spread nothing before the step's end. The gradients may be looked at in another thread.
  final class StepHealth: @unchecked Sendable {
    private let rank: Int
    private let size: Int
    private let lock = Lock()
    private var exchanges = 0
    private var first: Fault?
    /// What this rank found out by itself.
    private var own: String?
    /// What is wrong with the first of its gradients that is not finite, and the place.
    private var gradient: (place: Int, reason: String)?

    /// Something that is wrong.
    struct Fault {
      /// The place, the rank that is to blame and how many ranks behind it the one is that has seen it: less is earlier.
      let order: Int
      /// Nil where a gradient that backward reaches earlier says more.
      let reason: String?
    }

    /// The place of what a rank finds out by itself. The exchanges are fewer. An order is exact as a `Double` for 16,000 ranks.
    private static let place = 1 << 24

    init(rank: Int, size: Int) { (self.rank, self.size) = (rank, size) }

    func beginStep() { lock.withLock { (exchanges, first, own, gradient) = (0, nil, nil, nil) } }

    private func add(place: Int, culprit: Int, _ reason: String?) {
      let order = (place * size + culprit) * size + (rank + size - culprit) % size
      if order < first?.order ?? .max { first = Fault(order: order, reason: reason) }
    }

    /// Comes at every exchange within a step, with what the numbers are that this rank brings.
    func noteExchange(isFinite: Bool, isForward: Bool) {
      lock.withLock {
        exchanges += 1
        if isFinite { return }
        add(place: exchanges, culprit: rank, isForward ? "the statistics of a batch norm are not finite" : nil)
      }
    }

    /// This rank can't do its part of the step.
    func fail(_ reason: String) {
      lock.withLock {
        own = own ?? reason
        add(place: Self.place, culprit: rank, reason)
      }
    }

    /// A gradient of the rank `culprit` is not finite.
    func noteGradient(bucket: Int, of culprit: Int, _ reason: String) {
      let place = Self.place + 1 + bucket
      lock.withLock {
        if culprit == rank, place < gradient?.place ?? .max { gradient = (place, reason) }
        add(place: place, culprit: culprit, reason)
      }
    }

    /// The order of the first fault; infinite where there is none.
    var order: Double { lock.withLock { first.map { Double($0.order) } ?? .infinity } }

    /// Who is to blame for the fault of that order, and who can say what it is.
    func ranks(of order: Double) -> (culprit: Int, witness: Int) {
      let culprit = Int(order) / size % size
      return (culprit, (culprit + Int(order) % size) % size)
    }

    /// What this rank says as the witness of the first fault.
    var reason: String {
      lock.withLock {
        let found = first?.reason ?? gradient?.reason ?? "the gradients of a batch norm are not finite"
        // What a rank found out by itself says more than that numbers are not finite; a witness speaks of another.
        return (first?.order ?? 0) % size == 0 ? own ?? found : found
      }
    }
  }
#endif
