#if MPI
  import CMPI
  import Steppe

  /// A sum over the ranks, in place, in pieces that go around their ring: in K − 1 steps each rank adds its own numbers to a piece that comes
  /// from the left and sends it on, in K − 1 more the finished pieces go around.
  ///
  /// Every piece is summed in one order, so that the sums are the same bits on all ranks. A number that is not finite makes its sum so; whether
  /// it came from the left or is the rank's own shows where the two are added.
  final class Ring<Scalar: TensorScalar> {
    private let values: UnsafeMutablePointer<Scalar>
    private let count: Int
    private let rank: Int
    private let size: Int
    private let tag: Int32
    private let communicator: steppe_mpi_communicator
    private let onBroken: ((_ place: Int, _ isOwn: Bool) -> Void)?
    /// What comes from the left to be added.
    private let arrived: Storage<Scalar>
    /// The step that is under way; -1 before the first.
    private var step = -1

    init(
      _ values: UnsafeMutablePointer<Scalar>, count: Int, rank: Int, size: Int, tag: Int32,
      rings communicator: steppe_mpi_communicator, onBroken: ((_ place: Int, _ isOwn: Bool) -> Void)?
    ) {
      (self.values, self.count, self.rank, self.size, self.tag) = (values, count, rank, size, tag)
      self.communicator = communicator
      self.onBroken = onBroken
      arrived = Storage(count: (count + size - 1) / size + 16)
    }

    private func piece(_ number: Int) -> Range<Int> {
      Parallel.range((number % size + size) % size, of: size, count: count, multiple: 16)
    }

    /// Ends a step and begins the next one; whether there is one.
    func advance(_ requests: inout [UnsafeMutablePointer<steppe_mpi_request>]) throws(RankError) -> Bool {
      if (0..<size - 1).contains(step) { add(piece(rank - step - 1)) }
      step += 1
      guard step < 2 * (size - 1) else { return false }
      let isSumming = step < size - 1
      let turn = isSumming ? step : step - size
      let (sent, received) = (piece(rank - turn), piece(rank - turn - 1))
      let target = isSumming ? arrived.pointer : values + received.lowerBound
      try begin("MPI_Irecv", &requests) {
        steppe_mpi_receive(communicator, target, bytes(received), Int32((rank + size - 1) % size), tag, $0)
      }
      try begin("MPI_Isend", &requests) {
        steppe_mpi_send(communicator, values + sent.lowerBound, bytes(sent), Int32((rank + 1) % size), tag, $0)
      }
      return true
    }

    /// Adds what has arrived to a piece, a part at a time that the nearest cache holds while it is looked at.
    private func add(_ piece: Range<Int>) {
      let length = 2048
      for start in stride(from: piece.lowerBound, to: piece.upperBound, by: length) {
        let count = min(length, piece.upperBound - start)
        let (sum, other) = (values + start, arrived.pointer + (start - piece.lowerBound))
        Scalar.add(other, to: sum, count: count)
        if Scalar.kernels.all_finite(sum, count) { continue }
        let broken = (0..<count).first { !sum[$0].isFinite } ?? 0
        // A sum that arrives broken was noticed where it broke.
        if step > 0, !other[broken].isFinite { continue }
        onBroken?(start + broken, other[broken].isFinite)
      }
    }

    private func bytes(_ piece: Range<Int>) -> Int32 { Int32(piece.count * MemoryLayout<Scalar>.stride) }

    private func begin(
      _ call: String, _ requests: inout [UnsafeMutablePointer<steppe_mpi_request>],
      _ body: (UnsafeMutablePointer<steppe_mpi_request>) -> Int32
    ) throws(RankError) {
      let request = UnsafeMutablePointer<steppe_mpi_request>.allocate(capacity: 1)
      request.initialize(to: steppe_mpi_request())
      requests.append(request)
      try MPILibrary.check(call, body(request))
    }
  }
#endif
