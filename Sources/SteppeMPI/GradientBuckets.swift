#if MPI
  import Steppe

  /// The gradients of a model's parameters on their way to the other ranks: buckets of about one size, in the order in which backward
  /// reaches their parameters, each begun as soon as its last gradient is there.
  ///
  /// A parameter's gradient is taken to be complete when it has been added to as often as in the step before. Which parameters have
  /// gradients, the ranks tell each other at the end of the first step and whenever that has changed on one of them: those that all have
  /// come first, those that only some have go at a step's end, and the others are not exchanged.
  ///
  /// Where all ranks run on one machine, gradients stand in memory that they share (``SharedGradients``). Elsewhere small parameters share a
  /// bucket's memory, and a large one is reduced where it stands.
  final class GradientBuckets<Scalar: TensorScalar> {
    private let ranks: Communicator
    /// The scalars from which on a bucket is full.
    private let fullCount: Int
    /// Each parameter once, in the order of backward.
    private var entries: [Entry] = []
    /// The scalars of all their gradients, each from a cache line's begin.
    private var totalCount = 0
    private var buckets: [Bucket] = []
    /// Where gradients stand; nil where the ranks share no memory, and before the first exchange.
    private var shared: SharedGradients<Scalar>?
    private var hasAskedToShare = false
    /// How many of the buckets were begun in this step.
    private(set) var begun = 0
    /// Whether sums are being written to the gradients, which are no additions.
    private var isWriting = false
    private var failure: RankError?

    /// A parameter, whose gradient it follows.
    private final class Entry: GradientObserver {
      let parameter: Parameter<Scalar>
      private unowned let buckets: GradientBuckets
      /// The bucket of which it is a part; nil where it is not exchanged.
      var bucket: Int?
      /// How often the gradient was added to in this step, and in the last one.
      var (additions, expected) = (0, 0)
      /// Whether this rank has a gradient of its own in this step, and whether it had one in the last.
      var (isOwn, wasOwn) = (false, false)
      /// The ranks that have one.
      var owners = 0
      /// Whether the gradient was the sum of an earlier step when it was sent.
      var isCarried = false
      /// Where it stands among all gradients of a rank.
      let offset: Int

      init(_ parameter: Parameter<Scalar>, offset: Int, _ buckets: GradientBuckets) {
        self.parameter = parameter
        self.offset = offset
        self.buckets = buckets
      }

      var count: Int { parameter.value.count }

      /// Where nothing has cleared the sum of an earlier step, all ranks have it. It must count once: the first one keeps it.
      func leaveSumToFirst() {
        if parameter.isGradientSum, buckets.ranks.rank > 0 { parameter.clearGradient() }
      }

      func gradientWillChange() {
        if !buckets.isWriting { leaveSumToFirst() }
      }

      func gradientDidChange() {
        if !buckets.isWriting { buckets.added(to: self) }
      }

      func memoryForGradient() -> (address: UnsafeMutableRawPointer, lender: AnyObject)? {
        guard let shared = buckets.shared, let bucket, bucket >= buckets.begun else { return nil }
        return (UnsafeMutableRawPointer(shared.own + offset), shared)
      }

      /// Notes whether what is sent is a sum of an earlier step, which one rank is to send.
      func prepare() {
        isCarried = parameter.isGradientSum
        leaveSumToFirst()
      }

      /// Leaves this rank's gradient at `place`, where backward may have written it at once.
      func write(to place: UnsafeMutablePointer<Scalar>) {
        if parameter.holdsGradient(at: place) { return }
        guard parameter.hasGradient else {
          // Other ranks may have one.
          return place.update(repeating: 0, count: count)
        }
        let gradient = parameter.gradientPlace()
        withExtendedLifetime(gradient) { place.update(from: gradient.address, count: count) }
      }
    }

    private final class Bucket {
      let entries: [Entry]
      let count: Int
      /// The entries that are not complete.
      private(set) var missing: Int
      /// Where several gradients are reduced together.
      private lazy var memory = Storage<Scalar>(count: count)
      /// The gradient that is reduced where it stands; nil where the gradients were copied in this step.
      private var inPlace: Tensor<Scalar>?
      var transfer: Communicator.Transfer?

      init(_ entries: [Entry]) {
        self.entries = entries
        count = entries.reduce(0) { $0 + $1.count }
        missing = entries.count
      }

      /// Where the bucket's gradients stand, in one piece, and what holds that memory.
      func packed() -> (pointer: UnsafeMutablePointer<Scalar>, holder: Any) {
        for entry in entries { entry.prepare() }
        let first = entries[0].parameter
        if entries.count == 1, first.hasGradient {
          let pointer = first.writableGradient()
          inPlace = first.gradient
          return (pointer, first.gradient)
        }
        var place = memory.pointer
        for entry in entries {
          entry.write(to: place)
          place += entry.count
        }
        return (memory.pointer, memory)
      }

      /// Leaves the bucket's gradients in memory that the ranks share, and says where.
      func left(in shared: SharedGradients<Scalar>) -> [Range<Int>] {
        entries.map { entry in
          entry.prepare()
          entry.write(to: shared.own + entry.offset)
          return entry.offset..<entry.offset + entry.count
        }
      }

      /// Gives the sums to their parameters, as far as any rank had something to add. What has changed a gradient since it was sent is lost.
      func unpack(from shared: SharedGradients<Scalar>?) {
        if let shared {
          for entry in entries where entry.owners > 0 || entry.isCarried {
            entry.parameter.hold(sumAt: shared.sum(at: entry.offset), of: shared)
          }
          return
        }
        if let sum = inPlace {
          let parameter = entries[0].parameter
          if !parameter.hasGradient || parameter.gradient.address != sum.address { parameter.gradient = sum }
          return
        }
        var place = memory.pointer
        for entry in entries {
          if entry.owners > 0 || entry.isCarried {
            entry.parameter.accumulate { gradient, _ in gradient.update(from: place, count: entry.count) }
          }
          place += entry.count
        }
      }

      /// One more entry is complete.
      func complete() { missing -= 1 }

      func reset() {
        missing = entries.count
        (transfer, inPlace) = (nil, nil)
      }

      /// The name of the parameter to which a scalar of the bucket belongs.
      func name(at index: Int) -> String {
        var end = 0
        let entry = entries.first { entry in
          end += entry.count
          return index < end
        }
        return (entry ?? entries[0]).parameter.name
      }
    }

    /// - Parameter bytes: The size from which on a bucket is full.
    init(_ parameters: [Parameter<Scalar>], over ranks: Communicator, bytes: Int) {
      self.ranks = ranks
      fullCount = max(1, bytes / MemoryLayout<Scalar>.stride)
      var seen: Set<ObjectIdentifier> = []
      var offset = 0
      for parameter in parameters.reversed() where seen.insert(ObjectIdentifier(parameter)).inserted {
        entries.append(Entry(parameter, offset: offset, self))
        offset += (parameter.value.count + 31) & ~31
      }
      totalCount = offset
    }

    private func grouped(_ entries: [Entry]) -> [Bucket] {
      var groups: [[Entry]] = []
      // The room that is left in the last group.
      var room = 0
      for entry in entries {
        // What fills half a bucket has one of its own, and is not copied.
        let isLarge = 2 * entry.count >= fullCount
        if room <= 0 || isLarge {
          groups.append([])
          room = isLarge ? 0 : fullCount
        }
        groups[groups.count - 1].append(entry)
        room -= entry.count
      }
      return groups.map { Bucket($0) }
    }

    /// From now on it is these buckets that the gradients are followed for.
    func follow() {
      guard ranks.size > 1 else { return }
      for entry in entries { entry.parameter.observer = entry }
    }

    /// Whether other buckets have been made for the same parameters since.
    var isReplaced: Bool { ranks.size > 1 && entries.contains { $0.parameter.observer !== $0 } }

    private func added(to entry: Entry) {
      entry.additions += 1
      if let bucket = entry.bucket, bucket < begun {
        return ranks.health.fail(
          "the gradient of '\(entry.parameter.name)' grew after it had been sent: expected each step to end with "
            + "finishGradients(), and to add to a gradient as often as the step before")
      }
      ranks.watch.moveOn()
      guard let bucket = entry.bucket, entry.additions == entry.expected else { return }
      buckets[bucket].complete()
      while begun < buckets.count, buckets[begun].missing == 0 { beginNext() }
    }

    /// Sends off the next bucket. An error waits for the step's end.
    private func beginNext() {
      let (index, bucket) = (begun, buckets[begun])
      begun += 1
      let what = "the gradient of '\(bucket.entries[0].parameter.name)'"
      do throws(RankError) {
        if let shared {
          bucket.transfer = try ranks.begin(shared, bucket.left(in: shared), what) {
            [health = ranks.health] place, rank in
            health.noteGradient(
              bucket: index, of: rank, "the gradient of '\(bucket.entries[place].parameter.name)' is not finite")
          }
          return
        }
        let memory = bucket.packed()
        bucket.transfer = try ranks.begin(
          sum: memory.pointer, count: bucket.count, what, holder: memory.holder, inBackground: true
        ) { [ranks] place, isOwn in
          ranks.health.noteGradient(
            bucket: index, of: isOwn ? ranks.rank : (ranks.rank + ranks.size - 1) % ranks.size,
            "the gradient of '\(bucket.name(at: place))' is not finite")
        }
      } catch {
        failure = failure ?? error
      }
    }

    /// Sends off what has not been, and returns when all sums are there.
    private func finishTransfers() throws(RankError) {
      while begun < buckets.count { beginNext() }
      if let failure { throw failure }
      for bucket in buckets { if let transfer = bucket.transfer { try ranks.finish(transfer) } }
    }

    /// Ends the exchange of what the ranks are known to have gradients of.
    ///
    /// - Returns: Whether this rank has gradients of other parameters than in the step before.
    func finish() throws(RankError) -> Bool {
      guard ranks.size > 1 else { return false }
      for entry in entries { entry.isOwn = entry.parameter.hasGradient && !entry.parameter.isGradientSum }
      try finishTransfers()
      return entries.contains { $0.isOwn != $0.wasOwn }
    }

    /// Tells the other ranks what this one has gradients of, and exchanges those that were left out. A collective.
    func renew() throws(RankError) {
      let own = entries.map { $0.isOwn ? UInt8(1) : 0 }
      let all = try ranks.allGather(own)
      for (index, entry) in entries.enumerated() { entry.owners = all.count { $0[index] == 1 } }
      if !hasAskedToShare {
        shared = try SharedGradients(totalCount, over: ranks)
        hasAskedToShare = true
      }
      buckets += grouped(entries.filter { $0.bucket == nil && $0.owners > 0 })
      try finishTransfers()
    }

    /// Ends the step.
    ///
    /// - Parameters:
    ///   - isRenewed: Whether the ranks have told each other what they have gradients of.
    ///   - isGood: Whether the sums become the parameters' gradients.
    func endStep(isRenewed: Bool, isGood: Bool) {
      if isGood {
        isWriting = true
        for bucket in buckets {
          bucket.unpack(from: shared)
          for entry in bucket.entries { entry.parameter.markGradientAsSum() }
        }
        isWriting = false
      }
      if isRenewed {
        for entry in entries { entry.bucket = nil }
        buckets =
          grouped(entries.filter { $0.owners == ranks.size })
          + grouped(entries.filter { (1..<ranks.size).contains($0.owners) })
        for (index, bucket) in buckets.enumerated() { for entry in bucket.entries { entry.bucket = index } }
      }
      begun = 0
      shared?.endStep()
      for bucket in buckets { bucket.reset() }
      for entry in entries {
        (entry.expected, entry.additions) = (entry.additions, 0)
        entry.wasOwn = entry.isOwn
      }
    }
  }
#endif
