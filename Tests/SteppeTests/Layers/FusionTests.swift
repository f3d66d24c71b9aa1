import Reference
import Steppe
import Testing

/// What a `Sequential` runs as one gives what its layers give one after another (the arithmetic is the same, so bit for bit).
@Suite struct FusionTests {
  /// The output, the gradients of a pullback called twice, and everything that training changed.
  private static func outcome<Scalar: TensorScalar>(
    _ model: any Layer<Scalar>, _ forward: (Tensor<Scalar>) -> (Tensor<Scalar>, Pullback<Scalar>), _ x: Tensor<Scalar>,
    _ dy: Tensor<Scalar>
  ) -> [Tensor<Scalar>] {
    let (output, pullback) = forward(x)
    let dx = [pullback(dy), pullback(dy * 0.5)]
    pullback.accumulate(dy)
    let state = model.state.map { entry in
      switch entry.get() {
      case .tensor(let tensor): tensor
      case .integer(let number): Tensor([Scalar(number)])
      }
    }
    return [output] + dx + model.parameters.map(\.gradient) + state
  }

  private static func oneByOne<Scalar: TensorScalar>(
    _ layers: [any Layer<Scalar>], _ input: Tensor<Scalar>
  ) -> (Tensor<Scalar>, Pullback<Scalar>) {
    var (value, pullbacks) = (input, [Pullback<Scalar>]())
    for layer in layers {
      let (output, pullback): (Tensor<Scalar>, Pullback<Scalar>)
      if let residual = layer as? Residual<Scalar> {
        let (inner, innerPullback) = oneByOne(residual.branch.layers, value)
        output = value + inner
        pullback = Pullback(shape: output.shape) { dy, _ in innerPullback(dy) + dy }
      } else {
        (output, pullback) = layer.forward(value)
      }
      value = output
      pullbacks.append(pullback)
    }
    return (
      value,
      Pullback(shape: value.shape) { dy, _ in pullbacks.reversed().reduce(dy) { $1($0) } }
    )
  }

  private static func compare<Scalar: TensorScalar>(
    _ make: () -> Sequential<Scalar>, _ x: Tensor<Scalar>, _ label: String, _ generator: inout TestGenerator,
    prepare: (Sequential<Scalar>) -> Void = { _ in }
  ) {
    let (fused, plain) = (make(), make())
    for model in [fused, plain] {
      var own = TestGenerator(fixed: label)
      for parameter in model.parameters where parameter.value.rank == 1 {
        parameter.value = Tensor(own.normals(parameter.value.count, mean: 0.2))
      }
      prepare(model)
    }
    let dy = Tensor<Scalar>(shape: x.shape, scalars: generator.normals(x.count))
    let a = outcome(fused, { fused.forward($0) }, x, dy)
    let b = outcome(plain, { oneByOne(plain.layers, $0) }, x, dy)
    #expect(a.count == b.count)
    for (place, (got, wanted)) in zip(a, b).enumerated() {
      let alike =
        got.shape == wanted.shape && zip(got.scalars, wanted.scalars).allSatisfy { $0 == $1 || $0 != $0 && $1 != $1 }
      #expect(alike, "\(Scalar.self) \(label): result \(place)")
    }
  }

  private static func tensor<Scalar: TensorScalar>(_ index: ChannelIndex, _ generator: inout TestGenerator) -> Tensor<
    Scalar
  > {
    let shape =
      index.s == 1
      ? [index.n, index.c] : index.channelsLast ? [index.n, index.s, index.c] : [index.n, index.c, index.s]
    return Tensor(shape: shape, scalars: generator.normals(shape.reduce(1, *), mean: 1))
  }

  private static func compareAll<Scalar: TensorScalar>(
    _ type: Scalar.Type, _ index: ChannelIndex, _ threads: Int, _ generator: inout TestGenerator
  ) {
    let x: Tensor<Scalar> = tensor(index, &generator)
    let layout: ChannelPlace = index.channelsLast ? .channelsLast : .channelsFirst
    compare(
      { Sequential([BatchNorm<Scalar>(index.c, layout: layout), ReLU<Scalar>()]) }, x, "\(index) BN, ReLU, \(threads)",
      &generator)
    compare(
      { Sequential([Residual { BatchNorm<Scalar>(index.c, layout: layout) }, ReLU()]) }, x,
      "\(index) residual BN, ReLU, \(threads)", &generator)
  }

