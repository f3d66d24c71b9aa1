import Reference
import Steppe
import Testing

@Suite struct NetworksTests {
  @Test func theResidualNetworkIsThePapers() throws {
    let model = Sequential<Float>.resNet(seed: 1)
    // 0.27 million, the paper's table 6; the two projections have 2752 of them.
    #expect(model.parameters.reduce(0) { $0 + $1.value.count } == 269_722 + 2752)
    #expect(try model.outputShape(for: [2, 3, 32, 32], training: true) == [2, 10])
    #expect(model.layers.count == 3 + 9 + 3)
    let keys = model.state.map(\.key)
    #expect(keys.contains("3.0.weight") && keys.contains("6.shortcut.1.running_mean") && keys.contains("14.bias"))
    let deeper = Sequential<Float>.resNet(depth: 32, channels: 1, classes: 7, width: 8)
    #expect(try deeper.outputShape(for: [2, 1, 5, 9], training: false) == [2, 7] && deeper.layers.count == 21)
    #expect(try Sequential<Float>.vgg(channels: 1).outputShape(for: [2, 1, 28, 28], training: true) == [2, 10])
  }

  /// A fixed seed: where a ReLU's input is by chance within the step of 0, differences say nothing.
  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator(fixed: "networks")
    checkGradients(
      Sequential<Double>.resNet(depth: 8, channels: 2, classes: 3, width: 2, seed: 3), inputShape: [3, 2, 6, 5],
      &generator)
    checkGradients(
      Sequential<Double>.vgg(
        stages: [[2], [3, 2]], channels: 1, classes: 3, layout: .channelsLast, seed: 4), inputShape: [3, 5, 6, 1],
      &generator)
  }

  /// The same weights on the same images, whose channels stand last.
  private func checkLayouts(_ make: (ChannelPlace) -> Sequential<Float>, _ generator: inout TestGenerator) {
    let (first, last) = (make(.channelsFirst), make(.channelsLast))
    let images = Tensor<Float>(shape: [4, 2, 12, 10], scalars: generator.normals(960))
    let moved = images.transposed([0, 2, 3, 1])
    let dy = Tensor<Float>(shape: [4, 5], scalars: generator.normals(20))
    for _ in 0..<2 {
      let (one, onePullback) = first.forward(images)
      let (two, twoPullback) = last.forward(moved)
      #expect((one - two).absolute().max() <= 2e-5 * one.absolute().max())
      let (slope, movedSlope) = (onePullback(dy), twoPullback(dy).transposed([0, 3, 1, 2]))
      #expect((slope - movedSlope).absolute().max() <= 1e-4 * slope.absolute().max())
    }
    for (a, b) in zip(first.parameters, last.parameters) {
      let size = max(1e-2, a.gradient.absolute().max())
      #expect((a.gradient - b.gradient).absolute().max() <= 1e-4 * size, "\(a.name)")
    }
    #expect((first(images) - last(moved)).absolute().max() <= 2e-5 * first(images).absolute().max())
    for (model, input) in [(first, images), (last, moved)] {
      let expected = model(input)
      #expect((model.folded()(input) - expected).absolute().max() <= 2e-5 * max(1, expected.absolute().max()))
    }
  }

  @Test func channelsLastGivesTheSame() {
    var generator = TestGenerator()
    for threads in [1, 2, 3] {
      Parallel.withThreadCount(threads) {
        checkLayouts({ .resNet(depth: 8, channels: 2, classes: 5, width: 6, layout: $0, seed: 1) }, &generator)
        checkLayouts({ .vgg(stages: [[5, 4], [9]], channels: 2, classes: 5, layout: $0, seed: 1) }, &generator)
      }
    }
  }

  @Test func foldedNetworksHoldNoNormalization() {
    func holdsNormalization(_ steps: [InferenceStep<Float>]) -> Bool {
      steps.contains {
        switch $0 {
        case .normalize: true
        case .residual(let branch, let shortcut, _): holdsNormalization(branch) || holdsNormalization(shortcut)
        default: false
        }
      }
    }
    #expect(!holdsNormalization(Sequential<Float>.resNet(channels: 1).folded().steps))
    #expect(!holdsNormalization(Sequential<Float>.vgg(channels: 1).folded().steps))
  }

  @Test func depthsThatMakeNoNetworkStop() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Sequential<Float>.resNet(depth: 21)
    }
    #expect(errorText(result).contains("expected a depth of 6n + 2, such as 20, got 21"))
  }
}
