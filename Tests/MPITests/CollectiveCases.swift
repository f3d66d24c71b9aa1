#if MPI
  import Foundation
  import Reference
  import Steppe
  import SteppeMPI

  func collectives(_ context: RankContext) throws {
    let (ranks, rank, size) = (context.ranks, context.rank, context.size)
    var numbers = [Double(rank), 1, -Double(rank)]
    try ranks.allReduce(&numbers)
    let sum = Double(size * (size - 1) / 2)
    context.expect(numbers == [sum, Double(size), -sum], "sums \(numbers)")
    numbers = [Double(rank)]
    try ranks.allReduce(&numbers, .minimum)
    context.expect(numbers == [0], "least \(numbers)")
    numbers = [Double(rank)]
    try ranks.allReduce(&numbers, .maximum)
    context.expect(numbers == [Double(size - 1)], "greatest \(numbers)")

    // Of many sizes, so that MPI goes by each of its algorithms.
    var generator = context.generator()
    for count in [0, 1, 7, 1000, 65_537, 1 << 20] {
      let parts = (0..<size).map { _ in generator.integer(0...1000) }
      var tensor = Tensor<Float>(repeating: Float(parts[rank]), shape: [count])
      try ranks.allReduce(&tensor)
      let expected = Float(parts.reduce(0, +))
      context.expect(tensor.scalars.allSatisfy { $0 == expected }, "sum of \(count) floats")
      try context.expectSame(tensor.scalars, "sum of \(count) floats")
    }
    for root in 0..<size {
      var tensor = Tensor<Double>(repeating: Double(rank), shape: [3, 5])
      let other = tensor
      try ranks.broadcast(&tensor, from: root)
      context.expect(tensor.scalars.allSatisfy { $0 == Double(root) }, "broadcast of rank \(root)")
      context.expect(other.scalars.allSatisfy { $0 == Double(rank) }, "a copy of what was broadcast has changed")
      let bytes = try ranks.broadcast([UInt8](repeating: UInt8(rank), count: 10 * rank), from: root)
      context.expect(bytes == [UInt8](repeating: UInt8(root), count: 10 * root), "bytes of rank \(root)")
    }
    let all = try ranks.allGather([UInt8](repeating: UInt8(rank), count: rank))
    context.expect(all == (0..<size).map { [UInt8](repeating: UInt8($0), count: $0) }, "gathering \(all)")
    try ranks.barrier()
    context.expect(ranks.localSize >= 1 && ranks.localSize <= size, "local size \(ranks.localSize)")
    context.expect(!Communicator.library.isEmpty, "the library's name")
  }

  /// The merge of (number, mean, Σ(x − mean)²) over ranks with any number of values, against a sum in one go.
  func moments(_ context: RankContext) throws {
    var generator = context.generator()
    for mean in [0.0, 1e6, -3e9] {
      for count in [2, 3, 17, 500] {
        let values = generator.normals(count, mean: mean, as: Double.self)
        let own = context.unevenShare(of: count, using: &generator)
        let norm: BatchNorm<Double> = SynchronizedBatchNorm(1, momentum: 1, over: context.ranks)
        _ = norm.forward(Tensor(values[own].map { [$0] }, columns: 1))
        var total = CompensatedSum()
        for value in values { total.add(value - mean) }
        let offset = total.value / Double(count)
        var squares = CompensatedSum()
        for value in values { squares.add((value - mean - offset) * (value - mean - offset)) }
        let variance = squares.value / Double(count - 1)
        let (foundMean, foundVariance) = (norm.runningMean.scalars[0], norm.runningVariance.scalars[0])
        context.expect(
          abs(foundMean - (mean + offset)) <= 2 * mean.ulp + 1e-15 * variance.squareRoot(),
          "mean \(foundMean) of \(count) values near \(mean), expected \(mean + offset)")
        // What values of this size can be known to: their own roundings, which the reference has too, are no part of it.
        let tolerance = 1e-13 * variance + 4 * mean.ulp * variance.squareRoot() * 1e-3
        context.expect(
          abs(foundVariance - variance) <= tolerance,
          "variance \(foundVariance) of \(count) values near \(mean), expected \(variance)")
        try context.expectSame([foundMean, foundVariance], "statistics of \(count) values near \(mean)")
      }
    }
  }

  extension Tensor {
    /// `[rows.count, columns]`, where there may be no row.
    init(_ rows: [[Scalar]], columns: Int) { self.init(shape: [rows.count, columns], scalars: rows.flatMap { $0 }) }
  }

  func features(_ context: RankContext) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
      "steppe-mpi-\(getppid())-\(context.rank)-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    var generator = context.generator()
    // Two files for each rank, of different lengths.
    var files: [Tensor<Float>] = []
    for index in 0..<2 * context.size {
      let rows = 5 + 13 * index
      files.append(Tensor(shape: [rows, 3], scalars: generator.normals(3 * rows, mean: 1e4 * Double(index))))
    }
    var own: [FeatureFile] = []
    for index in 2 * context.rank...2 * context.rank + 1 {
      let path = folder.appendingPathComponent("\(index).npy").path
      try NPY.write(files[index], to: path)
      own.append(try FeatureFile(path))
    }
    let found = try FeatureStandardizer.fit(own, over: context.ranks)
    let expected = try FeatureStandardizer.fit(Tensor.concatenated(files))
    context.expect(found.statistics.rows == expected.statistics.rows, "\(found.statistics.rows) rows")
    for (a, b) in zip(found.statistics.features, expected.statistics.features) {
      context.expect(
        abs(a.mean - b.mean) <= 1e-12 * abs(b.mean) && abs(a.deviation - b.deviation) <= 1e-12 * b.deviation
          && (a.minimum, a.maximum, a.count) == (b.minimum, b.maximum, b.count), "\(a), expected \(b)")
    }
    try context.expectSame(found.statistics.features.flatMap { [$0.mean, $0.deviation] }, "the standardizer")

    guard context.size > 1 else { return }
    context.expectError("features: 3 on rank 0, 4 on rank 1") {
      _ = try FeatureStatistics(features: context.rank == 1 ? 4 : 3).merged(over: context.ranks)
    }
    context.expectError("rank 1: ", "expected at least one file") {
      _ = try FeatureStandardizer.fit(context.rank == 1 ? [] : own, over: context.ranks)
    }
  }
#endif
