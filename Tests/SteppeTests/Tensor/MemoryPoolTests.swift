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

  @Test func smallBuffersAreAlignedToCacheLines() {
    for count in [1, 3, 17, 100, 5000] {
      let address = Tensor<Double>.ones(shape: [count]).withUnsafeBufferPointer { Int(bitPattern: $0.baseAddress) }
      #expect(address % 64 == 0)
    }
  }
}
