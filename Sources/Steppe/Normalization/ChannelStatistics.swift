/// A layer that in training goes by each channel's statistics in the batch, and in evaluation by running averages of them.
protocol ChannelStatisticsLayer<Scalar>: Layer {
  var channels: Int { get }
  var layout: ChannelPlace { get }
  var tracksRunningStatistics: Bool { get }
  var isFrozen: Bool { get }
  /// The batches that the running averages have seen, and those left out of them.
  var batchesTracked: Int { get set }
  var skippedBatches: Int { get set }
  /// Where the statistics of batches are gathered in the place of the running averages, while they are re-estimated.
  var population: ChannelPopulation? { get set }
  /// Whether the batch is one of several processes together, of which this one may hold little or nothing.
  var isSynchronized: Bool { get }
  /// Makes the statistics of a whole data set the running ones.
  func take(_ population: ChannelPopulation)
}

extension ChannelStatisticsLayer {
  var isSynchronized: Bool { false }

  /// Whether the batch at hand is what normalizes.
  func usesBatch(training: Bool) -> Bool { !tracksRunningStatistics || training && !isFrozen }

  /// `input` where it has the layer's channels, and more than one value in each where the batch is used.
  func checkedShape(_ input: [Int], training: Bool) throws(LayerError) -> [Int] {
    try checkChannels(input, channels, layout, title)
    if usesBatch(training: training), !(training && isSynchronized),
      ChannelShape(shape: input, place: layout).valuesPerChannel < 2
    {
      throw LayerError(
        layer: title,
        expected: training
          ? "more than one value per channel in training (a batch of one has no variance)"
          : "more than one value per channel, since it tracks no running statistics",
        found: "\(input)")
    }
    return input
  }

  /// Counts a batch; whether the running averages move by it. One that is not finite moves nothing, and while statistics are gathered it
  /// goes to those.
  func counts(_ moments: ChannelMoments, count: Int) -> Bool {
    if population != nil {
      population!.merge(moments, count: count)
      return false
    }
    guard moments.isFinite else {
      skippedBatches += 1
      return false
    }
    batchesTracked += 1
    return true
  }

  func checkStatistics(_ value: Tensor<Scalar>, _ what: String) {
    require(value.shape == [channels], "\(title): expected a \(what) of shape [\(channels)], got \(value.shape)")
  }
}

extension StateEntry {
  /// A tensor that is no parameter.
  init<Owner: AnyObject>(
    _ key: String, aliases: [String] = [], of owner: Owner, _ path: ReferenceWritableKeyPath<Owner, Tensor<Scalar>>
  ) {
    self.init(
      key: key, aliases: aliases, get: { .tensor(owner[keyPath: path]) },
      set: { if case .tensor(let value) = $0 { owner[keyPath: path] = value } })
  }

  /// A count.
  init<Owner: AnyObject>(_ key: String, of owner: Owner, _ path: ReferenceWritableKeyPath<Owner, Int>) {
    self.init(
      key: key, get: { .integer(owner[keyPath: path]) },
      set: { if case .integer(let value) = $0 { owner[keyPath: path] = value } })
  }
}

/// Moves a running average of factor·values, to which a new batch's weighs `weight`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
func move<Scalar: TensorScalar>(
  _ average: inout Tensor<Scalar>, by values: UnsafePointer<Double>, weight: Double, factor: Double = 1
) {
  average.withUnsafeMutableBufferPointer {
    Scalar.kernels.blend_doubles(values, weight * factor, 1 - weight, $0.baseAddress!, $0.count)
  }
}

