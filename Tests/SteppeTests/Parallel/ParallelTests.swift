import Glibc
import Reference
import Steppe
import Synchronization
import Testing

@Suite struct ParallelTests {
  @Test func everyPartRunsOnce() {
    for threads in [1, 2, 3, 8] {
      for parts in [0, 1, 2, 3, 7, 64, 1000] {
        let counts = Counters(parts)
        Parallel.withThreadCount(threads) { Parallel.run(parts: parts) { counts.increment($0) } }
        #expect(counts.values == [Int](repeating: 1, count: parts), "\(parts) parts, \(threads) threads")
      }
    }
  }

  @Test func rangesCoverAllOnceAndKeepTheirMultiple() {
    var generator = TestGenerator()
    for _ in 0..<300 {
      let (count, grain) = (generator.integer(0...5000), generator.integer(1...700))
      let (multiple, threads) = ([1, 4, 16, 64][generator.integer(0...3)], generator.integer(1...9))
      let counts = Counters(count)
      let (lows, highs) = (Counters(count + 1), Counters(count + 1))
      Parallel.withThreadCount(threads) {
        Parallel.ranges(count, grain: grain, multiple: multiple) { range in
          lows.increment(range.lowerBound)
          highs.increment(range.upperBound)
          for index in range { counts.increment(index) }
        }
      }
      let begun = lows.values
      let starts = begun.indices.filter { begun[$0] > 0 }
      #expect(counts.values.allSatisfy { $0 == 1 } && begun.reduce(0, +) <= threads)
      #expect(starts.allSatisfy { $0 % multiple == 0 } && highs.values[0] == 0)
    }
  }

  @Test func nestedCallsRunAll() {
    let counts = Counters(12 * 5)
    Parallel.withThreadCount(3) {
      Parallel.run(parts: 12) { outer in
        Parallel.run(parts: 5) { counts.increment(outer * 5 + $0) }
      }
    }
    #expect(counts.values.allSatisfy { $0 == 1 })
  }

  @Test func aPartSeesItsCallersThreadCount() {
    for count in [2, 3, 5] {
      let wrong = Atomic<Int>(0)
      Parallel.withThreadCount(count) {
        Parallel.run(parts: 40) { _ in
          if Parallel.threadCount != count { wrong.add(1, ordering: .relaxed) }
        }
      }
      #expect(wrong.load(ordering: .relaxed) == 0)
    }
  }

  @Test func thirtyTwoHostThreadsGetTheRightAnswers() {
    var generator = RandomGenerator(seed: 8)
    let x = Tensor<Float>.randomNormal(shape: [200, 301], using: &generator)
    let expected = Parallel.withThreadCount(2) { ((x * x + 1).sum(axis: 0), BatchNorm<Float>(301).forward(x).output) }
    let wrong = Atomic<Int>(0)
    runOnThreads(32) { _ in
      Parallel.withThreadCount(2) {
        for _ in 0..<20 {
          let result = ((x * x + 1).sum(axis: 0), BatchNorm<Float>(301).forward(x).output)
          if result.0 != expected.0 || result.1 != expected.1 { wrong.add(1, ordering: .relaxed) }
        }
      }
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
  }

  @Test func aForkedChildComputes() async {
    await #expect(processExitsWith: .success) {
      let x = Tensor<Float>.ones(shape: [300, 301])
      Parallel.threadCount = 3
      guard x.sum() == 90300 else { exit(1) }
      // Swift marks `fork` unavailable, since most programs want `posix_spawn`.
      let handle = dlopen(nil, RTLD_NOW)
      let fork = unsafeBitCast(dlsym(handle, "fork"), to: (@convention(c) () -> pid_t).self)
      for _ in 0..<20 {
        let child = fork()
        if child == 0 { _exit((x + x).sum() == 180600 ? 7 : 8) }
        var status: Int32 = 0
        waitpid(child, &status, 0)
        guard status == 7 << 8, (x + x).sum() == 180600 else { exit(1) }
      }
      exit(0)
    }
  }

  @Test func atRestItUsesNoProcessor() async {
    // In a process of its own, since other tests are at work here.
    await #expect(processExitsWith: .success) {
      Parallel.threadCount = 4
      _ = Tensor<Float>.ones(shape: [1000, 1000]).sum()
      func processorTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
      }
      // On a busy machine the threads may take a while to come to their rest; one that spins never does.
      for _ in 0..<30 {
        let before = processorTime()
        usleep(100_000)
        if processorTime() - before < 0.001 { exit(0) }
      }
      exit(1)
    }
  }

  @Test func threadCountsOutOfRangeStop() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      Parallel.threadCount = 0
    }
    let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(message.contains("expected 1 … 256, got 0"))
  }

  @Test func theEnvironmentSetsTheThreadCount() async {
    #expect(Parallel.availableProcessors >= 1)
    await #expect(processExitsWith: .success) {
      setenv("STEPPE_NUM_THREADS", "5", 1)
      exit(Parallel.threadCount == 5 ? 0 : 1)
    }
  }
}

/// Runs `body(0)` … `body(count − 1)`, each on a thread of its own, and waits for all.
func runOnThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  final class Start: Sendable {
    let number: Int
    let body: @Sendable (Int) -> Void
    init(_ number: Int, _ body: @escaping @Sendable (Int) -> Void) { (self.number, self.body) = (number, body) }
  }
  var threads = [pthread_t](repeating: pthread_t(), count: count)
  for number in 0..<count {
    pthread_create(
      &threads[number], nil,
      { argument in
        let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
        start.body(start.number)
        return nil
      }, Unmanaged.passRetained(Start(number, body)).toOpaque())
  }
  for thread in threads { pthread_join(thread, nil) }
}

/// Counts that several threads may raise.
final class Counters: @unchecked Sendable {
  // The library's lock: the thread sanitizer does not see the standard library's.
  private let lock = Lock()
  private var counts: [Int]
  init(_ count: Int) { counts = [Int](repeating: 0, count: count) }
  func increment(_ index: Int) { lock.withLock { counts[index] += 1 } }
  var values: [Int] { lock.withLock { counts } }
}
