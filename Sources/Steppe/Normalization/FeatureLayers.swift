/// A shift and a scale for each feature as the first layer of a network: a ``FeatureStandardizer`` or ``MinMaxScaler`` that its checkpoint
/// carries along.
///
/// `y = (x − shift)·scale + offset`, with input and output `[N, …, features]`, or `[N, C, …spatial]` with a channel for each feature where
/// `layout` says so. There is nothing to train. The state is `shift`, `scale` and `offset`, `[features]` each: as a network's first layer
/// `0.shift`, `0.scale` and `0.offset`. What the scalar type cannot hold of a large mean stands in the offset.
///
/// ```swift
/// let model = Sequential<Float> {
///   standardizer.layer()             // or FeatureScaling(13), before a checkpoint is loaded
///   Dense(13, 64)
/// }
/// ```
///
/// In ``Layer/folded()`` it goes into the dense layer behind it where no shift is large against its feature's scale, which would cost
/// accuracy (Mathematics §4, folding).
public final class FeatureScaling<Scalar: TensorScalar>: Layer {
  /// The number of features.
  public let features: Int
  /// Where their axis stands.
  public let layout: ChannelPlace
  /// What is subtracted.
  public private(set) var shift: Tensor<Scalar>
  /// What is then multiplied by.
  public private(set) var scale: Tensor<Scalar>
  /// What is then added.
  public private(set) var offset: Tensor<Scalar>
  public var name = ""

  /// A layer that leaves `features` features as they are, until a checkpoint says otherwise.
  public convenience init(_ features: Int, layout: ChannelPlace = .channelsLast) {
    require(features > 0, "FeatureScaling: expected a positive number of features, got \(features)")
    self.init(
      shift: .zeros(shape: [features]), scale: .ones(shape: [features]), offset: .zeros(shape: [features]),
      layout: layout)
  }

  /// The layer that takes `mean` from all of `features` features and divides them by `deviation`.
  public convenience init(
    _ features: Int, mean: Double, deviation: Double, layout: ChannelPlace = .channelsLast
  ) {
    require(features > 0, "FeatureScaling: expected a positive number of features, got \(features)")
    require(
      deviation > 0 && mean.isFinite,
      "FeatureScaling: expected a mean and a positive deviation, got \(mean), \(deviation)")
    self.init(
      FeatureMap(
        shift: Array(repeating: mean, count: features), scale: Array(repeating: 1 / deviation, count: features),
        offset: Array(repeating: 0, count: features)), layout: layout)
  }

  convenience init(_ map: FeatureMap, layout: ChannelPlace = .channelsLast) {
    let (shift, scale, offset) = map.rounded(to: Scalar.self)
    self.init(shift: shift, scale: scale, offset: offset, layout: layout)
  }

  private init(shift: Tensor<Scalar>, scale: Tensor<Scalar>, offset: Tensor<Scalar>, layout: ChannelPlace) {
    features = shift.count
    self.shift = shift
    self.scale = scale
    self.offset = offset
    self.layout = layout
  }

  public var state: [StateEntry<Scalar>] {
    [
      StateEntry("shift", of: self, \.shift), StateEntry("scale", of: self, \.scale),
      StateEntry("offset", of: self, \.offset),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    let axis = layout == .channelsFirst ? 1 : input.count - 1
    guard input.count >= 2, input[axis] == features else {
      let wanted = layout == .channelsFirst ? "[N, \(features), …spatial]" : "[N, …, \(features)]"
      throw LayerError(layer: title, expected: "an input of shape \(wanted)", found: "\(input)")
    }
    return input
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return scaledAndShifted(input, mean: shift, scale: scale, shift: offset, layout: layout)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (output, scale, layout) = (self(input), scale, layout)
    let pullback = Pullback<Scalar>(shape: output.shape) { dy, needsInput in
      guard needsInput else { return nil }
      let zeros = Tensor<Scalar>.zeros(like: scale)
      return scaledAndShifted(dy, mean: zeros, scale: scale, shift: zeros, layout: layout)
    }
    return (output, pullback)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    [
      .normalize(
        mean: shift, scale: scale, shift: offset, layout: layout, activation: .identity,
        isCentred: isCentred(shift, scale))
    ]
  }
}

/// ``Whitening`` as the first layer of a network.
///
/// `y = (x − shift)·Wᵀ + b` with input `[N, …, inputs]` and output `[N, …, outputs]`. There is nothing to train. The state is `shift`,
/// `[inputs]`, `weight`, W `[outputs, inputs]`, and `bias`, `[outputs]`, which holds what the scalar type could not hold of the shift.
public final class FeatureWhitening<Scalar: TensorScalar>: Layer {
  /// The features of an input row.
  public let inputs: Int
  /// The features of an output row.
  public let outputs: Int
  /// What is subtracted.
  public private(set) var shift: Tensor<Scalar>
  /// W
  public private(set) var weight: Tensor<Scalar>
  /// b
  public private(set) var bias: Tensor<Scalar>
  public var name = ""

