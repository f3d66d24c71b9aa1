import CSteppeKernels
import Reference
import Steppe
import Testing

/// Pooling against the reference, on every instruction set and by any number of threads.
@Suite struct PoolingTests {
  /// A shape at random: any kernel, stride, padding and dilation that fit, sometimes one channel, sometimes wider than a vector.
  private static func randomShape(_ generator: inout TestGenerator, round: Int, dilates: Bool) -> PoolingShape {
    var shape = PoolingShape()
    shape.channelsLast = round % 2 == 0
    shape.n = generator.integer(1...3)
    shape.c = round % 5 == 0 ? 1 : generator.integer(1...(round % 7 == 0 ? 70 : 9))
    shape.kernel = (generator.integer(1...(round % 11 == 0 ? 9 : 4)), generator.integer(1...(round % 11 == 0 ? 9 : 4)))
    shape.stride = (generator.integer(1...3), round % 3 == 0 ? 2 : round % 3 == 1 ? 1 : generator.integer(1...4))
    if round % 4 != 0 {
      shape.padding = (generator.integer(0...shape.kernel.0 / 2), generator.integer(0...shape.kernel.1 / 2))
    }
    if dilates, round % 3 != 2 { shape.dilation = (generator.integer(1...3), generator.integer(1...3)) }
    let least = (
      max(1, shape.dilation.0 * (shape.kernel.0 - 1) + 1 - 2 * shape.padding.0),
      max(1, shape.dilation.1 * (shape.kernel.1 - 1) + 1 - 2 * shape.padding.1)
    )
    shape.h = least.0 + generator.integer(0...9)
    shape.w = least.1 + generator.integer(0...(round % 6 == 0 ? 75 : 12))
    return shape
  }

  private static func geometry(_ shape: PoolingShape) -> PoolingGeometry {
    func extent(_ pair: (Int, Int)) -> Extent2D { Extent2D(rows: pair.0, columns: pair.1) }
    return PoolingGeometry(
      kernel: extent(shape.kernel), stride: extent(shape.stride), padding: extent(shape.padding),
      dilation: extent(shape.dilation), layout: shape.channelsLast ? .channelsLast : .channelsFirst)
  }

  /// Few different values, so that windows have several greatest ones, or with NaN and infinity among them.
  private static func values<Scalar: TensorScalar>(
    _ count: Int, _ generator: inout TestGenerator, round: Int, as type: Scalar.Type = Scalar.self
  ) -> [Scalar] {
    var values: [Scalar] = generator.normals(count, mean: round % 5 == 1 ? 1e4 : 0)
    if round % 4 == 3 { values = values.map { ($0 * 2).rounded() } }
    if round % 4 == 1 {
      let bad: [Scalar] = [.nan, .infinity, -.infinity]
      for _ in 0..<max(1, count / 9) {
        let place = generator.integer(0...count - 1)
        values[place] = bad[generator.integer(0...2)]
      }
    }
    return values
  }

  private static func checkGreatest<Scalar: TensorScalar>(
    _ round: Int, _ generator: inout TestGenerator, _: Scalar.Type
  ) {
    let shape = randomShape(&generator, round: round, dilates: true)
    let x: [Scalar] = values(shape.input.reduce(1, *), &generator, round: round)
    let dy: [Scalar] = generator.normals(shape.output.reduce(1, *))
    let expected = maxPool(x.doubles, dy: dy.doubles, shape)
    let layer = MaxPool2D<Scalar>(geometry(shape))
    let input = Tensor(shape: shape.input, scalars: x)
    let (output, pullback) = layer.forward(input)
    #expect(output.shape == shape.output && worstError(output.scalars, expected.y).ulps == 0, "\(Scalar.self) \(shape)")
    #expect(worstError(layer(input).scalars, expected.y).ulps == 0, "\(Scalar.self) \(shape)")
    #expect(worstError(layer.folded()(input).scalars, expected.y).ulps == 0)
    let dx = pullback(Tensor(shape: shape.output, scalars: dy))
    let size = [Double](repeating: 1, count: x.count)
    let error = worstError(dx.scalars, expected.dx, magnitude: size)
    // A value may be the greatest of every window over it: as many additions.
    let bound = 16 + Double(shape.kernel.0 * shape.kernel.1)
    #expect(dx.shape == shape.input && error.ulps <= bound, "\(Scalar.self) \(shape): dx \(error)")
  }

