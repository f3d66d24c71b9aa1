#if MPI
  import Foundation
  import Steppe
  import SteppeMPI

  /// `steppe-mpi-tests measure …`: what script/mpi measure runs. Results go to standard output as JSON lines.
  func runMeasurement(_ arguments: [String]) -> Never {
    do {
      switch arguments.first {
      case "all-reduce": try measureAllReduce()
      case "step": try measureStep(Array(arguments.dropFirst()))
      case "overlap": try measureOverlap(Array(arguments.dropFirst()))
      case "plan": try printPlan(Array(arguments.dropFirst()))
      default:
        note("usage: steppe-mpi-tests measure all-reduce | step | overlap | plan; see script/mpi")
        exit(64)
      }
      exit(0)
    } catch {
      note("measure: \(error)")
      if MPILaunch.isLaunched { (try? Communicator.world())?.abort() }
      exit(1)
    }
  }

  private func print(_ members: [(String, JSONValue)]) {
    Swift.print(JSONValue.object(members.map { .init($0.0, $0.1) }).serialized())
    fflush(nil)
  }

  private func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted[sorted.count / 2]
  }

  // MARK: All-reduces

  /// The time of all-reduces of many sizes, as an operation that is waited for.
  private func measureAllReduce() throws {
    Parallel.threadCount = 1
    let ranks = try Communicator.world()
    for exponent in stride(from: 3, through: 24, by: 1) {
      let count = (1 << exponent) / MemoryLayout<Float>.stride
      var tensor = Tensor<Float>.zeros(shape: [count])
      func time(_ repetitions: Int) throws -> Double {
        try ranks.barrier()
        let start = ContinuousClock.now
        for _ in 0..<repetitions { try ranks.allReduce(&tensor) }
        var seconds = [(ContinuousClock.now - start) / .seconds(1) / Double(repetitions)]
        // Until the last rank has it.
        try ranks.allReduce(&seconds, .maximum)
        return seconds[0]
      }
      // Agreed, since each rank must do as many.
      var repetitions = [max(2, min(200, 0.05 / (try time(2))))]
      try ranks.allReduce(&repetitions, .minimum)
      let blocks = try (0..<7).map { _ in try time(Int(repetitions[0])) }
      if ranks.rank == 0 {
        print([
          ("ranks", .integer(ranks.size)), ("bytes", .integer(4 * count)), ("seconds", .number(median(blocks))),
        ])
      }
    }
    try ranks.finish()
  }

  // MARK: Training steps

  /// A step of 784-h-h-10 with batch norm: forward, loss, backward and optimizer.
  private final class StepWork {
    let model: Sequential<Float>
    private let optimizer: SGD<Float>
    private let x: Tensor<Float>
    private let labels: [Int]
    private let batch: Int
    private let parallel: DataParallel<Float>?

    init(hidden: Int, batch: Int, over ranks: Communicator?, bucketBytes: Int) throws {
      model = Sequential(seed: 1) {
        for inputs in [784, hidden] {
          Dense(inputs, hidden, bias: false)
          BatchNorm(hidden)
          ReLU()
        }
        Dense(hidden, 10)
      }
      optimizer = SGD(model.parameters, learningRate: 0.01, momentum: 0.9)
      self.batch = batch
      var generator = RandomGenerator(seed: 1)
      let all = Tensor<Float>.randomUniform(shape: [batch, 784], using: &generator)
      if let ranks {
        model.synchronized(over: ranks)
        let parallel = try DataParallel(model, over: ranks, bucketBytes: bucketBytes, checkInterval: 1_000_000)
        let own = parallel.share(of: Array(0..<batch))
        x = Tensor(shape: [own.count, 784], scalars: own.flatMap { all.scalars[$0 * 784..<($0 + 1) * 784] })
        labels = own.map { $0 % 10 }
        self.parallel = parallel
      } else {
        (x, labels, parallel) = (all, (0..<batch).map { $0 % 10 }, nil)
      }
    }

    /// The seconds of each part: until backward is done, until the gradients are there, and the optimizer's.
    func run() throws -> [Double] {
      let start = ContinuousClock.now
      let (logits, pullback) = model.forward(x)
      let gradient = softmaxCrossEntropy(logits, labels, reduction: .sum).gradient * (1 / Float(batch))
      pullback.accumulate(gradient)
      let computed = ContinuousClock.now
      try parallel?.finishGradients()
      let gathered = ContinuousClock.now
      optimizer.step()
      let end = ContinuousClock.now
      return [computed - start, gathered - computed, end - gathered].map { $0 / .seconds(1) }
    }
  }

  /// `step HIDDEN BATCH THREADS BUCKET_BYTES [apart]`: the median step, of this process alone or of the ranks of mpirun, which are to send
  /// each other the gradients although they run on one machine where it says so.
  private func measureStep(_ arguments: [String]) throws {
    let numbers = arguments.compactMap { Int($0) }
    let isApart = arguments.last == "apart"
    guard numbers.count == 4, arguments.count == (isApart ? 5 : 4) else {
      throw MeasurementError("step: expected HIDDEN BATCH THREADS BUCKET_BYTES [apart]")
    }
    let (hidden, batch, threads, bytes) = (numbers[0], numbers[1], numbers[2], numbers[3])
    Parallel.threadCount = threads
    let ranks = MPILaunch.isLaunched ? try Communicator.world() : nil
    if isApart { ranks?.sharesMemory = false }
    let work = try StepWork(hidden: hidden, batch: batch, over: ranks, bucketBytes: bytes)
    for _ in 0..<20 { _ = try work.run() }
    var parts: [[Double]] = []
    for _ in 0..<100 {
      try ranks?.barrier()
      parts.append(try work.run())
    }
    if ranks?.rank ?? 0 == 0 {
      let columns = (0..<3).map { column in median(parts.map { $0[column] }) }
      print([
        ("ranks", .integer(ranks?.size ?? 1)), ("threads", .integer(threads)), ("hidden", .integer(hidden)),
        ("batch", .integer(batch)), ("bucket_bytes", .integer(bytes)),
        ("step", .number(median(parts.map { $0.reduce(0, +) }))), ("compute", .number(columns[0])),
        ("wait", .number(columns[1])), ("optimizer", .number(columns[2])),
      ])
    }
    try ranks?.finish()
  }

  struct MeasurementError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }

  func field(_ name: String, _ line: String) -> Double? {
    guard let json = try? JSONValue(parsing: Array(line.utf8)) else { return nil }
    switch json[name] {
    case .number(let value)?: return value
    case .integer(let value)?: return Double(value)
    default: return nil
    }
  }

  /// Two ranks of one thread each against one process of two threads, in turns.
  private func measureOverlap(_ arguments: [String]) throws {
    let launcher = Launcher(arguments)
    let program = CommandLine.arguments[0]
    let sides: [(name: String, words: [String])] = [
      ("one process, 2 threads", [program, "measure", "step", "1024", "256", "2", "1048576"]),
      ("2 ranks of 1 thread", launcher.launch(2) + [program, "measure", "step", "1024", "256", "1", "1048576"]),
    ]
    var times: [[Double]] = [[], []]
    for _ in 0..<7 {
      for (index, side) in sides.enumerated() {
        let outcome = launcher.run(side.words)
        guard let line = outcome.text.split(separator: "\n").first(where: { $0.hasPrefix("{") }),
          let seconds = field("step", String(line))
        else { throw MeasurementError("\(side.name): \(outcome.text)") }
        times[index].append(seconds)
        Swift.print(line)
        fflush(nil)
      }
    }
    let ratios = zip(times[1], times[0]).map { $0 / $1 }
    print([
      ("one_process", .number(median(times[0]))), ("two_ranks", .number(median(times[1]))),
      ("ratio", .number(median(ratios))), ("least_ratio", .number(ratios.min()!)),
      ("greatest_ratio", .number(ratios.max()!)),
    ])
  }
#endif
