#if MPI
  /// Memory with a copy of what stands elsewhere, for MPI to work on.
  final class ExchangeMemory {
    let pointer: UnsafeMutableRawPointer
    private let byteCount: Int

    init(_ bytes: UnsafeRawBufferPointer) {
      byteCount = bytes.count
      pointer = .allocate(byteCount: max(byteCount, 1), alignment: 64)
      // Nothing has no address.
      if let address = bytes.baseAddress { pointer.copyMemory(from: address, byteCount: byteCount) }
    }

    static func copying<Element>(_ values: [Element]) -> ExchangeMemory {
      values.withUnsafeBytes { ExchangeMemory($0) }
    }

    deinit { pointer.deallocate() }

    /// Copies it back to where it came from.
    func read(into bytes: UnsafeMutableRawBufferPointer) {
      bytes.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: byteCount))
    }

    func read<Element>(_ values: inout [Element]) { values.withUnsafeMutableBytes { read(into: $0) } }
  }
#endif
