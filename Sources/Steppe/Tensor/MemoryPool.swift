import Glibc

/// Keeps the buffers of tensors that are gone for the tensors to come.
///
/// A fresh large buffer costs a page fault for every 4 KiB of it, several times the cost of what is computed in it. Buffers are aligned
/// to 64 bytes; from 2 MiB on to 2 MiB, and backed by huge pages where the system offers them. The pool is shared by the process and
/// safe from any thread.
public enum MemoryPool {
  /// The most bytes that the pool keeps in free buffers; a quarter of the machine's memory at the start. Lowering it frees at once.
  public static var limit: Int {
    get { withState { $0.limit } }
    set {
      require(newValue >= 0, "MemoryPool.limit: expected at least 0, got \(newValue)")
      release(withState { $0.setLimit(newValue) })
    }
  }

  /// Bytes in free buffers now.
  public static var freeBytes: Int { withState { $0.freeBytes } }

  /// Bytes in buffers that tensors hold now.
  public static var usedBytes: Int { withState { $0.usedBytes } }

  /// How many buffers the system was asked for since the start: steady training asks for none.
  public static var systemAllocations: Int { withState { $0.systemAllocations } }

  /// Returns every free buffer to the system.
  public static func trim() { release(withState { $0.takeAll() }) }

  static let hugePage = 2 << 20

  /// Size classes: see ``sizeClass(_:)``.
  static let classCount = 4 * 56

  /// What stands at the start of a free buffer: the list of its size needs no memory of its own.
  private typealias Link = UnsafeMutableRawPointer?

  private struct State {
    var limit = max(64 << 20, Int(sysconf(Int32(_SC_PHYS_PAGES))) * Int(sysconf(Int32(_SC_PAGESIZE))) / 4)
    var freeBytes = 0
    var usedBytes = 0
    var systemAllocations = 0
    /// The first free buffer of each size class.
    let free: UnsafeMutablePointer<Link> = {
      let lists = UnsafeMutablePointer<Link>.allocate(capacity: MemoryPool.classCount)
      lists.initialize(repeating: nil, count: MemoryPool.classCount)
      return lists
    }()

    mutating func take(_ bytes: Int) -> UnsafeMutableRawPointer? {
      usedBytes += bytes
      let list = free + MemoryPool.sizeClass(bytes)
      guard let pointer = list.pointee else {
        systemAllocations += 1
        return nil
      }
      list.pointee = pointer.load(as: Link.self)
      freeBytes -= bytes
      return pointer
    }

    /// True where the pool keeps the buffer.
    mutating func give(_ pointer: UnsafeMutableRawPointer, _ bytes: Int) -> Bool {
      usedBytes -= bytes
      guard freeBytes + bytes <= limit else { return false }
      freeBytes += bytes
      let list = free + MemoryPool.sizeClass(bytes)
      pointer.storeBytes(of: list.pointee, as: Link.self)
      list.pointee = pointer
      return true
    }

    mutating func setLimit(_ bytes: Int) -> [UnsafeMutableRawPointer] {
      limit = bytes
      return freeBytes > bytes ? takeAll() : []
    }

    mutating func takeAll() -> [UnsafeMutableRawPointer] {
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

  private static let lock = Lock()
  /// Guarded by `lock`.
  nonisolated(unsafe) private static var guarded: State = {
    // A forked child must not inherit the lock of a thread that it does not have.
    pthread_atfork({ lock.lock() }, { lock.unlock() }, { lock.unlock() })
    return State()
  }()

  private static func withState<Result>(_ body: (inout State) -> Result) -> Result {
    lock.withLock { body(&guarded) }
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
    if let pointer = withState({ $0.take(size) }) { return (pointer, size) }
    var pointer: UnsafeMutableRawPointer?
    let status = posix_memalign(&pointer, size >= hugePage ? hugePage : 64, size)
    guard status == 0, let pointer else {
      stop("Steppe: the system has no \(bytes) bytes of memory for a tensor")
    }
    if size >= hugePage { madvise(pointer, size, MADV_HUGEPAGE) }
    return (pointer, size)
  }

  static func deallocate(_ pointer: UnsafeMutableRawPointer, _ size: Int) {
    if !withState({ $0.give(pointer, size) }) { free(pointer) }
  }

  private static func release(_ buffers: [UnsafeMutableRawPointer]) {
    for pointer in buffers { free(pointer) }
  }
}
