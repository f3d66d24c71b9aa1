import Reference
import Steppe
import Testing

/// An optimizer's options, and the same step on one element in Float64; `s` and `t` are the element's state.
private struct OptimizerCase<Scalar: TensorScalar> {
  let name: String
  let make: ([Parameter<Scalar>]) -> FusedOptimizer<Scalar>
  let reference:
    (_ p: inout Double, _ g: Double, _ s: inout Double, _ t: inout Double, _ step: Int, _ decays: Bool) -> Void
  var initialState = 0.0

  static var all: [OptimizerCase] {
    var cases: [OptimizerCase] = []
    for decay in [0, 0.125] {
      for (momentum, dampening, nesterov) in [(0, 0, false), (0.9, 0, false), (0.9, 0.25, false), (0.9, 0, true)] {
        cases.append(
          OptimizerCase(
            name: "SGD \(momentum) \(dampening) \(nesterov) \(decay)",
            make: {
              SGD(
                $0, learningRate: 0.05, momentum: momentum, dampening: dampening, nesterov: nesterov, weightDecay: decay
              )
            },
            reference: { p, g, s, _, step, decays in
              var velocity: Double? = step == 1 ? nil : s
              NaiveOptimizers.sgd(
                &p, g, velocity: &velocity, rate: 0.05, momentum: momentum, dampening: dampening, nesterov: nesterov,
                decay: decays ? decay : 0)
              s = velocity ?? 0
            }))
      }
      cases.append(
        OptimizerCase(
          name: "Adagrad \(decay)",
          make: { Adagrad($0, learningRate: 0.05, epsilon: 1e-6, initialAccumulator: 0.5, weightDecay: decay) },
          reference: { p, g, s, _, _, decays in
            NaiveOptimizers.adagrad(&p, g, sum: &s, rate: 0.05, epsilon: 1e-6, decay: decays ? decay : 0)
          }, initialState: 0.5))
      for momentum in [0, 0.75] {
        cases.append(
          OptimizerCase(
            name: "RMSProp \(momentum) \(decay)",
            make: { RMSProp($0, alpha: 0.95, momentum: momentum, weightDecay: decay) },
            reference: { p, g, s, t, _, decays in
              NaiveOptimizers.rmsProp(
                &p, g, average: &s, buffer: &t, rate: 0.01, alpha: 0.95, epsilon: 1e-8, momentum: momentum,
                decay: decays ? decay : 0)
            }))
      }
      for decoupled in [false, true] {
        cases.append(
          OptimizerCase(
            name: "Adam \(decoupled) \(decay)",
            make: {
              decoupled
                ? AdamW($0, beta1: 0.8, beta2: 0.99, weightDecay: decay)
                : Adam($0, beta1: 0.8, beta2: 0.99, weightDecay: decay)
            },
            reference: { p, g, s, t, step, decays in
              NaiveOptimizers.adam(
                &p, g, m: &s, v: &t, step: step, rate: 0.001, beta1: 0.8, beta2: 0.99, epsilon: 1e-8,
                decay: decays ? decay : 0, decoupled: decoupled)
            }))
      }
    }
    return cases
  }
}

/// Parameters of several shapes, weights and biases.
private func makeParameters<Scalar: TensorScalar>(
  _ generator: inout TestGenerator, shapes: [[Int]] = [[17, 9], [9], [], [3, 1, 5], [0]]
) -> [Parameter<Scalar>] {
  shapes.enumerated().map { index, shape in
    Parameter(
      Tensor(shape: shape, scalars: generator.normals(shape.reduce(1, *))), name: "\(index).value",
      decays: shape.count > 1)
  }
}

private func setGradients<Scalar: TensorScalar>(_ parameters: [Parameter<Scalar>], _ generator: inout TestGenerator) {
  for parameter in parameters {
    parameter.gradient = Tensor(shape: parameter.value.shape, scalars: generator.normals(parameter.value.count))
  }
}

