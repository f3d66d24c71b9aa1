import Foundation
import Reference
import Testing

import Steppe

extension TrainingTests {
  /// Our layers, optimizers and files against PyTorch's; Golden/make_golden.py writes what is read here.
  @Suite struct TorchTests {
    private func golden(_ name: String) throws -> SafetensorsFile {
      let path = try #require(
        Bundle.module.path(forResource: name, ofType: "safetensors", inDirectory: "Golden"))
      return try SafetensorsFile(path)
    }

    private func network<Scalar: TensorScalar>(_: Scalar.Type = Scalar.self) -> Sequential<Scalar> {
      Sequential(seed: 1) {
        Dense(6, 8)
        BatchNorm(8)
        ReLU()
        Dense(8, 4)
      }
    }

    /// Expects values within `units` of the type's epsilon, at the size of the tensor's greatest element.
    private func expect<Scalar: TensorScalar>(
      _ actual: Tensor<Scalar>, _ name: String, in file: SafetensorsFile, units: Double,
      sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
      let expected: Tensor<Scalar> = try file.tensor(named: name)
      #expect(actual.shape == expected.shape, sourceLocation: sourceLocation)
      let size = Double(max(expected.absolute().max(), .leastNormalMagnitude))
      let worst = worstError(
        actual.scalars, expected.scalars.map { Double($0) }, magnitude: Array(repeating: size, count: expected.count))
      #expect(worst.ulps <= units, "\(name): \(worst)", sourceLocation: sourceLocation)
    }

    private func check<Scalar: TensorScalar>(
      _ name: String, _ model: Sequential<Scalar>, _ optimizer: some Optimizer<Scalar>
    ) throws {
      let file = try golden(name)
      let before = try CheckpointValues(file, model.state, prefix: "before.", where: { $0.hasPrefix("before.") })
      #expect(before.differences.isEmpty)
      before.apply()
      let input: Tensor<Scalar> = try file.tensor(named: "input")
      let labels = try file.integers(named: "labels")
      for step in 0..<3 {
        let (logits, pullback) = model.forward(input)
        let (loss, gradient) = softmaxCrossEntropy(logits, labels)
        let dx = pullback(gradient)
        if step == 0 {
          try expect(logits, "training", in: file, units: 8)
          try expect(Tensor(loss), "loss", in: file, units: 4)
          try expect(dx, "gradient.input", in: file, units: 32)
          for entry in zip(["0.weight", "1.weight", "1.bias", "3.weight", "3.bias"], [0, 2, 3, 4, 5]) {
            try expect(model.parameters[entry.1].gradient, "gradient." + entry.0, in: file, units: 32)
          }
          // Batch norm takes out the mean, and with it this bias: its gradient is rounding alone, measured by the weight's.
          let bias: Tensor<Scalar> = try file.tensor(named: "gradient.0.bias")
          let noise = (model.parameters[1].gradient - bias).absolute().max()
          #expect(noise <= 32 * Scalar.ulpOfOne * model.parameters[0].gradient.absolute().max())
        }
        optimizer.step()
      }
      // Adam divides the first bias's rounding by itself: what comes of it depends on the rounding, and batch norm hides it.
      let isAdam = optimizer is Adam<Scalar>
      for entry in model.state where !(isAdam && ["0.bias", "1.running_mean"].contains(entry.key)) {
        switch entry.get() {
        case .tensor(let value): try expect(value, "after." + entry.key, in: file, units: 64)
        case .integer(let value): #expect(try file.integers(named: "after." + entry.key) == [value])
        }
      }
      if !isAdam { try expect(model(input), "evaluation", in: file, units: 64) }
    }

    @Test func sgd() throws {
      let single = network(Float.self)
      try check("torch-sgd-float", single, SGD(single.parameters, learningRate: 0.1, momentum: 0.9, weightDecay: 0.01))
      let double = network(Double.self)
      try check("torch-sgd-double", double, SGD(double.parameters, learningRate: 0.1, momentum: 0.9, weightDecay: 0.01))
    }

    @Test func adamW() throws {
      let single = network(Float.self)
      try check("torch-adamw-float", single, AdamW(single.parameters, learningRate: 0.01, weightDecay: 0.1))
      let double = network(Double.self)
      try check("torch-adamw-double", double, AdamW(double.parameters, learningRate: 0.01, weightDecay: 0.1))
    }

    @Test func readsAndWritesPyTorchsFiles() throws {
      let folder = TemporaryFolder()
      let file = try golden("torch-state")
      let model = network(Float.self)
      try model.load(from: file.path)
      let sgd = try golden("torch-sgd-float")
      for name in file.names where file.elementType(of: name) == .float32 {
        #expect(try file.tensor(named: name, as: Float.self) == sgd.tensor(named: "before." + name))
      }
      #expect(
        model.state.map(\.key) == [
          "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
          "1.num_batches_tracked", "3.weight", "3.bias",
        ])
      #expect(model.state[6].get() == .integer(3))
      try model.save(to: folder("ours"))
      let ours = try SafetensorsFile(folder("ours"))
      #expect(Set(ours.names) == Set(file.names))
      for name in file.names {
        #expect(
          ours.shape(of: name) == file.shape(of: name) && ours.elementType(of: name) == file.elementType(of: name))
      }
    }
  }
}
