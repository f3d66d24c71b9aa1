import Steppe
import SteppeExperiments
import Testing

@Suite struct LossPlaneTests {
  @Test func directionsHaveTheNormsOfTheUnits() {
    var generator = RandomGenerator(seed: 3)
    let model = Sequential<Double> {
      Dense(5, 4)
      BatchNorm(4)
      Dense(4, 3)
    }
    let before = model.parameters.map(\.value)
    let plane = LossPlane(model, using: &generator)
    var seen: [[Tensor<Double>]] = []
    let losses = plane.losses(reach: 2, steps: 3, progress: { _ in }) { _ in
      seen.append(model.parameters.map(\.value))
      return Double(seen.count)
    }
    #expect(losses.map(\.loss) == (1...9).map(Double.init))
    #expect(
      losses.map(\.first) == [-2, 0, 2, -2, 0, 2, -2, 0, 2] && losses.map(\.second) == [-2, -2, -2, 0, 0, 0, 2, 2, 2])
    // Afterwards, and in the middle, the model is what it was.
    #expect(zip(model.parameters, before).allSatisfy { $0.value == $1 } && zip(seen[4], before).allSatisfy { $0 == $1 })
    for (index, value) in before.enumerated() {
      let moved = seen[5][index] - value
      guard value.rank == 2 else {
        #expect(moved == .zeros(shape: value.shape))
        continue
      }
      for row in 0..<value.shape[0] {
        #expect(abs(moved[row].norm() - 2 * value[row].norm()) < 1e-12)
      }
    }
  }

  @Test func anyTwoDirectionsSpanAPlane() {
    let model = Dense<Double>(weight: Tensor([[1, 2]]))
    let plane = LossPlane(model, first: [Tensor([[1, 0]])], second: [Tensor([[0.5, 2]])])
    let losses = plane.losses(reach: 1, steps: 3, progress: { _ in }) { model in
      let weight = LossPlane.weights(of: model)[0]
      return 100 * weight[0, 0] + weight[0, 1]
    }
    for place in losses {
      #expect(place.loss == 100 * (1 + place.first + 0.5 * place.second) + 2 + 2 * place.second)
    }
  }

  @Test func placesAreEvenAndHoldTheOrigin() {
    #expect(LossPlane<Float>.places(reach: 1, steps: 5) == [-1, -0.5, 0, 0.5, 1])
    #expect(LossPlane<Float>.places(reach: 1, steps: 1) == [0])
  }

  @Test func shownStepsAreAllAtFirstThenFewer() {
    #expect(SurfaceExperiment.shownSteps(3) == [0, 1, 2, 3])
    let steps = SurfaceExperiment.shownSteps(100_000)
    #expect(steps.prefix(201) == Array(0...200)[...] && steps.last == 100_000 && steps.count < 520)
    #expect(zip(steps, steps.dropFirst()).allSatisfy { $0 < $1 })
  }
}