/// Adds what `body` writes, a value for each channel, to γ's and β's gradients where the layer `trains`.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
func gatherChannelGradients<Scalar: TensorScalar>(
  _ gamma: Parameter<Scalar>, _ beta: Parameter<Scalar>, trains: Bool,
  _ body: (_ dGamma: UnsafeMutablePointer<Double>, _ dBeta: UnsafeMutablePointer<Double>) -> Void
) {
  let channels = beta.value.count
  let sums = Storage<Double>(count: 2 * channels)
  body(sums.pointer, sums.pointer + channels)
  for (parameter, values) in [(gamma, sums.pointer), (beta, sums.pointer + channels)]
  where trains && parameter.isTrainable {
    parameter.accumulate { memory, adding in
      Scalar.kernels.blend_doubles(values, 1, adding ? 1 : 0, memory, channels)
    }
  }
  withExtendedLifetime(sums) {}
}

/// The training of a frozen layer: `f((x − mean)·scale + shift)` for each channel, constants all.
func frozenForward<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, mean: Tensor<Scalar>, scale: Tensor<Scalar>, shift: Tensor<Scalar>, layout: ChannelPlace,
  _ activation: Activation = .identity
) -> (output: Tensor<Scalar>, pullback: Pullback<Scalar>) {
  let zeros = Tensor<Scalar>.zeros(shape: mean.shape)
  let output = scaledAndShifted(input, mean: mean, scale: scale, shift: shift, layout: layout, activation: activation)
  let activated = activation == .identity ? nil : output
  let pullback = Pullback<Scalar>(shape: input.shape) { dy, needsInput in
    guard needsInput else { return nil }
    // What ReLU gave is 0 where what it took was not above 0.
    let gradient = activated.map { activation.gradient($0, dy) } ?? dy
    return scaledAndShifted(gradient, mean: zeros, scale: scale, shift: zeros, layout: layout)
  }
  return (output, pullback)
}

/// Whether no running mean is so large against its deviation that taking it out behind the next layer's product, not before it, would
/// cost accuracy.
///
/// Behind, a term of the product is rounded at the size of |μ̄|·rstd̄ + |x̂| in place of |x̂|, which is about 1. Up to 8 that costs
/// about three bits, like what the product's own sum of many terms does; a mean of 10⁶ deviations would leave a digit of Float.
func isCentred<Scalar: TensorScalar>(_ mean: Tensor<Scalar>, deviation: Tensor<Scalar>) -> Bool {
  zip(mean.scalars, deviation.scalars).allSatisfy { abs(Double($0)) <= 8 * Double($1) }
}

/// The statistics of all values of each channel in a data set. Those of its parts merge into them in any order
/// (Chan, Golub & LeVeque 1983; Mathematics §2).
package struct ChannelPopulation: Sendable {
  /// The values of one channel.
  package private(set) var count = 0
  /// The mean of each channel.
  package private(set) var mean: [Double]
  /// Σ(x − mean)² of each channel.
  package private(set) var squares: [Double]

  package init(channels: Int) {
    mean = Array(repeating: 0, count: channels)
    squares = mean
  }

  /// The statistics of `count` values of each channel.
  package init(count: Int, mean: [Double], squares: [Double]) {
    (self.count, self.mean, self.squares) = (count, mean, squares)
  }

  /// The unbiased variance of each channel.
  package var variance: [Double] { squares.map { $0 / Double(count - 1) } }

  package var isFinite: Bool { mean.allSatisfy(\.isFinite) && squares.allSatisfy(\.isFinite) }

  package mutating func merge(_ other: ChannelPopulation) {
    merge(other.count, mean: { other.mean[$0] }, squares: { other.squares[$0] })
  }

  /// Takes in a batch of `count` values of each channel.
  mutating func merge(_ moments: ChannelMoments, count: Int) {
    merge(count, mean: { moments.mean[$0] }, squares: { moments.variance[$0] * Double(count) })
  }

  private mutating func merge(_ added: Int, mean other: (Int) -> Double, squares otherSquares: (Int) -> Double) {
    guard added > 0 else { return }
    let share = Double(added) / Double(count + added)
    for channel in mean.indices {
      let distance = other(channel) - mean[channel]
      mean[channel] += distance * share
      squares[channel] += otherSquares(channel) + distance * distance * Double(count) * share
    }
    count += added
  }
}
