import Reference
import Steppe
import Testing

/// Batch norm's numbers against Float64, on every instruction set, schedule and thread count.
@Suite struct BatchNormAccuracyTests {
  /// Mathematics §4's bound for Float, relative to max(1, |reference|); Double's is the same in its own epsilon.
  static let bound = 4e-6

  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test
  func randomShapes() async throws {
    for name in InstructionSet.available {
      // Printed here, so that the process's own draw from it can be repeated.
      try ExitTestArguments.pass(name, "randomShapes \(name) \(testSeed)", to: "randomShapes")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "randomShapes")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        for round in 0..<60 {
          let index = Self.randomIndex(&generator, round: round)
          for threads in 1...3 {
            Parallel.withThreadCount(threads) {
              Self.check(Float.self, index, mean: 0, deviation: 1, &generator)
              Self.check(Double.self, index, mean: 0, deviation: 1, &generator)
            }
          }
        }
        for (mean, deviation) in [(1e4, 1.0), (1e6, 1), (1, 1e-3), (-1e4, 1), (0, 1e-4)] {
          for index in Self.schedules {
            Self.check(Float.self, index, mean: mean, deviation: deviation, &generator)
            Self.check(Float.self, index, mean: mean, deviation: deviation, outlier: 1e6, &generator)
          }
        }
      }
    }
  }

  /// One shape for each way through ``ChannelSchedule``: column panels, rows split, runs, and few channels with split runs.
  static let schedules = [
    ChannelIndex(n: 300, c: 33, s: 1, channelsLast: false), ChannelIndex(n: 20_000, c: 7, s: 1, channelsLast: true),
    ChannelIndex(n: 40, c: 5, s: 49, channelsLast: false), ChannelIndex(n: 17, c: 6, s: 400, channelsLast: false),
    ChannelIndex(n: 33, c: 3, s: 1021, channelsLast: false), ChannelIndex(n: 16, c: 19, s: 77, channelsLast: true),
    ChannelIndex(n: 700, c: 2, s: 200, channelsLast: false),
  ]

  static func randomIndex(_ generator: inout TestGenerator, round: Int) -> ChannelIndex {
    let small = round % 3 > 0
    var n = generator.integer(1...(small ? 9 : 70))
    let c = round % 7 == 0 ? 1 : generator.integer(1...(small ? 70 : 19))
    let s = round % 2 == 0 ? 1 : generator.integer(1...(small ? 70 : 700))
    if n * s == 1 { n = 2 }
    return ChannelIndex(n: n, c: c, s: s, channelsLast: round % 5 < 2)
  }

  /// Forward, running averages and backward of one shape; a failure names the shape.
  static func check<Scalar: TensorScalar>(
    _ type: Scalar.Type, _ index: ChannelIndex, mean: Double, deviation: Double, outlier: Double? = nil,
    _ generator: inout TestGenerator
  ) {
    let count = index.n * index.c * index.s
    var x: [Scalar] = generator.normals(count, mean: mean, deviation: deviation)
    if let outlier {
      for channel in 0..<index.c { x[index.place(0, channel, 0)] += Scalar(outlier * deviation) }
    }
    let dy: [Scalar] = generator.normals(count)
    let (gamma, beta): ([Scalar], [Scalar]) = (
      generator.normals(index.c, mean: 1, deviation: 0.3), generator.normals(index.c)
    )
    let layer = BatchNorm<Scalar>(index.c, layout: index.channelsLast ? .channelsLast : .channelsFirst)
    layer.gamma.value = Tensor(gamma)
    layer.beta.value = Tensor(beta)
    let shape =
      index.s == 1
      ? [index.n, index.c] : index.channelsLast ? [index.n, index.s, index.c] : [index.n, index.c, index.s]

    let (output, pullback) = layer.forward(Tensor(shape: shape, scalars: x))
    let dx = pullback(Tensor(shape: shape, scalars: dy))

    let (x64, dy64) = (x.map { Double($0) }, dy.map { Double($0) })
    let (gamma64, beta64) = (gamma.map { Double($0) }, beta.map { Double($0) })
    let forward = batchNormForward(x64, index, gamma: gamma64, beta: beta64, epsilon: 1e-5)
    let backward = batchNormBackward(x64, dy: dy64, index, gamma: gamma64, epsilon: 1e-5)
    let bound = Scalar.self == Float.self ? bound : bound * Double(Scalar.ulpOfOne) / Double(Float.ulpOfOne)
    // The reference itself is in Double: a few of its own roundings, at the size of what it subtracts.
    let own = Scalar.self == Double.self ? 16 * abs(mean) * Double.ulpOfOne / max(deviation, 3e-3) : 0
    let label = "\(Scalar.self) \(index) mean \(mean) deviation \(deviation) outlier \(outlier ?? 0)"
    let m = Double(index.n * index.s)

    expectClose(output.scalars, forward.y, bound + own, "\(label): y")
    // dx in units of γ·rstd.
    let scales = (0..<count).map { place in
      let channel = index.channelsLast || index.s == 1 ? place % index.c : place / index.s % index.c
      return abs(gamma64[channel]) * backward.rstd[channel]
    }
    expectClose(
      zip(dx.scalars, scales).map { Double($0) / $1 }, zip(backward.dx, scales).map { $0 / $1 }, bound + own,
      "\(label): dx")
    // dγ and dβ are sums of m terms of the size of 1.
    expectClose(layer.gamma.gradient.scalars, backward.dGamma, (bound + own) * m.squareRoot() + own * m, "\(label): dγ")
    expectClose(layer.beta.gradient.scalars, backward.dBeta, bound * m.squareRoot(), "\(label): dβ")
    expectClose(layer.runningMean.scalars, forward.mean.map { 0.1 * $0 }, bound, "\(label): running mean")
    expectClose(
      layer.runningVariance.scalars, forward.variance.map { 0.9 + 0.1 * $0 * m / (m - 1) }, bound + own,
      "\(label): running variance")
  }

  /// Within `bound` relative to max(1, |expected|), everywhere.
  static func expectClose<Scalar: BinaryFloatingPoint>(
    _ actual: [Scalar], _ expected: [Double], _ bound: Double, _ label: @autoclosure () -> String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    var worst = 0.0
    for (a, e) in zip(actual, expected) {
      let error = abs(Double(a) - e) / max(1, abs(e))
      if !(error <= worst) { worst = error }
    }
    #expect(
      actual.count == expected.count && worst <= bound, "\(label()): error \(worst)", sourceLocation: sourceLocation)
  }

  @Test func oneThreadCountGivesOneResult() {
    var generator = TestGenerator()
    for index in Self.schedules {
      let shape = index.channelsLast ? [index.n, index.s, index.c] : [index.n, index.c, index.s]
      let x = Tensor<Float>(shape: shape, scalars: generator.normals(shape.reduce(1, *)))
      for threads in 1...4 {
        let results = (0..<3).map { _ in
          Parallel.withThreadCount(threads) {
            let layer = BatchNorm<Float>(index.c, layout: index.channelsLast ? .channelsLast : .channelsFirst)
            let (y, pullback) = layer.forward(x)
            return [y, pullback(x * x), layer.gamma.gradient, layer.runningVariance]
          }
        }
        #expect(results[0] == results[1] && results[1] == results[2], "\(index) at \(threads) threads")
      }
    }
  }

  @Test func constantChannelsGiveBeta() {
    for value: Float in [0, 3.7, -1e6] {
      for shape in [[5, 3], [300, 3], [4, 3, 500], [3, 3, 7]] {
        let layer = BatchNorm<Float>(3)
        layer.beta.value = Tensor([1, 2, 3])
        let (y, pullback) = layer.forward(Tensor(repeating: value, shape: shape))
        let wanted = Tensor<Float>([1, 2, 3]).reshaped([1, 3] + shape.dropFirst(2).map { _ in 1 }).broadcast(to: shape)
        #expect(y == wanted)
        #expect(pullback(.ones(shape: shape)).absolute().max() <= 1e-3)
        #expect(layer.runningVariance == Tensor(repeating: 0.9, shape: [3]))
      }
    }
  }
}
