import Glibc
import Steppe
import Testing

@Suite struct MemoryPoolTests {
  @Test func aFreedBufferIsUsedAgain() async {
    // In a process of its own: other tests use the pool as well.
    await #expect(processExitsWith: .success) {
      let address = Tensor<Float>.ones(shape: [1000, 1000]).withUnsafeBufferPointer { Int(bitPattern: $0.baseAddress) }
      let used = MemoryPool.usedBytes
      let free = MemoryPool.freeBytes
      guard address % (2 << 20) == 0, free >= 4_000_000 else { exit(1) }
      let count = MemoryPool.systemAllocations
      do {
        let again = Tensor<Float>.ones(shape: [1000, 1000])
        let second = again.withUnsafeBufferPointer { Int(bitPattern: $0.baseAddress) }
        guard second == address, MemoryPool.systemAllocations == count else { exit(2) }
        guard MemoryPool.usedBytes == used + free else { exit(3) }
      }
      MemoryPool.trim()
      guard MemoryPool.freeBytes == 0 else { exit(4) }
      MemoryPool.limit = 0
      _ = Tensor<Float>.ones(shape: [100])
      exit(MemoryPool.freeBytes == 0 ? 0 : 5)
    }
  }

  /// One thread may fill nearly all of the pool, and never more than its limit.
  @Test func oneThreadKeepsMuch() async {
    await #expect(processExitsWith: .success) {
      MemoryPool.trim()
      MemoryPool.limit = 640 << 20
      let size = 4 << 20
      var tensors = (0..<160).map { _ in Tensor<Float>.zeros(shape: [size / 4]) }
      tensors.removeAll()
      guard (400 << 20...640 << 20).contains(MemoryPool.freeBytes) else { exit(1) }
      let count = MemoryPool.systemAllocations
      tensors = (0..<100).map { _ in Tensor<Float>.zeros(shape: [size / 4]) }
      guard MemoryPool.systemAllocations == count else { exit(2) }
      MemoryPool.limit = 16 << 20
      exit(MemoryPool.freeBytes <= 16 << 20 && MemoryPool.usedBytes >= 400 << 20 ? 0 : 3)
    }
  }

  /// What one thread gives back serves another, before the system is asked.
  @Test func threadsShareBuffers() async {
    await #expect(processExitsWith: .success) {
      let shape = [3_000_000]
      _ = Tensor<Float>.zeros(shape: shape)
      let count = MemoryPool.systemAllocations
      var thread = pthread_t()
      pthread_create(&thread, nil, { _ in withExtendedLifetime(Tensor<Float>.zeros(shape: [3_000_000])) { nil } }, nil)
      pthread_join(thread, nil)
      exit(MemoryPool.systemAllocations == count ? 0 : 1)
    }
  }

  @Test func smallBuffersAreAlignedToCacheLines() {
    for count in [1, 3, 17, 100, 5000] {
      let address = Tensor<Double>.ones(shape: [count]).withUnsafeBufferPointer { Int(bitPattern: $0.baseAddress) }
      #expect(address % 64 == 0)
    }
  }
}
