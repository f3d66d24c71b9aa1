import Steppe

/// The loss of a small and of a large batch, and activations: the cheapest and the dearest.
let elementwiseCases: [BenchmarkCase] =
  [[64, 10], [1024, 1000]].map { shape in
    let bytes = bytes(shape[0] * shape[1])
    return BenchmarkCase("softmax-cross-entropy/\(text(shape))", .bytes(read: bytes, written: bytes)) {
      let logits = normalData(shape)
      let labels = (0..<shape[0]).map { $0 % shape[1] }
      return { keep(softmaxCrossEntropy(logits, labels)) }
    }
  }
  + [("relu", Activation.relu), ("gelu", .gelu)].map { name, activation in
    let count = 1 << 20
    return BenchmarkCase("\(name)/\(count)", .bytes(read: bytes(count), written: bytes(count))) {
      let x = normalData([count])
      return { keep(activation(x)) }
    }
  }