  private static func checkMean<Scalar: TensorScalar>(_ round: Int, _ generator: inout TestGenerator, _: Scalar.Type) {
    let shape = randomShape(&generator, round: round, dilates: false)
    let x: [Scalar] = values(shape.input.reduce(1, *), &generator, round: round)
    let dy: [Scalar] = generator.normals(shape.output.reduce(1, *))
    let countsPadding = round % 8 < 4
    let expected = averagePool(x.doubles, dy: dy.doubles, countsPadding: countsPadding, shape)
    let layer = AveragePool2D<Scalar>(geometry(shape), countsPadding: countsPadding)
    let input = Tensor(shape: shape.input, scalars: x)
    let (output, pullback) = layer.forward(input)
    let tolerance = sumTolerance(shape.kernel.0 * shape.kernel.1, Scalar.self)
    let error = worstError(output.scalars, expected.y, magnitude: expected.ySize)
    #expect(output.shape == shape.output && error.ulps <= tolerance, "\(Scalar.self) \(shape): \(error)")
    let folded = worstError(layer.folded()(input).scalars, output.scalars.doubles)
    #expect(layer(input).shape == output.shape && folded.ulps == 0)
    let dx = pullback(Tensor(shape: shape.output, scalars: dy))
    let slope = worstError(dx.scalars, expected.dx, magnitude: expected.dxSize)
    #expect(dx.shape == shape.input && slope.ulps <= 2 * tolerance, "\(Scalar.self) \(shape): dx \(slope)")
  }

