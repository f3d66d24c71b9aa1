/// What makes batch norm's statistics in one process those of several processes' batches together: one exchange forward and one backward
/// (Mathematics §14). `SteppeMPI` has that of MPI.
package protocol ChannelSynchronization: AnyObject {
  /// Takes four numbers for each channel, how many values, their mean, what the mean's rounding left and Σ(x − mean)², to those of all
  /// processes' values.
  func merge(_ moments: UnsafeMutablePointer<Double>, channels: Int)
  /// Adds up `count` sums over all processes.
  func add(_ sums: UnsafeMutablePointer<Double>, count: Int)
}

/// Statistics of this process's batch alone, however small it is: where a step is looked at without the other processes.
final class LocalStatistics: ChannelSynchronization {
  func merge(_ moments: UnsafeMutablePointer<Double>, channels: Int) {}
  func add(_ sums: UnsafeMutablePointer<Double>, count: Int) {}
}

extension Layer {
  /// Runs `body` while every batch norm that is synchronized goes by `other`, or by its own batch as one that never was.
  package func withSynchronization<Result, Failure: Error>(
    _ other: (any ChannelSynchronization)?, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let norms = everyLayer.compactMap { $0 as? BatchNorm<Scalar> }.filter(\.isSynchronized)
    let kept = norms.map(\.synchronization)
    defer { for (norm, own) in zip(norms, kept) { norm.synchronization = own } }
    for norm in norms { norm.synchronization = other }
    return try body()
  }

  /// The first layer within that in training goes by statistics of this process's batch alone, or keeps averages of them; as messages name it.
  package var layerOfLocalStatistics: String? {
    everyLayer.first { layer in
      if let layer = layer as? any ChannelStatisticsLayer<Scalar> {
        return layer.usesBatch(training: true) && !layer.isSynchronized
      }
      return (layer as? InstanceNorm<Scalar>)?.tracksRunningStatistics ?? false
    }?.title
  }
}

extension ChannelMoments {
  /// Makes the moments of `count` values of each channel those of all processes' values, and returns how many those are.
  func synchronize<Scalar: TensorScalar>(
    _ synchronization: any ChannelSynchronization, count: Int, _: Scalar.Type
  ) -> Int {
    let width = 4
    let numbers = Storage<Double>(count: width * channels)
    for channel in 0..<channels {
      let own = numbers.pointer + width * channel
      own[0] = Double(count)
      // The rounded mean and its remainder: together they are more digits than Double has room for.
      let rounded = Double(Scalar(mean[channel]))
      own[1] = count > 0 ? rounded : 0
      own[2] = count > 0 ? remainder[channel] : 0
      own[3] = count > 0 ? variance[channel] * Double(count) : 0
    }
    synchronization.merge(numbers.pointer, channels: channels)
    for channel in 0..<channels {
      let all = numbers.pointer + width * channel
      mean[channel] = all[1] + all[2]
      remainder[channel] = (all[1] - Double(Scalar(mean[channel]))) + all[2]
      variance[channel] = all[3] / all[0]
    }
    return channels > 0 ? Int(numbers.pointer[0]) : count
  }
}

extension ChannelSchedule {
  /// A schedule that has all channels' statistics before it uses any, for their exchange with other processes.
  static func whole(_ shape: ChannelShape, threads: Int = Parallel.threadCount) -> ChannelSchedule {
    let threads = max(1, min(threads, shape.count / grain))
    if shape.positions >= longRun {
      return .splitRuns(splits: max(1, min(shape.samples, 4 * threads / shape.channels)))
    }
    return .rows(parts: min(threads, max(1, shape.samples)))
  }
}
