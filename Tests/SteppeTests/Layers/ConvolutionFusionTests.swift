import Reference
import Steppe
import Testing

/// Conv2D, batch norm and ReLU as a `Sequential` or a `Residual` trains them, the statistics taken block by block of the convolution.
@Suite struct ConvolutionFusionTests {
  /// A convolution and the images that it is given.
  struct Case {
    let images: Int
    let inputs: Int
    let outputs: Int
    let height: Int
    let width: Int
    var kernel = 3
    var stride = 1
    var groups = 1

    var label: String {
      "\(images) × \(inputs) × \(height) × \(width) → \(outputs), kernel \(kernel), stride \(stride), \(groups) groups"
    }

    func layer<Scalar: TensorScalar>(_ layout: ChannelPlace, bias: Double, _: Scalar.Type) -> Conv2D<Scalar> {
      let layer = Conv2D<Scalar>(
        inputs, outputs, kernel: kernel, stride: stride, padding: kernel / 2, groups: groups, layout: layout, seed: 7)
      layer.bias!.value = Tensor((0..<outputs).map { Scalar(bias * (1 + Double($0) / 8)) })
      return layer
    }

    func input<Scalar: TensorScalar>(_ layout: ChannelPlace, _ generator: inout TestGenerator) -> Tensor<Scalar> {
      let shape =
        layout == .channelsFirst ? [images, inputs, height, width] : [images, height, width, inputs]
      return Tensor(shape: shape, scalars: generator.normals(shape.reduce(1, *), mean: 0.2))
    }

    /// What a step gives against batch norm in Float64 of what the convolution gave, and its gradients against the layers' one by one.
    func check<Scalar: TensorScalar>(
      _: Scalar.Type, _ layout: ChannelPlace, bias: Double, relu: Bool, residual: Bool, outlier: Double? = nil,
      _ generator: inout TestGenerator
    ) {
      let label = "\(Scalar.self) \(label), \(layout), bias \(bias), ReLU \(relu), residual \(residual)"
      let convolution = layer(layout, bias: bias, Scalar.self)
      let norm = BatchNorm<Scalar>(outputs, momentum: 1, layout: layout)
      norm.gamma.value = Tensor(generator.normals(outputs, mean: 0.5))
      norm.beta.value = Tensor(generator.normals(outputs))
      var x: Tensor<Scalar> = input(layout, &generator)
      if let outlier { x[0, 0, 0, 0] = Scalar(outlier) }
      let z = convolution.forward(x).output
      let size = z.count / images / outputs
      let index = ChannelIndex(n: images, c: outputs, s: size, channelsLast: layout == .channelsLast)
      let wanted = batchNormForward(
        z.scalars.map { Double($0) }, index, gamma: norm.gamma.value.scalars.map { Double($0) },
        beta: norm.beta.value.scalars.map { Double($0) }, epsilon: norm.epsilon)
      let tolerance = DenseFusionTests.tolerance(Scalar.self)
      let gamma = norm.gamma.value.scalars.map { max(1, abs(Double($0))) }

      // A projection, since the branch may change the number of channels and the image's size.
      let shortcut = Conv2D<Scalar>(
        inputs, outputs, kernel: 1, stride: stride, layout: layout, seed: 9)
      let added = residual ? shortcut.forward(x).output.scalars.map { Double($0) } : []
      let model: any Layer<Scalar> =
        residual
        ? Residual(activation: .relu) {
          convolution; norm
        } shortcut: {
          shortcut
        }
        : Sequential(relu ? [convolution, norm, ReLU<Scalar>()] : [convolution, norm])
      let (output, pullback) = model.forward(x)
      for (place, got) in output.scalars.enumerated() {
        let channel = layout == .channelsLast ? place % outputs : place / size % outputs
        let sum = wanted.y[place] + (residual ? added[place] : 0)
        let value = relu || residual ? max(0, sum) : sum
        let scale = gamma[channel] * max(1, abs(wanted.y[place])) + (residual ? abs(added[place]) : 0)
        guard abs(Double(got) - value) <= tolerance * scale else {
          Issue.record("\(label): output [\(place)] is \(got), not \(value)")
          break
        }
      }
      let values = Double(images * size)
      for channel in 0..<outputs {
        let (mean, variance) = (wanted.mean[channel], wanted.variance[channel] * values / (values - 1))
        let (gotMean, gotVariance) = (Double(norm.runningMean[channel]), Double(norm.runningVariance[channel]))
        #expect(abs(gotMean - mean) <= tolerance * (abs(mean) + variance.squareRoot()), "\(label): mean \(channel)")
        #expect(abs(gotVariance - variance) <= tolerance * variance, "\(label): variance \(channel)")
      }

      let dy = Tensor<Scalar>(shape: output.shape, scalars: generator.normals(output.count))
      let dx = pullback(dy)
      let gradients = model.parameters.map(\.gradient)
      model.parameters.forEach { $0.clearGradient() }
      let branch: [any Layer<Scalar>] = [convolution, norm]
      let (inner, innerPullback) = DenseFusionTests.oneByOne(branch, x)
      let (base, basePullback) = shortcut.forward(x)
      let passes = zip(output.scalars, dy.scalars).map { !(relu || residual) || $0 > 0 ? $1 : 0 }
      let slope = Tensor<Scalar>(shape: dy.shape, scalars: passes)
      #expect(inner.shape == base.shape)
      let wantedDx = residual ? innerPullback(slope) + basePullback(slope) : innerPullback(slope)
      func same(_ a: Tensor<Scalar>, _ b: Tensor<Scalar>, _ what: String) {
        let distance = relativeDistance(a.scalars.map { Double($0) }, b.scalars.map { Double($0) })
        #expect(distance <= 20 * tolerance, "\(label): \(what) is \(distance) off")
      }
      same(dx, wantedDx, "dx")
      for (gradient, parameter) in zip(gradients, model.parameters) where parameter.name != "0.bias" {
        same(gradient, parameter.gradient, parameter.name)
      }
    }
  }