  /// A layer of `inputs` and `outputs` whose numbers a checkpoint brings; until then it gives the first inputs.
  public init(_ inputs: Int, _ outputs: Int) {
    require(
      outputs > 0 && outputs <= inputs,
      "FeatureWhitening: expected 1 … \(inputs) outputs of \(inputs) inputs, got \(outputs)")
    self.inputs = inputs
    self.outputs = outputs
    shift = .zeros(shape: [inputs])
    weight = Tensor<Scalar>.identity(inputs)[0..<outputs].copied()
    bias = .zeros(shape: [outputs])
  }

  /// The layer of a whitening.
  public init(_ whitening: Whitening) {
    inputs = whitening.inputCount
    outputs = whitening.outputCount
    let center = whitening.center.rounded(to: Scalar.self)
    shift = center.shift
    let matrix = whitening.matrix
    weight = matrix.converted()
    let rest = zip(center.shift.scalars, whitening.center.shift).map { Double($0) - $1 }
    let offset = Tensor<Double>(zip(rest, whitening.center.offset).map { $0 + $1 })
    bias = matrix.matmul(offset.reshaped([inputs, 1])).reshaped([outputs]).converted()
  }

  public var state: [StateEntry<Scalar>] {
    [
      StateEntry("shift", of: self, \.shift), StateEntry("weight", of: self, \.weight),
      StateEntry("bias", of: self, \.bias),
    ]
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    guard input.count >= 2, input.last == inputs else {
      throw LayerError(layer: title, expected: "an input of shape [N, …, \(inputs)]", found: "\(input)")
    }
    return input.dropLast() + [outputs]
  }

  private var centering: (scale: Tensor<Scalar>, offset: Tensor<Scalar>) {
    (.ones(shape: [inputs]), .zeros(shape: [inputs]))
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    let (scale, offset) = centering
    let centered = scaledAndShifted(input, mean: shift, scale: scale, shift: offset, layout: .channelsLast)
    return denseForward(centered, weight: weight, bias: bias)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (output, weight) = (self(input), weight)
    let shape = input.shape
    let pullback = Pullback<Scalar>(shape: output.shape) { dy, needsInput in
      guard needsInput else { return nil }
      let rows = dy.reshaped([shape.dropLast().reduce(1, *), weight.shape[0]])
      return rows.matmul(weight).reshaped(shape)
    }
    return (output, pullback)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let (scale, offset) = centering
    // Where a mean is as large as a few deviations at most, W may take it in.
    let deviations = weight.count == 0 ? scale : (weight * weight).sum(axis: 0).squareRoot()
    return [
      .normalize(
        mean: shift, scale: scale, shift: offset, layout: .channelsLast, activation: .identity,
        isCentred: isCentred(shift, deviations)),
      .dense(weight: weight, bias: bias, activation: .identity),
    ]
  }
}

/// Whether no shift is so large against what its feature is multiplied by that taking it out behind the next product would cost accuracy:
/// as for ``BatchNorm``, up to 8.
private func isCentred<Scalar: TensorScalar>(_ shift: Tensor<Scalar>, _ scale: Tensor<Scalar>) -> Bool {
  zip(shift.scalars, scale.scalars).allSatisfy { abs(Double($0) * Double($1)) <= 8 }
}
