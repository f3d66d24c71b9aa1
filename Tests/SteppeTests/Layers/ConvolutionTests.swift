import Reference
import Steppe
import Testing

extension NaiveConvolution {
  var geometry: ConvolutionGeometry {
    ConvolutionGeometry(
      kernel: Extent2D(rows: kernelRows, columns: kernelColumns),
      stride: Extent2D(rows: strideRows, columns: strideColumns),
      padding: Extent2D(rows: paddingRows, columns: paddingColumns),
      dilation: Extent2D(rows: dilationRows, columns: dilationColumns), groups: groups,
      layout: channelsLast ? .channelsLast : .channelsFirst)
  }

  var inputShape: [Int] { channelsLast ? [n, height, width, inputs] : [n, inputs, height, width] }
  var outputShape: [Int] {
    channelsLast ? [n, outHeight, outWidth, outputs] : [n, outputs, outHeight, outWidth]
  }
  var weightShape: [Int] { [outputs, inputs / groups, kernelRows, kernelColumns] }

  var text: String { "\(inputShape) → \(outputs), \(geometry)" }

  /// Sizes at random, of which about one in three is depthwise or grouped.
  static func random(_ random: inout TestGenerator) -> NaiveConvolution {
    var sizes = NaiveConvolution()
    sizes.groups = [1, 1, 1, 2, 3, 5].randomElement(using: &random)!
    let isDepthwise = sizes.groups > 1 && random.integer(0...1) == 0
    sizes.n = random.integer(1...4)
    sizes.inputs = sizes.groups * (isDepthwise ? 1 : random.integer(1...9))
    sizes.outputs = sizes.groups * (isDepthwise ? random.integer(1...2) : random.integer(1...20))
    (sizes.kernelRows, sizes.kernelColumns) = (random.integer(1...4), random.integer(1...4))
    (sizes.strideRows, sizes.strideColumns) = (random.integer(1...3), random.integer(1...3))
    (sizes.paddingRows, sizes.paddingColumns) = (random.integer(0...3), random.integer(0...3))
    (sizes.dilationRows, sizes.dilationColumns) = (random.integer(1...2), random.integer(1...2))
    sizes.channelsLast = Bool.random(using: &random)
    let leastHeight = max(1, (sizes.kernelRows - 1) * sizes.dilationRows + 1 - 2 * sizes.paddingRows)
    let leastWidth = max(1, (sizes.kernelColumns - 1) * sizes.dilationColumns + 1 - 2 * sizes.paddingColumns)
    sizes.height = leastHeight + random.integer(0...9)
    sizes.width = leastWidth + random.integer(0...[3, 9, 40].randomElement(using: &random)!)
    return sizes
  }

  /// Square sizes.
  init(
    _ n: Int, _ inputs: Int, _ side: Int, outputs: Int, kernel: Int = 3, stride: Int = 1, padding: Int = 1,
    groups: Int = 1, channelsLast: Bool = false
  ) {
    self.init()
    (self.n, self.inputs, self.outputs, self.groups) = (n, inputs, outputs, groups)
    (height, width, kernelRows, kernelColumns) = (side, side, kernel, kernel)
    (strideRows, strideColumns, paddingRows, paddingColumns) = (stride, stride, padding, padding)
    self.channelsLast = channelsLast
  }
}

/// Convolutions against their definition.
@Suite struct ConvolutionTests {
  /// The product's rounding errors stay below this share of the sizes of what is added.
  static func tolerance<Scalar: TensorScalar>(_: Scalar.Type) -> Double { 4e-6 / 0x1p-23 * Double(Scalar.ulpOfOne) }

  static func expectNear<Scalar: TensorScalar>(
    _ actual: Tensor<Scalar>, shape: [Int], _ expected: [Double], sizes: [Double], _ what: @autoclosure () -> String
  ) {
    let values = actual.scalars
    let tolerance = tolerance(Scalar.self)
    let wrong = values.indices.first {
      !(abs(Double(values[$0]) - expected[$0]) <= tolerance * max(1, sizes[$0]))
    }
    let isRight = actual.shape == shape && values.count == expected.count && wrong == nil
    #expect(isRight, "\(what()): \(actual.shape), \(wrong.map { "\($0): \(values[$0]), not \(expected[$0])" } ?? "")")
  }

