/// A convolution of images (a cross-correlation, as deep learning has it).
///
/// `y[n, o, i, j] = b[o] + Σ W[o, c, u, v] · x[n, c, s·i + d·u − p, s·j + d·v − p]`, for stride s, dilation d and padding p, where values
/// beyond the image are 0. Input `[N, inputs, H, W]`, output `[N, outputs, H′, W′]` with
/// `H′ = ⌊(H + 2p − d·(kernel − 1) − 1) / s⌋ + 1`, and W′ likewise; with `layout: .channelsLast` the channels stand last in both. The weight
/// is `[outputs, inputs / groups, rows, columns]` in either layout, as PyTorch's `Conv2d` has it.
///
/// With `groups` the channels are split: each output channel sees its group's input channels alone. As many groups as input channels
/// make a depthwise convolution.
///
/// ```swift
/// let model = Sequential<Float> {
///   Conv2D(1, 32, kernel: 3, padding: 1, bias: false)
///   BatchNorm(32)
///   ReLU()
///   Conv2D(32, 64, kernel: 3, stride: 2, padding: 1)
/// }
/// ```
///
/// Before a normalization that subtracts the mean a bias is redundant.
public final class Conv2D<Scalar: TensorScalar>: WeightedLayer {
  /// The input's channels.
  public let inputs: Int
  /// The output's channels.
  public let outputs: Int
  /// Kernel, stride, padding, dilation, groups and layout.
  public let geometry: ConvolutionGeometry
  /// W, `[outputs, inputs / groups, rows, columns]`; weight decay applies.
  public let weight: Parameter<Scalar>
  /// b, `[outputs]`; without weight decay. Nil without bias.
  public let bias: Parameter<Scalar>?

  public var name = "" {
    didSet {
      weight.name = parameterName(name, "weight")
      bias?.name = parameterName(name, "bias")
    }
  }

  /// A layer with a square kernel, whose weight is drawn by `initialization` and whose bias is zero.
  ///
  /// - Parameters:
  ///   - inputs: The input's channels.
  ///   - outputs: The output's channels.
  ///   - kernel: The rows and the columns of the kernel.
  ///   - stride: The distance between the places that the kernel is put to.
  ///   - padding: The zeros on each side of an image.
  ///   - dilation: The distance between the values that the kernel's weights take.
  ///   - groups: The parts into which channels are split; it divides both channel counts.
  ///   - bias: Whether there is a bias.
  ///   - layout: Where the channel axis stands.
  ///   - initialization: How W starts, its fan-in the weights of one output.
  ///   - seed: Chooses W; without one the enclosing `Sequential(seed:)`'s sequence does, or the system's random numbers.
  public convenience init(
    _ inputs: Int, _ outputs: Int, kernel: Int, stride: Int = 1, padding: Int = 0, dilation: Int = 1, groups: Int = 1,
    bias: Bool = true, layout: ChannelPlace = .channelsFirst, initialization: WeightInitialization = .heNormal,
    seed: UInt64? = nil
  ) {
    self.init(
      inputs, outputs, kernel: (kernel, kernel), stride: (stride, stride), padding: (padding, padding),
      dilation: (dilation, dilation), groups: groups, bias: bias, layout: layout, initialization: initialization,
      seed: seed)
  }

  /// A layer whose sizes are given as (rows, columns), and otherwise as in
  /// ``init(_:_:kernel:stride:padding:dilation:groups:bias:layout:initialization:seed:)-(_,_,Int,_,_,_,_,_,_,_,_)``.
  public init(
    _ inputs: Int, _ outputs: Int, kernel: (Int, Int), stride: (Int, Int) = (1, 1), padding: (Int, Int) = (0, 0),
    dilation: (Int, Int) = (1, 1), groups: Int = 1, bias: Bool = true, layout: ChannelPlace = .channelsFirst,
    initialization: WeightInitialization = .heNormal, seed: UInt64? = nil
  ) {
    geometry = ConvolutionGeometry(
      kernel: Extent2D(kernel), stride: Extent2D(stride), padding: Extent2D(padding), dilation: Extent2D(dilation),
      groups: groups, layout: layout)
    Self.check(geometry, inputs: inputs, outputs: outputs)
    self.inputs = inputs
    self.outputs = outputs
    var generator = seed.map { RandomGenerator(seed: $0) } ?? InitializationSeed.next()
    let taps = kernel.0 * kernel.1
    weight = Parameter(
      initialization.draw(
        shape: [outputs, inputs / groups, kernel.0, kernel.1], fanIn: inputs / groups * taps,
        fanOut: outputs / groups * taps, using: &generator), name: "weight", decays: true)
    self.bias = bias ? Parameter(.zeros(shape: [outputs]), name: "bias", decays: false) : nil
  }

  /// A layer with the given weight `[outputs, inputs / groups, rows, columns]` and bias `[outputs]`. The geometry's kernel is the
  /// weight's.
  public init(weight: Tensor<Scalar>, bias: Tensor<Scalar>? = nil, _ geometry: ConvolutionGeometry) {
    require(
      weight.rank == 4 && weight.count > 0
        && geometry.kernel == Extent2D(rows: weight.shape[2], columns: weight.shape[3]),
      "Conv2D: expected a weight of shape [outputs, inputs / groups, rows, columns] for a kernel \(geometry.kernel), got \(weight.shape)"
    )
    require(
      bias == nil || bias!.shape == [weight.shape[0]],
      "Conv2D: expected a bias of shape [\(weight.shape[0])] beside a weight \(weight.shape), got \(bias?.shape ?? [])")
    self.geometry = geometry
    inputs = weight.shape[1] * geometry.groups
    outputs = weight.shape[0]
    Self.check(geometry, inputs: inputs, outputs: outputs)
    self.weight = Parameter(weight, name: "weight", decays: true)
    self.bias = bias.map { Parameter($0, name: "bias", decays: false) }
  }

