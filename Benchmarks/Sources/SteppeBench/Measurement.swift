import BenchmarkCases

/// How long one run of a case takes.
struct Measurement {
  let name: String
  let work: BenchmarkCase.Work
  /// Seconds of one run, each the mean of `runs` runs, sorted.
  let samples: [Double]
  /// The runs in one sample.
  let runs: Int

  var median: Double { quantile(0.5) }

  /// The distance between the quartiles as a share of the median.
  var spread: Double { (quantile(0.75) - quantile(0.25)) / median }

  /// Operations or bytes in a nanosecond: GFLOP/s or GB/s.
  var rate: Double {
    switch work {
    case .operations(let count), .bytes(let count): count / median / 1e9
    }
  }

  var unit: String {
    switch work {
    case .operations: "GFLOP/s"
    case .bytes: "GB/s"
    }
  }

  func quantile(_ share: Double) -> Double {
    let place = share * Double(samples.count - 1)
    let (low, rest) = (Int(place), place - place.rounded(.down))
    return samples[low] + rest * (samples[min(low + 1, samples.count - 1)] - samples[low])
  }
}

/// A case that is prepared, and may be measured more than once.
final class Sampler {
  let item: BenchmarkCase
  private let run: () -> Void
  private let clock = ContinuousClock()
  /// The runs that make a sample long enough for the clock; nil before the first measurement.
  private var runs: Int?

  init(_ item: BenchmarkCase) {
    self.item = item
    run = item.prepare()
  }

  /// Warms up, the first time finds how many runs make a sample, and takes samples for `duration`.
  func measure(for duration: Duration, minimumSamples: Int) -> Measurement {
    // Threads, buffers and the clock frequency settle, and the best of these runs tells how long one takes. Later only the caches
    // have to be filled again.
    var one = sample(1)
    let warm = clock.now + (runs == nil ? duration / 5 : duration / 20)
    repeat { one = min(one, sample(1)) } while clock.now < warm
    let runs = runs ?? max(1, Int((200e-6 / max(one, 1e-9)).rounded(.up)))
    self.runs = runs
    var samples: [Double] = []
    let end = clock.now + duration
    repeat { samples.append(sample(runs)) } while clock.now < end || samples.count < minimumSamples
    return Measurement(name: item.name, work: item.work, samples: samples.sorted(), runs: runs)
  }

  private func sample(_ runs: Int) -> Double {
    let time = clock.measure { for _ in 0..<runs { run() } }
    return time / .seconds(1) / Double(runs)
  }
}