  /// Output and gradients, the weight's gathered twice.
  static func check<Scalar: TensorScalar>(
    _: Scalar.Type, _ sizes: NaiveConvolution, threads: Int, bias hasBias: Bool, using random: inout TestGenerator
  ) {
    let x: [Scalar] = random.normals(sizes.inputShape.reduce(1, *))
    let w: [Scalar] = random.normals(sizes.weightCount)
    let b: [Scalar]? = hasBias ? random.normals(sizes.outputs) : nil
    let dy: [Scalar] = random.normals(sizes.outputShape.reduce(1, *))
    let layer = Conv2D<Scalar>(
      weight: Tensor(shape: sizes.weightShape, scalars: w), bias: b.map { Tensor($0) }, sizes.geometry)
    let what = "\(Scalar.self) \(sizes.text), bias \(hasBias), \(threads) threads"
    let input = Tensor<Scalar>(shape: sizes.inputShape, scalars: x)
    let gradient = Tensor<Scalar>(shape: sizes.outputShape, scalars: dy)
    let (output, dx) = Parallel.withThreadCount(threads) {
      let (output, pullback) = layer.forward(input)
      let dx = pullback(gradient)
      pullback.accumulate(gradient)
      #expect(layer(input) == output, "\(what): evaluation")
      return (output, dx)
    }
    let (y, sizesOfY) = sizes.forward(x.doubles, w.doubles, bias: b?.doubles)
    expectNear(output, shape: sizes.outputShape, y, sizes: sizesOfY, "\(what): y")
    let wanted = sizes.backward(x.doubles, w.doubles, dy: dy.doubles)
    let scales = sizes.gradientSizes(x.doubles, w.doubles, dy: dy.doubles)
    expectNear(dx, shape: sizes.inputShape, wanted.dx, sizes: scales.dx, "\(what): dx")
    expectNear(
      layer.weight.gradient, shape: sizes.weightShape, wanted.dw.map { 2 * $0 }, sizes: scales.dw.map { 2 * $0 },
      "\(what): dW")
    if let bias = layer.bias {
      expectNear(
        bias.gradient, shape: [sizes.outputs], wanted.db.map { 2 * $0 }, sizes: scales.db.map { 2 * $0 }, "\(what): db")
    }
  }

