#if MPI
  import CMPI
  import Steppe

  /// The gradients of all ranks of one machine, and their sums, in memory that the ranks share: backward writes a rank's gradients straight
  /// to its part of it, each rank adds up its share of every gradient where the others have left theirs, and all read the sums where they
  /// are. Nothing is sent, and only what is set as a tensor or comes before the first exchange is copied.
  ///
  /// Each rank says in shared memory how many lots of gradients it has left there, and of how many it has added up its share. The lots are
  /// the same on all ranks, in one order. A share is added up in the order of ranks, whatever the timing, and by one rank: the sums are the
  /// same bits on all of them.
  ///
  /// The sums take the place of rank 0's gradients, of which there are two, in turns. So nobody writes to what another still reads: rank 0
  /// writes gradients where the sums of the step before the last one stood, and since then each rank has left gradients, which it does only
  /// when it has done with those sums.
  final class SharedGradients<Scalar: TensorScalar> {
    private let memory: SharedMemory
    private let rank: Int
    private let size: Int
    /// The scalars of one rank's gradients.
    private let count: Int
    private let gradients: UnsafeMutablePointer<Scalar>
    /// Whether rank 0's gradients stand behind all others in this step.
    private var isOdd = false
    /// A part of a sum.
    private let part: Storage<Scalar>
    /// The lots that are not added up here. Guarded by the library's lock, as is what follows.
    private var waiting: ArraySlice<Lot> = []
    private var (added, summed) = (0, 0)

    private struct Lot {
      let ranges: [Range<Int>]
      let onBroken: (_ range: Int, _ rank: Int) -> Void
    }

    /// Bytes between numbers that different ranks write.
    private static var line: Int { 128 }

    private static func bytes(_ count: Int, ranks: Int) -> Int {
      2 * line * ranks + count * (ranks + 1) * MemoryLayout<Scalar>.stride
    }

    /// Room for `count` scalars on each rank; nil where the ranks can't share it. A collective.
    init?(_ count: Int, over ranks: Communicator) throws(RankError) {
      guard let memory = try ranks.share(bytes: Self.bytes(count, ranks: ranks.size)) else { return nil }
      (self.memory, self.count, rank, size) = (memory, count, ranks.rank, ranks.size)
      part = Storage(count: 2048)
      let start = memory.pointer + 2 * Self.line * ranks.size
      gradients = start.assumingMemoryBound(to: Scalar.self)
      // It may have served others.
      steppe_shared_store(number(0, of: rank), 0)
      steppe_shared_store(number(1, of: rank), 0)
      try ranks.barrier()
    }

    /// How many lots a rank has left (0) or added up (1).
    private func number(_ kind: Int, of rank: Int) -> UnsafeMutablePointer<UInt64> {
      (memory.pointer + (2 * rank + kind) * Self.line).assumingMemoryBound(to: UInt64.self)
    }

    /// Where this rank's gradients stand.
    var own: UnsafeMutablePointer<Scalar> { gradients(of: rank) }

    private func gradients(of rank: Int) -> UnsafeMutablePointer<Scalar> {
      gradients + (rank == 0 && isOdd ? size : rank) * count
    }

    /// Where the sum of the gradient at `offset` stands.
    func sum(at offset: Int) -> UnsafeMutablePointer<Scalar> { gradients(of: 0) + offset }

    /// Goes to the next step, when all sums of this one are there.
    func endStep() { isOdd.toggle() }

    /// Leaves gradients to the other ranks.
    ///
    /// - Parameter onBroken: Called where one of them is not finite, with its place among `ranges` and the rank.
    /// - Returns: The lot's number.
    func add(_ ranges: [Range<Int>], onBroken: @escaping (_ range: Int, _ rank: Int) -> Void) -> Int {
      waiting.append(Lot(ranges: ranges, onBroken: onBroken))
      added += 1
      steppe_shared_store(number(0, of: rank), UInt64(added))
      return added
    }

    /// Adds up what all ranks have left; whether the sums of a lot are there.
    func advance(to lot: Int) -> Bool {
      while let next = waiting.first, isReached(0, summed + 1) {
        for (index, range) in next.ranges.enumerated() { sum(range) { next.onBroken(index, $0) } }
        waiting.removeFirst()
        summed += 1
        steppe_shared_store(number(1, of: rank), UInt64(summed))
      }
      return summed >= lot && isReached(1, lot)
    }

    private func isReached(_ kind: Int, _ lot: Int) -> Bool {
      (0..<size).allSatisfy { steppe_shared_load(number(kind, of: $0)) >= UInt64(lot) }
    }

    /// This rank's share of a gradient, a part at a time that the nearest cache holds while it is looked at.
    private func sum(_ range: Range<Int>, onBroken: (_ rank: Int) -> Void) {
      let share = Parallel.range(rank, of: size, count: range.count, multiple: 16)
      for start in stride(from: share.lowerBound, to: share.upperBound, by: part.count) {
        let count = min(part.count, share.upperBound - start)
        let offset = range.lowerBound + start
        let sum = part.pointer
        Scalar.add(gradients(of: 0) + offset, gradients(of: 1) + offset, to: sum, count: count)
        for other in 2..<max(size, 2) { Scalar.add(gradients(of: other) + offset, to: sum, count: count) }
        if !Scalar.kernels.all_finite(sum, count) {
          // Where all terms are finite it is their sum that is not.
          onBroken((0..<size).first { !Scalar.kernels.all_finite(gradients(of: $0) + offset, count) } ?? rank)
        }
        (gradients(of: 0) + offset).update(from: sum, count: count)
      }
    }
  }
#endif
