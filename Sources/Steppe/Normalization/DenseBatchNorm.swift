/// Dense, batch norm and the identity or ReLU in training as one schedule over the columns of the dense layer's output.
///
/// Forward, each thread computes a panel of columns of z = x·Wᵀ, takes its statistics and normalizes it while the panel is in the cache:
/// one fork for the three layers. Backward, each thread takes its columns through the gradients of ReLU and batch norm to dz, and from dz,
/// still in its cache, makes its rows of dW = dzᵀ·x; then dx = dz·W. The result is that of the layers one after another up to rounding.
struct DenseBatchNorm<Scalar: TensorScalar> {
  let dense: Dense<Scalar>
  let norm: BatchNorm<Scalar>
  let activation: Activation

  /// Channels of a thread's part from which it makes its rows of dW itself: each thread packs x, which fewer rows would not repay.
  private static var leastRows: Int { 4 * Int(Scalar.kernels.tile_rows) }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (inputs, outputs) = (dense.inputs, dense.outputs)
    // What other processes' batches are merged with must be known whole.
    guard input.rank == 2, norm.normalizesByBatch, !norm.isSynchronized, norm.channels == outputs else {
      return separately(input)
    }
    let shape = ChannelShape(shape: [input.shape[0], outputs], place: .channelsFirst)
    guard
      let schedule = ChannelSchedule.columns(
        ofProduct: shape, depth: inputs, scalarBytes: MemoryLayout<Scalar>.stride, tensors: 1)
    else { return separately(input) }
    dense.check(input, training: true)
    norm.check(shape: [input.shape[0], outputs], training: true)

    let (x, weight, bias) = (input.contiguous(), dense.weight.value.contiguous(), dense.bias?.value.contiguous())
    let (gamma, beta) = (norm.gamma.value.contiguous(), norm.beta.value.contiguous())
    let z = Tensor<Scalar>(uninitialized: [shape.samples, outputs])
    let output = Tensor<Scalar>(uninitialized: z.shape)
    let product = MatrixProduct(
      transposeA: false, transposeB: true, a: x.address, lda: inputs, b: weight.address, ldb: inputs)
    let finish = ProductFinish<Scalar>(bias: bias?.address)
    let moments = ChannelNormalization<Scalar>(shape, schedule: schedule).forward(
      x: z.address, y: output.address, gamma: gamma.address, beta: beta.address, epsilon: norm.epsilon,
      activation: activation
    ) { channels in
      product.run(
        rows: 0..<shape.samples, columns: channels, depth: 0..<inputs, finish, into: z.address, ldc: outputs)
    }
    withExtendedLifetime((x, weight, bias)) {}
    if norm.tracksRunningStatistics { norm.track(moments, count: shape.valuesPerChannel) }

    let (version, trains) = (dense.weight.version, !norm.isFrozen)
    let pullback = Pullback<Scalar>(shape: output.shape) { gradient, needsInput in
      let dy = gradient.contiguous()
      let dz = Tensor<Scalar>(uninitialized: z.shape)
      backward(x: x, z: z, dy: dy, dz: dz, gamma: gamma, beta: beta, shape, moments, trains: trains)
      if let bias = dense.bias, bias.isTrainable { bias.accumulate(dz.sum(axis: 0)) }
      return needsInput ? dense.inputGradient(dz, rows: shape.samples, shape: x.shape, version: version) : nil
    }
    return (output, pullback)
  }

  /// dz, and the gradients of γ and β, where the norm `trains`, and W.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func backward(
    x: Tensor<Scalar>, z: Tensor<Scalar>, dy: Tensor<Scalar>, dz: Tensor<Scalar>, gamma: Tensor<Scalar>,
    beta: Tensor<Scalar>, _ shape: ChannelShape, _ moments: ChannelMoments, trains: Bool
  ) {
    let schedule = ChannelSchedule.columns(
      ofProduct: shape, depth: dense.inputs, scalarBytes: MemoryLayout<Scalar>.stride, tensors: 2)
    let normalization = ChannelNormalization<Scalar>(shape, tensors: 2, schedule: schedule)
    func normGradients(_ consume: (Range<Int>) -> Void) {
      gatherChannelGradients(norm.gamma, norm.beta, trains: trains) { dGamma, dBeta in
        normalization.backward(
          x: z.address, dy: dy.address, dx: dz.address, gamma: gamma.address, beta: beta.address, moments: moments,
          epsilon: norm.epsilon, activation: activation, dGamma: dGamma, dBeta: dBeta, consume: consume)
      }
    }
    defer { withExtendedLifetime((x, z, dy, dz, gamma, beta)) {} }
    guard dense.weight.isTrainable else { return normGradients { _ in } }
    guard case .columns(let parts, _, _)? = schedule, shape.channels >= parts * Self.leastRows || parts == 1 else {
      normGradients { _ in }
      return dense.gatherWeightGradient(dz, x, rows: shape.samples)
    }
    dense.weight.accumulate { memory, adding in
      let product = MatrixProduct(
        transposeA: true, transposeB: false, a: dz.address, lda: dense.outputs, b: x.address, ldb: dense.inputs)
      let finish = ProductFinish<Scalar>(beta: adding ? 1 : 0)
      normGradients { channels in
        product.run(
          rows: channels, columns: 0..<dense.inputs, depth: 0..<shape.samples, finish, into: memory, ldc: dense.inputs)
      }
    }
  }

  private func separately(_ input: Tensor<Scalar>) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
    let (z, densePullback) = dense.forward(input)
    let (output, normPullback) = norm.forward(z, activation: activation)
    return (output, normPullback.then(densePullback, trains: dense.parameters.contains(where: \.isTrainable)))
  }
}
