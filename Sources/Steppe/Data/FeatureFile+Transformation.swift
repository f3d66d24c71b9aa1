/// What ``FeatureFile/transform(by:to:inverse:type:onProgress:)`` has written.
public struct FeatureTransformation: Sendable, Hashable {
  /// The rows written.
  public let rows: Int
  /// The rows that were left out for want of a number, and the numbers that were wanting.
  public let dropped: Int
  public let missing: Int
}

extension FeatureFile {
  /// Writes the file's rows as `normalizer` makes them, or, with `inverse`, as they were before; the file appears complete or not at all.
  ///
  /// - Parameters:
  ///   - normalizer: What was fitted on these features, as by ``init(_:for:inverse:format:missing:)``.
  ///   - output: A file whose extension is `.npy`, `[rows, features]`, or `.csv`, under the features' names where they have some.
  ///   - inverse: Whether the rows are to become what they were before.
  ///   - type: 32- or 64-bit floating-point numbers; ``elementType`` by default.
  ///   - onProgress: Called some times a second at the most, and at the end; returns whether to go on.
  /// - Throws: ``FileError`` as ``statistics(onProgress:)``, `outOfRange` where a result is beyond `type`, `cannotWrite`.
  @discardableResult
  public func transform(
    by normalizer: any FeatureNormalizer, to output: String, inverse: Bool = false, type: ElementType? = nil,
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws(FileError) -> FeatureTransformation {
    try normalizer.check(features: features, names: names, inverse: inverse, source: path)
    let type = type ?? elementType
    require(
      type == .float32 || type == .float64, "FeatureFile.transform: expected .float32 or .float64, got .\(type)")
    let isText = output.hasSuffix(".csv")
    guard isText || output.hasSuffix(".npy") else {
      throw FileError(
        path: output, kind: .cannotWrite, expected: "a file with the extension .npy or .csv", found: "another")
    }
    let columns = inverse ? normalizer.inputCount : normalizer.outputCount
    let outputNames = inverse ? normalizer.statistics.names : normalizer.outputNames
    let means = normalizer.statistics.features.map(\.mean)
    var result = FeatureTransformation(rows: 0, dropped: 0, missing: 0)
    try AtomicFile.write(to: output) { file throws(FileError) in
      // The number of rows is known in the end.
      let headerLength = NPY.header(type, shape: [.max, columns]).count
      if isText {
        if !outputNames.isEmpty { try file.write(outputNames.map(CSV.quoted).joined(separator: ",") + "\n") }
      }
      let positions = file.positions
      var rows = 0
      let summary = try forEachRound(onProgress) { blocks throws(FileError) in
        let starts = blocks.indices.map { rows + blocks[..<$0].reduce(0) { $0 + $1.rows } }
        rows += blocks.reduce(0) { $0 + $1.rows }
        var texts = Array(repeating: [UInt8](), count: isText ? blocks.count : 0)
        let failure = texts.withUnsafeMutableBufferPointer { texts in
          // An empty array may have an address.
          let texts = isText ? texts.baseAddress : nil
          return Parallel.first(of: blocks.count) { part -> FileError? in
            let block = blocks[part]
            if missing == .mean, case .double(let x) = block.values {
              fillMissing(UnsafeMutablePointer(mutating: x), rows: block.rows, means)
            }
            do throws(FileError) {
              let numbers = try transformed(block, normalizer, inverse: inverse, type: type, columns)
              if let texts {
                texts[part] = numbers.text()
              } else {
                let start = headerLength + starts[part] * columns * type.byteCount
                try numbers.withBytes { bytes throws(FileError) in try positions.write(bytes, at: start) }
              }
              return nil
            } catch {
              return error
            }
          }
        }
        if let failure { throw failure }
        for text in texts { try file.write(text) }
      }
      if !isText {
        let header = NPY.header(type, shape: [rows, columns], byteCount: headerLength)
        try header.withUnsafeBufferPointer { header throws(FileError) in
          try positions.write(UnsafeRawBufferPointer(header), at: 0)
        }
      }
      result = FeatureTransformation(rows: rows, dropped: summary.dropped, missing: summary.missing)
    }
    return result
  }

  /// Numbers of either type.
  private enum Numbers {
    case float(Tensor<Float>)
    case double(Tensor<Double>)

    func withBytes(_ body: (UnsafeRawBufferPointer) throws(FileError) -> Void) throws(FileError) {
      switch self {
      case .float(let x):
        try x.withUnsafeBufferPointer { x throws(FileError) in try body(UnsafeRawBufferPointer(x)) }
      case .double(let x):
        try x.withUnsafeBufferPointer { x throws(FileError) in try body(UnsafeRawBufferPointer(x)) }
      }
    }

    /// Lines of comma-separated values.
    func text() -> [UInt8] {
      var bytes: [UInt8] = []
      func append(_ columns: Int, _ count: Int, _ number: (Int) -> String) {
        bytes.reserveCapacity(12 * count)
        for index in 0..<count {
          bytes.append(contentsOf: number(index).utf8)
          bytes.append((index + 1) % columns == 0 ? 0x0A : UInt8(ascii: ","))
        }
      }
      switch self {
      case .float(let x): x.withUnsafeBufferPointer { x in append(self.columns, x.count) { x[$0].description } }
      case .double(let x): x.withUnsafeBufferPointer { x in append(self.columns, x.count) { x[$0].description } }
      }
      return bytes
    }

    private var columns: Int {
      switch self {
      case .float(let x): x.shape[1]
      case .double(let x): x.shape[1]
      }
    }
  }

  /// A block's rows as they are written, which must be finite.
  private func transformed(
    _ block: RowBlock, _ normalizer: any FeatureNormalizer, inverse: Bool, type: ElementType, _ columns: Int
  ) throws(FileError) -> Numbers {
    func apply<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> Tensor<Scalar> {
      inverse ? normalizer.inverseTransform(x) : normalizer.transform(x)
    }
    let (numbers, isFinite): (Numbers, Bool)
    switch (block.values, type) {
    case (.float, .float32):
      let y: Tensor<Float> = apply(block.tensor())
      (numbers, isFinite) = (.float(y), y.isAllFinite())
    case (.double, .float32):
      let y: Tensor<Float> = narrowed(apply(block.tensor()))
      (numbers, isFinite) = (.float(y), y.isAllFinite())
    case (.float, _):
      let y: Tensor<Double> = apply(widened(block.tensor()))
      (numbers, isFinite) = (.double(y), y.isAllFinite())
    case (.double, _):
      let y: Tensor<Double> = apply(block.tensor())
      (numbers, isFinite) = (.double(y), y.isAllFinite())
    }
    guard isFinite else {
      throw notFinite(block)
        ?? FileError(
          path: path, kind: .outOfRange, expected: "rows whose results \(type) holds",
          found: "others among rows \(block.first) … \(block.first + block.rows - 1)")
    }
    return numbers
  }

  private func fillMissing(_ x: UnsafeMutablePointer<Double>, rows: Int, _ means: [Double]) {
    for row in 0..<rows {
      for column in 0..<features where x[row * features + column].isNaN { x[row * features + column] = means[column] }
    }
  }
}

/// The same numbers, each rounded to the nearest of 32 bits.
func narrowed(_ x: Tensor<Double>) -> Tensor<Float> {
  let x = x.contiguous()
  let y = Tensor<Float>(uninitialized: x.shape)
  let (from, to) = (x.address, y.address)
  Parallel.ranges(x.count, grain: 4 * Parallel.elementGrain) { range in
    for index in range { to[index] = Float(from[index]) }
  }
  withExtendedLifetime(x) {}
  return y
}

private func widened(_ x: Tensor<Float>) -> Tensor<Double> {
  let x = x.contiguous()
  let y = Tensor<Double>(uninitialized: x.shape)
  let (from, to) = (x.address, y.address)
  for index in 0..<x.count { to[index] = Double(from[index]) }
  withExtendedLifetime(x) {}
  return y
}
