import Reference
import Steppe
import Testing

extension TrainingTests.TorchTests {
  /// A layer of Golden/make_golden.py's `norm_cases`: output, gradients and state after a pass, then evaluation.
  private func check<L: Layer>(
    _ name: String, _ layer: L, _ gradients: [(key: String, parameter: Parameter<L.Scalar>)]
  ) throws {
    typealias Scalar = L.Scalar
    let file = try golden(Scalar.self == Float.self ? "torch-norms-float" : "torch-norms-double")
    let before = try CheckpointValues(
      file, layer.state, prefix: "\(name).before.", where: { $0.hasPrefix("\(name).before.") })
    #expect(before.differences.isEmpty, "\(name): \(before.differences)")
    before.apply()
    let input: Tensor<Scalar> = try file.tensor(named: "\(name).input")
    let (output, pullback) = layer.forward(input)
    try expect(output, "\(name).training", in: file, units: 8)
    let dx = pullback(try file.tensor(named: "\(name).upstream"))
    try expect(dx, "\(name).gradient.input", in: file, units: 16)
    for (key, parameter) in gradients {
      try expect(parameter.gradient, "\(name).gradient.\(key)", in: file, units: 16)
    }
    for entry in layer.state {
      // PyTorch's instance norm never counts its batches.
      if case .tensor(let value) = entry.get() {
        try expect(value, "\(name).after.\(entry.key)", in: file, units: 8)
      }
    }
    try expect(layer(input), "\(name).evaluation", in: file, units: 8)
  }

  private func checkAll<Scalar: TensorScalar>(_: Scalar.Type) throws {
    let layer = LayerNorm<Scalar>([5, 7])
    try check("layer", layer, [("weight", layer.gamma), ("bias", layer.beta)])
    let unbiased = LayerNorm<Scalar>(11, epsilon: 1e-3, bias: false)
    try check("layer-without-bias", unbiased, [("weight", unbiased.gamma)])
    let rms = RMSNorm<Scalar>([9])
    try check("rms", rms, [("weight", rms.gamma)])
    let group = GroupNorm<Scalar>(4, 8)
    try check("group", group, [("weight", group.gamma), ("bias", group.beta)])
    let all = GroupNorm<Scalar>(1, 6, epsilon: 1e-3)
    try check("group-of-all", all, [("weight", all.gamma), ("bias", all.beta)])
    try check("instance", InstanceNorm<Scalar>(8), [])
    let tracking = InstanceNorm<Scalar>(6, momentum: 0.3, affine: true, tracksRunningStatistics: true)
    try check("instance-tracking", tracking, [("weight", tracking.gamma), ("bias", tracking.beta)])
  }

  @Test func normalizations() throws {
    try checkAll(Float.self)
    try checkAll(Double.self)
  }

  @Test func normalizationsReadAndWritePyTorchsFiles() throws {
    let folder = TemporaryFolder()
    let (file, values) = (try golden("torch-norms-state"), try golden("torch-norms-float"))
    let model = Sequential<Float> {
      GroupNorm(4, 8)
      InstanceNorm(8)
      LayerNorm([5, 4])
      RMSNorm([4])
      InstanceNorm(8, affine: true, tracksRunningStatistics: true)
      LayerNorm([8, 5, 4], bias: false)
    }
    try model.load(from: file.path)
    let input: Tensor<Float> = try values.tensor(named: "sequential.input")
    try expect(model(input), "sequential.evaluation", in: values, units: 64)
    try expect(model.folded()(input), "sequential.evaluation", in: values, units: 64)
    try model.save(to: folder("ours"))
    let ours = try SafetensorsFile(folder("ours"))
    #expect(Set(ours.names) == Set(file.names))
    for name in file.names {
      #expect(
        ours.shape(of: name) == file.shape(of: name) && ours.elementType(of: name) == file.elementType(of: name))
      if file.elementType(of: name) == .float32 {
        #expect(try ours.tensor(named: name, as: Float.self) == file.tensor(named: name))
      }
    }
  }
}
