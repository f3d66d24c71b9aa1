import Glibc
import Synchronization

/// Keeps the buffers of tensors that are gone for the tensors to come.
///
/// A fresh large buffer costs a page fault for every 4 KiB of it, several times the cost of what is computed in it. Buffers are aligned
/// to 64 bytes; from 2 MiB on to 2 MiB, and backed by huge pages where the system offers them. The pool is shared by the process and
/// safe from any thread; a thread first gets back what it gave, which its core's cache may still hold.
public enum MemoryPool {
  /// The most bytes that the pool keeps in free buffers; a quarter of the machine's memory at the start. Lowering it frees at once.
  public static var limit: Int {
    get { bound.load(ordering: .relaxed) }
    set {
      require(newValue >= 0, "MemoryPool.limit: expected at least 0, got \(newValue)")
      bound.store(newValue, ordering: .relaxed)
      if freeBytes > newValue { trim() }
    }
  }

  /// Bytes in free buffers now.
  public static var freeBytes: Int { sum { $0.freeBytes } }

  /// Bytes in buffers that tensors hold now.
  public static var usedBytes: Int { sum { $0.usedBytes } }

  /// How many buffers the system was asked for since the start: steady training asks for none.
  public static var systemAllocations: Int { sum { $0.systemAllocations } }

  /// Returns every free buffer to the system.
  public static func trim() {
    for shelf in shelves {
      for buffer in shelf.withLock({ $0.takeAll() }) { free(buffer) }
    }
  }

  static let hugePage = 2 << 20

  /// Size classes: see ``sizeClass(_:)``.
  static let classCount = 4 * 56

  private static let bound = Atomic(
    max(64 << 20, Int(sysconf(Int32(_SC_PHYS_PAGES))) * Int(sysconf(Int32(_SC_PAGESIZE))) / 4))

  /// What stands at the start of a free buffer: the list of its size needs no memory of its own.
  private typealias Link = UnsafeMutableRawPointer?

  /// A part of the pool, for a few threads: they do not wait for others' locks, and a buffer does not wander from core to core.
  private final class Shelf: @unchecked Sendable {
    let lock = Lock()
    // Guarded by `lock`; the counters of all shelves together are the pool's, those of one may be negative.
    private(set) var freeBytes = 0
    private(set) var usedBytes = 0
    private(set) var systemAllocations = 0
    /// The first free buffer of each size class.
    private let free: UnsafeMutablePointer<Link> = {
      let lists = UnsafeMutablePointer<Link>.allocate(capacity: MemoryPool.classCount)
      lists.initialize(repeating: nil, count: MemoryPool.classCount)
      return lists
    }()

    func withLock<Result>(_ body: (Shelf) -> Result) -> Result { lock.withLock { body(self) } }

    func take(_ bytes: Int) -> UnsafeMutableRawPointer? {
      let list = free + MemoryPool.sizeClass(bytes)
      guard let pointer = list.pointee else { return nil }
      list.pointee = pointer.load(as: Link.self)
      freeBytes -= bytes
      usedBytes += bytes
      return pointer
    }

    func countSystemAllocation(_ bytes: Int) {
      systemAllocations += 1
      usedBytes += bytes
    }

    /// True where the pool keeps the buffer, of which the shelf holds at most `room` bytes.
    func give(_ pointer: UnsafeMutableRawPointer, _ bytes: Int, room: Int) -> Bool {
      guard freeBytes + bytes <= room else { return false }
      usedBytes -= bytes
      freeBytes += bytes
      let list = free + MemoryPool.sizeClass(bytes)
      pointer.storeBytes(of: list.pointee, as: Link.self)
      list.pointee = pointer
      return true
    }

    func countRelease(_ bytes: Int) { usedBytes -= bytes }

    func takeAll() -> [UnsafeMutableRawPointer] {
      var buffers: [UnsafeMutableRawPointer] = []
      for index in 0..<MemoryPool.classCount {
        while let pointer = free[index] {
          buffers.append(pointer)
          free[index] = pointer.load(as: Link.self)
        }
      }
      freeBytes = 0
      return buffers
    }
  }