  /// Each instruction set in a process of its own, since the choice is the whole process's.
  @Test
  func batchNormAndReLU() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "batchNormAndReLU \(name) \(testSeed)", to: "batchNormAndReLU")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "batchNormAndReLU")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        let indices =
          BatchNormAccuracyTests.schedules
          + (0..<12).map { BatchNormAccuracyTests.randomIndex(&generator, round: $0) }
        for index in indices {
          for threads in 1...3 {
            Parallel.withThreadCount(threads) {
              Self.compareAll(Float.self, index, threads, &generator)
              if index.n < 100 { Self.compareAll(Double.self, index, threads, &generator) }
            }
          }
        }
      }
    }
  }

  @Test func nonFiniteValuesPassAsTheyDoOneByOne() {
    var generator = TestGenerator()
    for bad in [Float.nan, .infinity, -.infinity] {
      for index in [
        ChannelIndex(n: 30, c: 5, s: 1, channelsLast: false), ChannelIndex(n: 4, c: 3, s: 300, channelsLast: false),
      ] {
        var x: Tensor<Float> = Self.tensor(index, &generator)
        x.withUnsafeMutableBufferPointer { $0[7] = bad }
        Self.compare({ Sequential([BatchNorm(index.c), ReLU()]) }, x, "\(index) \(bad)", &generator)
        Self.compare(
          { Sequential([Residual { BatchNorm<Float>(index.c) }, ReLU()]) }, x, "\(index) \(bad)", &generator)
      }
    }
  }

  @Test func frozenUntrackedAndNeighbours() {
    var generator = TestGenerator()
    let x = Tensor<Double>(shape: [12, 6], scalars: generator.normals(72, mean: 0.3))
    let freeze = { (model: Sequential<Double>) in
      for layer in model.layers {
        (layer as? BatchNorm<Double>)?.isFrozen = true
        for inner in (layer as? Residual<Double>)?.branch.layers ?? [] {
          (inner as? BatchNorm<Double>)?.isFrozen = true
        }
      }
    }
    let models: [(String, () -> Sequential<Double>)] = [
      ("plain", { Sequential([BatchNorm(6), ReLU()]) }),
      ("untracked", { Sequential([BatchNorm(6, tracksRunningStatistics: false), ReLU()]) }),
      ("without affine", { Sequential([BatchNorm(6, affine: false), ReLU()]) }),
      ("another activation", { Sequential([BatchNorm(6), GELU(), ReLU(), BatchNorm(6), LeakyReLU()]) }),
      ("a layer between", { Sequential([BatchNorm(6), Doubling(), ReLU()]) }),
      (
        "several",
        {
          Sequential(seed: 4) {
            Dense(6, 6, bias: false); BatchNorm(6); ReLU(); BatchNorm(6); ReLU(); ReLU()
          }
        }
      ),
      (
        "residual",
        {
          Sequential(seed: 3) {
            Dense(6, 6)
            Residual {
              Dense(6, 6)
              BatchNorm(6)
              ReLU()
              Dense(6, 6)
              BatchNorm(6)
            }
            ReLU()
            Residual {
              BatchNorm(6); ReLU()
            }
            ReLU()
          }
        }
      ),
    ]
    for (label, make) in models {
      Self.compare(make, x, label, &generator)
      Self.compare(make, x, "\(label), frozen", &generator, prepare: freeze)
    }
  }

  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    checkGradients(Sequential([BatchNorm<Double>(3), ReLU()]), inputShape: [7, 3], &generator)
    checkGradients(Sequential([Residual { BatchNorm<Double>(3) }, ReLU()]), inputShape: [7, 3], &generator)
  }
}

/// A layer that Steppe doesn't know.
private final class Doubling: Layer {
  var name = ""
  func forward(_ input: Tensor<Double>) -> (output: Tensor<Double>, pullback: Pullback<Double>) {
    (input * 2, Pullback(shape: input.shape) { dy, _ in dy * 2 })
  }
  func callAsFunction(_ input: Tensor<Double>) -> Tensor<Double> { input * 2 }
  var inferenceSteps: [InferenceStep<Double>] { [.function { $0 * 2 }] }
}
