import CSteppeKernels

/// The mean of each channel of each sample: `[N, C, …spatial]`, or `[N, …spatial, C]` with `layout: .channelsLast`, to `[N, C]`
/// (Lin et al. 2014, arXiv 1312.4400).
///
/// PyTorch's `AdaptiveAvgPool2d(1)` followed by `Flatten`, whose place a ``Flatten`` here may take: it changes nothing.
public final class GlobalAveragePool<Scalar: TensorScalar>: Layer {
  /// Where the channel axis stands.
  public let layout: ChannelPlace
  public var name = ""

  /// The layer; it has no parameters.
  public init(layout: ChannelPlace = .channelsFirst) { self.layout = layout }

  public func outputShape(for input: [Int], training: Bool) throws(LayerError) -> [Int] {
    guard input.count >= 3, !input.dropFirst().contains(0) else {
      throw LayerError(
        layer: title,
        expected:
          "an input of shape \(layout == .channelsFirst ? "[N, C, …]" : "[N, …, C]") with at least one position",
        found: "\(input)")
    }
    return [input[0], layout == .channelsFirst ? input[1] : input.last!]
  }

  public func callAsFunction(_ input: Tensor<Scalar>) -> Tensor<Scalar> {
    check(input, training: false)
    return globallyPooled(input, layout)
  }

  public func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (output, shape, layout) = (self(input), input.shape, layout)
    let pullback = Pullback<Scalar>(shape: output.shape) { dy, needsInput in
      needsInput ? globallySpread(dy, shape, layout) : nil
    }
    return (output, pullback)
  }

  public var inferenceSteps: [InferenceStep<Scalar>] {
    let layout = layout
    return [
      .function { x in
        require(
          x.rank >= 3 && !x.shape.dropFirst().contains(0),
          "FoldedModel: GlobalAveragePool: expected an input with channels and positions, got one of shape \(x.shape)")
        return globallyPooled(x, layout)
      }
    ]
  }
}

/// `[samples, channels, positions]`, or `[samples, positions, channels]`, and the rows of work: planes, or images.
private func extents(_ shape: [Int], _ layout: ChannelPlace) -> (rows: Int, positions: Int, width: Int) {
  let channels = layout == .channelsFirst ? shape[1] : shape.last!
  let positions = shape.dropFirst().reduce(1, *) / max(1, channels)
  return layout == .channelsFirst ? (shape[0] * channels, positions, 1) : (shape[0], positions, channels)
}

/// y[r, c] = Σ_k x[r, k, c] / positions
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
private func globallyPooled<Scalar: TensorScalar>(_ input: Tensor<Scalar>, _ layout: ChannelPlace) -> Tensor<Scalar> {
  let x = input.contiguous()
  let (rows, positions, width) = extents(x.shape, layout)
  let output = Tensor<Scalar>(uninitialized: [x.shape[0], layout == .channelsFirst ? x.shape[1] : width])
  let (from, to) = (x.address, output.address)
  let kernels = Scalar.kernels
  Parallel.ranges(rows, grain: max(1, Parallel.elementGrain / (positions * width))) { range in
    let target = to + range.lowerBound * width
    if width == 1 {
      kernels.reduce_rows(
        STEPPE_SUM, from + range.lowerBound * positions, positions, range.count, positions, target)
    } else {
      for row in range {
        kernels.reduce_columns(
          STEPPE_SUM, from + row * positions * width, width, positions, width, to + row * width)
      }
    }
    kernels.affine(target, 1 / Double(positions), 0, target, range.count * width)
  }
  withExtendedLifetime(x) {}
  return output
}

/// dx[r, k, c] = dy[r, c] / positions, of shape `shape`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
private func globallySpread<Scalar: TensorScalar>(
  _ gradient: Tensor<Scalar>, _ shape: [Int], _ layout: ChannelPlace
) -> Tensor<Scalar> {
  let (dy, dx) = (gradient.contiguous(), Tensor<Scalar>(uninitialized: shape))
  let (rows, positions, width) = extents(shape, layout)
  let (from, to) = (dy.address, dx.address)
  Parallel.ranges(rows, grain: max(1, Parallel.elementGrain / (positions * width))) { range in
    let first = range.lowerBound * width
    Scalar.kernels.repeat_scaled(
      from + first, 1 / Double(positions), to + first * positions, range.count, positions, width)
  }
  withExtendedLifetime(dy) {}
  return dx
}
