import Reference
import Steppe
import Testing

@Suite struct ResidualTests {
  /// A block of every kind: with and without a projection, its sum fused with a batch norm or not.
  private static func blocks<Scalar: TensorScalar>(_ type: Scalar.Type = Scalar.self) -> [(String, Residual<Scalar>)] {
    func seeded(_ make: () -> Residual<Scalar>) -> Residual<Scalar> {
      Sequential<Scalar>(seed: 5) { make() }.layers[0] as! Residual<Scalar>
    }
    return [
      ("identity", seeded { Residual { Dense(6, 6) } }),
      (
        "fused",
        seeded {
          Residual(activation: .relu) {
            Dense(6, 6, bias: false)
            BatchNorm(6)
          }
        }
      ),
      (
        "fused projection",
        seeded {
          Residual(activation: .relu) {
            Dense(6, 5, bias: false)
            BatchNorm(5)
            ReLU()
            Dense(5, 4, bias: false)
            BatchNorm(4)
          } shortcut: {
            Dense(6, 4, bias: false)
            BatchNorm(4)
          }
        }
      ),
      (
        "projection and ReLU",
        seeded {
          Residual(activation: .relu) {
            Dense(6, 4)
            Tanh()
          } shortcut: {
            Dense(6, 4)
          }
        }
      ),
      (
        "another activation",
        seeded {
          Residual(activation: .gelu) {
            Dense(6, 4)
            BatchNorm(4)
          } shortcut: {
            Dense(6, 4)
          }
        }
      ),
      (
        "an empty branch",
        seeded {
          Residual(activation: .silu) {
          } shortcut: {
            Dense(6, 6)
          }
        }
      ),
    ]
  }

  @Test func gradientsEqualCentralDifferences() {
    var generator = TestGenerator()
    for (_, block) in Self.blocks(Double.self) { checkGradients(block, inputShape: [7, 6], &generator) }
    for (_, block) in Self.blocks(Double.self) {
      checkGradients(
        Sequential([Dense<Double>(6, 6, seed: 2), block, ReLU()]), inputShape: [5, 6], &generator)
    }
  }

  /// The block by its layers: the activation of the shortcut's output and the branch's.
  @Test func equalsItsLayers() {
    var generator = TestGenerator()
    let input = Tensor<Float>(shape: [9, 6], scalars: generator.normals(54))
    for ((label, block), (_, other)) in zip(Self.blocks(Float.self), Self.blocks(Float.self)) {
      let output = block.forward(input).output
      let base = other.shortcut?.forward(input).output ?? input
      let sum = base + other.branch.forward(input).output
      let expected = other.activation(sum)
      #expect((output - expected).absolute().max() <= 1e-6, "\(label): training")
      #expect(block.state.map(\.key) == other.state.map(\.key))
      // Training has moved both blocks' statistics alike.
      let evaluated = block.activation((other.shortcut?(input) ?? input) + other.branch(input))
      #expect((block(input) - evaluated).absolute().max() <= 1e-6, "\(label): evaluation")
      #expect((block.folded()(input) - evaluated).absolute().max() <= 1e-5, "\(label): folded")
      let behind = Sequential([block, GELU()])
      let difference = behind.folded()(input) - behind(input)
      #expect(difference.absolute().max() <= 1e-5, "\(label): folded, an activation behind")
    }
  }

  @Test func aShortcutThatDoesNotTrainGetsNoGradient() {
    let block =
      Sequential<Float>(seed: 1) {
        Residual(activation: .relu) {
          Dense(3, 2)
          BatchNorm(2)
        } shortcut: {
          Dense(3, 2)
        }
      }.layers[0] as! Residual<Float>
    for parameter in block.branch.parameters { parameter.isTrainable = false }
    let (output, pullback) = block.forward(Tensor([[1, 2, 3], [3, 1, -1], [0, 0, 2]]))
    pullback.accumulate(.ones(shape: output.shape))
    #expect(block.branch.parameters.allSatisfy { $0.gradient.absolute().max() == 0 })
    #expect(block.shortcut!.parameters.allSatisfy { $0.gradient.absolute().max() > 0 })
  }

  @Test func namesAndFiles() throws {
    let folder = TemporaryFolder()
    func network(_ seed: UInt64) -> Sequential<Float> {
      Sequential<Float>(seed: seed) {
        Dense(6, 6)
        Residual(activation: .relu) {
          Dense(6, 4, bias: false)
          BatchNorm(4)
        } shortcut: {
          Dense(6, 4, bias: false)
          BatchNorm(4)
          Dropout(0.5)
        }
        Dropout(0.5)
      }
    }
    let (one, two) = (network(1), network(2))
    #expect(
      one.parameters.map(\.name) == [
        "0.weight", "0.bias", "1.0.weight", "1.1.gamma", "1.1.beta", "1.shortcut.0.weight", "1.shortcut.1.gamma",
        "1.shortcut.1.beta",
      ])
    #expect(
      one.state.map(\.key) == [
        "0.weight", "0.bias", "1.0.weight", "1.1.weight", "1.1.bias", "1.1.running_mean", "1.1.running_var",
        "1.1.num_batches_tracked", "1.shortcut.0.weight", "1.shortcut.1.weight", "1.shortcut.1.bias",
        "1.shortcut.1.running_mean", "1.shortcut.1.running_var", "1.shortcut.1.num_batches_tracked",
      ])
    let x = Tensor<Float>.ones(shape: [3, 6])
    _ = one.forward(x)
    try one.save(to: folder("model"))
    #expect(one(x) != two(x))
    try two.load(from: folder("model"))
    #expect(one(x) == two(x))
    two.randomGenerators = one.randomGenerators
    #expect(one.randomGenerators.count == 2 && one.forward(x).output == two.forward(x).output)
  }

  @Test func shapesThatDoNotFitAreNamed() {
    func message(_ block: Residual<Float>) -> String {
      block.name = "4"
      do throws(LayerError) { return "\(try block.outputShape(for: [3, 6], training: true))" } catch {
        return error.description
      }
    }
    #expect(
      message(Residual { Dense(6, 4) }) == "Residual '4': expected a branch that keeps the shape [3, 6], got [3, 4]")
    let projected = Residual<Float> {
      Dense(6, 4)
    } shortcut: {
      Dense(6, 5)
    }
    #expect(
      message(projected)
        == "Residual '4': expected a branch whose output has the shortcut's shape [3, 5], got [3, 4]")
    let inner = Residual<Float> {
      Dense(6, 4)
    } shortcut: {
      Dense(5, 4)
    }
    #expect(message(inner) == "Dense '4.shortcut.0': expected an input of shape [N, …, 5], got [3, 6]")
  }
}