  /// Winograd's way with many channels and patches with few, blocks within an image and over several, images cut by the parts; and what
  /// takes no moments: a plain product, and few rows.
  static let cases = [
    Case(images: 5, inputs: 1, outputs: 7, height: 9, width: 13),
    Case(images: 3, inputs: 3, outputs: 40, height: 28, width: 28),
    Case(images: 4, inputs: 16, outputs: 16, height: 28, width: 28),
    Case(images: 7, inputs: 20, outputs: 33, height: 7, width: 7),
    Case(images: 3, inputs: 24, outputs: 26, height: 15, width: 11),
    Case(images: 2, inputs: 64, outputs: 64, height: 31, width: 30),
    Case(images: 6, inputs: 16, outputs: 32, height: 14, width: 14, stride: 2),
    Case(images: 5, inputs: 12, outputs: 24, height: 10, width: 10, groups: 2),
    Case(images: 3, inputs: 32, outputs: 64, height: 20, width: 18, groups: 2),
    Case(images: 3, inputs: 6, outputs: 6, height: 12, width: 12, groups: 6),
    Case(images: 4, inputs: 10, outputs: 12, height: 8, width: 8, kernel: 1),
    Case(images: 4, inputs: 10, outputs: 12, height: 8, width: 8, kernel: 1, stride: 2),
    Case(images: 9, inputs: 4, outputs: 5, height: 1, width: 1),
    Case(images: 2, inputs: 3, outputs: 8, height: 100, width: 90, kernel: 5),
  ]

