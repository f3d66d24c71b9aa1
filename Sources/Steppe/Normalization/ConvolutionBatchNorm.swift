/// Conv2D, batch norm and the identity or ReLU in training: the statistics are taken from the blocks of the convolution's output while the
/// cache holds them, so that batch norm passes over it once. The result is that of the layers one after another up to rounding.
struct ConvolutionBatchNorm<Scalar: TensorScalar> {
  let convolution: Conv2D<Scalar>
  let norm: BatchNorm<Scalar>

  func forward(
    _ input: Tensor<Scalar>, activation: Activation
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    forward(input) { z, moments in norm.forward(z, activation: activation, moments: moments) }
  }

  /// max(norm(convolution(input)) + residual, 0), where the norm ``BatchNorm/normalizesByBatch``, and a pullback that takes the gradient of
  /// the sum.
  func forward(
    _ input: Tensor<Scalar>, residual: Tensor<Scalar>
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    forward(input) { z, moments in norm.forward(z, residual: residual, moments: moments) }
  }

  private func forward(
    _ input: Tensor<Scalar>,
    _ normalize: (_ z: Tensor<Scalar>, _ moments: ChannelMoments?) -> (Tensor<Scalar>, Pullback<Scalar>)
  ) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    // What other processes' batches are merged with must be known whole.
    let suits =
      norm.normalizesByBatch && !norm.isSynchronized && norm.channels == convolution.outputs
      && norm.layout == convolution.geometry.layout
    let (z, moments, pullback) = convolution.forward(input, measures: suits)
    let (output, normPullback) = normalize(z, moments)
    return (output, normPullback.then(pullback, trains: convolution.parameters.contains(where: \.isTrainable)))
  }
}
