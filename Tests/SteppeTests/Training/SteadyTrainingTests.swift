import Glibc
import Reference
import Steppe
import Testing

@Suite struct SteadyTrainingTests {
  /// After its first steps training asks the system for nothing: no buffer and no page, so that no heap grows either.
  @Test func stepsTakeNoMemoryFromTheSystem() async throws {
    for threads in [1, 2] {
      // In a process of its own: what is counted belongs to the whole process.
      try ExitTestArguments.pass("\(threads)", to: "steady")
      await #expect(processExitsWith: .success) {
        let threads = try #require(Int(ExitTestArguments.received(by: "steady")[0]))
        Parallel.threadCount = threads
        var generator = RandomGenerator(seed: 1)
        let model = Sequential<Float> {
          Dense(300, 200, bias: false)
          BatchNorm(200)
          ReLU()
          Dense(200, 10)
        }
        let images = Tensor<Float>.randomNormal(shape: [128, 300], using: &generator)
        let labels = (0..<128).map { $0 % 10 }
        let optimizers: [any Optimizer<Float>] = [
          SGD(model.parameters, learningRate: 0.01, momentum: 0.9, weightDecay: 1e-4), Adam(model.parameters),
        ]
        for optimizer in optimizers {
          func step() {
            let (logits, pullback) = model.forward(images)
            pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)
            optimizer.step()
          }
          func faults() -> Int {
            var usage = rusage()
            getrusage(0, &usage)
            return usage.ru_minflt
          }
          for _ in 0..<2 { step() }
          // How many buffers are in use at once may depend on which parts of a step happen to overlap, so a rare overlap may still add one
          // with several threads; what each step takes would show in every window. A window has enough steps that a heap which grew by a
          // hundred bytes in each would show in new pages.
          var (asked, faulted) = (0, 0)
          for _ in 0..<(threads == 1 ? 2 : 10) {
            let (buffers, pages) = (MemoryPool.systemAllocations, faults())
            for _ in 0..<300 { step() }
            (asked, faulted) = (MemoryPool.systemAllocations - buffers, faults() - pages)
            // From the third step on, one thread takes no buffer at all.
            if threads == 1, asked > 0 { exit(1) }
            if asked == 0, faulted <= 4 { break }
          }
          // The exit code tells which failed.
          guard asked == 0 else { exit(Int32(1 + min(asked, 99))) }
          guard faulted <= 4 else { exit(Int32(101 + min(faulted, 99))) }
        }
        exit(0)
      }
    }
  }
}
