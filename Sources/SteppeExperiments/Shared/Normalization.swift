import Steppe

/// What may normalize the layers of an experiment's network.
public enum Normalization: String, CaseIterable, Sendable {
  case none
  case batch
  /// Batch norm, and behind it noise that is drawn anew at each step (Mathematics §12).
  case noisyBatch = "noisy-batch"
  /// The mean absolute distance in the deviation's place; ℓ₂ is batch norm itself.
  case l1
  /// The greatest distance in the deviation's place.
  case lInfinity = "l-infinity"
  case batchRenorm = "batch-renorm"
  case group
  case layer

  public var title: String {
    switch self {
    case .none: "without normalization"
    case .batch: "batch norm"
    case .noisyBatch: "noisy batch norm"
    case .l1: "ℓ₁ norm"
    case .lInfinity: "ℓ∞ norm"
    case .batchRenorm: "batch renorm"
    case .group: "group norm"
    case .layer: "layer norm"
    }
  }

  /// The same in every picture.
  public var style: Chart.Style {
    switch self {
    case .none: .init(.ink)
    case .batch: .init(.blue)
    case .noisyBatch: .init(.vermilion)
    case .l1: .init(.green, dash: .short)
    case .lInfinity: .init(.purple, dash: .mixed)
    case .batchRenorm: .init(.sky)
    case .group: .init(.green)
    case .layer: .init(.orange)
    }
  }

  /// Whether it subtracts the mean of each channel or of all, so that a bias before it is redundant.
  var subtractsMean: Bool { self != .none && self != .group && self != .layer }

  /// The channels of a group where there are groups: as few as a small network's channels allow.
  static let channelsPerGroup = 4

  /// The layers that normalize `channels` channels.
  ///
  /// - Parameters:
  ///   - hasPlaces: Whether a channel has several values in a sample.
  ///   - settings: Those of the running averages.
  ///   - noise: Chooses the noise.
  func layers<Scalar: TensorScalar>(
    _ channels: Int, hasPlaces: Bool, _ settings: RunningAverages, noise: UInt64
  ) -> [any Layer<Scalar>] {
    switch self {
    case .none: []
    case .batch: [BatchNorm<Scalar>(channels, momentum: settings.momentum)]
    case .noisyBatch:
      [BatchNorm<Scalar>(channels, momentum: settings.momentum), ActivationNoise<Scalar>(seed: noise)]
    case .l1: [BatchNorm<Scalar>(channels, momentum: settings.momentum, norm: .l1)]
    case .lInfinity: [BatchNorm<Scalar>(channels, momentum: settings.momentum, norm: .lInfinity)]
    case .batchRenorm:
      [BatchRenorm<Scalar>(channels, momentum: settings.renormMomentum, limits: settings.renormLimits)]
    case .group: [GroupNorm<Scalar>(max(1, channels / Self.channelsPerGroup), channels)]
    case .layer: [hasPlaces ? GroupNorm<Scalar>(1, channels) : LayerNorm<Scalar>(channels)]
    }
  }
}

/// How normalizations of batches follow the statistics.
struct RunningAverages: Sendable, Equatable {
  /// Batch norm's; nil for the cumulative average.
  var momentum: Double? = 0.1
  var renormMomentum = 0.01
  var renormLimits = RenormLimits.paper

  /// For a training of `steps`: the limits of batch renormalization rise in the paper's proportions (Mathematics §5: from a tenth of the steps to
  /// four fifths and to one half). Its averages move by the paper's 0.01, or faster where there are fewer than 2000 steps, in which such
  /// averages would not arrive.
  static func forSteps(_ steps: Int) -> RunningAverages {
    RunningAverages(
      renormMomentum: min(0.1, max(0.01, 20 / Double(max(1, steps)))),
      renormLimits: RenormLimits(
        r: .init(from: 1, to: 3, begin: steps / 10, end: steps * 4 / 5),
        d: .init(from: 0, to: 5, begin: steps / 10, end: steps / 2)))
  }
}
