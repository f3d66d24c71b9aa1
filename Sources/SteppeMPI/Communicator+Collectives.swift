#if MPI
  import CMPI
  import Steppe

  // What all ranks do together: reductions, broadcasts, gatherings, barriers.
  extension Communicator {
    /// How the values of all ranks become one.
    public enum Reduction: Sendable {
      /// Their sum.
      case sum
      /// The least.
      case minimum
      /// The greatest.
      case maximum

      var operation: steppe_mpi_operation {
        switch self {
        case .sum: STEPPE_MPI_SUM
        case .minimum: STEPPE_MPI_MIN
        case .maximum: STEPPE_MPI_MAX
        }
      }
    }

    /// Makes `values` those of all ranks, reduced element by element. A collective.
    ///
    /// The result is the same bits on every rank, and again with the same number of ranks.
    public func allReduce(_ values: inout [Double], _ reduction: Reduction = .sum) throws(RankError) {
      let memory = ExchangeMemory.copying(values)
      try finish(begin(allReduce: memory, count: values.count, STEPPE_MPI_DOUBLE, reduction.operation, "an all-reduce"))
      memory.read(&values)
    }

    /// Merges what a training step came to, ``STEPPE_MPI_STEP_NUMBERS`` numbers. A collective.
    func merge(step numbers: inout [Double]) throws(RankError) {
      let memory = ExchangeMemory.copying(numbers)
      try finish(begin(allReduce: memory, count: 1, STEPPE_MPI_STEP, STEPPE_MPI_MERGE, "the end of a training step"))
      memory.read(&numbers)
    }

    /// Makes `tensor` that of all ranks, reduced element by element. A collective.
    public func allReduce<Scalar: TensorScalar>(
      _ tensor: inout Tensor<Scalar>, _ reduction: Reduction = .sum
    ) throws(RankError) {
      tensor.makeWritable()
      if reduction == .sum {
        return try finish(begin(sum: tensor.address, count: tensor.count, "an all-reduce", holder: tensor))
      }
      try finish(
        begin(
          allReduce: tensor.address, count: tensor.count, Self.type(of: Scalar.self), reduction.operation,
          "an all-reduce", holder: tensor))
    }

    /// Makes `tensor`, of the same shape on all ranks, that of the rank `root`. A collective.
    public func broadcast<Scalar: TensorScalar>(_ tensor: inout Tensor<Scalar>, from root: Int = 0) throws(RankError) {
      tensor.makeWritable()
      try broadcast(tensor.address, count: tensor.count, Self.type(of: Scalar.self), from: root, holder: tensor)
    }

    /// The bytes of the rank `root`, however many. A collective.
    public func broadcast(_ bytes: [UInt8], from root: Int = 0) throws(RankError) -> [UInt8] {
      func exchange<Element>(_ values: inout [Element], _ type: steppe_mpi_type) throws(RankError) {
        let memory = ExchangeMemory.copying(values)
        try broadcast(memory.pointer, count: values.count, type, from: root, holder: memory)
        memory.read(&values)
      }
      var count = [Int64(bytes.count)]
      try exchange(&count, STEPPE_MPI_INT64)
      var result = rank == root ? bytes : [UInt8](repeating: 0, count: Int(count[0]))
      try exchange(&result, STEPPE_MPI_BYTE)
      return result
    }

    /// The bytes of every rank, in the order of ranks; each may have another number of them. A collective.
    public func allGather(_ bytes: [UInt8]) throws(RankError) -> [[UInt8]] {
      let counts = try allGather([Int64(bytes.count)]).map { Int($0[0]) }
      let longest = counts.max() ?? 0
      let padded = bytes + [UInt8](repeating: 0, count: longest - bytes.count)
      let all = try gathered(padded, STEPPE_MPI_BYTE)
      return counts.enumerated().map { Array(all[$0 * longest..<$0 * longest + $1]) }
    }

    /// The numbers of every rank, as many on each, in the order of ranks. A collective.
    func allGather(_ numbers: [Int64]) throws(RankError) -> [[Int64]] {
      let all = try gathered(numbers, STEPPE_MPI_INT64)
      return (0..<size).map { Array(all[$0 * numbers.count..<($0 + 1) * numbers.count]) }
    }

    /// Returns when all ranks have come here. A collective.
    public func barrier() throws(RankError) {
      try finish(
        begin("a barrier", on: main, holder: ()) { communicator, _, request in steppe_mpi_barrier(communicator, request)
        })
    }

    private func broadcast(
      _ values: UnsafeMutableRawPointer, count: Int, _ type: steppe_mpi_type, from root: Int, holder: Any
    ) throws(RankError) {
      require((0..<size).contains(root), "Communicator.broadcast: expected a rank in 0 ..< \(size), got \(root)")
      try finish(
        begin("a broadcast", on: main, pieces: Self.pieces(count), holder: holder) {
          range, communicator, registry, request in
          let start = values + range.lowerBound * Self.stride(of: type)
          return steppe_mpi_broadcast(communicator, registry, start, Int32(range.count), type, Int32(root), request)
        })
    }

    private func gathered<Element>(_ values: [Element], _ type: steppe_mpi_type) throws(RankError) -> [Element] {
      guard let first = values.first else { return [] }
      let own = ExchangeMemory.copying(values)
      var result = [Element](repeating: first, count: size * values.count)
      let all = ExchangeMemory.copying(result)
      let count = Int32(values.count)
      try finish(
        begin("a gathering", on: main, holder: [own, all]) { communicator, registry, request in
          steppe_mpi_all_gather(communicator, registry, own.pointer, count, type, all.pointer, request)
        })
      all.read(&result)
      return result
    }
  }
#endif
