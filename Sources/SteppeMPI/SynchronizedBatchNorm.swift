#if MPI
  import CMPI
  import Steppe

  /// Batch normalization by the statistics of all ranks' batches together (Mathematics §14): what one process computes on the joined batch.
  ///
  /// In forward the ranks merge each channel's number of values, mean and Σ(x − mean)² by one all-reduce with an operation of its own (Chan,
  /// Golub & LeVeque 1983), in backward they add up dβ and dγ by one. Batches may be uneven, and a rank's may be empty. γ's and β's
  /// gradients stay those of the rank's own batch, as the gradients of all other parameters do: ``DataParallel`` adds them up.
  ///
  /// - Parameters: Those of `BatchNorm`, and the ranks.
  public func SynchronizedBatchNorm<Scalar: TensorScalar>(
    _ channels: Int, epsilon: Double = 1e-5, momentum: Double? = 0.1, affine: Bool = true,
    tracksRunningStatistics: Bool = true, layout: ChannelPlace = .channelsFirst, over ranks: Communicator
  ) -> BatchNorm<Scalar> {
    BatchNorm(
      channels, epsilon: epsilon, momentum: momentum, affine: affine, tracksRunningStatistics: tracksRunningStatistics,
      layout: layout
    ).synchronized(over: ranks)
  }

  extension Layer {
    /// This network, every `BatchNorm` of which from now on trains by the statistics of all ranks' batches together, as
    /// ``SynchronizedBatchNorm(_:epsilon:momentum:affine:tracksRunningStatistics:layout:over:)`` does. Other layers, evaluation, names
    /// and checkpoints stay as they are.
    ///
    /// ```swift
    /// let model = Sequential<Float>(seed: 1) { … }.synchronized(over: ranks)
    /// ```
    ///
    /// Every forward pass in training is then a collective, as is its pullback: all ranks take part, one without examples with an empty
    /// batch. A batch norm that goes by another norm than ℓ₂ stops the program.
    @discardableResult
    public func synchronized(over ranks: Communicator) -> Self {
      let synchronization = RankSynchronization(ranks)
      for case let norm as BatchNorm<Scalar> in everyLayer { norm.synchronization = synchronization }
      return self
    }
  }

  /// The exchange of batch norm's statistics. What goes wrong in it, in the middle of a pass, is thrown by the next collective that can.
  private final class RankSynchronization: ChannelSynchronization {
    private let ranks: Communicator

    init(_ ranks: Communicator) { self.ranks = ranks }

    func merge(_ moments: UnsafeMutablePointer<Double>, channels: Int) {
      let numbers = UnsafeMutableBufferPointer(start: moments, count: channels * Int(STEPPE_MPI_MOMENT_NUMBERS))
      reduce(numbers, isForward: true) { memory throws(RankError) in
        try ranks.begin(
          allReduce: memory, count: channels, STEPPE_MPI_MOMENTS, STEPPE_MPI_MERGE, "the statistics of a batch norm")
      }
    }

    func add(_ sums: UnsafeMutablePointer<Double>, count: Int) {
      reduce(UnsafeMutableBufferPointer(start: sums, count: count), isForward: false) { memory throws(RankError) in
        try ranks.begin(
          allReduce: memory, count: count, STEPPE_MPI_DOUBLE, STEPPE_MPI_SUM, "the gradients of a batch norm")
      }
    }

    private func reduce(
      _ numbers: UnsafeMutableBufferPointer<Double>, isForward: Bool,
      _ begin: (ExchangeMemory) throws(RankError) -> Communicator.Transfer
    ) {
      guard let address = numbers.baseAddress else { return }
      ranks.health.noteExchange(
        isFinite: Double.kernels.all_finite(address, numbers.count), isForward: isForward)
      guard ranks.size > 1 else { return }
      let memory = ExchangeMemory(UnsafeRawBufferPointer(numbers))
      do throws(RankError) {
        try ranks.finish(begin(memory))
        memory.read(into: UnsafeMutableRawBufferPointer(numbers))
      } catch {
        // The communicator keeps it.
      }
    }
  }
#endif
