#if MPI
  import Steppe

  /// The gradients of a model's parameters on their way to the other ranks: buckets of about one size, in the order in which backward
  /// reaches their parameters, each begun as soon as its last gradient is there.
  ///
  /// A parameter's gradient is taken to be complete when it has been added to as often as in the step before; in the first step all go at the
  /// end. Small parameters share a bucket's memory; a large one is reduced where it stands.
  final class GradientBuckets<Scalar: TensorScalar> {
    private let ranks: Communicator
    private let buckets: [Bucket]
    /// How many of the buckets are under way.
    private var begun = 0
    /// The first parameter whose own gradient was found not finite in this step.
    private(set) var brokenParameter: String?

    private final class Entry {
      let parameter: Parameter<Scalar>
      /// How often it was added to in this step, and in the last one.
      var (additions, expected) = (0, 0)

      init(_ parameter: Parameter<Scalar>) { self.parameter = parameter }

      var count: Int { parameter.value.count }

      /// Whether the gradient is finite, as far as that costs next to nothing.
      ///
      /// A large weight's is a sum of products dyᵀ·x: where dy or x is not finite, a whole row of it is not or a whole column. Looking at one of
      /// each finds both, in a thousandth of the time that all would take.
      var isFinite: Bool {
        guard parameter.hasGradient else { return true }
        let gradient = parameter.writableGradient()
        let rows = parameter.value.shape.first ?? 1
        guard count > 4096, rows > 0 else { return Scalar.kernels.all_finite(gradient, count) }
        let width = count / rows
        return Scalar.kernels.all_finite(gradient, width) && (0..<rows).allSatisfy { gradient[$0 * width].isFinite }
      }
    }

    private final class Bucket {
      let index: Int
      let entries: [Entry]
      let count: Int
      /// The entries that are not complete.
      var missing: Int
      /// Where several gradients are reduced together.
      private(set) lazy var memory = Storage<Scalar>(count: count)
      /// Whether the gradients were copied there in this step.
      var isPacked = false
      var transfer: Communicator.Transfer?

      init(_ index: Int, _ parameters: [Parameter<Scalar>]) {
        self.index = index
        entries = parameters.map { Entry($0) }
        count = entries.reduce(0) { $0 + $1.count }
        missing = entries.count
      }

      /// Where the bucket's gradients stand, in one piece.
      func packed() -> UnsafeMutablePointer<Scalar> {
        isPacked = entries.count > 1 || !entries[0].parameter.hasGradient
        guard isPacked else { return entries[0].parameter.writableGradient() }
        var place = memory.pointer
        for entry in entries {
          if entry.parameter.hasGradient {
            place.update(from: entry.parameter.writableGradient(), count: entry.count)
          } else {
            // Other ranks may have one.
            place.update(repeating: 0, count: entry.count)
          }
          place += entry.count
        }
        return memory.pointer
      }

      func unpack() {
        guard isPacked else { return }
        var place = memory.pointer
        for entry in entries {
          if entry.parameter.hasGradient { entry.parameter.writableGradient().update(from: place, count: entry.count) }
          place += entry.count
        }
      }
    }

    /// - Parameter bytes: The size from which on a bucket is full.
    init(_ parameters: [Parameter<Scalar>], over ranks: Communicator, bytes: Int) {
      self.ranks = ranks
      let most = max(1, bytes / MemoryLayout<Scalar>.stride)
      var seen: Set<ObjectIdentifier> = []
      var groups: [[Parameter<Scalar>]] = []
      // The room that is left in the last group.
      var room = 0
      for parameter in parameters.reversed() where seen.insert(ObjectIdentifier(parameter)).inserted {
        let count = parameter.value.count
        // What fills half a bucket has one of its own, and is not copied.
        if room <= 0 || 2 * count >= most {
          groups.append([])
          room = 2 * count >= most ? 0 : most
        }
        groups[groups.count - 1].append(parameter)
        room -= count
      }
      buckets = groups.enumerated().map { Bucket($0, $1) }
      guard ranks.size > 1 else { return }
      for bucket in buckets {
        for entry in bucket.entries {
          entry.parameter.onGradient = { [weak self, unowned bucket, unowned entry] in
            self?.added(to: entry, in: bucket)
          }
        }
      }
    }

    deinit {
      for bucket in buckets { for entry in bucket.entries { entry.parameter.onGradient = nil } }
    }

    /// The buckets' sizes in bytes, in their order.
    var sizes: [Int] { buckets.map { $0.count * MemoryLayout<Scalar>.stride } }

    func beginStep() { brokenParameter = nil }

    private func added(to entry: Entry, in bucket: Bucket) {
      require(
        bucket.index >= begun,
        "DataParallel: the gradient of '\(entry.parameter.name)' grew after it had been sent; each step must end with "
          + "finishGradients(), and add to a parameter's gradient as often as the first step did")
      entry.additions += 1
      ranks.watch.moveOn()
      guard entry.additions == entry.expected else { return }
      bucket.missing -= 1
      while begun < buckets.count, buckets[begun].missing == 0 { begin(buckets[begun]) }
    }

    /// Sends a bucket off. An error is kept by the communicator, and thrown at the end.
    private func begin(_ bucket: Bucket) {
      begun = bucket.index + 1
      let memory = bucket.packed()
      let broken = bucket.entries.first { !$0.isFinite }
      ranks.health.note(isFinite: broken == nil)
      brokenParameter = brokenParameter ?? broken?.parameter.name
      bucket.transfer = try? ranks.begin(
        sum: memory, count: bucket.count, "the gradient of '\(bucket.entries[0].parameter.name)'", inBackground: true)
    }

    /// Sends off what has not been.
    func beginRest() {
      guard ranks.size > 1 else { return }
      while begun < buckets.count { begin(buckets[begun]) }
    }

    /// Returns when every gradient is the sum over the ranks.
    func finish() throws(RankError) {
      guard ranks.size > 1 else { return }
      defer {
        begun = 0
        for bucket in buckets {
          bucket.missing = bucket.entries.count
          bucket.transfer = nil
          for entry in bucket.entries { (entry.expected, entry.additions) = (entry.additions, 0) }
        }
      }
      for bucket in buckets {
        if let transfer = bucket.transfer { try ranks.finish(transfer) }
        bucket.unpack()
      }
      try ranks.checkFailure()
    }
  }
#endif