  @Test func equalsBatchNormOfTheConvolution() async throws {
    for name in InstructionSet.available {
      let test = "equalsBatchNormOfTheConvolution"
      try ExitTestArguments.pass(name, "\(test) \(name) \(testSeed)", to: test)
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "equalsBatchNormOfTheConvolution")
        try InstructionSet.select(arguments[0])
        var generator = TestGenerator(fixed: arguments[1])
        for (number, item) in ConvolutionFusionTests.cases.enumerated() {
          for (turn, threads) in [1, 2, 3, 8].enumerated() {
            let (isFirst, way) = ((number + turn) % 2 == 0, (number + turn) % 3)
            let layout = isFirst ? ChannelPlace.channelsFirst : .channelsLast
            Parallel.withThreadCount(threads) {
              item.check(Float.self, layout, bias: 0.3, relu: way == 0, residual: way == 1, &generator)
              item.check(Double.self, layout, bias: 0.3, relu: way == 1, residual: way == 2, &generator)
            }
          }
        }
      }
    }
  }

  /// z is what it is, rounded to steps of a sixteenth at 10⁶; batch norm of it keeps Mathematics §4's bound.
  @Test(arguments: [1, 2, 3]) func aLargeMeanCostsNoAccuracy(threads: Int) {
    var generator = TestGenerator("large mean of a convolution \(threads)")
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      for bias in [1e4, -1e6] {
        for item in [Self.cases[1], Self.cases[2], Self.cases[3], Self.cases[8]] {
          Parallel.withThreadCount(threads) {
            item.check(Float.self, layout, bias: bias, relu: false, residual: false, &generator)
          }
        }
      }
    }
  }

  /// The first values that a part sees, and so its first shift, lie far from all others.
  @Test(arguments: [1, 2, 3]) func anOutlierFirstCostsNoAccuracy(threads: Int) {
    var generator = TestGenerator("outlier before a convolution \(threads)")
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      for item in [Self.cases[1], Self.cases[2], Self.cases[3], Self.cases[4]] {
        Parallel.withThreadCount(threads) {
          for outlier in [1e3, -1e5] {
            item.check(
              Float.self, layout, bias: 0.3, relu: false, residual: false, outlier: outlier, &generator)
          }
        }
      }
    }
  }

  @Test(arguments: [1, 3]) func whatIsNotFiniteStaysInItsChannel(threads: Int) {
    var generator = TestGenerator("not finite in a convolution \(threads)")
    for item in [Self.cases[0], Self.cases[2], Self.cases[3]] {
      for layout in [ChannelPlace.channelsFirst, .channelsLast] {
        for bad in [Float.nan, .infinity] {
          let convolution = item.layer(layout, bias: 0, Float.self)
          convolution.weight.value[item.outputs - 2, 0, 1, 1] = bad
          let norm = BatchNorm<Float>(item.outputs, layout: layout)
          let x: Tensor<Float> = item.input(layout, &generator)
          let output = Parallel.withThreadCount(threads) {
            Sequential<Float>([convolution, norm]).forward(x).output.scalars
          }
          let size = item.height * item.width
          let channels = Set(
            output.indices.filter { !output[$0].isFinite }
              .map { layout == .channelsLast ? $0 % item.outputs : $0 / size % item.outputs })
          #expect(channels == [item.outputs - 2], "\(item.label), \(layout): \(bad)")
          #expect(norm.skippedBatches == 1 && norm.batchesTracked == 0)
        }
      }
    }
  }

  /// Layers that are no fit for each other's statistics do what they do by themselves.
  @Test func frozenOtherNormsAndPopulations() throws {
    var generator = TestGenerator("variants behind a convolution")
    let item = Self.cases[2]
    let x: Tensor<Double> = item.input(.channelsFirst, &generator)
    func norms() -> [BatchNorm<Double>] {
      let frozen = BatchNorm<Double>(item.outputs)
      frozen.isFrozen = true
      return [
        frozen, BatchNorm(item.outputs, norm: .l1), BatchNorm(item.outputs, tracksRunningStatistics: false),
        BatchNorm(item.outputs, momentum: nil, affine: false),
      ]
    }
    for (together, apart) in zip(norms(), norms()) {
      let convolution = item.layer(.channelsFirst, bias: 0.5, Double.self)
      let layers: [any Layer<Double>] = [convolution, together, ReLU<Double>()]
      for _ in 0..<2 {
        let got = Sequential<Double>(layers).forward(x).output
        let wanted = DenseFusionTests.oneByOne([convolution, apart, ReLU<Double>()], x).output
        #expect(zip(got.scalars, wanted.scalars).allSatisfy { abs($0 - $1) <= 1e-12 })
      }
      #expect(zip(together.runningMean.scalars, apart.runningMean.scalars).allSatisfy { abs($0 - $1) <= 1e-12 })
      #expect(together.batchesTracked == apart.batchesTracked)
      guard together.tracksRunningStatistics, !together.isFrozen, together.norm == .l2 else { continue }
      try Sequential<Double>([convolution, together]).reestimateStatistics(over: [x, x * 2])
      let z = [x, x * 2].map { convolution($0) }
      try Sequential<Double>([apart]).reestimateStatistics(over: z)
      #expect(zip(together.runningMean.scalars, apart.runningMean.scalars).allSatisfy { abs($0 - $1) <= 1e-12 })
      #expect(
        zip(together.runningVariance.scalars, apart.runningVariance.scalars).allSatisfy { abs($0 - $1) <= 1e-12 * $1 })
    }
  }
}
