#if MPI
  import Foundation
  import Reference
  import Steppe
  import SteppeMPI

  /// What one process and what the ranks may differ by.
  private let tolerance = 4e-6

  /// Synchronized batch norm against batch norm on the joined batch and against the reference in Float64: shapes of every schedule, uneven
  /// and empty shares, large means.
  func batchNorm(_ context: RankContext) throws {
    var generator = context.generator()
    let shapes: [(shape: [Int], place: ChannelPlace)] = [
      ([64, 33], .channelsFirst), ([5, 3], .channelsFirst), ([2, 300], .channelsFirst), ([9, 4, 5, 3], .channelsFirst),
      ([6, 5, 20, 20], .channelsFirst), ([7, 2, 400], .channelsFirst), ([5, 6, 7, 8], .channelsLast),
      ([600, 64], .channelsFirst),
    ]
    for (shape, place) in shapes {
      for mean in [0.0, 1e6] {
        try compare(context, shape, place, mean: mean, as: Float.self, &generator)
        try compare(context, shape, place, mean: mean, as: Double.self, &generator)
      }
    }
  }

  /// Random shapes.
  func batchNormSizes(_ context: RankContext) throws {
    var generator = context.generator()
    for _ in 0..<12 {
      let spatial = (0..<generator.integer(0...2)).map { _ in generator.integer(1...20) }
      let shape = [generator.integer(2...40), generator.integer(1...40)] + spatial
      try compare(context, shape, .channelsFirst, mean: generator.uniform(-10...10), as: Float.self, &generator)
    }
  }

  private func compare<Scalar: TensorScalar>(
    _ context: RankContext, _ shape: [Int], _ place: ChannelPlace, mean: Double, as _: Scalar.Type,
    _ generator: inout TestGenerator
  ) throws {
    let (count, channels) = (shape.reduce(1, *), place == .channelsFirst ? shape[1] : shape.last!)
    let x = Tensor<Scalar>(shape: shape, scalars: generator.normals(count, mean: mean))
    let dy = Tensor<Scalar>(shape: shape, scalars: generator.normals(count))
    let (gamma, beta): ([Scalar], [Scalar]) = (generator.normals(channels), generator.normals(channels))
    let own = context.unevenShare(of: shape[0], using: &generator)
    let what = "\(shape) \(place) of \(Scalar.self) near \(mean), rows \(own)"

    func norm() -> BatchNorm<Scalar> {
      let norm = BatchNorm<Scalar>(channels, layout: place)
      norm.gamma.value = Tensor(gamma)
      norm.beta.value = Tensor(beta)
      return norm
    }
    func rows(_ tensor: Tensor<Scalar>) -> Tensor<Scalar> {
      let width = count / shape[0]
      return Tensor(
        shape: [own.count] + shape.dropFirst(),
        scalars: Array(tensor.scalars[own.lowerBound * width..<own.upperBound * width]))
    }
    for fused in [false, true] {
      let (single, several) = (norm(), norm().synchronized(over: context.ranks))
      func network(_ norm: BatchNorm<Scalar>) -> Sequential<Scalar> {
        Sequential {
          norm
          if fused { ReLU() }
        }
      }
      let (y, pullback) = network(single).forward(x)
      let (ownY, ownPullback) = network(several).forward(rows(x))
      context.expectNear(ownY.scalars, rows(y).scalars, within: tolerance, "\(what): y")
      let (dx, ownDx) = (pullback(dy), ownPullback(rows(dy)))
      // An element whose place before ReLU is within rounding of 0 may be held back by one side only.
      if fused {
        let differing = zip(ownDx.scalars, rows(dx).scalars).count { abs(Double($0) - Double($1)) > tolerance * 10 }
        context.expect(
          differing <= ownDx.count / 1000 + (mean == 0 ? 0 : 2), "\(what): \(differing) of fused dx differ")
        continue
      }
      context.expectNear(ownDx.scalars, rows(dx).scalars, within: tolerance, "\(what): dx")
      for (parameter, expected) in [(several.gamma, single.gamma), (several.beta, single.beta)] {
        var sum = parameter.gradient.scalars.map { Double($0) }
        try context.ranks.allReduce(&sum)
        context.expectNear(
          sum, expected.gradient.scalars.map { Double($0) }, within: tolerance, "\(what): gradient of \(parameter.name)"
        )
      }
      context.expectNear(
        several.runningMean.scalars, single.runningMean.scalars, within: tolerance, "\(what): running mean")
      context.expectNear(
        several.runningVariance.scalars, single.runningVariance.scalars, within: tolerance, "\(what): running variance")
      try context.expectSame(several.runningMean.scalars + several.runningVariance.scalars, "\(what): statistics")

      // Both against Float64.
      let positions = count / shape[0] / channels
      let index = ChannelIndex(n: shape[0], c: channels, s: positions, channelsLast: place == .channelsLast)
      let (x64, dy64) = (x.scalars.map { Double($0) }, dy.scalars.map { Double($0) })
      let gamma64 = gamma.map { Double($0) }
      let reference = batchNormForward(x64, index, gamma: gamma64, beta: beta.map { Double($0) }, epsilon: 1e-5)
      let gradient = batchNormBackward(x64, dy: dy64, index, gamma: gamma64, epsilon: 1e-5)
      let width = count / shape[0]
      let range = own.lowerBound * width..<own.upperBound * width
      context.expectNear(
        ownY.scalars.map { Double($0) }, Array(reference.y[range]), within: tolerance, "\(what): y of the reference")
      context.expectNear(
        ownDx.scalars.map { Double($0) }, Array(gradient.dx[range]), within: tolerance, "\(what): dx of the reference")
    }
  }

  // MARK: Whole models

  func perceptron(_ inputs: Int, seed: UInt64 = 1) -> Sequential<Float> {
    Sequential(seed: seed) {
      BatchNorm(inputs)
      Dense(inputs, 24, bias: false)
      BatchNorm(24)
      ReLU()
      Dense(24, 16, bias: false)
      BatchNorm(16)
      ReLU()
      Dense(16, 4)
    }
  }

  /// Gradients of whole models, sent in buckets during backward, against those of one process.
  func gradients(_ context: RankContext) throws {
    var generator = context.generator()
    let models: [(name: String, input: [Int], make: () -> Sequential<Float>)] = [
      ("perceptron", [12], { perceptron(12) }),
      ("residual network", [1, 12, 12], { .resNet(depth: 8, channels: 1, classes: 4, width: 4, seed: 1) }),
      (
        "layer norm beside", [12],
        {
          Sequential(seed: 1) {
            Dense(12, 8)
            LayerNorm(8)
            BatchNorm(8)
            Dense(8, 4)
          }
        }
      ),
    ]
    for (name, input, make) in models {
      for mean in [0.0, name == "perceptron" ? 1e6 : 0] {
        let (single, several) = (make(), make().synchronized(over: context.ranks))
        // A bucket for nearly every parameter, and all in one.
        for bytes in [64, 1 << 20] {
          let parallel = try DataParallel(several, over: context.ranks, bucketBytes: bytes)
          for step in 0..<3 {
            // Fewer rows than ranks too.
            let count = step == 2 ? 3 : generator.integer(8...40)
            let x = Tensor<Float>(
              shape: [count] + input, scalars: generator.normals(count * input.reduce(1, *), mean: mean, as: Float.self)
            )
            let labels = (0..<count).map { _ in generator.integer(0...3) }
            let (logits, pullback) = single.forward(x)
            pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)

            let own = parallel.share(of: Array(0..<count))
            let width = input.reduce(1, *)
            let ownX = Tensor<Float>(
              shape: [own.count] + input, scalars: own.flatMap { x.scalars[$0 * width..<($0 + 1) * width] })
            let (ownLogits, ownPullback) = several.forward(ownX)
            let ownLabels = own.map { labels[$0] }
            let gradient =
              own.isEmpty
              ? ownLogits
              : softmaxCrossEntropy(ownLogits, ownLabels, reduction: .sum).gradient * (1 / Float(count))
            ownPullback.accumulate(gradient)
            try parallel.finishGradients()
            for (a, b) in zip(several.parameters, single.parameters) {
              context.expectNear(
                a.gradient.scalars, b.gradient.scalars, within: tolerance,
                "\(name): gradient of \(b.name), step \(step)")
              try context.expectSame(a.gradient.scalars, "\(name): gradient of \(b.name)")
              a.clearGradient()
              b.clearGradient()
            }
          }
        }
        for (a, b) in zip(several.state, single.state) {
          guard case .tensor(let x) = a.get(), case .tensor(let y) = b.get() else { continue }
          context.expectNear(x.scalars, y.scalars, within: tolerance, "\(name): \(a.key)")
        }
      }
    }
  }
#endif