  private static func checkGlobal<Scalar: TensorScalar>(_ round: Int, _ generator: inout TestGenerator, _: Scalar.Type)
  {
    var shape = PoolingShape()
    shape.channelsLast = round % 2 == 0
    (shape.n, shape.c) = (generator.integer(1...4), generator.integer(1...40))
    shape.h = generator.integer(1...(round % 3 == 0 ? 60 : 8))
    shape.w = generator.integer(1...20)
    shape.kernel = (shape.h, shape.w)
    let x: [Scalar] = values(shape.input.reduce(1, *), &generator, round: round)
    let dy: [Scalar] = generator.normals(shape.n * shape.c)
    let expected = averagePool(x.doubles, dy: dy.doubles, countsPadding: true, shape)
    let layer = GlobalAveragePool<Scalar>(layout: shape.channelsLast ? .channelsLast : .channelsFirst)
    let input = Tensor(shape: shape.input, scalars: x)
    let (output, pullback) = layer.forward(input)
    let error = worstError(output.scalars, expected.y, magnitude: expected.ySize)
    let tolerance = sumTolerance(shape.h * shape.w, Scalar.self) + 2
    #expect(output.shape == [shape.n, shape.c] && error.ulps <= tolerance, "\(Scalar.self) \(shape): \(error)")
    #expect(worstError(layer.folded()(input).scalars, output.scalars.doubles).ulps == 0)
    let dx = pullback(Tensor(shape: output.shape, scalars: dy))
    #expect(dx.shape == shape.input && worstError(dx.scalars, expected.dx).ulps <= 1.5, "\(Scalar.self) \(shape)")
  }

  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test
  func poolingEqualsTheReference() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "pooling \(name) \(testSeed)", to: "poolingEqualsTheReference")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "poolingEqualsTheReference")
        try InstructionSet.select(arguments[0])
        var generator = TestGenerator(fixed: arguments[1])
        for round in 0..<240 {
          Parallel.withThreadCount(1 + round % 3) {
            Self.checkGreatest(round, &generator, Float.self)
            Self.checkGreatest(round, &generator, Double.self)
            Self.checkMean(round, &generator, Float.self)
            Self.checkMean(round, &generator, Double.self)
            Self.checkGlobal(round, &generator, Float.self)
            Self.checkGlobal(round, &generator, Double.self)
          }
        }
      }
    }
  }

  /// Enough work for several threads: the cut by images, and channels-last by channels as well, changes no bit.
  @Test func anyNumberOfThreadsGivesTheSameBits() {
    var generator = TestGenerator()
    for (shape, layout) in [
      ([2, 5, 61, 67], ChannelPlace.channelsFirst), ([1, 61, 67, 37], .channelsLast), ([3, 40, 41, 20], .channelsLast),
    ] {
      let x = Tensor<Float>(shape: shape, scalars: generator.normals(shape.reduce(1, *)))
      let layers: [any Layer<Float>] = [
        MaxPool2D(kernel: 3, stride: 2, padding: 1, layout: layout), MaxPool2D(kernel: 2, layout: layout),
        AveragePool2D(kernel: 3, stride: 1, padding: 1, countsPadding: false, layout: layout),
        GlobalAveragePool(layout: layout),
      ]
      for layer in layers {
        func run(_ threads: Int) -> [Tensor<Float>] {
          Parallel.withThreadCount(threads) {
            let (output, pullback) = layer.forward(x)
            return [output, pullback(output)]
          }
        }
        let alone = run(1)
        for threads in [2, 3, 5] { #expect(run(threads) == alone, "\(type(of: layer)) \(shape) \(threads)") }
      }
    }
  }

  /// The kernels at addresses that suit the scalar alone, between guards that show what is written out of range.
  @Test func kernelsWriteTheirResultsAlone() {
    kernels(Float.self)
    kernels(Double.self)
  }

  private func kernels<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator("pooling kernels \(type)")
    for set in KernelSet<Scalar>.all {
      for round in 0..<60 {
        let shape = Self.randomShape(&generator, round: round, dilates: true)
        let isLast = shape.channelsLast
        var windows = steppe_windows(
          height: shape.h, width: shape.w, channels: isLast ? shape.c : 1, ld: isLast ? shape.c : 1,
          out_height: shape.outputs.rows, out_width: shape.outputs.columns, kernel_height: shape.kernel.0,
          kernel_width: shape.kernel.1, stride_height: shape.stride.0, stride_width: shape.stride.1,
          dilation_height: shape.dilation.0, dilation_width: shape.dilation.1, pad_height: shape.padding.0,
          pad_width: shape.padding.1, counts_padding: false)
        let images = isLast ? shape.n : shape.n * shape.c
        let x = Guarded<Scalar>(
          Self.values(shape.input.reduce(1, *), &generator, round: 0), shift: generator.integer(0...15))
        let slopes: [Scalar] = generator.normals(shape.output.reduce(1, *))
        let expected = maxPool(x.scalars.doubles, dy: slopes.doubles, shape)
        let dy = Guarded(slopes, shift: generator.integer(0...15))
        let y = Guarded<Scalar>(room: slopes.count, shift: generator.integer(0...15))
        let places = Guarded<Scalar>(room: slopes.count, shift: generator.integer(0...15))
        let dx = Guarded<Scalar>(room: x.count, shift: generator.integer(0...15))
        set.kernels.max_pool(&windows, x.pointer, y.pointer, places.pointer, images)
        set.kernels.max_pool_backward(&windows, places.pointer, dy.pointer, dx.pointer, images)
        #expect(worstError(y.scalars, expected.y).ulps == 0, "\(set.name) \(shape)")
        let size = [Double](repeating: 1, count: x.count)
        #expect(worstError(dx.scalars, expected.dx, magnitude: size).ulps <= 16, "\(set.name) \(shape)")
        #expect(x.isIntact && y.isIntact && places.isIntact && dx.isIntact && dy.isIntact, "\(set.name) \(shape)")
        let (mean, meanSlope) = (
          Guarded<Scalar>(room: slopes.count, shift: generator.integer(0...15)),
          Guarded<Scalar>(room: x.count, shift: generator.integer(0...15))
        )
        guard shape.dilation == (1, 1) else { continue }
        let averaged = averagePool(x.scalars.doubles, dy: slopes.doubles, countsPadding: false, shape)
        set.kernels.average_pool(&windows, x.pointer, mean.pointer, images)
        set.kernels.average_pool_backward(&windows, dy.pointer, meanSlope.pointer, images)
        #expect(worstError(mean.scalars, averaged.y, magnitude: averaged.ySize).ulps <= 16, "\(set.name) \(shape)")
        #expect(
          worstError(meanSlope.scalars, averaged.dx, magnitude: averaged.dxSize).ulps <= 16, "\(set.name) \(shape)")
        #expect(mean.isIntact && meanSlope.isIntact, "\(set.name) \(shape)")
      }
    }
  }

  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      checkGradients(
        MaxPool2D<Double>(kernel: 3, stride: 2, padding: 1, layout: layout), inputShape: [2, 5, 6, 3], &generator)
      checkGradients(
        MaxPool2D<Double>(kernel: 2, stride: 1, dilation: 2, layout: layout), inputShape: [2, 5, 6, 4], &generator)
      checkGradients(AveragePool2D<Double>(kernel: 2, layout: layout), inputShape: [2, 5, 6, 4], &generator)
      checkGradients(
        AveragePool2D<Double>(kernel: 3, stride: 2, padding: 1, countsPadding: false, layout: layout),
        inputShape: [2, 5, 6, 3], &generator)
      checkGradients(GlobalAveragePool<Double>(layout: layout), inputShape: [2, 5, 6, 4], &generator)
    }
  }

  @Test func wrongInputsAreNamed() {
    func message(_ layer: any Layer<Float>, _ shape: [Int]) -> String {
      layer.name = "3"
      do throws(LayerError) { return "\(try layer.outputShape(for: shape, training: true))" } catch {
        return error.description
      }
    }
    let pool = MaxPool2D<Float>(kernel: 5, padding: 1)
    #expect(message(pool, [2, 3, 2, 9]).hasPrefix("MaxPool2D '3': expected images of at least 3 × 3"))
    #expect(message(pool, [2, 3, 2, 9]).hasSuffix("got [2, 3, 2, 9]"))
    #expect(message(pool, [2, 3, 3, 9]) == "[2, 3, 1, 2]")
    #expect(message(pool, [0, 3, 3, 9]) == "[0, 3, 1, 2]")
    #expect(message(pool, [2, 3, 9]) == "MaxPool2D '3': expected images of shape [N, C, H, W], got [2, 3, 9]")
    let last = AveragePool2D<Float>(kernel: 2, layout: .channelsLast)
    #expect(message(last, [2, 1, 9, 3]).hasPrefix("AveragePool2D '3': expected images of at least 2 × 2"))
    #expect(message(last, [4, 4]) == "AveragePool2D '3': expected images of shape [N, H, W, C], got [4, 4]")
    #expect(
      message(GlobalAveragePool(), [4, 4]).hasPrefix("GlobalAveragePool '3': expected an input of shape [N, C, …]"))
    #expect(message(GlobalAveragePool(), [4, 4, 0, 3]).hasSuffix("got [4, 4, 0, 3]"))
    #expect(message(GlobalAveragePool(), [4, 5, 6, 3]) == "[4, 5]")
    #expect(message(GlobalAveragePool(layout: .channelsLast), [4, 5, 6, 3]) == "[4, 3]")
  }

  @Test func emptyBatchesGiveEmptyOutputs() {
    for layer in [MaxPool2D<Float>(kernel: 2), AveragePool2D(kernel: 2), GlobalAveragePool()] as [any Layer<Float>] {
      let (output, pullback) = layer.forward(.zeros(shape: [0, 3, 4, 4]))
      #expect(output.shape.first == 0 && pullback(output).shape == [0, 3, 4, 4])
    }
  }

  @Test func sizesThatMakeNoSenseStop() async {
    let padding = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = MaxPool2D<Float>(kernel: 2, padding: 2)
    }
    #expect(errorText(padding).contains("half the kernel 2, got 2"))
    let stride = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = AveragePool2D<Float>(kernel: 2, stride: 0)
    }
    #expect(errorText(stride).contains("positive stride, got 0"))
    let large = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = MaxPool2D<Float>(kernel: 4)(.zeros(shape: [1, 1, 3, 8]))
    }
    #expect(errorText(large).contains("at least 4 × 4") && errorText(large).contains("[1, 1, 3, 8]"))
  }
}
