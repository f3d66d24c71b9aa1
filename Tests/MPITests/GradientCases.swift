#if MPI
  import Foundation
  import Reference
  import Steppe
  import SteppeMPI

  /// Adds the gradients of this rank's share of `rows`, weighted as one process would.
  private func accumulate(
    _ model: Sequential<Float>, _ data: Dataset<Float>, rows: [Int], of total: Int
  ) {
    let (features, labels) = data.batch(rows: rows)
    let (logits, pullback) = model.forward(features)
    pullback.accumulate(softmaxCrossEntropy(logits, labels, reduction: .sum).gradient * (1 / Float(total)))
  }

  /// Parameters that the optimizer does not move: their gradients are gathered over the steps, as those of one process are.
  func frozen(_ context: RankContext) throws {
    let data = try clusters(160)
    for moved in [2, 0] {
      let (single, several) = (perceptron(12), perceptron(12).synchronized(over: context.ranks))
      let parallel = try DataParallel(several, over: context.ranks, bucketBytes: 256)
      let optimizers = [single, several].map { SGD($0.parameters.suffix(moved), learningRate: 0.05) }
      for step in 0..<5 {
        let rows = Array(32 * step..<32 * (step + 1))
        accumulate(single, data, rows: rows, of: 32)
        accumulate(several, data, rows: parallel.share(of: rows), of: 32)
        try parallel.finishGradients()
        for (a, b) in zip(several.parameters, single.parameters) {
          context.expectNear(
            a.gradient.scalars, b.gradient.scalars, within: 1e-4, "gradient of \(b.name) after \(step + 1) steps")
          try context.expectSame(a.gradient.scalars, "gradient of \(b.name)")
        }
        for optimizer in optimizers { optimizer.step() }
      }
      // One that is cleared begins anew; one that is set counts as what this rank has.
      several.parameters[0].clearGradient()
      several.parameters[1].gradient = Tensor(repeating: 1, shape: several.parameters[1].value.shape)
      try parallel.finishGradients()
      context.expect(!several.parameters[0].hasGradient, "a gradient that was cleared is there again")
      context.expect(
        several.parameters[1].gradient.scalars.allSatisfy { $0 == Float(context.size) }, "a gradient that was set")
    }

    // And by a trainer.
    let (single, several) = (perceptron(12), perceptron(12))
    func train(_ model: Sequential<Float>, over ranks: Communicator?) throws {
      if let ranks { model.synchronized(over: ranks) }
      let trainer = Trainer(
        model: model, optimizer: SGD(Array(model.parameters.suffix(3)), learningRate: 0.05),
        configuration: TrainingConfiguration(epochs: 2, batchSize: 32))
      if let ranks { trainer.distribute(over: ranks) }
      try trainer.fit(training: data)
    }
    try train(single, over: nil)
    try train(several, over: context.ranks)
    for (a, b) in zip(several.parameters, single.parameters) {
      context.expect(a.hasGradient == b.hasGradient, "whether \(b.name) has a gradient")
      context.expectNear(a.gradient.scalars, b.gradient.scalars, within: 1e-4, "gradient of \(b.name) of a trainer")
    }
  }

  /// Parameters that only some ranks use, others in each step: each gradient is the sum over those that do.
  func partial(_ context: RankContext) throws {
    let model = Sequential<Float>(seed: 1) {
      for _ in 0..<5 { Dense(6, 6) }
    }
    let parallel = try DataParallel(model, over: context.ranks, bucketBytes: 64)
    // The layers that a rank uses in a step; nobody uses the last one.
    func used(step: Int, rank: Int) -> [Int] {
      switch step {
      case 0, 1: rank == 0 ? [0, 1] : [1]
      case 2, 3: rank == context.size - 1 ? [2] : [1]
      case 4: [0, 1, 2, 3]
      default: []
      }
    }
    for step in 0..<6 {
      for layer in used(step: step, rank: context.rank) {
        let (output, pullback) = model.layers[layer].forward(Tensor(repeating: Float(context.rank + 1), shape: [2, 6]))
        pullback.accumulate(Tensor(repeating: Float(step + 1), shape: output.shape))
      }
      try parallel.finishGradients()
      for (layer, dense) in model.layers.enumerated() {
        let ranks = (0..<context.size).filter { used(step: step, rank: $0).contains(layer) }
        for parameter in dense.parameters {
          context.expect(
            parameter.hasGradient == !ranks.isEmpty, "step \(step): whether \(parameter.name) has a gradient")
          let isWeight = parameter.value.rank == 2
          let sum = ranks.reduce(Float(0)) { $0 + Float(2 * (step + 1)) * (isWeight ? Float($1 + 1) : 1) }
          context.expect(
            parameter.gradient.scalars.allSatisfy { $0 == sum },
            "step \(step): gradient of \(parameter.name) \(parameter.gradient.scalars[0]), expected \(sum)")
          parameter.clearGradient()
        }
      }
    }
  }

  /// Gradients go off during backward although one parameter never has any, and although another `DataParallel` was made of the model.
  func overlap(_ context: RankContext) throws {
    let data = try clusters(64)
    let model = perceptron(12).synchronized(over: context.ranks)
    // The one that backward reaches first.
    let unused = model.parameters.last!
    unused.isTrainable = false
    var first: DataParallel? = try DataParallel(model, over: context.ranks, bucketBytes: 64)
    let second = try DataParallel(model, over: context.ranks, bucketBytes: 64)
    context.expect(first!.bucketsUnderWay == 0, "nothing has begun")
    first = nil
    for step in 0..<3 {
      accumulate(model, data, rows: second.share(of: Array(0..<64)), of: 64)
      let sent = second.bucketsUnderWay
      // In the first step it is not known how often each gradient grows.
      context.expect(step == 0 ? sent == 0 : sent > 3, "step \(step): \(sent) buckets before the step's end")
      try second.finishGradients()
      context.expect(!unused.hasGradient, "a gradient of what has none")
      for parameter in model.parameters { parameter.clearGradient() }
    }
    // A trainer of another phase, while the one before still exists.
    let trainers = [trainer(model, epochs: 1, over: context.ranks), trainer(model, epochs: 1, over: context.ranks)]
    for trainer in trainers { try trainer.fit(training: data) }
    for trainer in trainers.reversed() {
      trainer.configuration.epochs = 2
      try trainer.fit(training: data)
    }
    try context.expectSame(values(model), "the model")

    // Growing after it was sent: known by the count of the step before.
    context.expectError("rank ", "grew after it had been sent") {
      let model = perceptron(12).synchronized(over: context.ranks)
      let parallel = try DataParallel(model, over: context.ranks, bucketBytes: 64)
      for step in 0..<3 {
        for _ in 0..<(step == 2 ? 2 : 1) {
          accumulate(model, data, rows: parallel.share(of: Array(0..<64)), of: 64)
        }
        try parallel.finishGradients()
        for parameter in model.parameters { parameter.clearGradient() }
      }
    }
    try context.ranks.barrier()
  }

  /// One element of a large gradient that is not finite, wherever it stands.
  func brokenElement(_ context: RankContext) throws {
    for culprit in Set([0, context.size / 2, context.size - 1]).sorted() { try brokenElement(context, of: culprit) }
  }

  private func brokenElement(_ context: RankContext, of culprit: Int) throws {
    let ranks = context.ranks
    let shape = [700, 60]
    let count = shape.reduce(1, *)
    for place in [0, 61, count / 3, count / 2 + 7, 2 * count / 3 + 1, count - 62, count - 1] {
      for value in [Float.nan, -.infinity] {
        let model = Sequential<Float>(seed: 1) { Dense(60, 700, bias: false) }
        let parallel = try DataParallel(model, over: ranks, bucketBytes: 1024)
        let weight = model.parameters[0]
        for step in 0..<2 {
          var gradient = Tensor<Float>(repeating: 1, shape: shape)
          if context.rank == culprit, step == 1 { gradient[place / 60, place % 60] = value }
          weight.gradient = gradient
          if step == 0 {
            try parallel.finishGradients()
            context.expect(weight.gradient.scalars.allSatisfy { $0 == Float(context.size) }, "the sum")
          } else {
            context.expectError("rank \(culprit): the gradient of '0.weight' is not finite") {
              try parallel.finishGradients()
            }
            context.expect(!weight.hasGradient, "the broken gradient is kept")
          }
        }
      }
    }
  }

  /// Sums of gradients of many sizes: how they are rounded where they stand in shared memory, and what a program may do with them.
  func sharedGradients(_ context: RankContext) throws {
    let (ranks, size) = (context.ranks, context.size)
    let isShared = ranks.sharesMemory && ranks.localSize == size
    let counts = [1, 5, 16, 17, 100, 4099, 70_001]
    for bucketBytes in [64, 8192, 1 << 20] {
      let parameters = counts.enumerated().map { index, count in
        Parameter<Float>(.zeros(shape: [count]), name: "p\(index)", decays: false)
      }
      let parallel = try DataParallel(ParameterLayer(parameters), over: ranks, bucketBytes: bucketBytes)
      let optimizer = SGD(parameters, learningRate: 1)
      // How often backward adds to each gradient.
      let additions = bucketBytes == 8192 ? 2 : 1
      var kept: [(gradient: Tensor<Float>, scalars: [Float])] = []
      var moved = counts.map { [Float](repeating: 0, count: $0) }
      for step in 0..<6 {
        // What each rank adds, known to all.
        var generator = context.generator("\(bucketBytes) \(step)")
        let terms = (0..<size).map { _ in counts.map { generator.normals($0, as: Float.self) } }
        for (index, parameter) in parameters.enumerated().reversed() {
          for _ in 0..<additions {
            parameter.accumulate { gradient, adding in
              for (place, term) in terms[context.rank][index].enumerated() {
                gradient[place] = (adding ? gradient[place] : 0) + term
              }
            }
          }
        }
        try parallel.finishGradients()
        let sums = counts.indices.map { index in
          (0..<counts[index]).map { place in
            (0..<size).reduce(Float(0)) { $0 + Float(additions) * terms[$1][index][place] }
          }
        }
        // Some steps leave the gradients where they are until the optimizer reads them.
        if step % 2 == 0 {
          for (index, parameter) in parameters.enumerated() {
            let found = parameter.gradient.scalars
            try context.expectSame(found, "\(parameter.name) in step \(step)")
            // The order of ranks, where one rank adds up all terms.
            if isShared || size == 2 {
              context.expect(
                found == sums[index], "\(parameter.name) in step \(step): not rounded in the order of ranks")
            }
            kept.append((parameter.gradient, found))
          }
        }
        if step == 4 {
          // What the program changes is no other rank's.
          if context.rank == 0 { clipGradientValue(parameters, maximum: 0.5) }
          try ranks.barrier()
          for (index, parameter) in parameters.enumerated() {
            let expected = context.rank > 0 ? sums[index] : sums[index].map { max(-0.5, min(0.5, $0)) }
            context.expectNear(
              parameter.gradient.scalars, expected, within: 1e-5, "\(parameter.name), changed on one rank")
            parameter.clearGradient()
          }
        } else {
          for index in counts.indices {
            for place in moved[index].indices { moved[index][place] -= sums[index][place] }
          }
          optimizer.step()
        }
        for (index, parameter) in parameters.enumerated() {
          context.expectNear(
            parameter.value.scalars, moved[index], within: 1e-5, "\(parameter.name) after step \(step)")
          try context.expectSame(parameter.value.scalars, "\(parameter.name) after step \(step)")
        }
      }
      for (gradient, scalars) in kept {
        context.expect(gradient.scalars == scalars, "a gradient that was kept has changed")
      }
      context.expect(
        ranks.sharedMemoryCount == (isShared ? 1 : 0), "\(ranks.sharedMemoryCount) pieces of shared memory")
    }

    // Sums that nobody has looked at outlive MPI.
    let parameter = Parameter<Float>(.zeros(shape: [1000]), name: "last", decays: false)
    let parallel = try DataParallel(ParameterLayer([parameter]), over: ranks)
    for _ in 0..<2 {
      parameter.clearGradient()
      parameter.accumulate { gradient, _ in gradient.update(repeating: 1, count: 1000) }
      try parallel.finishGradients()
    }
    context.afterFinish = {
      context.expect(parameter.gradient.scalars == [Float](repeating: Float(size), count: 1000), "a sum after MPI")
      withExtendedLifetime(parallel) {}
    }
  }

  /// Parameters, and nothing that is computed with them.
  private final class ParameterLayer: Layer {
    let parameters: [Parameter<Float>]
    var name = ""

    init(_ parameters: [Parameter<Float>]) { self.parameters = parameters }

    var inferenceSteps: [InferenceStep<Float>] { [] }

    var state: [StateEntry<Float>] { parameters.map { StateEntry($0.name, $0) } }

    func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] { input }

    func callAsFunction(_ input: Tensor<Float>) -> Tensor<Float> { input }

    func forward(_ input: Tensor<Float>) -> (output: Tensor<Float>, pullback: Pullback<Float>) {
      (input, Pullback(shape: input.shape) { gradient, _ in gradient })
    }
  }

  /// A rank that stands where the others do not: all go by the first one.
  func standings(_ context: RankContext) throws {
    let data = try clusters(64)
    let folder = try TemporaryFolder()
    let isLast = context.rank == context.size - 1
    func make(_ model: Sequential<Float>, over ranks: Communicator?) -> Trainer<Float> {
      let result = trainer(model, epochs: 2, over: ranks)
      result.configuration.checkpointFolder = folder.path + "/checkpoints"
      return result
    }
    if isLast {
      let alone = make(perceptron(12), over: nil)
      alone.configuration.epochs = 1
      try alone.fit(training: data)
    }
    // The last rank has a checkpoint of its own; the first one begins anew.
    let (expected, found) = (perceptron(12), perceptron(12))
    try trainer(expected, epochs: 2, over: context.ranks).fit(training: data)
    let several = make(found, over: context.ranks)
    if isLast { try several.resume(from: folder.path + "/checkpoints") }
    let report = try several.fit(training: data)
    context.expect(report.step == 4 && report.history.count == 2, "\(report.step) steps")
    context.expect(values(found) == values(expected), "the model is not that of a run from the start")
  }

  /// What one rank finds alone before the ranks compare anything.
  func localFaults(_ context: RankContext) throws {
    let (ranks, last) = (context.ranks, context.size - 1)
    let isLast = context.rank == last
    let data = try clusters(64)
    context.expectError("rank \(last): BatchNorm '0' goes by the statistics of its own rank's batch") {
      let model = perceptron(12)
      if !isLast { model.synchronized(over: ranks) }
      _ = try DataParallel(model, over: ranks)
    }
    context.expectError("rank \(last): the validation loss is not finite") {
      let validation = BrokenSource(data, .notANumber, after: isLast ? 0 : .max)
      let trainer = trainer(perceptron(12), epochs: 2, over: ranks)
      trainer.configuration.validationBatchSize = 8
      try trainer.fit(training: data, validation: validation)
    }
    struct BrokenRate: LearningRateSchedule, CustomStringConvertible {
      let isBroken: Bool
      let description = "a rate"
      func rate(at step: Int) -> Double { isBroken && step >= 2 ? .nan : 0.1 }
    }
    context.expectError("rank \(last): the schedule's rate at step 2: expected a finite number") {
      let model = perceptron(12).synchronized(over: ranks)
      let trainer = Trainer(
        model: model, optimizer: SGD(model.parameters), schedule: BrokenRate(isBroken: isLast),
        configuration: TrainingConfiguration(epochs: 3, batchSize: 16))
      trainer.distribute(over: ranks)
      try trainer.fit(training: data)
    }
    // After all these the ranks still work together.
    try trainer(perceptron(12), epochs: 1, over: ranks).fit(training: data)
  }
#endif
