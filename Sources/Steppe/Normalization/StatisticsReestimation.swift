extension Layer {
  /// Makes the running statistics of every ``BatchNorm``, ``BatchRenorm`` and ``MeanOnlyBatchNorm`` in this network those of a data set:
  /// what training's moving averages only follow, from batches that went through older weights (Ioffe & Szegedy 2015, algorithm 2;
  /// Mathematics §4).
  ///
  /// Each batch goes through `forward`, normalized by its own statistics alone (batch renorm's corrections would lead to the averages that
  /// are replaced). A layer's mean becomes that of all values that it
  /// saw, its variance their unbiased variance, in which the batches' distances from each other count: parts of the data are merged
  /// exactly, so that for a layer which no other normalization precedes the result does not depend on how the data were cut. Weights,
  /// gradients and random generators stay as they are; frozen layers keep their statistics.
  ///
  /// - Parameter batches: The features of each batch.
  /// - Throws: ``LayerError`` where a batch does not suit the network, there is none, the statistics are not finite, or a batch norm goes by
  ///   another norm than ℓ₂; then no statistic has changed.
  public func reestimateStatistics(over batches: some Sequence<Tensor<Scalar>>) throws(LayerError) {
    let gathering = StatisticsGathering(self)
    defer { gathering.end() }
    for batch in batches { try gathering.add(batch) }
    try gathering.apply()
  }

  /// The same over `data`, in batches of `batchSize` examples or a few more, so that none is smaller.
  ///
  /// - Throws: What ``reestimateStatistics(over:)`` and `data` throw.
  public func reestimateStatistics(on data: some DataSource<Scalar>, batchSize: Int = 256) throws {
    require(batchSize >= 1, "reestimateStatistics: expected a batch size of at least 1, got \(batchSize)")
    let gathering = StatisticsGathering(self)
    defer { gathering.end() }
    let parts = data.count == 0 ? 0 : max(1, data.count / batchSize)
    for part in 0..<parts {
      let rows = Parallel.range(part, of: parts, count: data.count)
      try gathering.add(try data.batch(rows: Array(rows)).features)
    }
    try gathering.apply()
  }
}

/// A network whose layers gather statistics until the end.
private struct StatisticsGathering<Scalar: TensorScalar> {
  let model: any Layer<Scalar>
  let layers: [any ChannelStatisticsLayer<Scalar>]
  let generators: [RandomGenerator]

  init(_ model: some Layer<Scalar>) {
    self.model = model
    generators = model.randomGenerators
    layers = model.everyLayer.compactMap { $0 as? any ChannelStatisticsLayer<Scalar> }.filter {
      $0.tracksRunningStatistics && !$0.isFrozen
    }
    for layer in layers { layer.population = ChannelPopulation(channels: layer.channels) }
  }

  func add(_ batch: Tensor<Scalar>) throws(LayerError) {
    _ = try model.outputShape(for: batch.shape, training: true)
    _ = model.forward(batch)
  }

  func apply() throws(LayerError) {
    for layer in layers {
      let population = layer.population!
      if let norm = (layer as? BatchNorm<Scalar>)?.norm, norm != .l2 {
        throw LayerError(
          layer: layer.title, expected: "a batch norm by ℓ₂, whose statistics merge", found: "one by \(norm)")
      }
      if population.count == 0 {
        throw LayerError(layer: layer.title, expected: "at least one batch to take statistics from", found: "none")
      }
      if !population.isFinite {
        throw LayerError(layer: layer.title, expected: "finite statistics", found: "NaN or infinity in a batch")
      }
    }
    for layer in layers { layer.take(layer.population!) }
  }

  func end() {
    for layer in layers { layer.population = nil }
    let model = model
    model.randomGenerators = generators
  }
}
