/// The memory behind tensors: a buffer of the pool, or memory that another object keeps alive (a mapped file).
///
/// Shared between copies and views; a tensor writes only to storage that nobody else holds.
package final class Storage<Scalar: TensorScalar>: @unchecked Sendable {
  package let pointer: UnsafeMutablePointer<Scalar>
  package let count: Int
  private let bytes: Int
  /// What keeps memory alive that is not the pool's; such memory is never written.
  private let owner: AnyObject?

  /// Room for `count` scalars, whose values are arbitrary until written.
  package init(count: Int) {
    let (buffer, bytes) = MemoryPool.allocate(count * MemoryLayout<Scalar>.stride)
    pointer = buffer.bindMemory(to: Scalar.self, capacity: count)
    self.count = count
    self.bytes = bytes
    owner = nil
  }

  /// `count` scalars at `pointer`, which `owner` keeps alive and nobody changes.
  package init(borrowing pointer: UnsafePointer<Scalar>, count: Int, owner: AnyObject) {
    self.pointer = UnsafeMutablePointer(mutating: pointer)
    self.count = count
    bytes = 0
    self.owner = owner
  }

  package var isWritable: Bool { owner == nil }

  deinit {
    if owner == nil { MemoryPool.deallocate(pointer, bytes) }
  }
}