/// What an optimizer's state holds, as text that shows every bit.
private func snapshot<Scalar: TensorScalar>(_ optimizer: some Optimizer<Scalar>) -> [String] {
  optimizer.state.map { entry in
    switch entry.get() {
    case .tensor(let tensor): "\(entry.key) \(tensor.shape) \(tensor.scalars.map { Double($0).bitPattern })"
    case .integer(let integer): "\(entry.key) \(integer)"
    }
  }
}

@Suite struct OptimizerTests {
  @Test func stepsMatchReference() {
    steps(Float.self)
    steps(Double.self)
  }

  private func steps<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for test in OptimizerCase<Scalar>.all {
      let parameters: [Parameter<Scalar>] = makeParameters(&generator)
      let optimizer = test.make(parameters)
      // The product's state is the reference's at each step, so that each step is tested from the same inputs.
      for step in 1...5 {
        setGradients(parameters, &generator)
        let before = parameters.map { ($0.value.scalars.map { Double($0) }, $0.gradient.scalars.map { Double($0) }) }
        let states = parameters.map { self.states(of: $0, in: optimizer) }
        if step == 1 {
          #expect(states.allSatisfy { $0.allSatisfy { $0.allSatisfy { $0 == test.initialState } } }, "\(test.name)")
        }
        optimizer.step()
        for (index, parameter) in parameters.enumerated() {
          let (values, gradients) = before[index]
          var expected = values
          for i in values.indices {
            var s = states[index].first?[i] ?? 0
            var t = states[index].count > 1 ? states[index][1][i] : 0
            test.reference(&expected[i], gradients[i], &s, &t, step, parameter.decays)
          }
          // Where a change nearly cancels a parameter, ulps are those of the greater of the two. The terms of the change round too: they
          // are of the rate's size.
          let magnitude = zip(values, expected).map { max(abs($0), abs($1 - $0), 4 * optimizer.learningRate) }
          let error = worstError(parameter.value.scalars, expected, magnitude: magnitude)
          #expect(error.ulps <= 4, "\(test.name) \(Scalar.self), step \(step), parameter \(index): \(error)")
          #expect(!parameter.hasGradient)
        }
        #expect(optimizer.stepCount == step)
      }
    }
  }

  private func states<Scalar: TensorScalar>(
    of parameter: Parameter<Scalar>, in optimizer: FusedOptimizer<Scalar>
  ) -> [[Double]] {
    optimizer.state.filter { $0.key.hasPrefix(parameter.name + ".") }.compactMap { entry in
      if case .tensor(let tensor) = entry.get() { tensor.scalars.map { Double($0) } } else { nil }
    }
  }

  /// Many steps on its own: errors must not build up beyond the scalar type's rounding.
  @Test func runsStayNearTheReference() {
    var generator = TestGenerator()
    for test in OptimizerCase<Double>.all {
      let parameter = Parameter(Tensor<Double>([1.5, -0.25, 3]), name: "w", decays: true)
      let optimizer = test.make([parameter])
      var p = parameter.value.scalars
      var (s, t) = (p.map { _ in test.initialState }, p.map { _ in 0.0 })
      for step in 1...200 {
        let g: [Double] = generator.normals(3)
        parameter.gradient = Tensor(g)
        optimizer.step()
        for i in 0..<3 { test.reference(&p[i], g[i], &s[i], &t[i], step, true) }
      }
      let distance = relativeDistance(parameter.value.scalars, p)
      #expect(distance < 1e-12, "\(test.name): \(distance)")
    }
  }

  /// In Float the rounding of β₂ alone would be felt a thousand times in the long run.
  @Test func runningSquaresStayNearTheReferenceInFloat() {
    var generator = TestGenerator()
    let parameter = Parameter(Tensor<Float>.zeros(shape: [16]), name: "w", decays: false)
    let optimizer = Adam([parameter], beta2: 0.999)
    var squares = Array(repeating: 0.0, count: 16)
    for _ in 1...5000 {
      let gradient: [Float] = generator.normals(16)
      parameter.gradient = Tensor(gradient)
      optimizer.step()
      for i in squares.indices {
        squares[i] = 0.999 * squares[i] + (1 - 0.999) * Double(gradient[i]) * Double(gradient[i])
      }
    }
    let distance = relativeDistance(states(of: parameter, in: optimizer)[1], squares)
    #expect(distance < 6e-6, "\(distance)")
  }

  /// Gradients whose squares are too small for a float move parameters by no more than others, without an ε too.
  @Test func tinyGradientsMakeNoGreatSteps() {
    for size in [0, 1e-24, 1e-22, 1e-20] as [Float] {
      for epsilon in [0, 1e-30, 1e-8] {
        let make: [([Parameter<Float>]) -> FusedOptimizer<Float>] = [
          { Adam($0, learningRate: 0.01, epsilon: epsilon) }, { RMSProp($0, learningRate: 0.01, epsilon: epsilon) },
          { Adagrad($0, learningRate: 0.01, epsilon: epsilon) },
        ]
        for make in make {
          let parameter = Parameter(Tensor<Float>.zeros(shape: [40]), name: "w", decays: false)
          let optimizer = make([parameter])
          for _ in 1...3 {
            parameter.gradient = Tensor(repeating: size, shape: [40])
            optimizer.step()
          }
          let moved = parameter.value.scalars.map(abs).max()!
          #expect(moved <= 0.35, "\(type(of: optimizer)) moves by \(moved) at \(size) with ε \(epsilon)")
          #expect(!parameter.value.scalars.contains { !$0.isFinite })
        }
      }
    }
  }

  @Test func largeParametersAreTheSameWithAnyNumberOfThreads() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      let shapes = [[301, 67], [7], [1], [40_003], [5]] + (0..<30).map { [$0] }
      let start: [Parameter<Scalar>] = makeParameters(&generator, shapes: shapes)
      let gradients: [Parameter<Scalar>] = makeParameters(&generator, shapes: shapes)
      for test in OptimizerCase<Scalar>.all {
        let results = (1...3).map { threads in
          let parameters = start.map { Parameter($0.value, name: $0.name, decays: $0.decays) }
          let optimizer = test.make(parameters)
          optimizer.maximumGradientNorm = 10
          Parallel.withThreadCount(threads) {
            for _ in 1...2 {
              for (parameter, gradient) in zip(parameters, gradients) { parameter.gradient = gradient.value }
              optimizer.step()
            }
          }
          return parameters.map(\.value)
        }
        #expect(results[0] == results[1] && results[0] == results[2], "\(test.name)")
        #expect(results[0] != start.map(\.value), "\(test.name)")
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func weightDecayLeavesGammaBetaAndBiases() {
    let weight = Parameter(Tensor<Float>([2, -4]), name: "weight", decays: true)
    let bias = Parameter(Tensor<Float>([2, -4]), name: "bias", decays: false)
    for make: ([Parameter<Float>]) -> any Optimizer<Float> in [
      { SGD($0, learningRate: 0.5, weightDecay: 0.5) }, { AdamW($0, learningRate: 0.5, weightDecay: 0.5) },
    ] {
      for parameter in [weight, bias] {
        parameter.value = Tensor([2, -4])
        parameter.gradient = Tensor([0, 0])
      }
      make([weight, bias]).step()
      #expect(weight.value == Tensor([1.5, -3]) && bias.value == Tensor([2, -4]))
    }
  }

  @Test func parametersWithoutGradientsStay() {
    let moved = Parameter(Tensor<Float>([1]), name: "moved", decays: true)
    let idle = Parameter(Tensor<Float>([1]), name: "idle", decays: true)
    let frozen = Parameter(Tensor<Float>([1]), name: "frozen", decays: true)
    frozen.isTrainable = false
    let optimizer = SGD([moved, idle, frozen], learningRate: 0.5, momentum: 0.5, dampening: 0.5, weightDecay: 0.125)
    moved.gradient = Tensor([1])
    frozen.gradient = Tensor([1])
    optimizer.step()
    #expect(moved.value.scalar < 1 && idle.value.scalar == 1 && frozen.value.scalar == 1)
    #expect(!frozen.hasGradient)
    // One that begins later begins with a first step, which takes the gradient whole.
    idle.gradient = Tensor([1])
    optimizer.step()
    #expect(idle.value.scalar == 1 - 0.5 * (1 + 0.125))
  }

  @Test func aParameterListedTwiceMovesOnce() {
    let parameter = Parameter(Tensor<Float>([1]), name: "tied", decays: false)
    let optimizer = SGD([parameter, parameter], learningRate: 0.5)
    parameter.gradient = Tensor([1])
    optimizer.step()
    #expect(optimizer.parameters.count == 1 && parameter.value.scalar == 0.5)
  }

  @Test func otherHoldersKeepTheOldValues() {
    let parameter = Parameter(Tensor<Float>([1, 2]), name: "w", decays: false)
    let (value, gradient) = (parameter.value, Tensor<Float>([[1, 3], [2, 4]]).transposed().row(0))
    parameter.gradient = gradient
    SGD([parameter], learningRate: 1).step()
    #expect(value == Tensor([1, 2]) && gradient == Tensor([1, 2]) && parameter.value == Tensor([0, 0]))
  }

  @Test func steadyStepsMoveValuesInPlace() {
    var generator = TestGenerator()
    let parameters: [Parameter<Float>] = makeParameters(&generator, shapes: [[64, 64]])
    let optimizer = Adam(parameters)
    let address = parameters[0].value.withUnsafeBufferPointer { $0.baseAddress }
    for _ in 0..<3 {
      setGradients(parameters, &generator)
      optimizer.step()
    }
    #expect(parameters[0].value.withUnsafeBufferPointer { $0.baseAddress } == address)
  }

  /// A run of ten steps, and one that is stopped after four and goes on in a fresh optimizer.
  @Test func resumedRunsAreBitwiseTheSame() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      for test in OptimizerCase<Scalar>.all {
        for stopAfter in [0, 1, 4] {
          func run(resuming: Bool) -> ([[Scalar]], [String]) {
            var generator = TestGenerator("resumed")
            var parameters: [Parameter<Scalar>] = makeParameters(&generator)
            var optimizer = test.make(parameters)
            for step in 0..<10 {
              if resuming, step == stopAfter {
                let copies = parameters.map { Parameter($0.value, name: $0.name, decays: $0.decays) }
                let fresh = test.make(copies)
                #expect(fresh.state.map(\.key) == optimizer.state.map(\.key))
                for (old, new) in zip(optimizer.state, fresh.state) { new.set(old.get()) }
                #expect(snapshot(fresh) == snapshot(optimizer), "\(test.name)")
                (parameters, optimizer) = (copies, fresh)
              }
              setGradients(parameters, &generator)
              // A parameter that begins late.
              if step < 3 { parameters[1].clearGradient() }
              optimizer.step()
            }
            return (parameters.map(\.value.scalars), snapshot(optimizer))
          }
          let (whole, resumed) = (run(resuming: false), run(resuming: true))
          #expect(whole.0 == resumed.0 && whole.1 == resumed.1, "\(test.name), stopped after \(stopAfter)")
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func stateIsKeyedByNameOrPlace() {
    let named = [
      Parameter(Tensor<Float>([1]), name: "0.weight", decays: true),
      Parameter(Tensor<Float>([1]), name: "0.bias", decays: false),
    ]
    #expect(SGD(named).state.map(\.key) == ["step", "0.weight.step", "0.bias.step"])
    #expect(
      SGD(named, momentum: 0.9).state.map(\.key)
        == ["step", "0.weight.step", "0.weight.momentum", "0.bias.step", "0.bias.momentum"])
    let unnamed = [
      Parameter(Tensor<Float>([1]), name: "w", decays: true), Parameter(Tensor<Float>([1]), name: "w", decays: true),
    ]
    #expect(
      AdamW(unnamed).state.map(\.key) == [
        "step", "0.step", "0.first_moment", "0.second_moment", "1.step", "1.first_moment", "1.second_moment",
      ])
  }

  @Test func gradientsAreClippedByNorm() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for shapes in [[[3], [2, 2]], [[100_001], [5], [70_000]]] {
        let parameters: [Parameter<Scalar>] = makeParameters(&generator, shapes: shapes)
        setGradients(parameters, &generator)
        let gradients = parameters.map(\.gradient)
        let all = gradients.flatMap { $0.scalars.map { Double($0) } }
        let expected = NaiveKernels.sum(all.map { $0 * $0 }).squareRoot()
        let norms = (1...3).map { threads in
          Parallel.withThreadCount(threads) { clipGradientNorm(parameters, maximum: 1e9) }
        }
        #expect(Set(norms).count == 1 && abs(norms[0] - expected) <= 1e-12 * expected, "\(norms), \(expected)")
        // A norm that is not above the maximum changes nothing.
        #expect(parameters.map(\.gradient) == gradients)

        let norm = clipGradientNorm(parameters, maximum: 0.5)
        #expect(norm == norms[0])
        for (parameter, gradient) in zip(parameters, gradients) {
          let scaled = gradient.scalars.map { Double($0) * 0.5 / expected }
          #expect(worstError(parameter.gradient.scalars, scaled).ulps <= 2)
        }

        // Within the step: the same as with gradients that are scaled before.
        let twins = parameters.map { Parameter($0.value, name: $0.name, decays: $0.decays) }
        for (twin, gradient) in zip(twins, gradients) { twin.gradient = gradient }
        let (before, within) = (SGD(parameters, learningRate: 1), SGD(twins, learningRate: 1))
        within.maximumGradientNorm = 0.5
        before.step()
        within.step()
        #expect(within.gradientNorm == norm && before.gradientNorm == nil)
        for (a, b) in zip(parameters, twins) {
          #expect(
            worstError(b.value.scalars, a.value.scalars.map { Double($0) }, magnitude: a.value.scalars.map { _ in 1 })
              .ulps <= 2)
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func gradientsAreClippedByValue() {
    let parameter = Parameter(Tensor<Float>.zeros(shape: [4]), name: "w", decays: true)
    parameter.gradient = Tensor([-3, 0.25, 7, .infinity])
    clipGradientValue([parameter], maximum: 1.5)
    #expect(parameter.gradient == Tensor([-1.5, 0.25, 1.5, 1.5]))
    parameter.clearGradient()
    clipGradientValue([parameter], maximum: 1.5)
    #expect(!parameter.hasGradient && clipGradientNorm([parameter], maximum: 1) == 0)
  }

  @Test func settingsThatMakeNoSenseStop() async {
    func check(_ result: ExitTest.Result?, _ words: String...) {
      let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
      for word in words { #expect(text.contains(word), "\(text)") }
    }
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = SGD([Parameter<Float>](), learningRate: -0.1)
      }, "SGD", "learningRate", "-0.1")
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        SGD([Parameter<Float>]()).learningRate = .nan
      }, "learningRate", "nan")
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = SGD([Parameter<Float>](), nesterov: true)
      }, "nesterov")
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Adam([Parameter<Float>](), beta2: 1)
      }, "Adam", "beta2", "1.0")
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = AdamW([Parameter<Double>](), weightDecay: .infinity)
      }, "AdamW", "weightDecay", "inf")
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        let parameter = Parameter(Tensor<Float>([1, 2]), name: "w", decays: true)
        SGD([parameter], momentum: 0.9).state[2].set(.tensor(Tensor([1, 2, 3])))
      }, "w.momentum", "[2]", "[3]")
    check(
      await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        clipGradientNorm([Parameter<Float>](), maximum: 0)
      }, "clipGradientNorm", "0.0")
  }
}
