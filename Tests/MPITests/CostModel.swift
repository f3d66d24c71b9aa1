#if MPI
  import Foundation
  import Steppe

  /// What an all-reduce costs: `alpha` seconds for each message, `beta` for each byte (Hockney 1994), by the better of the two algorithms that
  /// MPI libraries choose from (Thakur, Rabenseifner & Gropp 2005): everything doubled over ⌈log₂ K⌉ rounds, or pieces around a ring.
  struct AllReduceCost {
    var alpha: Double
    var beta: Double

    func seconds(_ bytes: Double, ranks: Int) -> Double {
      guard ranks > 1 else { return 0 }
      let (k, rounds) = (Double(ranks), Foundation.log2(Double(ranks)).rounded(.up))
      let doubled = rounds * (alpha + bytes * beta)
      let ring = 2 * (k - 1) * alpha + 2 * (k - 1) / k * bytes * beta
      return min(doubled, ring)
    }

    struct Sample {
      let ranks: Int
      let bytes: Double
      let seconds: Double
    }

    /// How far the model is from `samples`: the root of the mean square of log(modelled/measured).
    func error(_ samples: [Sample]) -> Double {
      let squares = samples.map { sample in
        let ratio = log(seconds(sample.bytes, ranks: sample.ranks) / sample.seconds)
        return ratio * ratio
      }
      return (squares.reduce(0, +) / Double(samples.count)).squareRoot()
    }

    /// The model that is nearest to `samples`, by a search that halves its steps.
    init(fitting samples: [Sample]) {
      (alpha, beta) = (1e-5, 1e-9)
      var step = 3.0
      while step > 1e-4 {
        var best = (error: error(samples), cost: self)
        for (a, b) in [(step, 0), (-step, 0), (0, step), (0, -step)] {
          var cost = self
          cost.alpha *= exp(a)
          cost.beta *= exp(b)
          let error = cost.error(samples)
          if error < best.error { best = (error, cost) }
        }
        if best.cost.alpha == alpha, best.cost.beta == beta { step /= 2 } else { self = best.cost }
      }
    }

    init(alpha: Double, beta: Double) { (self.alpha, self.beta) = (alpha, beta) }
  }

  /// A training step of 784-h-h-10 with synchronized batch norm on many ranks, in time: backward passes the buckets one after the other, and
  /// the network sends them one after the other, each from when it is there.
  struct StepPlan {
    let hidden: Int
    /// The rank's own work without any exchange, in seconds, and the optimizer's part of it.
    let compute: Double
    let optimizer: Double
    let bucketBytes: Int

    /// The parameters' bytes in the order of backward, and the share of forward and backward that is done when their gradient is there.
    private var parameters: [(bytes: Double, done: Double)] {
      let (h, inputs) = (Double(hidden), 784.0)
      // A product forward and two backward for each weight matrix; the first one needs no gradient of its input.
      let (first, second, last) = (inputs * h, h * h, 10 * h)
      let all = 2 * first + 3 * second + 3 * last
      let forward = first + second + last
      let afterLast = (forward + 2 * last) / all
      let afterSecond = (forward + 2 * last + 2 * second) / all
      // The weight's gradient comes before the input's.
      return [
        (40, (forward + last) / all), (4 * last, (forward + last) / all),
        (8 * h, afterLast), (4 * second, (forward + 2 * last + second) / all),
        (8 * h, afterSecond), (4 * first, 1),
      ]
    }

    /// The buckets as ``DataParallel`` makes them.
    private var buckets: [(bytes: Double, done: Double)] {
      var result: [(bytes: Double, done: Double)] = []
      var room = 0.0
      for parameter in parameters {
        let isLarge = 2 * parameter.bytes >= Double(bucketBytes)
        if room <= 0 || isLarge {
          result.append((0, 0))
          room = isLarge ? 0 : Double(bucketBytes)
        }
        result[result.count - 1].bytes += parameter.bytes
        result[result.count - 1].done = parameter.done
        room -= parameter.bytes
      }
      return result
    }

    /// Seconds of a step, and those of them that wait for gradients.
    func seconds(ranks: Int, _ cost: AllReduceCost) -> (step: Double, wait: Double) {
      // Two batch norms: four numbers of eight bytes a channel forward, two backward.
      let statistics =
        2 * cost.seconds(32 * Double(hidden), ranks: ranks) + 2 * cost.seconds(16 * Double(hidden), ranks: ranks)
      let work = compute - optimizer
      var network = 0.0
      for bucket in buckets {
        network = max(network, bucket.done * (work + statistics)) + cost.seconds(bucket.bytes, ranks: ranks)
      }
      // The sums of loss and counts, which come last.
      network += cost.seconds(48, ranks: ranks)
      let wait = max(0, network - work - statistics)
      return (work + statistics + wait + optimizer, wait)
    }
  }

  /// `plan FILE`: fits the cost model to the all-reduces of a file of JSON lines, which `measure all-reduce` has printed with several numbers of
  /// ranks, and predicts the steps of more ranks from the `measure step` of one rank in it.
  func printPlan(_ arguments: [String]) throws {
    guard let path = arguments.first else { throw MeasurementError("plan: expected a file of JSON lines") }
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map(String.init)
    let samples = lines.compactMap { line -> AllReduceCost.Sample? in
      guard let ranks = field("ranks", line), let bytes = field("bytes", line), let seconds = field("seconds", line)
      else {
        return nil
      }
      return AllReduceCost.Sample(ranks: Int(ranks), bytes: bytes, seconds: seconds)
    }.filter { $0.ranks > 1 }
    guard let step = lines.first(where: { field("step", $0) != nil && field("ranks", $0) == 1 }),
      let seconds = field("step", step), let optimizer = field("optimizer", step), let hidden = field("hidden", step),
      let batch = field("batch", step)
    else { throw MeasurementError("plan: \(path) has no step of one rank") }
    guard Set(samples.map(\.ranks)).count > 1 else {
      throw MeasurementError("plan: \(path) has no all-reduces of several numbers of ranks")
    }

    // What was not fitted to judges the fit.
    let held = samples.filter { $0.ranks == 3 }
    let fitted = samples.filter { $0.ranks != 3 }
    let cost = AllReduceCost(fitting: fitted)
    Swift.print(
      String(
        format:
          "latency %.1f µs, %.3f GB/s; typical error %.0f %% of %d all-reduces fitted, %.0f %% of %d of three ranks, held out",
        cost.alpha * 1e6, 1e-9 / cost.beta, 100 * (exp(cost.error(fitted)) - 1), fitted.count,
        held.isEmpty ? .nan : 100 * (exp(cost.error(held)) - 1), held.count))
    Swift.print("\n| ranks | bytes | measured | model |\n|--:|--:|--:|--:|")
    for sample in samples where [64, 4096, 262_144, 4_194_304, 16_777_216].contains(sample.bytes) {
      let modelled = cost.seconds(sample.bytes, ranks: sample.ranks)
      Swift.print(
        String(
          format: "| %d | %.0f | %.3f ms | %.3f ms |", sample.ranks, sample.bytes, sample.seconds * 1e3, modelled * 1e3)
      )
    }

    let latency = Double(arguments.dropFirst().first ?? "") ?? cost.alpha
    Swift.print(
      String(
        format: "\n784-%.0f-%.0f-10, %.0f examples a rank, %.2f ms a step alone; latency %.1f µs\n", hidden, hidden,
        batch,
        seconds * 1e3, latency * 1e6))
    Swift.print("| network | ranks | bucket | step | waiting | efficiency |\n|---|--:|--:|--:|--:|--:|")
    for gigabits in [10.0, 100] {
      let network = AllReduceCost(alpha: latency, beta: 8 / (gigabits * 1e9))
      for ranks in [2, 8, 64, 512] {
        let plans = (14...26).map { exponent -> (bytes: Int, result: (step: Double, wait: Double)) in
          let plan = StepPlan(hidden: Int(hidden), compute: seconds, optimizer: optimizer, bucketBytes: 1 << exponent)
          return (1 << exponent, plan.seconds(ranks: ranks, network))
        }
        let best = plans.min { $0.result.step < $1.result.step }!
        Swift.print(
          String(
            format: "| %.0f Gbit/s | %d | %d KiB | %.2f ms | %.2f ms | %.0f %% |", gigabits, ranks, best.bytes >> 10,
            best.result.step * 1e3, best.result.wait * 1e3, 100 * seconds / best.result.step))
      }
    }
  }
#endif
