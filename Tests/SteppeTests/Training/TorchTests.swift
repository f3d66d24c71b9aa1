import Foundation
import Reference
import Testing

import Steppe

extension TrainingTests {
  /// Our layers, optimizers and files against PyTorch's; Golden/make_golden.py writes what is read here.
  @Suite struct TorchTests {
    func golden(_ name: String) throws -> SafetensorsFile {
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
    func expect<Scalar: TensorScalar>(
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

    private func checkPooling<Scalar: TensorScalar>(_ name: String, _: Scalar.Type) throws {
      let file = try golden(name)
      let mean = PoolingGeometry(
        kernel: Extent2D(rows: 3, columns: 2), stride: Extent2D(rows: 1, columns: 3),
        padding: Extent2D(rows: 1, columns: 1))
      let dilated = PoolingGeometry(
        kernel: Extent2D(rows: 2, columns: 3), stride: Extent2D(rows: 1, columns: 1),
        dilation: Extent2D(rows: 2, columns: 2))
      let layers: [(String, any Layer<Scalar>)] = [
        ("max", MaxPool2D(kernel: 3, stride: 2, padding: 1)), ("max-dilated", MaxPool2D(dilated)),
        ("mean", AveragePool2D(kernel: 3, stride: 2, padding: 1)),
        ("mean-inside", AveragePool2D(mean, countsPadding: false)), ("global", GlobalAveragePool()),
      ]
      for (label, layer) in layers {
        for (input, suffix, slope) in [("images", ".output", ".input"), ("nan", ".nan", ".nan.input")] {
          let (output, pullback) = layer.forward(try file.tensor(named: input))
          let expected: Tensor<Scalar> = try file.tensor(named: label + suffix)
          let dy: Tensor<Scalar> = try file.tensor(named: label + ".gradient")
          let error = worstError(
            output.scalars, expected.scalars.map { Double($0) }, magnitude: Array(repeating: 1, count: expected.count))
          #expect(error.ulps <= 4, "\(name): \(label)\(suffix): \(error)")
          try expect(pullback(dy.reshaped(output.shape)), label + slope, in: file, units: 4)
        }
      }
    }

    @Test func poolings() throws {
      try checkPooling("torch-pooling-float", Float.self)
      try checkPooling("torch-pooling-double", Double.self)
    }

    /// A residual network in training, with a projection and without: values, gradients and what three steps make of it.
    private func checkResidual<Scalar: TensorScalar>(_ name: String, _: Scalar.Type) throws {
      func block(_ inputs: Int, _ outputs: Int, stride: Int) -> [any Layer<Scalar>] {
        [
          Conv2D<Scalar>(inputs, outputs, kernel: 3, stride: stride, padding: 1, bias: false),
          BatchNorm<Scalar>(outputs), ReLU<Scalar>(),
          Conv2D<Scalar>(outputs, outputs, kernel: 3, padding: 1, bias: false), BatchNorm<Scalar>(outputs),
        ]
      }
      let model = Sequential<Scalar>(seed: 1) {
        Conv2D(2, 4, kernel: 3, padding: 1, bias: false)
        BatchNorm(4)
        ReLU()
        Residual(activation: .relu) { block(4, 4, stride: 1) }
        Residual(activation: .relu) {
          block(4, 6, stride: 2)
        } shortcut: {
          Conv2D(4, 6, kernel: 1, stride: 2, bias: false)
          BatchNorm(6)
        }
        GlobalAveragePool()
        Flatten()
        Dense(6, 5)
      }
      let optimizer = SGD(model.parameters, learningRate: 0.05, momentum: 0.9, weightDecay: 0.01)
      let file = try golden(name)
      let before = try CheckpointValues(file, model.state, prefix: "before.", where: { $0.hasPrefix("before.") })
      #expect(before.differences.isEmpty, "\(before.differences)")
      before.apply()
      let input: Tensor<Scalar> = try file.tensor(named: "input")
      let labels = try file.integers(named: "labels")
      for step in 0..<3 {
        let (logits, pullback) = model.forward(input)
        let (loss, gradient) = softmaxCrossEntropy(logits, labels)
        let dx = pullback(gradient)
        if step == 0 {
          try expect(logits, "training", in: file, units: 16)
          try expect(Tensor(loss), "loss", in: file, units: 8)
          try expect(dx, "gradient.input", in: file, units: 64)
          for parameter in model.parameters {
            let key = parameter.name.replacingOccurrences(of: "gamma", with: "weight")
              .replacingOccurrences(of: "beta", with: "bias")
            try expect(parameter.gradient, "gradient." + key, in: file, units: 64)
          }
        }
        optimizer.step()
      }
      for entry in model.state {
        switch entry.get() {
        case .tensor(let value): try expect(value, "after." + entry.key, in: file, units: 128)
        case .integer(let value): #expect(try file.integers(named: "after." + entry.key) == [value])
        }
      }
      try expect(model(input), "evaluation", in: file, units: 128)
      try expect(model.folded()(input), "evaluation", in: file, units: 128)
    }

    @Test func residualNetworks() throws {
      try checkResidual("torch-resnet-float", Float.self)
      try checkResidual("torch-resnet-double", Double.self)
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

    private func checkConvolution<Scalar: TensorScalar>(
      _ name: String, _ type: String, in file: SafetensorsFile, _: Scalar.Type, _ layer: Conv2D<Scalar>
    ) throws {
      let prefix = "\(type).\(name)."
      layer.weight.value = try file.tensor(named: prefix + "weight")
      layer.bias!.value = try file.tensor(named: prefix + "bias")
      let (output, pullback) = layer.forward(try file.tensor(named: prefix + "input"))
      try expect(output, prefix + "output", in: file, units: 8)
      try expect(
        pullback(try file.tensor(named: prefix + "gradient.output")), prefix + "gradient.input", in: file, units: 8)
      try expect(layer.weight.gradient, prefix + "gradient.weight", in: file, units: 16)
      try expect(layer.bias!.gradient, prefix + "gradient.bias", in: file, units: 16)
    }

    private func checkConvolutions<Scalar: TensorScalar>(_ type: String, _: Scalar.Type) throws {
      let file = try golden("torch-convolutions")
      func check(_ name: String, _ layer: Conv2D<Scalar>) throws {
        try checkConvolution(name, type, in: file, Scalar.self, layer)
      }
      try check("plain", Conv2D(3, 5, kernel: 3))
      try check("padding", Conv2D(4, 3, kernel: 3, padding: 1))
      try check("stride", Conv2D(3, 4, kernel: 3, stride: 2, padding: 1))
      try check("dilation", Conv2D(2, 3, kernel: 3, padding: 2, dilation: 2))
      try check("groups", Conv2D(4, 6, kernel: (3, 2), stride: (1, 2), padding: (1, 0), groups: 2))
      try check("depthwise", Conv2D(4, 8, kernel: 3, padding: 1, groups: 4))
      try check("pointwise", Conv2D(5, 4, kernel: 1))
      try check("nhwc", Conv2D(3, 4, kernel: 3, stride: 2, padding: 1, layout: .channelsLast))
    }

    @Test func convolutions() throws {
      try checkConvolutions("float", Float.self)
      try checkConvolutions("double", Double.self)
    }

    @Test func convolutionsReadAndWritePyTorchsFiles() throws {
      let folder = TemporaryFolder()
      let file = try golden("torch-convolution-state")
      let model = Sequential<Float> {
        Conv2D(3, 4, kernel: 3, padding: 1)
        BatchNorm(4)
      }
      try model.load(from: file.path)
      try model.save(to: folder("ours"))
      let ours = try SafetensorsFile(folder("ours"))
      #expect(Set(ours.names) == Set(file.names))
      for name in file.names where file.elementType(of: name) == .float32 {
        #expect(try ours.tensor(named: name, as: Float.self) == file.tensor(named: name))
      }
    }
  }
}
