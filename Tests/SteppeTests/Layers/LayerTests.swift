import Reference
import Steppe
import Testing

@Suite struct LayerTests {
  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    checkGradients(Dense<Double>(5, 3, seed: 1), inputShape: [4, 5], &generator)
    checkGradients(Dense<Double>(5, 3, bias: false, seed: 2), inputShape: [2, 3, 5], &generator)
    checkGradients(Dense<Double>(1, 1, seed: 2), inputShape: [1, 1], &generator)
    for layer in [ReLU<Double>(), LeakyReLU(slope: 0.2), Sigmoid(), Tanh(), GELU(), GELU(approximate: true), SiLU()] {
      checkGradients(layer, inputShape: [3, 7], &generator)
    }
    checkGradients(Flatten<Double>(), inputShape: [2, 3, 4], &generator)
    checkGradients(Unflatten<Double>([3, 1, 4]), inputShape: [2, 12], &generator)
    let dropout = Dropout<Double>(0.4, seed: 9)
    let start = dropout.generator
    checkGradients(dropout, inputShape: [6, 5], &generator) { dropout.generator = start }
    let network = Sequential<Double>(seed: 4) {
      Flatten()
      Dense(6, 5, bias: false)
      BatchNorm(5)
      SiLU()
      Residual {
        Dense(5, 5)
        Tanh()
      }
      Dense(5, 2)
    }
    checkGradients(network, inputShape: [7, 3, 2], &generator)
  }

  @Test func aSummaryNamesEveryLayerAndItsParameters() {
    let network = Sequential<Float>(seed: 4) {
      Dense(6, 5, bias: false)
      BatchNorm(5)
      Residual { Dense(5, 5) }
      ReLU()
      WeightNorm(Dense(5, 12))
    }
    network.layers[0].parameters[0].isTrainable = false
    #expect(
      "\(network)" == """
        Sequential, 154 numbers in 8 parameters
          0    Dense       weight [5, 6] (fixed)
          1    BatchNorm   gamma [5], beta [5]
          2    Residual
          2.0  Dense       weight [5, 5], bias [5]
          3    ReLU
          4    WeightNorm  weight_g [12, 1]
          4    Dense       weight_v [12, 5], bias [12]
        """)
    #expect(Dense<Float>(2, 3).summary == "Dense, 9 numbers in 2 parameters\n    Dense  weight [3, 2], bias [3]")
    // Layers that share a parameter count it once.
    let shared = Dense<Float>(2, 2, bias: false)
    #expect(Sequential<Float>([shared, shared]).summary.hasPrefix("Sequential, 4 numbers in 1 parameter\n"))
  }

  @Test func rowsBecomeImages() throws {
    let layer = Unflatten<Float>([2, 1, 3])
    let x = Tensor<Float>(shape: [2, 6], scalars: (0..<12).map(Float.init))
    #expect(layer(x) == x.reshaped([2, 2, 1, 3]) && layer.folded()(x) == layer(x))
    layer.name = "0"
    let error = #expect(throws: LayerError.self) { try layer.outputShape(for: [2, 7], training: false) }
    #expect(error?.description == "Unflatten '0': expected an input of shape [N, 6], got [2, 7]")
  }

  @Test func denseAgainstTheReference() {
    var generator = TestGenerator()
    for _ in 0..<20 {
      let (n, k, m) = (generator.integer(1...40), generator.integer(1...300), generator.integer(1...40))
      let x: [Float] = generator.normals(n * k)
      let (w, b): ([Float], [Float]) = (generator.normals(m * k), generator.normals(m))
      let layer = Dense(weight: Tensor(shape: [m, k], scalars: w), bias: Tensor(b))
      let y = layer(Tensor(shape: [n, k], scalars: x)).scalars
      #expect(layer.forward(Tensor(shape: [n, k], scalars: x)).output.scalars == y)
      for row in 0..<n {
        for output in 0..<m {
          var (sum, size) = (Double(b[output]), abs(Double(b[output])))
          for inner in 0..<k {
            let term = Double(x[row * k + inner]) * Double(w[output * k + inner])
            sum += term
            size += abs(term)
          }
          #expect(abs(Double(y[row * m + output]) - sum) <= 4e-6 * size, "\(n)×\(k)×\(m)")
        }
      }
    }
  }

  @Test func startsHaveTheirMoments() {
    func spread(_ initialization: WeightInitialization) -> (mean: Float, deviation: Float, greatest: Float) {
      let w = Dense<Float>(300, 200, initialization: initialization, seed: 7).weight.value
      return (w.mean(), w.standardDeviation(), w.absolute().max())
    }
    let (inputs, both): (Float, Float) = (300, 500)
    for (initialization, deviation) in [
      (WeightInitialization.heNormal, (2 / inputs).squareRoot()), (.glorotNormal, (2 / both).squareRoot()),
      (.heUniform, (2 / inputs).squareRoot()), (.glorotUniform, (2 / both).squareRoot()),
      (.torchDefault, (1 / (3 * inputs)).squareRoot()), (.normal(standardDeviation: 0.5), 0.5),
    ] {
      let found = spread(initialization)
      // 60,000 draws: the deviation's own is about 0.3 %.
      #expect(abs(found.deviation / deviation - 1) < 0.02, "\(initialization)")
      #expect(abs(found.mean) < 0.02 * deviation, "\(initialization)")
    }
    #expect(spread(.heUniform).greatest <= (6 / inputs).squareRoot() && spread(.zeros).greatest == 0)
  }

  @Test func theSameSeedTheSameNetwork() {
    func network(_ seed: UInt64?) -> [Tensor<Float>] {
      Sequential<Float>(seed: seed) {
        for size in [8, 8] { Dense(size, 8) }
        Residual { Dense(8, 8) }
        Dropout(0.5)
      }.parameters.map(\.value)
    }
    #expect(network(3) == network(3) && network(3) != network(4) && network(nil) != network(nil))
    #expect(network(3)[0] != network(3)[2], "layers of one network differ")
  }

  @Test func namesArePyTorchs() {
    let model = Sequential<Float> {
      Dense(4, 3, bias: false)
      BatchNorm(3)
      ReLU()
      Sequential {
        Dense(3, 2)
      }
    }
    #expect(model.parameters.map(\.name) == ["0.weight", "1.gamma", "1.beta", "3.0.weight", "3.0.bias"])
    #expect(
      model.state.map(\.key) == [
        "0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked", "3.0.weight",
        "3.0.bias",
      ])
    #expect(model.parameters.filter(\.decays).map(\.name) == ["0.weight", "3.0.weight"])
  }

  @Test func dropoutKeepsTheMeanInTrainingAndAllInEvaluation() {
    let layer = Dropout<Float>(0.25, seed: 1)
    let x = Tensor<Float>.ones(shape: [200, 500])
    let y = layer.forward(x).output
    #expect(abs(y.mean() - 1) < 0.01 && Set(y.scalars) == [0, Float(1 / 0.75)])
    #expect(layer(x) == x && layer.folded()(x) == x)
    #expect(layer.forward(x).output != y, "each pass draws anew")
  }

  @Test func severalTasksCallOneFoldedModel() async {
    let model = Sequential<Float>(seed: 1) {
      Dense(20, 30, bias: false)
      BatchNorm(30)
      ReLU()
      Dense(30, 4)
    }
    var generator = RandomGenerator(seed: 2)
    let x = Tensor<Float>.randomNormal(shape: [64, 20], using: &generator)
    _ = model.forward(x)
    let folded = model.folded()
    let expected = folded(x)
    let allEqual = await withTaskGroup(of: Bool.self) { group in
      for _ in 0..<16 { group.addTask { (0..<50).allSatisfy { _ in folded(x) == expected } } }
      return await group.reduce(true) { $0 && $1 }
    }
    #expect(allEqual)
    _ = model.forward(x * 5)
    #expect(folded(x) == expected, "later training does not change it")
  }

  @Test func shapesThatDoNotFitStopWithBoth() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float> { Dense(4, 3) }(.ones(shape: [2, 5]))
    }
    let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(message.contains("Dense '0'") && message.contains("[N, …, 4]") && message.contains("[2, 5]"))
    let empty = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Dense<Float>(weight: .zeros(shape: [3, 0]))
    }
    #expect(errorText(empty).contains("[3, 0]"))
    let gradient = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      Sequential<Float> { Dense(4, 3) }.forward(.ones(shape: [2, 4])).pullback(.ones(shape: [2, 4]))
    }
    let second = String(decoding: gradient?.standardErrorContent ?? [], as: UTF8.self)
    #expect(second.contains("[2, 3]") && second.contains("[2, 4]"))
  }

  @Test func aLayerOfOnesOwnNeedsOnlyTheRequirements() throws {
    // A user's layer needs no more than the protocol's three requirements.
    final class Doubling: Layer {
      typealias Scalar = Float
      var name = ""
      func callAsFunction(_ input: Tensor<Float>) -> Tensor<Float> { input * 2 }
      func forward(_ input: Tensor<Float>) -> (output: Tensor<Float>, pullback: Pullback<Float>) {
        (self(input), Pullback(shape: input.shape) { dy, _ in dy * 2 })
      }
      var inferenceSteps: [InferenceStep<Float>] { [.function { $0 * 2 }] }
    }
    let model = Sequential<Float> {
      Doubling()
      Dense(2, 2, seed: 1)
    }
    let x = Tensor<Float>([[1, 2]])
    #expect(model.folded()(x) == model(x) && model.layers[0].name == "0")
    #expect(try model.outputShape(for: [1, 2], training: true) == [1, 2])
  }
}