  /// Sizes that take several blocks of places, rows and depth; few channels; images smaller than a tile; one place.
  static let sizes: [NaiveConvolution] = [
    NaiveConvolution(2, 64, 14, outputs: 24), NaiveConvolution(1, 3, 60, outputs: 17),
    NaiveConvolution(9, 16, 7, outputs: 40), NaiveConvolution(3, 130, 5, outputs: 13),
    NaiveConvolution(2, 24, 9, outputs: 30, kernel: 1, padding: 0),
    NaiveConvolution(2, 24, 9, outputs: 30, kernel: 1, stride: 2, padding: 0),
    NaiveConvolution(3, 12, 15, outputs: 12, stride: 2, groups: 12),
    NaiveConvolution(3, 12, 15, outputs: 24, groups: 12, channelsLast: true),
    NaiveConvolution(2, 18, 11, outputs: 21, channelsLast: true),
    NaiveConvolution(2, 18, 11, outputs: 21, kernel: 1, padding: 0, channelsLast: true),
    NaiveConvolution(5, 40, 3, outputs: 20, kernel: 3, padding: 0),
    NaiveConvolution(2, 35, 27, outputs: 33), NaiveConvolution(1, 70, 20, outputs: 64, padding: 0, channelsLast: true),
    NaiveConvolution(3, 96, 13, outputs: 66, padding: 2, groups: 3),
    NaiveConvolution(2, 96, 15, outputs: 96, padding: 3, groups: 2, channelsLast: true),
    NaiveConvolution(1, 1, 28, outputs: 32), NaiveConvolution(2, 2, 33, outputs: 1, kernel: 5, padding: 2),
  ]

  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test func equalsTheDefinitionOnEachInstructionSet() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "convolution \(name) \(testSeed)", to: "convolution")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "convolution")
        try InstructionSet.select(arguments[0])
        var random = TestGenerator(fixed: arguments[1])
        for threads in [1, 2, 3] {
          for _ in 0..<12 {
            let sizes = NaiveConvolution.random(&random)
            ConvolutionTests.check(Float.self, sizes, threads: threads, bias: threads > 1, using: &random)
            ConvolutionTests.check(Double.self, sizes, threads: threads, bias: threads < 3, using: &random)
          }
          for sizes in ConvolutionTests.sizes {
            ConvolutionTests.check(Float.self, sizes, threads: threads, bias: true, using: &random)
          }
          for sizes in [ConvolutionTests.sizes[0], NaiveConvolution(2, 40, 16, outputs: 33)] {
            ConvolutionTests.check(Double.self, sizes, threads: threads, bias: true, using: &random)
          }
        }
      }
    }
  }

  @Test func gradientsEqualCentralDifferences() {
    var random = TestGenerator()
    for sizes in [
      NaiveConvolution(2, 2, 5, outputs: 3), NaiveConvolution(1, 4, 6, outputs: 4, stride: 2, groups: 4),
      NaiveConvolution(2, 2, 4, outputs: 2, kernel: 2, padding: 0, channelsLast: true),
    ] {
      let layer = Conv2D<Double>(
        weight: Tensor(shape: sizes.weightShape, scalars: random.normals(sizes.weightCount)),
        bias: Tensor(random.normals(sizes.outputs)), sizes.geometry)
      checkGradients(layer, inputShape: sizes.inputShape, &random)
    }
  }

  /// A view's rows stand apart in memory, and its gradient is the same.
  @Test func takesViews() {
    var generator = RandomGenerator(seed: 4)
    let x = Tensor<Float>.randomNormal(shape: [2, 9, 8, 5], using: &generator)
    let first = Conv2D<Float>(5, 6, kernel: 3, padding: 1, seed: 1)
    let last = Conv2D<Float>(5, 6, kernel: 3, padding: 1, layout: .channelsLast, seed: 1)
    let view = x.transposed([0, 3, 1, 2])
    let (y, pullback) = first.forward(view)
    let (z, lastPullback) = last.forward(x)
    #expect((y.transposed([0, 2, 3, 1]) - z).absolute().max() < 1e-5)
    let dx = pullback(z.transposed([0, 3, 1, 2]))
    #expect((dx.transposed([0, 2, 3, 1]) - lastPullback(z)).absolute().max() < 1e-4)
  }

  /// One thread count, one result.
  @Test(arguments: [1, 2, 3]) func isTheSameAgain(threads: Int) {
    var generator = RandomGenerator(seed: 5)
    let x = Tensor<Float>.randomNormal(shape: [3, 12, 17, 17], using: &generator)
    func step() -> [Tensor<Float>] {
      Parallel.withThreadCount(threads) {
        let layer = Conv2D<Float>(12, 20, kernel: 3, stride: 2, padding: 1, seed: 9)
        let (y, pullback) = layer.forward(x)
        return [y, pullback(y), layer.weight.gradient, layer.bias!.gradient]
      }
    }
    #expect(step() == step())
  }

  /// What lies in the padding counts as 0 and nothing else: it hides no NaN, and makes none.
  @Test func aValueThatIsNotFiniteReachesWhatSeesIt() {
    var x = Tensor<Float>.ones(shape: [1, 1, 8, 8])
    x[0, 0, 0, 0] = .nan
    let y = Conv2D<Float>(weight: .ones(shape: [1, 1, 3, 3]), Conv2D<Float>(1, 1, kernel: 3, padding: 1).geometry)(x)
    let wrong = (0..<64).filter { y.scalars[$0].isNaN != ($0 / 8 < 2 && $0 % 8 < 2) }
    #expect(wrong.isEmpty && y[0, 0, 7, 7].scalar == 4 && y[0, 0, 4, 4].scalar == 9)
  }

  /// Where many channels make squares of outputs be computed together, an infinity still is one to what sees it, of the right sign, and
  /// sums of large values stay within the range.
  @Test(arguments: [ChannelPlace.channelsFirst, .channelsLast])
  func infinitiesAmongManyChannelsAreThoseOfTheDefinition(_ layout: ChannelPlace) {
    let (channels, side) = (48, 24)
    let first = layout == .channelsFirst
    func at(_ channel: Int, _ row: Int, _ column: Int) -> Int {
      first ? (channel * side + row) * side + column : (row * side + column) * channels + channel
    }
    var random = TestGenerator(fixed: "values that are not finite")
    let shape = first ? [1, channels, side, side] : [1, side, side, channels]
    let layer = Conv2D<Float>(channels, channels, kernel: 3, padding: 1, layout: layout)
    let clean = Tensor<Float>(shape: shape, scalars: random.normals(channels * side * side))
    let right = layer(clean).scalars
    for value in [Float.nan, .infinity, -.infinity] {
      var spoilt = clean.scalars
      spoilt[at(7, 5, 9)] = value
      let (y, pullback) = layer.forward(Tensor(shape: shape, scalars: spoilt))
      let dx = pullback(Tensor(shape: shape, scalars: spoilt)).scalars
      let wrong = (0..<channels * side * side).filter { index in
        let place = first ? index % (side * side) : index / channels
        let isSeen = abs(place / side - 5) <= 1 && abs(place % side - 9) <= 1
        func isSpoilt(_ result: Float) -> Bool { value.isNaN ? result.isNaN : result.isInfinite }
        if isSeen { return !isSpoilt(y.scalars[index]) || !isSpoilt(dx[index]) }
        return abs(y.scalars[index] - right[index]) > 1e-5 * max(1, abs(right[index])) || !dx[index].isFinite
      }
      #expect(wrong.isEmpty)
    }
    // One kernel that takes the first row's sum, of values whose differences are beyond the range.
    layer.weight.value = .zeros(shape: [channels, channels, 3, 3])
    for tap in 0..<3 { layer.weight.value[0, 0, 0, tap] = 1 }
    var large = [Float](repeating: 0, count: channels * side * side)
    for column in 0..<side { (large[at(0, 3, column)], large[at(0, 5, column)]) = (8e37, -8e37) }
    let sum = layer(Tensor(shape: shape, scalars: large)).scalars[at(0, 4, 9)]
    #expect(abs(sum - 2.4e38) < 1e32)
  }

  @Test func noImagesGiveNone() {
    let layer = Conv2D<Float>(3, 4, kernel: 3)
    let (y, pullback) = layer.forward(.zeros(shape: [0, 3, 8, 8]))
    #expect(y.shape == [0, 4, 6, 6])
    #expect(pullback(y).shape == [0, 3, 8, 8])
    #expect(layer.weight.gradient == .zeros(shape: [4, 3, 3, 3]))
  }

  // MARK: Shapes and errors

  @Test func shapesFollowTheFormula() throws {
    let layer = Conv2D<Float>(3, 8, kernel: (3, 5), stride: (2, 1), padding: (1, 2), dilation: (2, 1))
    #expect(try layer.outputShape(for: [4, 3, 11, 12], training: true) == [4, 8, 5, 12])
    #expect(layer.weight.value.shape == [8, 3, 3, 5] && layer.bias?.value == .zeros(shape: [8]))
    let last = Conv2D<Float>(4, 8, kernel: 3, padding: 1, groups: 4, bias: false, layout: .channelsLast)
    #expect(try last.outputShape(for: [4, 11, 12, 4], training: true) == [4, 11, 12, 8])
    #expect(last.weight.value.shape == [8, 1, 3, 3] && last.bias == nil)
    #expect(layer.parameters.map(\.decays) == [true, false])
  }

  @Test func whatDoesNotFitIsAnErrorThatNamesTheLayer() throws {
    let model = Sequential<Float> {
      Conv2D(3, 4, kernel: 3)
      Conv2D(4, 4, kernel: 5)
    }
    var error = try #require(throws: LayerError.self) { try model.outputShape(for: [1, 3, 6, 6], training: true) }
    #expect(error.layer == "Conv2D '1'" && error.found == "[1, 4, 4, 4]" && error.expected.contains("5 × 5"))
    error = try #require(throws: LayerError.self) { try model.outputShape(for: [1, 4, 9, 9], training: false) }
    #expect(error.layer == "Conv2D '0'" && error.expected.contains("[N, 3, H, W]") && error.found == "[1, 4, 9, 9]")
    error = try #require(throws: LayerError.self) { try model.outputShape(for: [3, 9, 9], training: false) }
    #expect(error.found == "[3, 9, 9]")
    let dilated = Conv2D<Float>(3, 4, kernel: 3, dilation: 4, layout: .channelsLast)
    error = try #require(throws: LayerError.self) { try dilated.outputShape(for: [1, 8, 9, 3], training: false) }
    #expect(error.expected.contains("9 × 9"))
  }

  @Test func aProgrammersMistakeStops() async {
    func stops(_ result: ExitTest.Result?, _ parts: String...) {
      let text = errorText(result)
      for part in parts { #expect(text.contains(part), "\(text)") }
    }
    stops(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Conv2D<Float>(3, 4, kernel: 3, stride: 0)
      }, "positive stride", "0")
    stops(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Conv2D<Float>(6, 4, kernel: 3, groups: 3)
      }, "3 groups", "6 input and 4 output")
    stops(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Conv2D<Float>(3, 4, kernel: 3)(.ones(shape: [2, 3, 2, 8]))
      }, "3 × 3", "[2, 3, 2, 8]")
    stops(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        let layer = Conv2D<Float>(1, 1, kernel: 1)
        let (y, pullback) = layer.forward(.ones(shape: [1, 1, 2, 2]))
        layer.weight.value = .ones(shape: [1, 1, 1, 1])
        _ = pullback(y)
      }, "before the weight changes")
  }

  // MARK: Folding

  @Test(arguments: [ChannelPlace.channelsFirst, .channelsLast]) func foldingChangesNothing(_ layout: ChannelPlace) {
    var generator = RandomGenerator(seed: 11)
    let model = Sequential<Double>(seed: 5) {
      BatchNorm(4, layout: layout)
      Conv2D(4, 6, kernel: 3, groups: 2, layout: layout)
      BatchNorm(6, layout: layout)
      ReLU()
      Conv2D(6, 6, kernel: 3, padding: 1, bias: false, layout: layout)
      BatchNorm(6, affine: false, layout: layout)
      Sigmoid()
      BatchNorm(6, layout: layout)
      Conv2D(6, 5, kernel: 2, padding: 1, layout: layout)
      GELU()
    }
    let shape = layout == .channelsFirst ? [5, 4, 9, 8] : [5, 9, 8, 4]
    let x = Tensor<Double>.randomNormal(shape: shape, mean: 1, using: &generator)
    for parameter in model.parameters where parameter.name.contains("eta") || parameter.name.contains("amma") {
      parameter.value = .randomNormal(shape: parameter.value.shape, mean: 1, standardDeviation: 0.3, using: &generator)
    }
    for _ in 0..<3 { _ = model.forward(x) }
    let folded = model.folded()
    let difference = (folded(x) - model(x)).absolute().max()
    #expect(difference < 1e-13)
    let kinds = folded.steps.map { step in
      switch step {
      case .convolution(_, _, _, let activation): "convolution \(activation)"
      case .normalize: "normalize"
      default: "other"
      }
    }
    // The last batch norm stands before a convolution with padding.
    #expect(
      kinds == ["convolution relu", "convolution sigmoid", "normalize", "convolution gelu"], "\(kinds)")
  }

  @Test func aFoldedModelRefusesOtherChannels() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Conv2D<Float>(3, 4, kernel: 3).folded()(.ones(shape: [2, 4, 8, 8]))
    }
    #expect(errorText(result).contains("[N, 3, H, W]") && errorText(result).contains("[2, 4, 8, 8]"))
  }

  /// Conv2D, batch norm and ReLU in a row give what they give one by one.
  @Test func aSequentialGivesWhatItsLayersGive() {
    var generator = RandomGenerator(seed: 7)
    let x = Tensor<Float>.randomNormal(shape: [4, 3, 12, 12], using: &generator)
    let model = Sequential<Float>(seed: 2) {
      Conv2D(3, 16, kernel: 3, padding: 1, bias: false)
      BatchNorm(16)
      ReLU()
      Conv2D(16, 8, kernel: 3, stride: 2)
    }
    let (y, pullback) = model.forward(x)
    let dx = pullback(y)
    let gradients = model.parameters.map(\.gradient)
    for parameter in model.parameters { parameter.clearGradient() }
    var (value, pullbacks): (Tensor<Float>, [Pullback<Float>]) = (x, [])
    for layer in model.layers {
      let (output, pullback) = layer.forward(value)
      value = output
      pullbacks.append(pullback)
    }
    #expect((value - y).absolute().max() < 1e-5)
    let slope = pullbacks.reversed().reduce(y) { $1($0) }
    #expect((slope - dx).absolute().max() <= 1e-5 * max(1, dx.absolute().max()))
    for (parameter, gradient) in zip(model.parameters, gradients) {
      #expect((parameter.gradient - gradient).absolute().max() <= 1e-5 * max(1, gradient.absolute().max()))
    }
  }
}
