#if MPI
  import CMPI
  import Steppe

  /// Batch normalization by the statistics of all ranks' batches together (SPEC §14): what one process computes on the joined batch.
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
      let count = channels * Int(STEPPE_MPI_MOMENT_NUMBERS)
      ranks.health.note(isFinite: Double.kernels.all_finite(moments, count))
      reduce(moments, channels, STEPPE_MPI_MOMENTS, STEPPE_MPI_MERGE, "the statistics of a batch norm")
    }

    func add(_ sums: UnsafeMutablePointer<Double>, count: Int) {
      ranks.health.note(isFinite: Double.kernels.all_finite(sums, count))
      reduce(sums, count, STEPPE_MPI_DOUBLE, STEPPE_MPI_SUM, "the gradients of a batch norm")
    }

    private func reduce(
      _ values: UnsafeMutablePointer<Double>, _ count: Int, _ type: steppe_mpi_type, _ operation: steppe_mpi_operation,
      _ what: String
    ) {
      guard ranks.size > 1 else { return }
      do throws(RankError) {
        try ranks.finish(ranks.begin(allReduce: values, count: count, type, operation, what))
      } catch {
        // The communicator keeps it.
      }
    }
  }

  /// Where in a step this rank's own numbers first were not finite: at which of the places that all ranks pass in the same order. NaN is on
  /// all ranks after the next exchange; the rank that had it first is to blame.
  final class StepHealth {
    private(set) var places = 0
    private(set) var firstBroken: Int?

    func begin() { (places, firstBroken) = (0, nil) }

    func note(isFinite: Bool) {
      places += 1
      if !isFinite, firstBroken == nil { firstBroken = places }
    }
  }
#endif
