import COpenBLAS
import Foundation
import Glibc
import Reference
import Steppe
import Synchronization
import Testing

extension LinearAlgebraTests {
  @Suite struct OpenBLASTests {
    @Test func saysWhatItIs() {
      #expect(OpenBLAS.version.split(separator: ".").count >= 2)
      #expect(OpenBLAS.version.first?.isNumber == true)
      #expect(!OpenBLAS.kernelName.isEmpty)
      #expect(OpenBLAS.configuration.contains(OpenBLAS.version))
    }

    @Test func theGateBoundsHowManyStandInside() {
      final class State: Sendable {
        let gate = Gate(places: 3)
        let inside = Atomic<Int>(0)
        let most = Atomic<Int>(0)
        let passages = Atomic<Int>(0)
      }
      let state = State()
      onThreads(12) {
        for _ in 0..<300 {
          state.gate.enter()
          let now = state.inside.add(1, ordering: .relaxed).newValue
          state.most.max(now, ordering: .relaxed)
          sched_yield()
          state.inside.subtract(1, ordering: .relaxed)
          state.gate.leave()
          state.passages.add(1, ordering: .relaxed)
        }
      }
      #expect(state.most.load(ordering: .relaxed) <= 3)
      #expect(state.passages.load(ordering: .relaxed) == 12 * 300)
    }

    @Test func aResetGateIsEmpty() {
      let gate = Gate(places: 2)
      gate.enter()
      gate.enter()
      gate.reset()
      gate.enter()
      gate.enter()
      gate.leave()
      gate.leave()
      gate.close()
      gate.open()
      gate.enter()
      gate.enter()
    }

    @Test func setsOpenBLASToOneThread() async {
      await #expect(processExitsWith: .success) {
        openblas_set_num_threads(2)
        useOpenBLASForProducts()
        _ = Tensor<Float>.ones(shape: [4, 4]).matmul(.ones(shape: [4, 4]))
        exit(openblas_get_num_threads() == 1 ? 0 : 1)
      }
    }

    @Test func leavesTheThreadCountToAHostThatWantsIt() async {
      await #expect(processExitsWith: .success) {
        openblas_set_num_threads(2)
        OpenBLAS.managesThreads = false
        useOpenBLASForProducts()
        let product = Tensor<Float>.ones(shape: [200, 300]).matmul(.ones(shape: [300, 100]))
        exit(openblas_get_num_threads() == 2 && product.scalars.allSatisfy { $0 == 300 } ? 0 : 1)
      }
      await #expect(processExitsWith: .success) {
        setenv("STEPPE_OPENBLAS_THREADS", "keep", 1)
        openblas_set_num_threads(2)
        useOpenBLASForProducts()
        _ = Tensor<Float>.ones(shape: [4, 4]).matmul(.ones(shape: [4, 4]))
        exit(openblas_get_num_threads() == 2 && !OpenBLAS.managesThreads ? 0 : 1)
      }
    }

    @Test func refusesToChangeItsMindLater() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        useOpenBLASForProducts()
        _ = Tensor<Float>.ones(shape: [4, 4]).matmul(.ones(shape: [4, 4]))
        OpenBLAS.managesThreads = false
      }
      #expect(errorText(result).contains("OpenBLAS.managesThreads"))
    }

    @Test func aShutGateLetsItsKeeperThroughAlone() {
      final class State: Sendable {
        let gate = Gate(places: 2)
        let inside = Atomic<Int>(0)
      }
      let state = State()
      state.gate.enter()
      let start = Clock.nanoseconds()
      state.gate.shut(until: start + 20_000_000)
      #expect(Clock.nanoseconds() - start >= 20_000_000, "this thread itself stands inside")
      state.gate.leave()
      state.gate.reset()
      state.gate.shut(until: .max)
      let thread = Thread {
        state.gate.enter()
        state.inside.add(1, ordering: .relaxed)
      }
      thread.start()
      for _ in 0..<5 {
        state.gate.enter()
        usleep(2000)
      }
      #expect(state.gate.isShut && state.inside.load(ordering: .relaxed) == 0)
    }

    /// OpenBLAS gives its memory back when the process ends, also from under threads that compute.
    @Test(arguments: 0..<8) func exitWaitsForThreadsInside(_ round: Int) async {
      await #expect(processExitsWith: .success) {
        computeOnThreads()
        exit(0)
      }
    }

    /// Nothing that goes on during the exit makes it hang: later handlers that compute, and the part of a job that calls it.
    @Test func exitEnds() async {
      await #expect(processExitsWith: .success) {
        Parallel.threadCount = 3
        // Registered before Steppe's own handler, and so called after it.
        atexit {
          let x = Tensor<Float>.ones(shape: [300, 300])
          if x.matmul(x)[7, 7] != 300 { _exit(1) }
        }
        computeOnThreads()
        exit(0)
      }
      await #expect(processExitsWith: .success) {
        Parallel.threadCount = 3
        computeOnThreads()
        // Whichever part comes first exits amid the others.
        let isOver = Atomic<Bool>(false)
        Parallel.run(parts: 3) { part in
          let x = Tensor<Float>.ones(shape: [300, 300])
          for round in 0... {
            _ = x.matmul(x)
            if round == 20, !isOver.exchange(true, ordering: .relaxed) { exit(0) }
          }
        }
      }
      await #expect(processExitsWith: .success) {
        OpenBLAS.call { () -> Void in exit(0) }
      }
    }

    @Test func aForkedChildComputes() async {
      await #expect(processExitsWith: .success) {
        let a = Tensor<Float>.ones(shape: [128, 200])
        Parallel.threadCount = 3
        useOpenBLASForProducts()
        // What Swift sets up at the first use cannot be forked halfway.
        let warm = Tensor<Double>.ones(shape: [60, 60])
        _ = (warm.matmul(warm), a.matmul(a, transposeRight: true).scalars)
        // Threads of the parent's stand inside OpenBLAS, or wait for it, while it forks; the child has none of them.
        computeOnThreads()
        // Swift hides `fork`, which is what a C library in the same process may call.
        typealias Fork = @convention(c) () -> pid_t
        let fork = unsafeBitCast(dlsym(nil, "fork"), to: Fork.self)
        for _ in 0..<20 {
          let child = fork()
          if child == 0 {
            let product = a.matmul(a, transposeRight: true)
            _exit(openblas_get_num_threads() == 1 && product.scalars.allSatisfy { $0 == 200 } ? 0 : 1)
          }
          var status: Int32 = -1
          waitpid(child, &status, 0)
          if status != 0 || openblas_get_num_threads() != 1 { _exit(1) }
        }
        exit(0)
      }
    }
  }
}

/// Chooses the instruction set whose products OpenBLAS computes (where there is a choice: arm64 has but one).
private func useOpenBLASForProducts() { try? InstructionSet.select("baseline") }

/// Starts four threads that compute, in OpenBLAS, as long as the process lives, and returns when all are at it.
private func computeOnThreads() {
  useOpenBLASForProducts()
  let threads = 4
  for _ in 0..<threads {
    var thread = pthread_t()
    pthread_create(
      &thread, nil,
      { _ in
        let x = Tensor<Double>.ones(shape: [300, 300])
        _ = x.matmul(x)
        computingThreads.add(1, ordering: .relaxed)
        while true { _ = x.matmul(x) }
      }, nil)
  }
  while computingThreads.load(ordering: .relaxed) < threads { usleep(1000) }
}

private let computingThreads = Atomic<Int>(0)
