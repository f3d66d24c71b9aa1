extension NonFinitePlace {
  /// Where the first NaN or infinity of a batch stands; row numbers are those of the data source.
  static func features<Scalar: TensorScalar>(_ features: Tensor<Scalar>, rows: [Int]) -> NonFinitePlace {
    let index = features.withUnsafeBufferPointer { $0.firstIndex { !$0.isFinite }! }
    let columns = features.count / rows.count
    return .features(row: rows[index / columns], column: index % columns)
  }

  /// What is the first in `model` to be not finite in a training step on `features`, whose loss was not: the loss itself where nothing in
  /// the model is. The model's state stays as it is.
  static func first<Scalar: TensorScalar>(in model: any Layer<Scalar>, _ features: Tensor<Scalar>) -> NonFinitePlace {
    let values = model.state.map { ($0, $0.get()) }
    defer { for (entry, value) in values { entry.set(value) } }
    // Alone: other processes do not come along.
    return model.withSynchronization(LocalStatistics()) { output(of: model, features).place ?? .loss }
  }

  private static func output<Scalar: TensorScalar>(
    of layer: any Layer<Scalar>, _ input: Tensor<Scalar>
  ) -> (value: Tensor<Scalar>, place: NonFinitePlace?) {
    var value = input
    if let sequential = layer as? Sequential<Scalar> {
      for part in sequential.layers {
        let result = output(of: part, value)
        if result.place != nil { return result }
        value = result.value
      }
      return (value, nil)
    }
    if let residual = layer as? Residual<Scalar> {
      let result = output(of: residual.branch, input)
      if result.place != nil { return result }
      value = input + result.value
    } else {
      value = layer.forward(input).output
    }
    if value.isAllFinite() { return (value, nil) }
    let broken = layer.parameters.first { !$0.value.isAllFinite() }
    return (value, broken.map { .parameter($0.name, layer: layer.title) } ?? .layer(layer.title))
  }
}
