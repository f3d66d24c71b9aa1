import Foundation
import Reference
import Steppe
import Testing

/// Weight normalization (Mathematics §9) and spectral normalization (Mathematics §10).
@Suite struct NormalizedWeightTests {
  // MARK: Weight normalization

  @Test func weightNormAgainstTheReference() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for round in 0..<30 {
        let (rows, outputs) = (generator.integer(1...9), round % 5 == 0 ? 1 : generator.integer(1...300))
        let inputs = round % 7 == 0 ? 1 : generator.integer(1...130)
        let v: [Scalar] = generator.normals(outputs * inputs, mean: 0.1)
        let g: [Scalar] = generator.normals(outputs, mean: 1)
        let (x, dy): ([Scalar], [Scalar]) = (generator.normals(rows * inputs), generator.normals(rows * outputs))
        var dw = [Double](repeating: 0, count: v.count)
        for row in 0..<rows {
          for place in dw.indices {
            dw[place] += Double(dy[row * outputs + place / inputs]) * Double(x[row * inputs + place % inputs])
          }
        }
        let wanted = weightNorm(v: v.doubles, g: g.doubles, dw: dw, columns: inputs)
        for threads in 1...3 {
          Parallel.withThreadCount(threads) {
            let layer = WeightNorm(Dense(weight: Tensor(shape: [outputs, inputs], scalars: v)))
            layer.g.value = Tensor(shape: [outputs, 1], scalars: g)
            let (_, pullback) = layer.forward(Tensor(shape: [rows, inputs], scalars: x))
            for _ in 0..<2 { pullback(Tensor(shape: [rows, outputs], scalars: dy)) }
            let label = "\(Scalar.self) \(outputs)×\(inputs)"
            let bound = 4e-6 * Double(Scalar.ulpOfOne) / Double(Float.ulpOfOne)
            BatchNormAccuracyTests.expectClose(layer.weight.scalars, wanted.w, bound, "\(label): w")
            // Called twice, the pullback has gathered both.
            BatchNormAccuracyTests.expectClose(
              layer.g.gradient.scalars, wanted.dg.map { 2 * $0 }, 2 * bound * Double(rows), "\(label): dg")
            let (dv, norms) = (layer.v.gradient.scalars, (0..<outputs).map { norm(v.doubles, $0, inputs) })
            // In units of g/‖v‖.
            let scales = dv.indices.map { max(1e-3, abs(Double(g[$0 / inputs]))) / norms[$0 / inputs] }
            BatchNormAccuracyTests.expectClose(
              dv.indices.map { Double(dv[$0]) / scales[$0] }, dv.indices.map { 2 * wanted.dv[$0] / scales[$0] },
              4 * bound * Double(rows), "\(label): dv")
            for output in 0..<outputs where inputs > 1 {
              let part = output * inputs..<(output + 1) * inputs
              let product = part.reduce(0) { $0 + Double(dv[$1]) * Double(v[$1]) }
              let size = scales[output * inputs] * norm(dw, output, inputs) * norms[output]
              #expect(abs(product) <= 8 * bound * size, "\(label): dv is not at right angles to v in \(output)")
            }
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  private func norm(_ x: [Double], _ row: Int, _ columns: Int) -> Double {
    x[row * columns..<(row + 1) * columns].reduce(0) { $0 + $1 * $1 }.squareRoot()
  }

  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    let layer = WeightNorm(Dense<Double>(5, 3, seed: 1))
    layer.g.value = Tensor([[0.5], [-2], [1]])
    checkGradients(layer, inputShape: [4, 5], &generator)
    checkGradients(WeightNorm(Dense<Double>(5, 2, bias: false, seed: 2)), inputShape: [2, 3, 5], &generator)
    // So many iterations that u and v are the singular vectors for each of the differences' weights.
    checkGradients(SpectralNorm(Dense<Double>(5, 3, seed: 3), iterations: 300), inputShape: [4, 5], &generator)
    checkGradients(
      SpectralNorm(Dense<Double>(4, 1, bias: false, seed: 4), iterations: 2), inputShape: [2, 3, 4], &generator)
  }

  @Test func convolutionsTakeThem() throws {
    var generator = TestGenerator()
    for layout in [ChannelPlace.channelsFirst, .channelsLast] {
      let shape = layout == .channelsFirst ? [2, 4, 5, 3] : [2, 5, 3, 4]
      let weight = WeightNorm(
        Conv2D<Double>(4, 6, kernel: 3, stride: 2, padding: 1, groups: 2, layout: layout, seed: 1))
      #expect(weight.g.value.shape == [6, 1, 1, 1])
      checkGradients(weight, inputShape: shape, &generator)
      let spectral = SpectralNorm(
        Conv2D<Double>(4, 3, kernel: 2, bias: false, layout: layout, seed: 2), iterations: 300, seed: 3)
      #expect(spectral.v.shape == [16])
      checkGradients(spectral, inputShape: shape, &generator)
      // The differences have left the vectors of another weight.
      spectral.iterate(5000)
      let matrix = spectral.original.value.reshaped([3, 16])
      #expect(abs(spectral.sigma - (try matrix.singularValues().scalars[0])) < 1e-13)

      let model = Sequential<Double>(seed: 4) {
        WeightNorm(Conv2D(4, 8, kernel: 3, padding: 1, layout: layout))
        MeanOnlyBatchNorm(8, layout: layout)
        ReLU()
        SpectralNorm(Conv2D(8, 2, kernel: 1, layout: layout))
      }
      let x = Tensor<Double>(shape: shape, scalars: generator.normals(120, mean: 2))
      try model.startWeightNorms(from: x)
      let first = model.layers[0].forward(x).output
      let axes = layout == .channelsFirst ? [0, 2, 3] : [0, 1, 2]
      #expect((first.variance(axes: axes) - 1).absolute().max() < 1e-12)
      #expect(first.mean(axes: axes).absolute().max() < 1e-12)
      #expect((model.folded()(x) - model(x)).absolute().max() < 1e-12)
      #expect(model.folded().steps.count == 2)
    }
  }

  @Test func atTheStartTheLayerIsWhatItWas() {
    let x = Tensor<Double>.ones(shape: [2, 6])
    let (plain, normed) = (Dense<Double>(6, 4, seed: 3), WeightNorm(Dense<Double>(6, 4, seed: 3)))
    #expect((normed(x) - plain(x)).absolute().max() < 1e-14)
    #expect((normed.forward(x).output - normed(x)).absolute().max() == 0)
    #expect(normed.g.value.shape == [4, 1] && normed.parameters.map(\.decays) == [false, true, false])
    let model = Sequential([normed])
    #expect(model.parameters.map(\.name) == ["0.weight_g", "0.weight_v", "0.bias"])
  }

  @Test func startsFromData() throws {
    var generator = RandomGenerator(seed: 5)
    let model = Sequential<Double>(seed: 1) {
      WeightNorm(Dense(6, 7))
      ReLU()
      Residual { WeightNorm(Dense(7, 7, bias: false)) }
      WeightNorm(Dense(7, 3))
    }
    let x = Tensor<Double>.randomNormal(shape: [200, 6], mean: 4, standardDeviation: 3, using: &generator)
    try model.startWeightNorms(from: x)
    func evaluated(_ layer: any Layer<Double>, _ input: Tensor<Double>) -> Tensor<Double> { layer(input) }
    let first = evaluated(model.layers[0], x)
    #expect(first.mean(axis: 0).absolute().max() < 1e-12)
    #expect((first.variance(axis: 0) - 1).absolute().max() < 1e-12)
    let hidden = evaluated(model.layers[1], first)
    let branch = evaluated(model.layers[2], hidden) - hidden
    #expect((branch.variance(axis: 0) - 1).absolute().max() < 1e-12 && branch.mean(axis: 0).absolute().max() > 1e-3)
    let output = model(x)
    #expect(output.mean(axis: 0).absolute().max() < 1e-12)
    #expect((output.variance(axis: 0) - 1).absolute().max() < 1e-12)
    // What doesn't vary gives nothing to divide by, and changes nothing.
    let before = model.state.map { $0.get() }
    let error = try #require(throws: LayerError.self) {
      try model.startWeightNorms(from: .ones(shape: [5, 6]))
    }
    #expect(error.layer == "WeightNorm '0'" && error.description.contains("for output 0"))
    #expect(model.state.map { $0.get() } == before)
  }

  // MARK: Spectral normalization

  @Test func sigmaIsLAPACKs() throws {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) throws {
      var generator = TestGenerator()
      for (outputs, inputs) in [(1, 1), (1, 7), (9, 1), (4, 6), (30, 20), (65, 129), (300, 40)] {
        let w: [Scalar] = generator.normals(outputs * inputs)
        let weight = Tensor(shape: [outputs, inputs], scalars: w)
        let layer = SpectralNorm(Dense(weight: weight), startIterations: 2000, seed: 1)
        let wanted = Double(try weight.singularValues().scalars[0])
        let bound = 32 * Double(Scalar.ulpOfOne)
        #expect(abs(Double(layer.sigma) - wanted) <= bound * wanted, "\(Scalar.self) \(outputs)×\(inputs)")
        let rest = Double(try layer.weight.singularValues().scalars[0])
        #expect(abs(rest - 1) <= 2 * bound, "\(Scalar.self) \(outputs)×\(inputs)")
      }
    }
    try check(Float.self)
    try check(Double.self)
  }

