/// How far a pass over a file is.
public struct FeatureProgress: Sendable, Hashable {
  /// The bytes that have been read, and all of them.
  public let bytes: Int
  public let totalBytes: Int
  /// The rows that have been read.
  public let rows: Int
}

extension FeatureFile {
  /// Some rows, in memory that is the reader's.
  struct RowBlock {
    /// The number of the first one in the file.
    let first: Int
    let rows: Int
    let values: Values
    fileprivate let features: Int
    /// What keeps them.
    fileprivate let owner: AnyObject

    enum Values {
      case float(UnsafePointer<Float>)
      case double(UnsafePointer<Double>)
    }

    /// `[rows, features]`, of the block's own type.
    func tensor<Scalar: TensorScalar>() -> Tensor<Scalar> {
      let start: UnsafeRawPointer =
        switch values {
        case .float(let x): UnsafeRawPointer(x)
        case .double(let x): UnsafeRawPointer(x)
        }
      let storage = Storage(
        borrowing: start.assumingMemoryBound(to: Scalar.self), count: rows * features, owner: owner)
      return Tensor(storage: storage, shape: [rows, features])
    }
  }

  /// Calls `body` with all rows in order: in each round with a block for each thread at the most.
  @discardableResult
  func forEachRound(
    _ onProgress: (FeatureProgress) -> Bool = { _ in true }, _ body: ([RowBlock]) throws(FileError) -> Void
  ) throws(FileError) -> (rows: Int, dropped: Int, missing: Int) {
    switch contents {
    case .npy(let file): return try forEachRound(of: file, onProgress, body)
    case .csv(let table, let kinds, let order):
      let pass = CSVPass(table, kinds: kinds, missing: missing)
      var pace = Pace()
      while let parts = try pass.next() {
        if !order.isEmpty {
          Parallel.run(parts: parts.count) { parts[$0].reorder(order) }
        }
        try body(
          parts.filter { $0.rows > 0 }.map { part in
            RowBlock(
              first: part.first, rows: part.rows, values: .double(part.numbers.pointer), features: features,
              owner: part.numbers)
          })
        try report(
          onProgress, &pace, bytes: pass.position, totalBytes: table.file.count, rows: pass.rows + pass.dropped)
      }
      return (pass.rows, pass.dropped, pass.missing)
    }
  }

  /// Bytes of an NPY file that a thread takes in a round: several times what a fork and join cost.
  private static let partSize = 4 << 20

  private func forEachRound(
    of file: NPYFile, _ onProgress: (FeatureProgress) -> Bool, _ body: ([RowBlock]) throws(FileError) -> Void
  ) throws(FileError) -> (rows: Int, dropped: Int, missing: Int) {
    let rows = file.shape[0]
    let rowBytes = features * file.elementType.byteCount
    // A page of each column at the least, where they stand one behind the other.
    let height = max(file.isFortranOrder ? 4096 : 1, Self.partSize / rowBytes)
    var pace = Pace()
    var row = 0
    while row < rows {
      let round = min(rows - row, height * Parallel.threadCount)
      let count = (round + height - 1) / height
      let ranges = (0..<count).map { part in
        let range = Parallel.range(part, of: count, count: round)
        return row + range.lowerBound..<row + range.upperBound
      }
      let blocks = ranges.map { range in
        let storage = file.rows(range)
        return RowBlock(
          first: range.lowerBound, rows: range.count, values: storage.values, features: features, owner: storage.owner)
      }
      try body(blocks)
      Parallel.run(parts: count) { file.release(rows: ranges[$0]) }
      row += round
      try report(onProgress, &pace, bytes: row * rowBytes, totalBytes: rows * rowBytes, rows: row)
    }
    return (rows, 0, 0)
  }

  /// When a pass last said how far it is.
  private struct Pace {
    private var last = ContinuousClock.now

    mutating func isDue() -> Bool {
      let now = ContinuousClock.now
      guard now - last >= .milliseconds(50) else { return false }
      last = now
      return true
    }
  }

  private func report(
    _ onProgress: (FeatureProgress) -> Bool, _ pace: inout Pace, bytes: Int, totalBytes: Int, rows: Int
  ) throws(FileError) {
    guard pace.isDue() || bytes == totalBytes else { return }
    guard onProgress(FeatureProgress(bytes: bytes, totalBytes: totalBytes, rows: rows)) else {
      throw FileError(
        path: path, kind: .interrupted, expected: "to be read to its end", found: "the wish to stop after \(rows) rows")
    }
  }
}

extension NPYFile {
  /// What rows are read as: 32 bits where they hold all that the file does.
  var rowType: ElementType {
    switch elementType {
    case .bool, .uint8, .int8, .uint16, .int16, .float16, .bfloat16, .float32: .float32
    case .uint32, .int32, .uint64, .int64, .float64: .float64
    }
  }

  /// Some rows, one behind the other: the file's own memory where they stand so in it.
  fileprivate func rows(_ range: Range<Int>) -> (values: FeatureFile.RowBlock.Values, owner: AnyObject) {
    if rowType == .float32 {
      let storage: Storage<Float> = rowStorage(range)
      return (.float(storage.pointer), storage)
    }
    let storage: Storage<Double> = rowStorage(range)
    return (.double(storage.pointer), storage)
  }

  private func rowStorage<Scalar: TensorScalar>(_ rows: Range<Int>) -> Storage<Scalar> {
    let width = shape.dropFirst().reduce(1, *)
    guard isFortranOrder, shape.count > 1 else {
      return numbers[rows.lowerBound * width..<rows.upperBound * width].storage()
    }
    // The part of each run of rows, then the transposed view of them all.
    let columns = Storage<Scalar>(count: rows.count * width)
    Parallel.ranges(width) { range in
      for column in range {
        let start = column * shape[0] + rows.lowerBound
        let part: Storage<Scalar> = numbers[start..<start + rows.count].storage()
        (columns.pointer + column * rows.count).update(from: part.pointer, count: rows.count)
      }
    }
    let strides = fortranStrides.enumerated().map { $0 == 0 ? 1 : $1 / shape[0] * rows.count }
    let view = Tensor(storage: columns, shape: [rows.count] + shape.dropFirst(), strides: strides, offset: 0)
    return view.contiguous().storage
  }

  /// Lets the system have the memory of rows that have been read.
  fileprivate func release(rows: Range<Int>) {
    if isFortranOrder, shape.count > 1 {
      for column in 0..<shape.dropFirst().reduce(1, *) {
        let start = column * shape[0]
        MappedFile.release(numbers[start + rows.lowerBound..<start + rows.upperBound].bytes)
      }
    } else {
      let width = shape.dropFirst().reduce(1, *)
      MappedFile.release(numbers[rows.lowerBound * width..<rows.upperBound * width].bytes)
    }
  }
}
