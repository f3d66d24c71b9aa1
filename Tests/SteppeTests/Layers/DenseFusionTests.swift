import Reference
import Steppe
import Testing

/// Dense, batch norm and ReLU as a `Sequential` trains them: what the layers give one after another, within rounding.
@Suite struct DenseFusionTests {
  /// Rounding errors stay below this share of the sizes that ``NaiveDenseBatchNorm`` gives: Mathematics §4's bound, in the type's own epsilon.
  static func tolerance<Scalar: TensorScalar>(_: Scalar.Type) -> Double { 4e-6 / 0x1p-23 * Double(Scalar.ulpOfOne) }

  /// Layers one by one, each by itself.
  static func oneByOne<Scalar: TensorScalar>(
    _ layers: [any Layer<Scalar>], _ input: Tensor<Scalar>
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    var (value, pullbacks) = (input, [Pullback<Scalar>]())
    for layer in layers {
      let (output, pullback) = layer.forward(value)
      value = output
      pullbacks.append(pullback)
    }
    return (value, Pullback(shape: value.shape) { dy, _ in pullbacks.reversed().reduce(dy) { $1($0) } })
  }

  /// One case: its numbers, each exactly a Float, and what must come of them.
  struct Case {
    let (rows, inputs, outputs): (Int, Int, Int)
    let (hasBias, relu): (Bool, Bool)
    let (x, weight, bias, gamma, beta): ([Double], [Double], [Double], [Double], [Double])
    let dy: [Double]
    let reference: NaiveDenseBatchNorm
    let gradients: NaiveDenseBatchNorm.Gradients

    init(_ rows: Int, _ inputs: Int, _ outputs: Int, bias hasBias: Bool, relu: Bool, _ generator: inout TestGenerator) {
      (self.rows, self.inputs, self.outputs) = (rows, inputs, outputs)
      (self.hasBias, self.relu) = (hasBias, relu)
      func normals(_ count: Int, mean: Double = 0) -> [Double] {
        generator.normals(count, mean: mean, as: Float.self).map { Double($0) }
      }
      x = normals(rows * inputs, mean: 0.3)
      weight = normals(outputs * inputs)
      bias = hasBias ? normals(outputs) : [Double](repeating: 0, count: outputs)
      gamma = normals(outputs, mean: 0.5)
      beta = normals(outputs, mean: 0.2)
      reference = NaiveDenseBatchNorm(
        x: x, weight: weight, bias: bias, gamma: gamma, beta: beta, rows: rows, inputs: inputs, outputs: outputs,
        epsilon: 1e-5, relu: relu)
      // Where rounding alone decides what ReLU lets pass, no gradient arrives.
      let (values, scales) = reference.normalized
      dy = normals(rows * outputs).enumerated().map {
        abs(values[$0.offset]) < 100 * DenseFusionTests.tolerance(Float.self) * scales[$0.offset] ? 0 : $0.element
      }
      gradients = reference.gradients(dy)
    }

    var label: String { "\(rows) × \(inputs) → \(outputs), bias \(hasBias), ReLU \(relu)" }

    func tensor<Scalar: TensorScalar>(_ shape: [Int], _ values: [Double]) -> Tensor<Scalar> {
      Tensor(shape: shape, scalars: values.map { Scalar($0) })
    }

    func model<Scalar: TensorScalar>(_: Scalar.Type) -> Sequential<Scalar> {
      let dense = Dense<Scalar>(
        weight: tensor([outputs, inputs], weight), bias: hasBias ? tensor([outputs], bias) : nil)
      let norm = BatchNorm<Scalar>(outputs)
      norm.gamma.value = tensor([outputs], gamma)
      norm.beta.value = tensor([outputs], beta)
      return Sequential(relu ? [dense, norm, ReLU<Scalar>()] : [dense, norm])
    }

    typealias Outcome<Scalar: TensorScalar> = (
      name: String, value: Tensor<Scalar>, wanted: NaiveDenseBatchNorm.Result
    )