  @Test func spectralNormAgainstTheReference() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for round in 0..<20 {
        let (rows, outputs, inputs) = (generator.integer(1...9), generator.integer(1...200), generator.integer(1...130))
        let w: [Scalar] = generator.normals(outputs * inputs)
        let (x, dy): ([Scalar], [Scalar]) = (generator.normals(rows * inputs), generator.normals(rows * outputs))
        var dw = [Double](repeating: 0, count: w.count)
        for row in 0..<rows {
          for place in dw.indices {
            dw[place] += Double(dy[row * outputs + place / inputs]) * Double(x[row * inputs + place % inputs])
          }
        }
        for threads in 1...3 {
          Parallel.withThreadCount(threads) {
            let layer = SpectralNorm(Dense(weight: Tensor(shape: [outputs, inputs], scalars: w)), startIterations: 3)
            let wanted = powerIteration(w: w.doubles, v: layer.v.scalars.doubles, rows: outputs)
            let (_, pullback) = layer.forward(Tensor(shape: [rows, inputs], scalars: x))
            pullback(Tensor(shape: [rows, outputs], scalars: dy))
            let label = "\(Scalar.self) \(outputs)×\(inputs) in round \(round)"
            let bound = 8e-6 * Double(Scalar.ulpOfOne) / Double(Float.ulpOfOne)
            BatchNormAccuracyTests.expectClose(layer.u.scalars, wanted.u, bound, "\(label): u")
            BatchNormAccuracyTests.expectClose(layer.v.scalars, wanted.v, bound, "\(label): v")
            BatchNormAccuracyTests.expectClose(
              layer.weight.scalars, w.doubles.map { $0 / wanted.sigma }, bound, "\(label): Ŵ")
            let gradient = spectralNormBackward(w: w.doubles, dw: dw, u: wanted.u, v: wanted.v, sigma: wanted.sigma)
            BatchNormAccuracyTests.expectClose(
              layer.original.gradient.scalars.map { Double($0) * wanted.sigma }, gradient.map { $0 * wanted.sigma },
              bound * Double(rows), "\(label): dW")
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func evaluationMovesNothing() {
    let layer = SpectralNorm(Dense<Double>(6, 4, seed: 2), startIterations: 1, seed: 3)
    let x = Tensor<Double>.ones(shape: [2, 6])
    let (u, y) = (layer.u, layer(x))
    #expect(layer(x) == y && layer.u == u)
    _ = layer.forward(x)
    #expect(layer.u != u)
  }

  // MARK: Both

  @Test func foldsToPlainWeights() {
    var generator = RandomGenerator(seed: 9)
    let model = Sequential<Double>(seed: 1) {
      WeightNorm(Dense(6, 5))
      BatchNorm(5)
      ReLU()
      SpectralNorm(Dense(5, 4))
      WeightNorm(Dense(4, 4, bias: false))
      MeanOnlyBatchNorm(4)
      Tanh()
    }
    for _ in 0..<5 { _ = model.forward(.randomNormal(shape: [16, 6], using: &generator)) }
    let x = Tensor<Double>.randomNormal(shape: [9, 6], using: &generator)
    let folded = model.folded()
    #expect(folded.steps.count == 3 && (folded(x) - model(x)).absolute().max() < 1e-12)
  }

  @Test func zeroWeightsAreErrorsThatNameTheLayer() async throws {
    let zeros = Tensor<Float>([[1, 2], [0, 0], [3, 4]])
    let spectral = SpectralNorm(Dense<Float>(weight: .zeros(shape: [2, 3])))
    let model = Sequential<Float>([WeightNorm(Dense(weight: zeros)), spectral])
    let first = try #require(throws: LayerError.self) { try model.outputShape(for: [4, 2], training: false) }
    #expect(first.layer == "WeightNorm '0'" && first.found == "zeros for output 1")
    let second = try #require(throws: LayerError.self) {
      try model.layers[1].outputShape(for: [4, 3], training: true)
    }
    #expect(second.layer == "SpectralNorm '1'" && second.found == "zeros")
    let weight = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = WeightNorm(Dense(weight: Tensor<Float>([[0, 0], [1, 2]]))).forward(.ones(shape: [1, 2]))
    }
    #expect(errorText(weight).contains("zeros for output 0"))
    let stopped = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = SpectralNorm(Dense(weight: Tensor<Float>.zeros(shape: [2, 2])))(.ones(shape: [1, 2]))
    }
    #expect(errorText(stopped).contains("largest singular value"))
    let late = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let layer = WeightNorm(Dense<Float>(2, 2))
      let (_, pullback) = layer.forward(.ones(shape: [1, 2]))
      layer.v.value = .ones(shape: [2, 2])
      pullback(.ones(shape: [1, 2]))
    }
    #expect(errorText(late).contains("before the weight changes"))
  }

  @Test func filesWithEitherNamesAreRead() throws {
    func network(_ seed: UInt64, _ keys: NormalizedWeightKeys) -> Sequential<Float> {
      Sequential(seed: seed) {
        WeightNorm(Dense(6, 5), keys: keys)
        SpectralNorm(Dense(5, 4), keys: keys)
      }
    }
    let folder = TemporaryFolder()
    let x = Tensor<Float>.ones(shape: [2, 6])
    for written in [NormalizedWeightKeys.parametrizations, .hooks] {
      for read in [NormalizedWeightKeys.parametrizations, .hooks] {
        let (model, other) = (network(1, written), network(2, read))
        try model.save(to: folder("model"))
        try other.load(from: folder("model"))
        #expect(other(x) == model(x) && other.forward(x).output == model.forward(x).output)
      }
    }
    #expect(
      network(1, .parametrizations).state.map(\.key) == [
        "0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1", "1.bias",
        "1.parametrizations.weight.original", "1.parametrizations.weight.0._u", "1.parametrizations.weight.0._v",
      ])
    #expect(
      network(1, .hooks).state.map(\.key) == [
        "0.bias", "0.weight_g", "0.weight_v", "1.bias", "1.weight_orig", "1.weight_u", "1.weight_v",
      ])
    // A file that lacks a name is refused by the name that the model writes.
    let plain = Sequential<Float>([Dense(6, 5), Dense(5, 4)])
    try plain.save(to: folder("plain"))
    let error = try #require(throws: CheckpointError.self) { try network(1, .hooks).load(from: folder("plain")) }
    #expect(error.description.contains("'0.weight_g' [5, 1] is missing"))
  }

  /// PyTorch's parametrizations; Golden/make_golden.py writes what is read here.
  @Test func areWhatPyTorchMakes() throws {
    try checkGolden("weight-dense") { WeightNorm(Dense<Float>(6, 4), keys: $0) }
    try checkGolden("weight-dense") { WeightNorm(Dense<Double>(6, 4), keys: $0) }
    try checkGolden("spectral-dense") { SpectralNorm(Dense<Float>(6, 4), keys: $0) }
    try checkGolden("spectral-dense") { SpectralNorm(Dense<Double>(6, 4), keys: $0) }
    try checkGolden("weight-convolution") { WeightNorm(Conv2D<Float>(3, 4, kernel: 3, padding: 1), keys: $0) }
    try checkGolden("weight-convolution") { WeightNorm(Conv2D<Double>(3, 4, kernel: 3, padding: 1), keys: $0) }
    try checkGolden("spectral-convolution") { SpectralNorm(Conv2D<Float>(3, 4, kernel: 3, padding: 1), keys: $0) }
    try checkGolden("spectral-convolution") { SpectralNorm(Conv2D<Double>(3, 4, kernel: 3, padding: 1), keys: $0) }
  }

  private func checkGolden<L: Layer>(_ name: String, _ make: (NormalizedWeightKeys) -> L) throws {
    let type = L.Scalar.self == Float.self ? "float" : "double"
    let path = try #require(
      Bundle.module.path(forResource: "torch-weights-\(type)", ofType: "safetensors", inDirectory: "Golden"))
    let file = try SafetensorsFile(path)
    func expect(_ actual: Tensor<L.Scalar>, _ what: String) throws {
      let expected: Tensor<L.Scalar> = try file.tensor(named: "\(name).\(what)")
      let size = max(expected.absolute().max(), 1e-3)
      let worst = (actual - expected).absolute().max() / size
      #expect(actual.shape == expected.shape && worst <= 32 * L.Scalar.ulpOfOne, "\(name) \(type) \(what): \(worst)")
    }
    for (keys, state) in [(NormalizedWeightKeys.parametrizations, "before"), (.hooks, "hooks")] {
      let layer = make(keys)
      let prefix = "\(name).\(state)."
      let before = try CheckpointValues(file, layer.state, prefix: prefix, where: { $0.hasPrefix(prefix) })
      #expect(before.differences.isEmpty, "\(before.differences)")
      before.apply()
      let (output, pullback) = layer.forward(try file.tensor(named: "\(name).input"))
      try expect(output, "output")
      try expect(pullback(try file.tensor(named: "\(name).output_gradient")), "gradient.input")
      let names = [
        "weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1",
        "weight_orig": "parametrizations.weight.original", "bias": "bias",
      ]
      for parameter in layer.parameters { try expect(parameter.gradient, "gradient.\(names[parameter.name]!)") }
      for entry in make(.parametrizations).state.indices {
        guard case .tensor(let value) = layer.state[entry].get() else { continue }
        try expect(value, "after.\(make(.parametrizations).state[entry].key)")
      }
      try expect(layer(try file.tensor(named: "\(name).input")), "evaluation")
    }
  }
}
