extension FeatureFile {
  /// What is known of each feature after one pass over the file.
  ///
  /// - Parameter onProgress: Called some times a second at the most, and at the end; returns whether to go on.
  /// - Throws: ``FileError`` of kind `notFinite` for NaN, infinity or what is missing, named by row and column, `wrongFormat` for text and
  ///   ragged rows, `interrupted` where `onProgress` asks to stop.
  public func statistics(
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws(FileError) -> FeatureStatistics {
    var work: [FeatureMoments] = []
    let summary = try forEachRound(onProgress) { blocks throws(FileError) in
      while work.count < blocks.count { work.append(FeatureMoments(features: features)) }
      let moments = work
      let broken = Parallel.first(of: blocks.count) { part -> FileError? in
        let (block, moments) = (blocks[part], moments[part])
        switch block.values {
        case .float(let x): return moments.add(x, rows: block.rows) ? nil : notFinite(block)
        case .double(let x):
          if missing == .mean {
            moments.add(filling: UnsafeMutablePointer(mutating: x), rows: block.rows)
            return nil
          }
          return moments.add(x, rows: block.rows) ? nil : notFinite(block)
        }
      }
      if let broken { throw broken }
    }
    var statistics = FeatureStatistics(features: features, names: names)
    for part in work { statistics.merge(part.finished()) }
    statistics.count(rows: summary.rows)
    return statistics
  }

  /// The features' covariance after one pass over the file, for ``Whitening``.
  ///
  /// - Throws: As ``statistics(onProgress:)``; ``FileError`` of kind `unsupported` where ``missing`` is `.mean`, which no single pass
  ///   allows.
  public func covariance(
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws(FileError) -> FeatureCovariance {
    guard missing != .mean else {
      throw FileError(
        path: path, kind: .unsupported, expected: "missing numbers to be refused or their rows dropped",
        found: "the mean in their place, which a covariance does not have in one pass")
    }
    var covariance = FeatureCovariance(features: features, names: names)
    try forEachRound(onProgress) { blocks throws(FileError) in
      for block in blocks {
        switch block.values {
        case .float: try covariance.add(block.tensor() as Tensor<Float>, source: path)
        case .double: try covariance.add(block.tensor() as Tensor<Double>, source: path)
        }
      }
    }
    return covariance
  }

  /// Where a block holds what is not finite; nil where its numbers are only too large to be squared.
  func notFinite(_ block: RowBlock) -> FileError? {
    let range = 0..<block.rows * features
    let found: (index: Int, value: String)? =
      switch block.values {
      case .float(let x): firstNonFinite(x, range: range).map { ($0.index, "\($0.value)") }
      case .double(let x): firstNonFinite(x, range: range).map { ($0.index, "\($0.value)") }
      }
    guard let found else { return nil }
    let (row, column) = found.index.quotientAndRemainder(dividingBy: features)
    let name = names.isEmpty ? "" : " ('\(names[column])')"
    return FileError(
      path: path, kind: .notFinite, expected: "finite features",
      found: "\(found.value) at row \(block.first + row), column \(column)\(name)")
  }
}
