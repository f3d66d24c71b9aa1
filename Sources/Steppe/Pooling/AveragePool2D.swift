/// The mean of each window of images, `y[n, c, i, j] = Σ x[n, c, s·i + u − p, s·j + v − p] / count` over the window's places (u, v), for
/// stride s and padding p.
///
/// Input `[N, C, H, W]`, output `[N, C, H′, W′]` with `H′ = ⌊(H + 2p − kernel) / s⌋ + 1`, and W′ likewise; with `layout: .channelsLast`
/// the channels stand last in both. Values in the padding are 0. The count is that of a window's places, or without `countsPadding` that
/// of its places within the image.
public final class AveragePool2D<Scalar: TensorScalar>: Layer {
  /// The windows; their dilation is 1.
  public let geometry: PoolingGeometry
  /// Whether the mean divides by the places in the padding too, PyTorch's `count_include_pad`.
  public let countsPadding: Bool
  public var name = ""

  /// A layer with square windows.
  ///
  /// - Parameters:
  ///   - kernel: The rows and the columns of a window.
  ///   - stride: The distance between windows; by default that of windows side by side.
  ///   - padding: The zeros on each side of an image, at most half the kernel.
  ///   - countsPadding: Whether the mean divides by the places in the padding too.
  ///   - layout: Where the channel axis stands.
  public convenience init(
    kernel: Int, stride: Int? = nil, padding: Int = 0, countsPadding: Bool = true,
    layout: ChannelPlace = .channelsFirst
  ) {
    self.init(
      PoolingGeometry(
        kernel: Extent2D(rows: kernel, columns: kernel), stride: stride.map { Extent2D(rows: $0, columns: $0) },
        padding: Extent2D(rows: padding, columns: padding), layout: layout), countsPadding: countsPadding)
  }

  /// A layer with the windows of `geometry`, whose dilation must be 1.
  public init(_ geometry: PoolingGeometry, countsPadding: Bool = true) {
    geometry.check("AveragePool2D")
    require(
      geometry.dilation == Extent2D(rows: 1, columns: 1),
      "AveragePool2D: expected a dilation of 1, got \(geometry.dilation)")
    self.geometry = geometry
    self.countsPadding = countsPadding
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try geometry.outputShape(for: input, layer: title)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    meanPooled(input, geometry, countsPadding, title)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let output = self(input)
    let (shape, geometry, countsPadding) = (input.shape, geometry, countsPadding)
    let pullback = Pullback<Scalar>(shape: output.shape) { gradient, needsInput in
      guard needsInput else { return nil }
      let (dy, dx) = (gradient.contiguous(), Tensor<Scalar>(uninitialized: shape))
      Pooling<Scalar>(geometry, input: shape, output: dy.shape, countsPadding: countsPadding).meanGradient(
        dy.address, into: dx.address)
      withExtendedLifetime(dy) {}
      return dx
    }
    return (output, pullback)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let (geometry, countsPadding) = (geometry, countsPadding)
    return [.function { meanPooled($0, geometry, countsPadding, "FoldedModel: AveragePool2D") }]
  }
}

private func meanPooled<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, _ geometry: PoolingGeometry, _ countsPadding: Bool, _ title: String
) -> Tensor<Scalar> {
  let output = Tensor<Scalar>(uninitialized: pooledShape(input.shape, geometry, title))
  let x = input.contiguous()
  Pooling<Scalar>(geometry, input: x.shape, output: output.shape, countsPadding: countsPadding).mean(
    x.address, into: output.address)
  withExtendedLifetime(x) {}
  return output
}