  private static let shelves: [Shelf] = {
    // A forked child must not inherit the lock of a thread that it does not have.
    pthread_atfork(
      { for shelf in shelves { shelf.lock.lock() } }, { for shelf in shelves { shelf.lock.unlock() } },
      { for shelf in shelves { shelf.lock.unlock() } })
    return (0..<16).map { _ in Shelf() }
  }()

  /// Holds each thread's shelf number plus 1; nil where the system has no key left, and all threads share the first shelf.
  private static let numberKey: pthread_key_t? = {
    var key = pthread_key_t()
    return pthread_key_create(&key, nil) == 0 ? key : nil
  }()
  private static let threads = Atomic<Int>(0)

  /// The calling thread's shelf: threads get them in turn.
  private static var ownNumber: Int {
    guard let numberKey else { return 0 }
    let known = Int(bitPattern: pthread_getspecific(numberKey))
    if known > 0 { return known - 1 }
    let number = threads.add(1, ordering: .relaxed).oldValue % shelves.count
    pthread_setspecific(numberKey, UnsafeRawPointer(bitPattern: number + 1))
    return number
  }

  private static func sum(_ value: (Shelf) -> Int) -> Int {
    shelves.reduce(0) { $0 + $1.withLock(value) }
  }

  /// The size of the buffer that serves `bytes`: four steps to each doubling, so that at most a fifth is wasted.
  static func bufferSize(_ bytes: Int) -> Int {
    if bytes <= 256 { return max(64, (bytes + 63) & ~63) }
    let top = Int.bitWidth - 1 - (bytes - 1).leadingZeroBitCount
    let step = 1 << (top - 2)
    let rounded = (bytes + step - 1) & ~(step - 1)
    return rounded >= hugePage ? (rounded + hugePage - 1) & ~(hugePage - 1) : rounded
  }

  /// The place of a buffer size among all of them.
  static func sizeClass(_ size: Int) -> Int {
    if size <= 256 { return size >> 6 - 1 }
    let top = Int.bitWidth - 1 - (size - 1).leadingZeroBitCount
    return 4 * (top - 8) + size >> (top - 2) - 1
  }

  /// A buffer of at least `bytes`, and its true size; its contents are arbitrary.
  static func allocate(_ bytes: Int) -> (UnsafeMutableRawPointer, Int) {
    let size = bufferSize(bytes)
    let own = ownNumber
    if let pointer = shelves[own].withLock({ $0.take(size) }) { return (pointer, size) }
    for step in 1..<shelves.count {
      if let pointer = shelves[(own + step) % shelves.count].withLock({ $0.take(size) }) { return (pointer, size) }
    }
    shelves[own].withLock { $0.countSystemAllocation(size) }
    var pointer: UnsafeMutableRawPointer?
    let status = posix_memalign(&pointer, size >= hugePage ? hugePage : 64, size)
    guard status == 0, let pointer else {
      stop("Steppe: the system has no \(bytes) bytes of memory for a tensor")
    }
    if size >= hugePage { madvise(pointer, size, MADV_HUGEPAGE) }
    return (pointer, size)
  }

  static func deallocate(_ pointer: UnsafeMutableRawPointer, _ size: Int) {
    let own = shelves[ownNumber]
    // What a shelf keeps without a look at the others, which all together is a quarter of the limit.
    let share = limit / (4 * shelves.count)
    if own.withLock({ $0.give(pointer, size, room: share) }) { return }
    // Beyond that it may have what the others neither have nor may take unseen.
    let others = shelves.reduce(0) { $0 + ($1 === own ? 0 : max(share, $1.withLock { $0.freeBytes })) }
    if own.withLock({ $0.give(pointer, size, room: limit - others) }) { return }
    own.withLock { $0.countRelease(size) }
    free(pointer)
  }
}
