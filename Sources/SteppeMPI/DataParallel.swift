#if MPI
  import CMPI
  import Steppe

  /// Training one model on several ranks, each on its part of every batch: the gradients become the sums over the ranks, in buckets that are
  /// on their way while the rest of backward is computed.
  ///
  /// ```swift
  /// let ranks = try Communicator.world()
  /// let model = Sequential<Float>(seed: 1) { … }.synchronized(over: ranks)
  /// let parallel = try DataParallel(model, over: ranks)            // the parameters become those of rank 0
  /// let optimizer = SGD(model.parameters, learningRate: 0.1)
  /// var sampler = BatchSampler(count: training.count, batchSize: 256, seed: 1)   // the same on all ranks
  /// while let rows = sampler.next() {
  ///   let own = parallel.share(of: rows)
  ///   let (images, labels) = training.batch(rows: own)
  ///   let (logits, pullback) = model.forward(images)
  ///   let gradient = softmaxCrossEntropy(logits, labels, reduction: .sum).gradient / Float(rows.count)
  ///   pullback.accumulate(gradient)
  ///   try parallel.finishGradients()
  ///   optimizer.step()
  /// }
  /// ```
  ///
  /// Gradients are summed, not averaged: with each rank's share of the gradient of the batch's mean loss, as above, the sum is that gradient
  /// also where the shares are uneven. `Trainer.distribute(over:)` does all of this for a `Trainer`.
  ///
  /// A gradient that is not cleared after a step grows in the next one, as it does in one process. Where some ranks have no gradient of a
  /// parameter it is the sum of the others'; where none has, there is none.
  ///
  /// Every step calls the pullback as often as the first one did, and then ``finishGradients()``; all ranks take part in all of them. A
  /// model has one `DataParallel` at a time: a second one takes the first one's place.
  public final class DataParallel<Scalar: TensorScalar> {
    /// What is trained.
    public let model: any Layer<Scalar>
    /// The ranks that train it.
    public let ranks: Communicator
    /// After how many steps the copies of the model are compared, at least 1.
    public let checkInterval: Int
    let buckets: GradientBuckets<Scalar>
    private var step = 0

    /// How much a bucket holds where nothing else is asked for, in bytes.
    public static var defaultBucketBytes: Int { 1 << 20 }

    /// Makes the parameters and statistics of `model` those of rank 0. A collective.
    ///
    /// - Parameters:
    ///   - model: A model of the same layers on all ranks.
    ///   - ranks: The ranks.
    ///   - bucketBytes: The size from which on gradients are sent off together.
    ///   - checkInterval: After how many steps the copies of the model are compared by checksums.
    /// - Throws: ``RankError``, where the models' entries or shapes differ with the difference, and where a layer within goes by statistics of
    ///   its rank's batch alone, so that the copies would come apart.
    public convenience init(
      _ model: any Layer<Scalar>, over ranks: Communicator, bucketBytes: Int = DataParallel.defaultBucketBytes,
      checkInterval: Int = 100
    ) throws {
      self.init(joining: model, over: ranks, bucketBytes: bucketBytes, checkInterval: checkInterval)
      try compare(sharedSettings(model.state))
      try copyFromFirst(model.state)
    }

    /// How many buckets of gradients this step has sent off by now.
    package var bucketsUnderWay: Int { buckets.begun }

    /// Without comparing or copying anything yet.
    init(joining model: any Layer<Scalar>, over ranks: Communicator, bucketBytes: Int, checkInterval: Int) {
      require(
        bucketBytes >= 1 && checkInterval >= 1,
        "DataParallel: expected a bucket size and an interval of at least 1, got \(bucketBytes) and \(checkInterval)")
      self.model = model
      self.ranks = ranks
      self.checkInterval = checkInterval
      buckets = GradientBuckets(model.parameters, over: ranks, bytes: bucketBytes)
      beginStep()
    }

    /// This rank's part of a batch's rows: consecutive ones, as many as on the other ranks or one more or less. Over an epoch the ranks'
    /// parts are all of its rows, each once, whatever their order.
    public func share(of rows: [Int]) -> [Int] {
      Array(rows[Parallel.range(ranks.rank, of: ranks.size, count: rows.count)])
    }

    /// Makes every gradient the sum over the ranks. A collective; the pullback has begun it.
    ///
    /// - Throws: ``RankError``: a gradient is not finite, with the rank on which it first was not; every ``checkInterval`` steps, copies of the
    ///   model have come apart; or a rank is missing. The gradients are cleared then.
    public func finishGradients() throws {
      defer { beginStep() }
      _ = try endStep(StepSums(), failure: nil)
      // The copies as the optimizer left them after the last step.
      if step > 0 { try check(model.state, step: step) }
      step += 1
    }

    // MARK: What all ranks must hold alike

    /// Throws the differences from rank 0.
    func compare(_ settings: [String: String]) throws {
      let layer = model.layerOfLocalStatistics
      if ranks.size > 1, let first = try ranks.firstRank(layer != nil) {
        let reason =
          "\(layer ?? "") goes by the statistics of its own rank's batch: expected layers that do the same on all ranks; "
          + "synchronized(over:) makes batch norm one of them"
        throw RankError.failed(rank: first, reason: try ranks.text(reason, from: first))
      }
      let own = JSONValue.object(settings.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) })
      let all = try ranks.allGather(Array(own.serialized().utf8)).map { bytes -> [String: String] in
        guard case .object(let members) = try JSONValue(parsing: bytes) else { return [:] }
        return Dictionary(
          members.map { member in
            if case .string(let text) = member.value { (member.key, text) } else { (member.key, "") }
          }, uniquingKeysWith: { $1 })
      }
      let names = Set(all.flatMap(\.keys)).sorted()
      let differences = names.compactMap { name -> RankDifference? in
        let first = all[0][name]
        guard let rank = all.firstIndex(where: { $0[name] != first }) else { return nil }
        return RankDifference(name: name, first: first ?? "none", rank: rank, other: all[rank][name] ?? "none")
      }
      if !differences.isEmpty { throw RankError.different(differences) }
    }

    /// Makes the entries those of rank 0.
    package func copyFromFirst(_ entries: [StateEntry<Scalar>]) throws(RankError) {
      guard ranks.size > 1 else { return }
      for entry in entries {
        switch entry.get() {
        case .tensor(let tensor):
          var copy = tensor.copied()
          try ranks.broadcast(&copy)
          if ranks.rank > 0 { entry.set(.tensor(copy)) }
        case .integer(let number):
          // An exact number of up to 64 bits.
          let bytes = try ranks.broadcast(withUnsafeBytes(of: Int64(number)) { Array($0) })
          if ranks.rank > 0 { entry.set(.integer(Int(bytes.withUnsafeBytes { $0.loadUnaligned(as: Int64.self) }))) }
        }
      }
    }

    /// Throws where the entries' bits are not the same on all ranks.
    func compareCopies(_ entries: [StateEntry<Scalar>], step: Int) throws(RankError) {
      guard ranks.size > 1 else { return }
      let own = entries.map { entry -> Int64 in
        switch entry.get() {
        case .tensor(let tensor):
          let tensor = tensor.contiguous()
          let bytes = UnsafeRawBufferPointer(start: tensor.address, count: tensor.count * MemoryLayout<Scalar>.stride)
          defer { withExtendedLifetime(tensor) {} }
          return Int64(checksum(bytes))
        case .integer(let number): return Int64(number)
        }
      }
      let all = try ranks.allGather(own)
      for (index, entry) in entries.enumerated() {
        let sums = all.map { $0[index] }
        // What most ranks have is right, or of as many rank 0's.
        let counts = Dictionary(grouping: sums.indices, by: { sums[$0] })
        guard counts.count > 1 else { continue }
        let most = counts.values.max { ($0.count, -$0[0]) < ($1.count, -$1[0]) }!
        throw .drifted(ranks: sums.indices.filter { sums[$0] != sums[most[0]] }, name: entry.key, step: step)
      }
    }
  }

  // MARK: For trainers

  extension DataParallel: TrainingGroup {
    package var rank: Int { ranks.rank }
    package var size: Int { ranks.size }

    package func begin(_ settings: [String: String]) throws { try compare(settings) }

    package func agree<Result>(_ body: () throws -> Result) throws -> Result { try ranks.agree(body) }

    package func fromFirst(_ body: () throws -> [UInt8]) throws -> [UInt8] {
      let bytes = try ranks.agree { rank == 0 ? try ranks.busy(body) : [] }
      return try ranks.broadcast(bytes)
    }

    package func sum(_ numbers: [Double]) throws -> [Double] {
      var sums = numbers
      try ranks.allReduce(&sums)
      return sums
    }

    package func beginStep() {
      ranks.health.beginStep()
      buckets.follow()
    }

    package func endStep(_ sums: StepSums, failure: (any Error)?) throws -> StepSums {
      require(
        !buckets.isReplaced,
        "DataParallel: expected to be the only one of its model at a time, found that another was made of it since")
      let health = ranks.health
      if let failure { health.fail(Communicator.reason(failure)) }
      let hasChanged = try buckets.finish()
      var numbers = [
        sums.loss, Double(sums.correct), Double(sums.examples), sums.asksToStop ? 1 : 0, hasChanged ? 1 : 0,
        health.order,
      ]
      try ranks.merge(step: &numbers)
      let isRenewed = numbers[4] > 0
      var order = numbers[5]
      if isRenewed {
        try buckets.renew()
        var late = [0, 0, 0, 0, 0, health.order]
        try ranks.merge(step: &late)
        order = late[5]
      }
      buckets.endStep(isRenewed: isRenewed, isGood: order.isInfinite)
      if order.isFinite {
        for parameter in model.parameters { parameter.clearGradient() }
        let (culprit, witness) = health.ranks(of: order)
        throw RankError.failed(rank: culprit, reason: try ranks.text(health.reason, from: witness))
      }
      var result = StepSums()
      (result.loss, result.correct, result.examples) = (numbers[0], Int(numbers[1]), Int(numbers[2]))
      result.asksToStop = numbers[3] > 0
      return result
    }

    package func check(_ entries: [StateEntry<Scalar>], step: Int) throws {
      if step % checkInterval == 0 { try compareCopies(entries, step: step) }
    }
  }

  extension Trainer {
    /// Trains on all ranks from now on: `fit` takes each rank its part of every batch, so that the run is that of one process with the same
    /// batch size and seed, up to rounding, whatever the number of ranks.
    ///
    /// ```swift
    /// let ranks = try Communicator.world()
    /// let model = Sequential<Float>(seed: 1) { … }.synchronized(over: ranks)
    /// let trainer = Trainer(model: model, optimizer: SGD(model.parameters, learningRate: 0.1))
    /// trainer.distribute(over: ranks)
    /// try trainer.fit(training: training)          // on all ranks
    /// try ranks.finish()
    /// ```
    ///
    /// All ranks make the same trainer and call `fit` with the same data; where their models, data, settings or versions differ, it throws the
    /// difference before the first step. Rank 0 resumes, writes checkpoints and calls `onProgress`; the others begin where it stands.
    /// Validation is shared out too. What goes wrong on one rank, NaN too, is thrown on all with that rank's number.
    ///
    /// - Parameters:
    ///   - ranks: The ranks.
    ///   - bucketBytes: The size from which on gradients are sent off together, in bytes.
    ///   - checkInterval: After how many steps the copies of the model are compared by checksums.
    public func distribute(
      over ranks: Communicator, bucketBytes: Int = DataParallel<Scalar>.defaultBucketBytes, checkInterval: Int = 100
    ) {
      group = DataParallel(joining: model, over: ranks, bucketBytes: bucketBytes, checkInterval: checkInterval)
    }
  }
#endif
