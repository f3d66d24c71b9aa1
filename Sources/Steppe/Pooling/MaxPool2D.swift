/// The greatest value of each window of images, `y[n, c, i, j] = max x[n, c, s·i + d·u − p, s·j + d·v − p]` over the window's places
/// (u, v), for stride s, dilation d and padding p.
///
/// Input `[N, C, H, W]`, output `[N, C, H′, W′]` with `H′ = ⌊(H + 2p − d·(kernel − 1) − 1) / s⌋ + 1`, and W′ likewise; with
/// `layout: .channelsLast` the channels stand last in both. Places in the padding never are the greatest.
///
/// As in PyTorch, a window that holds NaN gives NaN, and the gradient goes to the first of several greatest values.
///
/// ```swift
/// MaxPool2D(kernel: 2)
/// MaxPool2D(kernel: 3, stride: 2, padding: 1)
/// ```
public final class MaxPool2D<Scalar: TensorScalar>: Layer {
  /// The windows.
  public let geometry: PoolingGeometry
  public var name = ""

  /// A layer with square windows.
  ///
  /// - Parameters:
  ///   - kernel: The rows and the columns of a window.
  ///   - stride: The distance between windows; by default that of windows side by side.
  ///   - padding: The places on each side of an image that windows may reach beyond it, at most half the kernel.
  ///   - dilation: The distance between the values of a window.
  ///   - layout: Where the channel axis stands.
  public convenience init(
    kernel: Int, stride: Int? = nil, padding: Int = 0, dilation: Int = 1, layout: ChannelPlace = .channelsFirst
  ) {
    self.init(
      PoolingGeometry(
        kernel: Extent2D(rows: kernel, columns: kernel), stride: stride.map { Extent2D(rows: $0, columns: $0) },
        padding: Extent2D(rows: padding, columns: padding), dilation: Extent2D(rows: dilation, columns: dilation),
        layout: layout))
  }

  /// A layer with the windows of `geometry`.
  public init(_ geometry: PoolingGeometry) {
    geometry.check("MaxPool2D")
    self.geometry = geometry
  }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try geometry.outputShape(for: input, layer: title)
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> { greatestPooled(input, geometry, title) }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (x, shape) = (input.contiguous(), input.shape)
    let output = Tensor<Scalar>(uninitialized: pooledShape(shape, geometry, title))
    let places = Tensor<Scalar>(uninitialized: output.shape)
    let work = Pooling<Scalar>(geometry, input: shape, output: output.shape)
    work.greatest(x.address, into: output.address, places: places.address)
    withExtendedLifetime(x) {}
    let pullback = Pullback<Scalar>(shape: output.shape) { gradient, needsInput in
      guard needsInput else { return nil }
      let (dy, dx) = (gradient.contiguous(), Tensor<Scalar>(uninitialized: shape))
      work.greatestGradient(dy.address, places: places.address, into: dx.address)
      withExtendedLifetime((dy, places)) {}
      return dx
    }
    return (output, pullback)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let geometry = geometry
    return [.function { greatestPooled($0, geometry, "FoldedModel: MaxPool2D") }]
  }
}

private func greatestPooled<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, _ geometry: PoolingGeometry, _ title: String
) -> Tensor<Scalar> {
  let output = Tensor<Scalar>(uninitialized: pooledShape(input.shape, geometry, title))
  let x = input.contiguous()
  Pooling<Scalar>(geometry, input: x.shape, output: output.shape).greatest(
    x.address, into: output.address, places: nil)
  withExtendedLifetime(x) {}
  return output
}

/// The output's shape for an input within a program, which stops where it does not suit.
func pooledShape(_ input: [Int], _ geometry: PoolingGeometry, _ title: String) -> [Int] {
  do throws(LayerError) { return try geometry.outputShape(for: input, layer: title) } catch { stop(error.description) }
}