  private init(like layer: Conv2D, _ weight: Parameter<Scalar>) {
    (inputs, outputs, geometry, bias) = (layer.inputs, layer.outputs, layer.geometry, layer.bias)
    self.weight = weight
  }

  public var outputPlace: ChannelPlace { geometry.layout }

  public func withWeight(_ weight: Parameter<Scalar>) -> Conv2D { Conv2D(like: self, weight) }

  private static func check(_ geometry: ConvolutionGeometry, inputs: Int, outputs: Int) {
    require(
      inputs > 0 && outputs > 0, "Conv2D: expected positive sizes, got \(inputs) input and \(outputs) output channels")
    geometry.check("Conv2D")
    require(
      inputs % geometry.groups == 0 && outputs % geometry.groups == 0,
      "Conv2D: expected channels divisible by \(geometry.groups) groups, got \(inputs) input and \(outputs) output channels"
    )
  }

  public var parameters: [Parameter<Scalar>] { [weight] + (bias.map { [$0] } ?? []) }

  public var state: [StateEntry<Scalar>] {
    [StateEntry("weight", weight)] + (bias.map { [StateEntry("bias", $0)] } ?? [])
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try convolutionShape(geometry, inputs: inputs, outputs: outputs, input: input, layer: title)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return convolved(input, weight: weight.value, bias: bias?.value, geometry)
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (output, _, pullback) = forward(input, measures: false)
    return (output, pullback)
  }

  /// This layer in training, and where it `measures` the moments of its output's channels, as ``Convolution`` takes them.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(
    _ input: Tensor<Scalar>, measures: Bool
  ) -> (output: Tensor<Scalar>, moments: ChannelMoments?, pullback: Pullback<Scalar>) {
    check(input, training: true)
    let x = input.contiguous()
    let (output, moments) = convolved(
      x, weight: weight.value, bias: bias?.value, geometry, .identity, measures: measures)
    let version = weight.version
    let pullback = Pullback<Scalar>(shape: output.shape) { [self] gradient, needsInput in
      let dy = gradient.contiguous()
      let work = Convolution<Scalar>(geometry, input: x.shape, outputs: outputs)
      if weight.isTrainable {
        weight.accumulate { memory, adding in
          work.weightGradient(dy.address, x.address, into: memory, adding: adding)
        }
      }
      if let bias, bias.isTrainable { bias.accumulate(biasGradient(dy)) }
      withExtendedLifetime(x) {}
      return needsInput ? inputGradient(dy, work, shape: x.shape, version: version) : nil
    }
    return (output, moments, pullback)
  }

  /// Σdy over images and places.
  private func biasGradient(_ dy: Tensor<Scalar>) -> Tensor<Scalar> {
    geometry.layout == .channelsFirst
      ? dy.reshaped([dy.shape[0], outputs, dy.shape[2] * dy.shape[3]]).sum(axis: 2).sum(axis: 0)
      : dy.reshaped([dy.count / outputs, outputs]).sum(axis: 0)
  }

  /// dx by the weight as it was at `version`; dy is contiguous.
  private func inputGradient(
    _ dy: Tensor<Scalar>, _ work: Convolution<Scalar>, shape: [Int], version: Int
  ) -> Tensor<Scalar> {
    require(
      weight.version == version,
      "\(title): expected its pullback before the weight changes, got it after \(weight.version - version) changes")
    let (w, dx) = (weight.value.contiguous(), Tensor<Scalar>(uninitialized: shape))
    work.inputGradient(dy.address, weight: w.address, into: dx.address)
    withExtendedLifetime((w, dy)) {}
    return dx
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    [.convolution(weight: weight.value, bias: bias?.value, geometry, activation: .identity)]
  }
}

/// The shape of a convolution's output.
///
/// - Throws: ``LayerError`` where the input is no batch of images of so many channels, or the kernel is larger than the padded image.
func convolutionShape(
  _ geometry: ConvolutionGeometry, inputs: Int, outputs: Int, input: [Int], layer: @autoclosure () -> String
) throws(LayerError) -> [Int] {
  let isFirst = geometry.layout == .channelsFirst
  guard input.count == 4, input[isFirst ? 1 : 3] == inputs else {
    throw LayerError(
      layer: layer(), expected: "an input of shape \(isFirst ? "[N, \(inputs), H, W]" : "[N, H, W, \(inputs)]")",
      found: "\(input)")
  }
  let (height, width) = isFirst ? (input[2], input[3]) : (input[1], input[2])
  guard height > 0, width > 0, let size = geometry.outputs(rows: height, columns: width) else {
    let (span, padding) = (geometry.span, geometry.padding)
    throw LayerError(
      layer: layer(),
      expected: "an image that the kernel of \(span.rows) × \(span.columns) fits into with a padding of \(padding)",
      found: "\(input)")
  }
  return isFirst
    ? [input[0], outputs, size.rows, size.columns] : [input[0], size.rows, size.columns, outputs]
}