    /// Everything that a step gives and changes, its pullback called three times.
    func outcome<Scalar: TensorScalar>(_: Scalar.Type, fused: Bool) -> [Outcome<Scalar>] {
      let model = model(Scalar.self)
      let input: Tensor<Scalar> = tensor([rows, inputs], x)
      let (output, pullback) = fused ? model.forward(input) : DenseFusionTests.oneByOne(model.layers, input)
      let gradient: Tensor<Scalar> = tensor([rows, outputs], dy)
      let dx = pullback(gradient)
      let once = model.parameters.map(\.gradient)
      // Without the input's gradient, and on top of what is there.
      pullback.accumulate(gradient)
      let twice = model.parameters.map(\.gradient)
      model.parameters.forEach { $0.clearGradient() }
      let again = pullback(gradient)
      let norm = model.layers[1] as! BatchNorm<Scalar>
      let (mean, variance) = (reference.mean, reference.variance)
      let unbiased = 0.1 * Double(rows) / Double(rows - 1)
      var result: [Outcome<Scalar>] = [
        ("output", output, reference.output), ("dx", dx, gradients.x), ("dx again", again, gradients.x),
        ("running mean", norm.runningMean, (mean.values.map { 0.1 * $0 }, mean.scales)),
        (
          "running variance", norm.runningVariance,
          (variance.values.map { 0.9 + unbiased * $0 }, variance.scales.map { 0.9 + unbiased * $0 })
        ),
      ]
      let wanted = [gradients.weight] + (hasBias ? [gradients.bias] : []) + [gradients.gamma, gradients.beta]
      for (index, parameter) in model.parameters.enumerated() {
        let (values, scales) = wanted[index]
        result.append((parameter.name, once[index], (values, scales)))
        result.append((parameter.name + " twice", twice[index], (values.map { 2 * $0 }, scales.map { 2 * $0 })))
        result.append((parameter.name + " again", parameter.gradient, (values, scales)))
      }
      return result
    }

