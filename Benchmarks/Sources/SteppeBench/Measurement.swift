import BenchmarkCases

/// How long one run of a case takes.
struct Measurement {
  let name: String
  let work: Work
  /// Seconds for one run, each the mean of `runs` runs.
  let samples: Sorted
  /// The runs in one sample.
  let runs: Int
  /// Where several callers run at once: seconds of each call. A sample then is the time divided by the calls of all.
  let latencies: Sorted?

  var median: Double { samples.quantile(0.5) }

  /// The distance between the quartiles as a share of the median.
  var spread: Double { (samples.quantile(0.75) - samples.quantile(0.25)) / median }

  /// Operations or bytes in a nanosecond: GFLOP/s or GB/s.
  var rate: Double { work.amount / median / 1e9 }

  /// The rate of the limit that the work runs into first, and how much of it one run takes. It is measured beside the samples, as
  /// neighbours on the machine move it.
  let limit: (rate: Double, amount: Double)

  /// The least time that the machine needs as a share of the median.
  var shareOfLimit: Double { limit.amount / limit.rate / 1e9 / median }
}

/// Numbers in order.
struct Sorted {
  let values: [Double]

  init(_ values: [Double]) { self.values = values.sorted() }

  func quantile(_ share: Double) -> Double {
    let place = share * Double(values.count - 1)
    let (low, rest) = (Int(place), place - place.rounded(.down))
    return values[low] + rest * (values[min(low + 1, values.count - 1)] - values[low])
  }
}

/// A case that is prepared, and may be measured more than once.
final class Sampler {
  let item: BenchmarkCase
  private let machine: Machine
  private let prepared: BenchmarkCase.Prepared
  private let clock = ContinuousClock()
  /// The runs that make a sample long enough for the clock; nil before the first measurement.
  private var runs: Int?

  init(_ item: BenchmarkCase, on machine: Machine) {
    (self.item, self.machine) = (item, machine)
    prepared = item.prepare()
  }

  /// Takes samples for `duration`, in `turns` with the limit that the case runs into first.
  func measure(for duration: Duration, turns: Int, minimumSamples: Int) -> Measurement {
    let (kind, amount) = machine.limits.first(for: item.work)
    var (samples, latencies, rates): ([Double], [Double], [Double]) = ([], [], [])
    for _ in 0..<turns {
      rates.append(machine.loops.rate(kind, for: duration / turns / 10))
      let more = sample(for: duration / turns, (minimumSamples + turns - 1) / turns)
      samples += more.samples
      latencies += more.latencies
    }
    return Measurement(
      name: item.name, work: item.work, samples: Sorted(samples), runs: runs!,
      latencies: latencies.isEmpty ? nil : Sorted(latencies), limit: (Sorted(rates).quantile(0.5), amount))
  }

  /// Warms up and takes samples.
  private func sample(for duration: Duration, _ minimumSamples: Int) -> (samples: [Double], latencies: [Double]) {
    switch prepared {
    case .run(let body): (sample(body, duration, minimumSamples), [])
    case .concurrent(let callers, let body): sample(callers, body, duration, minimumSamples)
    }
  }

  private func sample(_ body: () -> Void, _ duration: Duration, _ minimumSamples: Int) -> [Double] {
    func sample(_ runs: Int) -> Double {
      let time = clock.measure { for _ in 0..<runs { body() } }
      let seconds: Double = time / .seconds(1)
      return seconds / Double(runs)
    }
    // Threads, buffers and the clock frequency settle, and the best of these runs tells how many make a sample. Later only the caches
    // have to be filled again.
    var one = sample(1)
    let warm = clock.now + (runs == nil ? duration / 5 : duration / 20)
    repeat { one = min(one, sample(1)) } while clock.now < warm
    let runs = runs ?? max(1, Int((200e-6 / max(one, 1e-9)).rounded(.up)))
    self.runs = runs
    var samples: [Double] = []
    let end = clock.now + duration
    repeat { samples.append(sample(runs)) } while clock.now < end || samples.count < minimumSamples
    return samples
  }

  private func sample(
    _ callers: Int, _ body: @escaping @Sendable () -> Void, _ duration: Duration, _ minimumSamples: Int
  ) -> (samples: [Double], latencies: [Double]) {
    _ = Callers(callers, for: duration / (runs == nil ? 5 : 20), body)
    // Long enough that each of more callers than processors has its turns.
    let window = duration / 8
    var samples: [Double] = []
    var latencies: [Double] = []
    let end = clock.now + duration
    repeat {
      let seen = Callers(callers, for: window, body)
      samples.append(seen.seconds / Double(seen.latencies.count))
      latencies += seen.latencies
    } while clock.now < end || samples.count < minimumSamples
    runs = max(1, latencies.count / samples.count)
    return (samples, latencies)
  }
}
