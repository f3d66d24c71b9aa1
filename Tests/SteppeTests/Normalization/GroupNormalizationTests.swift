import Reference
import Steppe
import Testing

/// Layer, RMS, group and instance norm (Mathematics §6 to §8).
@Suite struct GroupNormalizationTests {
  // MARK: Numbers

  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test
  func equalsTheReference() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "groups \(name) \(testSeed)", to: "groups")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "groups")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        for round in 0..<40 {
          let index = Self.randomIndex(&generator, round)
          for threads in 1...3 {
            Parallel.withThreadCount(threads) {
              Self.checkAll(Float.self, index, 0, 1, &generator)
              Self.checkAll(Double.self, index, 0, 1, &generator)
            }
          }
        }
        for (mean, deviation) in [(1e4, 1.0), (1e6, 1), (1, 1e-3), (-1e4, 1), (0, 1e-4)] {
          for index in Self.shapes {
            Self.checkAll(Float.self, index, mean, deviation, &generator)
            Self.checkAll(Float.self, index, mean, deviation, outlier: 1e6, &generator)
          }
        }
      }
    }
  }

  /// Groups too few to share out, so that each is cut for the threads.
  @Test(arguments: [
    ChannelIndex(n: 1, c: 40_009, s: 1, channelsLast: false), ChannelIndex(n: 1, c: 3, s: 20_001, channelsLast: false),
    ChannelIndex(n: 2, c: 30, s: 1311, channelsLast: false), ChannelIndex(n: 1, c: 6, s: 12_001, channelsLast: true),
  ])
  func fewLargeGroupsEqualTheReference(_ index: ChannelIndex) {
    var generator = TestGenerator()
    for threads in 1...3 {
      Parallel.withThreadCount(threads) {
        Self.checkAll(Float.self, index, 0, 1, &generator)
        Self.checkAll(Double.self, index, 3, 1, &generator)
        Self.checkAll(Float.self, index, 1e4, 1, outlier: 1e6, &generator)
      }
    }
  }

  /// Rows of features, short and long runs, both layouts; some so large that they are cut for the threads.
  static let shapes = [
    ChannelIndex(n: 70, c: 1024, s: 1, channelsLast: false), ChannelIndex(n: 5, c: 5000, s: 1, channelsLast: false),
    ChannelIndex(n: 9, c: 12, s: 49, channelsLast: false), ChannelIndex(n: 3, c: 8, s: 3136, channelsLast: false),
    ChannelIndex(n: 9, c: 12, s: 49, channelsLast: true), ChannelIndex(n: 3, c: 18, s: 900, channelsLast: true),
  ]

  static func randomIndex(_ generator: inout TestGenerator, _ round: Int) -> ChannelIndex {
    let s = round % 2 == 0 ? 1 : generator.integer(2...(round % 3 == 0 ? 300 : 40))
    let c = round % 7 == 0 ? 1 : generator.integer(1...(s == 1 ? 300 : 24))
    return ChannelIndex(n: round % 5 == 0 ? 1 : generator.integer(2...40), c: c, s: s, channelsLast: round % 4 > 1)
  }

  static func checkAll<Scalar: TensorScalar>(
    _: Scalar.Type, _ index: ChannelIndex, _ mean: Double, _ deviation: Double, outlier: Double? = nil,
    _ generator: inout TestGenerator
  ) {
    let layout: ChannelPlace = index.channelsLast ? .channelsLast : .channelsFirst
    let shape =
      index.s == 1
      ? [index.n, index.c] : index.channelsLast ? [index.n, index.s, index.c] : [index.n, index.c, index.s]
    var x: [Scalar] = generator.normals(shape.reduce(1, *), mean: mean, deviation: deviation)
    if let outlier { for i in 0..<index.n { x[index.place(i, 0, 0)] += Scalar(outlier * deviation) } }
    let input = Tensor(shape: shape, scalars: x)
    for groups in 1...index.c where index.c % groups == 0 && (index.c / groups * index.s > 1) {
      if groups > 2 && groups < index.c && groups % 3 != 0 { continue }
      let layer = GroupNorm<Scalar>(groups, index.c, layout: layout)
      check(layer, layer.gamma, layer.beta, input, index, groups, 1e-5, mean, deviation, &generator)
    }
    if index.s > 1 {
      let layer = InstanceNorm<Scalar>(index.c, affine: true, layout: layout)
      check(layer, layer.gamma, layer.beta, input, index, index.c, 1e-5, mean, deviation, &generator)
    } else {
      if index.c > 1 {
        let layer = LayerNorm<Scalar>(index.c)
        check(layer, layer.gamma, layer.beta, input, index, 1, 1e-5, mean, deviation, &generator)
      }
      let rms = RMSNorm<Scalar>(index.c, epsilon: 1e-5)
      check(rms, rms.gamma, nil, input, index, 1, 1e-5, mean, deviation, &generator)
    }
  }

  static func check<L: Layer>(
    _ layer: L, _ gammas: Parameter<L.Scalar>, _ betas: Parameter<L.Scalar>?, _ x: Tensor<L.Scalar>,
    _ index: ChannelIndex, _ groups: Int, _ epsilon: Double, _ mean: Double, _ deviation: Double,
    _ generator: inout TestGenerator
  ) {
    typealias Scalar = L.Scalar
    let gamma: [Scalar] = generator.normals(index.c, mean: 1, deviation: 0.3)
    let beta: [Scalar] = betas == nil ? Array(repeating: 0, count: index.c) : generator.normals(index.c)
    gammas.value = Tensor(gamma)
    betas?.value = Tensor(beta)
    let dy: [Scalar] = generator.normals(x.count)
    let (output, pullback) = layer.forward(x)
    let dx = pullback(Tensor(shape: x.shape, scalars: dy))
    let reference = GroupReference(
      x.scalars.doubles, dy: dy.doubles, index, groups: groups, gamma: gamma.doubles, beta: beta.doubles,
      epsilon: epsilon, isCentered: betas != nil)
    let bound =
      BatchNormAccuracyTests.bound * (Scalar.self == Float.self ? 1 : Double(Scalar.ulpOfOne) / Double(Float.ulpOfOne))
    let own = Scalar.self == Double.self ? 16 * abs(mean) * Double.ulpOfOne / max(deviation, 3e-3) : 0
    let label = "\(L.self) \(index) groups \(groups) mean \(mean) deviation \(deviation)"
    func expectClose(_ actual: [Scalar], _ expected: [Double], _ bound: Double, _ what: String) {
      BatchNormAccuracyTests.expectClose(actual, expected, bound, "\(label): \(what)")
    }
    expectClose(output.scalars, reference.y, bound + own, "y")
    #expect(layer(x) == output && layer.folded()(x) == output, "\(label): evaluation")
    // dx in units of rstd.
    BatchNormAccuracyTests.expectClose(
      zip(dx.scalars, reference.rstd).map { Double($0) / $1 }, zip(reference.dx, reference.rstd).map { $0 / $1 },
      bound + own, "\(label): dx")
    let terms = Double(index.n * index.s)
    // Under an outlier x̂ is as large as the root of the group's size: sums of such terms round at their size.
    let size = Double(index.c / groups * index.s).squareRoot()
    expectClose(
      gammas.gradient.scalars, reference.dGamma, (bound + own) * max(terms.squareRoot(), size), "dγ")
    if let betas {
      expectClose(betas.gradient.scalars, reference.dBeta, bound * terms.squareRoot(), "dβ")
    }
  }

  @Test func gradientsEqualCentralDifferences() {
    // Always the same values: two that nearly agree make a group of two too steep for a central difference.
    var generator = TestGenerator(fixed: "gradientsEqualCentralDifferences")
    checkGradients(LayerNorm<Double>([3, 5]), inputShape: [4, 3, 5], &generator)
    checkGradients(LayerNorm<Double>(7, bias: false), inputShape: [2, 3, 7], &generator)
    checkGradients(RMSNorm<Double>([9]), inputShape: [4, 9], &generator)
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      let shape = layout == .channelsFirst ? [2, 6, 3, 2] : [2, 3, 2, 6]
      checkGradients(GroupNorm<Double>(3, 6, layout: layout), inputShape: shape, &generator)
      checkGradients(GroupNorm<Double>(1, 6, affine: false, layout: layout), inputShape: shape, &generator)
      checkGradients(InstanceNorm<Double>(6, affine: true, layout: layout), inputShape: shape, &generator)
    }
    checkGradients(GroupNorm<Double>(3, 6), inputShape: [4, 6], &generator)
  }

  // MARK: Identities

  @Test func oneGroupIsLayerNormAndAGroupAChannelIsInstanceNorm() {
    var generator = RandomGenerator(seed: 5)
    let x = Tensor<Double>.randomNormal(shape: [3, 6, 4, 5], using: &generator)
    let layer = LayerNorm<Double>([6, 4, 5])(x)
    #expect((GroupNorm<Double>(1, 6)(x) - layer).absolute().max() < 1e-13)
    let instance = InstanceNorm<Double>(6)(x)
    #expect((GroupNorm<Double>(6, 6)(x) - instance).absolute().max() < 1e-13)
    for groups in [1, 2, 6] {
      let last = GroupNorm<Double>(groups, 6, layout: .channelsLast)(x.transposed([0, 2, 3, 1]))
      #expect((last.transposed([0, 3, 1, 2]) - GroupNorm<Double>(groups, 6)(x)).absolute().max() < 1e-13)
    }
  }

  @Test func zeroVarianceGivesBetaAndNaNStaysInItsGroup() {
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      let shape = layout == .channelsFirst ? [2, 4, 33] : [2, 33, 4]
      for value: Float in [0, 3.7, -1e6] {
        let layer = GroupNorm<Float>(2, 4, layout: layout)
        layer.beta.value = Tensor(repeating: 2, shape: [4])
        #expect(layer(Tensor(repeating: value, shape: shape)) == Tensor(repeating: 2, shape: shape))
      }
      var generator = RandomGenerator(seed: 6)
      let x = Tensor<Float>.randomNormal(shape: shape, using: &generator)
      for bad in [Float.nan, .infinity] {
        var spoiled = x
        if layout == .channelsFirst { spoiled[0, 1, 20] = bad } else { spoiled[0, 20, 1] = bad }
        let layer = GroupNorm<Float>(2, 4, layout: layout)
        let (clean, y) = (layer(x), layer(spoiled))
        #expect(y[1...1] == clean[1...1])
        if layout == .channelsFirst {
          #expect(y[0...0, 2...3] == clean[0...0, 2...3] && !y[0...0, 0...1].isAllFinite())
        } else {
          #expect(y[0...0, 0..., 2...3] == clean[0...0, 0..., 2...3] && !y[0...0, 0..., 0...1].isAllFinite())
        }
      }
    }
  }

  @Test func largeTensorsAreCutForTheThreadsWithOneResultEach() {
    var generator = RandomGenerator(seed: 7)
    let x = Tensor<Float>.randomNormal(shape: [37, 64, 301], using: &generator)
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      let input = layout == .channelsFirst ? x : x.transposed([0, 2, 1]).contiguous()
      let one = Parallel.withThreadCount(1) { GroupNorm<Float>(16, 64, layout: layout)(input) }
      for threads in 2...3 {
        #expect(Parallel.withThreadCount(threads) { GroupNorm<Float>(16, 64, layout: layout)(input) } == one)
      }
    }
  }

  // MARK: Running statistics

  @Test func runningStatisticsAreThoseOfTheSamplesOnAverage() throws {
    let layer = InstanceNorm<Double>(2, momentum: 0.25, affine: true, tracksRunningStatistics: true)
    // Sample means 2, 20 and 5, 0; unbiased variances 2, 200 and 8, 2.
    let x = Tensor<Double>([[[1, 3], [10, 30]], [[3, 7], [-1, 1]]])
    _ = layer.forward(x)
    #expect((layer.runningMean - Tensor([0.25 * 3.5, 0.25 * 10])).absolute().max() < 1e-14)
    #expect((layer.runningVariance - Tensor([0.75 + 0.25 * 5, 0.75 + 0.25 * 101])).absolute().max() < 1e-12)
    #expect(
      layer.state.map(\.key) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
        && layer.batchesTracked == 1)
    layer.gamma.value = Tensor([2, 3])
    layer.beta.value = Tensor([-1, 1])
    let scale = layer.gamma.value / (layer.runningVariance + 1e-5).squareRoot()
    let wanted =
      (x - layer.runningMean.reshaped([1, 2, 1])) * scale.reshaped([1, 2, 1]) + layer.beta.value.reshaped([1, 2, 1])
    #expect((layer(x) - wanted).absolute().max() < 1e-13)
    #expect((layer.folded()(x) - wanted).absolute().max() < 1e-13)
    let before = layer.runningMean
    _ = layer.forward(x * Double.nan)
    #expect(layer.runningMean == before && layer.batchesTracked == 1)
    #expect(throws: Never.self) { try layer.outputShape(for: [1, 2, 1], training: false) }
  }

  // MARK: Names and errors

  @Test func parametersDoNotDecayAndHavePyTorchsNames() {
    let model = Sequential<Float> {
      LayerNorm([8, 3])
      GroupNorm(4, 8)
      InstanceNorm(8)
      RMSNorm([3])
      LayerNorm([3], bias: false)
    }
    #expect(model.state.map(\.key) == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "4.weight"])
    #expect(model.parameters.allSatisfy { !$0.decays })
    #expect(GroupNorm<Float>(64).groups == 32)
  }

  @Test func unsuitableInputsAreErrorsThatNameTheLayer() throws {
    let model = Sequential<Float> { InstanceNorm(3) }
    for shape in [[2, 3], [2, 3, 1]] {
      let error = try #require(throws: LayerError.self) { try model.outputShape(for: shape, training: true) }
      #expect(error.layer == "InstanceNorm '0'" && error.description.contains("more than one position"))
    }
    #expect(throws: LayerError.self) { try GroupNorm<Float>(2, 4).outputShape(for: [2, 5, 3], training: true) }
    #expect(throws: LayerError.self) { try GroupNorm<Float>(4, 4).outputShape(for: [2, 4], training: true) }
    #expect(throws: Never.self) { try GroupNorm<Float>(2, 4).outputShape(for: [2, 4], training: true) }
    let error = try #require(throws: LayerError.self) {
      try LayerNorm<Float>([8, 5]).outputShape(for: [2, 5, 8], training: false)
    }
    #expect(error.expected.contains("[N, …, 8, 5]") && error.found == "[2, 5, 8]")
    #expect(throws: LayerError.self) { try RMSNorm<Float>(8).outputShape(for: [8], training: false) }
  }

  @Test func channelsThatGroupsDoNotDivideStopWithBothNumbers() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = GroupNorm<Float>(4, 10)
    }
    let message = errorText(result)
    #expect(message.contains("4 groups") && message.contains("got 10"))
  }
}