    func check<Scalar: TensorScalar>(_: Scalar.Type, threads: Int) {
      Parallel.withThreadCount(threads) {
        let fused = outcome(Scalar.self, fused: true)
        for (kind, results) in [("fused", fused), ("one by one", outcome(Scalar.self, fused: false))] {
          for (name, value, wanted) in results {
            let got = value.scalars
            let wrong = got.indices.first {
              !(abs(Double(got[$0]) - wanted.values[$0]) <= DenseFusionTests.tolerance(Scalar.self) * wanted.scales[$0])
            }
            #expect(
              got.count == wanted.values.count && wrong == nil,
              """
              \(Scalar.self) \(label), \(threads) threads, \(kind): \(name) [\(wrong ?? -1)] is \
              \(wrong.map { Double(got[$0]) } ?? 0), not \(wrong.map { wanted.values[$0] } ?? 0)
              """)
          }
        }
        for (first, second) in zip(fused, outcome(Scalar.self, fused: true)) {
          #expect(first.value.scalars == second.value.scalars, "\(label), \(threads) threads: \(first.name) again")
        }
      }
    }
  }

  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test
  func equalsTheLayersOneByOne() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "equalsTheLayersOneByOne \(name) \(testSeed)", to: "equalsTheLayersOneByOne")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "equalsTheLayersOneByOne")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        // Columns in panels, a part each; rows too many for the cache; channels too few for the threads; a depth of one; for either
        // type rows whose z fits the cache, but not with dz beside it.
        let shapes = [
          (64, 200, 300), (300, 30, 290), (9000, 5, 70), (2, 1, 1), (2, 3, 300), (200, 100, 3), (130, 1, 65),
          (CacheSizes.level2 / 700, 9, 70), (CacheSizes.level2 / 1400, 9, 70),
        ]
        for round in 0..<shapes.count + 10 {
          let (rows, inputs, outputs) =
            round < shapes.count
            ? shapes[round] : (generator.integer(2...300), generator.integer(1...200), generator.integer(1...300))
          let item = Case(rows, inputs, outputs, bias: round % 3 == 1, relu: round % 4 < 3, &generator)
          for threads in [1, 2, 3, 4, 8] {
            item.check(Float.self, threads: threads)
            item.check(Double.self, threads: threads)
          }
        }
      }
    }
  }

  /// What a variant of the layers gives, fused or one by one, over two batches.
  private static func steps(
    _ make: () -> Sequential<Double>, fused: Bool, _ x: Tensor<Double>, _ dy: Tensor<Double>
  ) -> [(String, Tensor<Double>)] {
    let model = make()
    var results: [(String, Tensor<Double>)] = []
    for scale in [1.0, 3] {
      let input = x * scale
      let (output, pullback) = fused ? model.forward(input) : oneByOne(model.layers, input)
      results += [("output", output), ("dx", pullback(dy))]
    }
    for (index, parameter) in model.layers.flatMap({ $0.parameters }).enumerated() {
      results.append(("gradient \(index)", parameter.gradient))
      results.append(("has gradient \(index)", Tensor([parameter.hasGradient ? 1 : 0])))
    }
    for entry in model.state {
      switch entry.get() {
      case .tensor(let tensor): results.append((entry.key, tensor))
      case .integer(let number): results.append((entry.key, Tensor([Double(number)])))
      }
    }
    return results
  }

  @Test(arguments: [1, 2, 3]) func variantsEqualTheLayersOneByOne(threads: Int) {
    typealias Change = (Dense<Double>, BatchNorm<Double>) -> Void
    let none: Change = { _, _ in }
    let variants: [(String, BatchNorm<Double>, Change)] = [
      ("plain", BatchNorm(90), none),
      ("channels last", BatchNorm(90, layout: .channelsLast), none),
      ("cumulative", BatchNorm(90, momentum: nil), none),
      ("untracked", BatchNorm(90, tracksRunningStatistics: false), none),
      ("without affine", BatchNorm(90, affine: false), none),
      ("frozen", BatchNorm(90), { $1.isFrozen = true }),
      ("untracked and frozen", BatchNorm(90, tracksRunningStatistics: false), { $1.isFrozen = true }),
      ("frozen weight", BatchNorm(90), { dense, _ in dense.weight.isTrainable = false }),
      ("frozen bias", BatchNorm(90), { dense, _ in dense.bias?.isTrainable = false }),
      ("frozen gamma", BatchNorm(90), { $1.gamma.isTrainable = false }),
      (
        "all frozen", BatchNorm(90),
        { dense, norm in
          dense.parameters.forEach { $0.isTrainable = false }
          norm.isFrozen = true
        }
      ),
    ]
    var generator = TestGenerator("variants \(threads)")
    // Views whose rows do not lie one after another.
    let x = Tensor<Double>(shape: [50, 40], scalars: generator.normals(40 * 50, mean: 0.3)).transposed()
    let dy = Tensor<Double>(shape: [90, 40], scalars: generator.normals(40 * 90)).transposed()
    let weight = Tensor<Double>(shape: [90, 50], scalars: generator.normals(90 * 50))
    let bias = Tensor<Double>(generator.normals(90))
    for (label, template, change) in variants {
      for (hasBias, relu) in [(false, false), (true, false), (false, true), (true, true)] {
        func make() -> Sequential<Double> {
          let dense = Dense(weight: weight, bias: hasBias ? bias : nil)
          let norm = BatchNorm<Double>(
            90, momentum: template.momentum, affine: template.affine,
            tracksRunningStatistics: template.tracksRunningStatistics, layout: template.layout)
          norm.gamma.value = bias * 0.25 + 1
          norm.beta.value = bias * 0.5
          change(dense, norm)
          return Sequential(relu ? [dense, norm, ReLU<Double>()] : [dense, norm])
        }
        Parallel.withThreadCount(threads) {
          let (fused, plain) = (Self.steps(make, fused: true, x, dy), Self.steps(make, fused: false, x, dy))
          #expect(fused.count == plain.count)
          for (got, wanted) in zip(fused, plain) {
            // Well-conditioned sums of at most 90 terms.
            let bound = 1e-12 * max(1, wanted.1.absolute().max())
            #expect(
              got.0 == wanted.0 && got.1.shape == wanted.1.shape && (got.1 - wanted.1).absolute().max() <= bound,
              "\(label), bias \(hasBias), ReLU \(relu), \(threads) threads: \(got.0)")
          }
        }
      }
    }
  }

  @Test func moreAxesThanAMatrixPassOneByOne() {
    var generator = TestGenerator()
    let x = Tensor<Double>(shape: [4, 5, 6], scalars: generator.normals(120))
    let dy = Tensor<Double>(shape: [4, 5, 7], scalars: generator.normals(140))
    func make() -> Sequential<Double> {
      Sequential(seed: 3) {
        Dense(6, 7); BatchNorm(7, layout: .channelsLast); ReLU()
      }
    }
    for (got, wanted) in zip(Self.steps(make, fused: true, x, dy), Self.steps(make, fused: false, x, dy)) {
      #expect(got.1 == wanted.1, "\(got.0)")
    }
  }

  @Test(arguments: [1, 3]) func whatIsNotFiniteStaysInItsChannel(threads: Int) {
    var generator = TestGenerator("not finite \(threads)")
    let (rows, inputs, outputs) = (50, 20, 130)
    let x = Tensor<Float>(shape: [rows, inputs], scalars: generator.normals(rows * inputs))
    let dy = Tensor<Float>(shape: [rows, outputs], scalars: generator.normals(rows * outputs))
    for bad in [Float.nan, .infinity, -.infinity] {
      for channel in [0, 17, outputs - 1] {
        var weight: [Float] = generator.normals(outputs * inputs)
        weight[channel * inputs + 3] = bad
        let norm = BatchNorm<Float>(outputs)
        let dense = Dense(weight: Tensor(shape: [outputs, inputs], scalars: weight))
        let model = Sequential<Float>([dense, norm, ReLU()])
        Parallel.withThreadCount(threads) {
          let (output, pullback) = model.forward(x)
          pullback(dy)
          for (values, width) in [(output.scalars, outputs), (dense.weight.gradient.transposed().scalars, outputs)] {
            let places = values.indices.filter { !values[$0].isFinite }
            #expect(places.allSatisfy { $0 % width == channel } && !places.isEmpty, "\(bad) in channel \(channel)")
          }
          #expect(norm.skippedBatches == 1 && norm.batchesTracked == 0 && norm.runningMean == .zeros(shape: [outputs]))
        }
      }
    }
  }

  /// z is exact here, whatever the order of its sums: batch norm then keeps Mathematics §4's bound however large the mean.
  @Test(arguments: [1, 2, 3]) func aLargeMeanCostsNoAccuracy(threads: Int) {
    var generator = TestGenerator("large mean \(threads)")
    let (rows, inputs, outputs) = (200, 3, 70)
    for offset in [1e4, 1e6, -1e6] {
      for relu in [false, true] {
        func integers(_ count: Int) -> [Double] { (0..<count).map { _ in Double(generator.integer(-1...1)) } }
        let x = integers(rows * inputs)
        // No channel without any deviation.
        let weight = integers(outputs * inputs).enumerated().map { $0.offset % inputs == 0 ? 1 : $0.element }
        let (gamma, beta): ([Float], [Float]) = (generator.normals(outputs), generator.normals(outputs))
        let reference = NaiveDenseBatchNorm(
          x: x, weight: weight, bias: [Double](repeating: offset, count: outputs), gamma: gamma.map { Double($0) },
          beta: beta.map { Double($0) }, rows: rows, inputs: inputs, outputs: outputs, epsilon: 1e-5, relu: relu)
        let norm = BatchNorm<Float>(outputs, momentum: 1)
        norm.gamma.value = Tensor(gamma)
        norm.beta.value = Tensor(beta)
        let dense = Dense<Float>(
          weight: Tensor(shape: [outputs, inputs], scalars: weight.map { Float($0) }),
          bias: Tensor(repeating: Float(offset), shape: [outputs]))
        let model = Sequential<Float>(relu ? [dense, norm, ReLU<Float>()] : [dense, norm])
        Parallel.withThreadCount(threads) {
          let (output, _) = model.forward(Tensor(shape: [rows, inputs], scalars: x.map { Float($0) }))
          for (got, wanted) in zip(output.scalars, reference.output.values) {
            #expect(abs(Double(got) - wanted) <= 4e-6 * max(1, abs(wanted)), "mean \(offset), ReLU \(relu)")
          }
          let factor = Double(rows) / Double(rows - 1)
          for (got, wanted) in zip(norm.runningVariance.scalars, reference.variance.values) {
            #expect(abs(Double(got) - wanted * factor) <= 4e-6 * wanted * factor, "mean \(offset): variance")
          }
        }
      }
    }
  }

  @Test func gradientsEqualCentralDifferences() {
    // Always the same case: where chance makes a channel's deviation small, it bends too much for differences to be exact.
    var generator = TestGenerator(fixed: "central differences")
    for threads in [1, 3] {
      Parallel.withThreadCount(threads) {
        checkGradients(
          Sequential<Double>(seed: 5) {
            Dense(4, 3); BatchNorm(3); ReLU()
          }, inputShape: [7, 4], &generator)
        checkGradients(
          Sequential<Double>(seed: 6) {
            Dense(3, 5, bias: false); BatchNorm(5)
          }, inputShape: [6, 3], &generator)
      }
    }
  }

  @Test func mistakesStopWithTheLayersName() async {
    let changed = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let dense = Dense<Float>(4, 3, seed: 1)
      let model = Sequential<Float>([dense, BatchNorm(3), ReLU()])
      let (output, pullback) = model.forward(Tensor(shape: [2, 4], scalars: [1, 2, 3, 4, 4, 3, 1, 2]))
      dense.weight.value = dense.weight.value * 2
      pullback(output)
    }
    #expect(errorText(changed).contains("Dense '0'") && errorText(changed).contains("before the weight changes"))
    let single = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float>([Dense(4, 3, seed: 1), BatchNorm(3), ReLU()]).forward(.ones(shape: [1, 4]))
    }
    #expect(errorText(single).contains("BatchNorm '1'") && errorText(single).contains("a batch of one"))
    let none = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float>([Dense(4, 3, seed: 1), BatchNorm(3), ReLU()]).forward(.ones(shape: [0, 4]))
    }
    #expect(errorText(none).contains("BatchNorm '1'") && errorText(none).contains("[0, 3]"))
    let shape = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float>([Dense(4, 3, seed: 1), BatchNorm(3), ReLU()]).forward(.ones(shape: [9, 5]))
    }
    #expect(errorText(shape).contains("Dense '0'") && errorText(shape).contains("[9, 5]"))
    let channels = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float>([Dense(4, 3, seed: 1), BatchNorm(2), ReLU()]).forward(.ones(shape: [9, 4]))
    }
    #expect(errorText(channels).contains("BatchNorm '1'") && errorText(channels).contains("[9, 3]"))
  }
}
