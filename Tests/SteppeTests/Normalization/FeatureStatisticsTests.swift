import Reference
import Testing

import Steppe

@Suite struct FeatureStatisticsTests {
  /// Columns on which sums in Double go wrong; all values are multiples of `unit`.
  struct Column {
    let unit: Double
    let base: Double
    let values: [Double]

    init(unit: Double, base: Double = 0, _ values: [Double]) {
      self.unit = unit
      self.base = base
      self.values = values.map { ($0 / unit).rounded() * unit }
    }

    static func illConditioned(_ count: Int, _ generator: inout TestGenerator) -> [Column] {
      let fine = 0x1p-23
      var outlier = generator.normals(count, as: Double.self)
      outlier[0] = 1e6
      var late = generator.normals(count, mean: 3, as: Double.self)
      late[count - 1] = -1e6
      return [
        // Mean 1e9 at deviation 1e-3, near the last bit.
        Column(unit: fine, base: 1e9, generator.normals(count, mean: 1e9, deviation: 1e-3)),
        Column(unit: fine, base: -1e9, generator.normals(count, mean: -1e9, deviation: 1)),
        Column(unit: 0x1p-30, generator.normals(count)),
        Column(unit: 0x1p-20, outlier), Column(unit: 0x1p-20, late),
        // Sorted: every segment has another mean.
        Column(unit: 0x1p-20, (0..<count).map { Double($0) + 0.5 }),
        Column(unit: 1, base: 1e15, (0..<count).map { 1e15 + Double($0 % 3) }),
        Column(unit: 0x1p-30, base: 0.75, Array(repeating: 0.75, count: count)),
      ]
    }

    var exact: ExactMoments {
      var moments = ExactMoments(unit: unit, base: base)
      for value in values { moments.add(value) }
      return moments
    }
  }

  private func tensor(_ columns: [Column]) -> Tensor<Double> {
    let rows = columns[0].values.count
    return Tensor(
      shape: [rows, columns.count], scalars: (0..<rows).flatMap { row in columns.map { $0.values[row] } })
  }

  /// Mean and Σ(x − mean)² stay within 1e-12 of exact arithmetic, on any number of threads and with each instruction set.
  @Test func staysNearExactArithmetic() throws {
    var generator = TestGenerator()
    for count in [2, 3, 15, 16, 17, 100, 1000, 20_011] {
      let columns = Column.illConditioned(count, &generator)
      let exact = columns.map(\.exact)
      let x = tensor(columns)
      for threads in 1...3 {
        var statistics = FeatureStatistics(features: columns.count)
        try Parallel.withThreadCount(threads) { try statistics.add(x) }
        for (index, moment) in statistics.moments.enumerated() {
          let squares = exact[index].squaredDistances
          let scale = max(abs(exact[index].mean), (squares / Double(count)).squareRoot())
          let place = "column \(index) of \(count) rows, \(threads) threads"
          #expect(abs(exact[index].meanError(moment.mean.high, moment.mean.low)) <= 1e-15 * scale, "\(place)")
          #expect(abs(moment.squares.high - squares) <= 1e-12 * squares, "\(place): \(moment.squares.high), \(squares)")
          #expect(statistics[index].minimum == columns[index].values.min(), "\(place)")
          #expect(statistics[index].maximum == columns[index].values.max(), "\(place)")
        }
        #expect(statistics.constantFeatures == [7])
        #expect(statistics[7].deviation == 0 && statistics[7].mean == 0.75)
      }
    }
  }

  /// The test above would not pass with sums in Double about the mean in Double: at 1e9 and 1e-3 the mean's rounding counts.
  @Test func theExactReferenceTellsRoundingApart() {
    var generator = TestGenerator()
    let column = Column.illConditioned(20_011, &generator)[0]
    let mean = column.values.reduce(0, +) / Double(column.values.count)
    let squares = column.values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    #expect(abs(squares - column.exact.squaredDistances) > 1e-12 * squares)
  }

  /// Rows in whatever chunks, merged in whatever order, are one list of rows.
  @Test func anyChunkingIsOnePass() throws {
    var generator = TestGenerator()
    for features in [1, 2, 3, 5, 15, 16, 17, 40, 70, 300] {
      let rows = generator.integer(1...1500)
      let means = (0..<features).map { _ in generator.uniform(-1e6...1e6) }
      let x = Tensor<Float>(
        shape: [rows, features],
        scalars: (0..<rows * features).map { Float(means[$0 % features] + generator.normal()) })
      var whole = FeatureStatistics(features: features)
      try Parallel.withThreadCount(1) { try whole.add(x) }
      var parts: [FeatureStatistics] = []
      var row = 0
      while row < rows {
        let taken = min(rows - row, generator.integer(1...400))
        var part = FeatureStatistics(features: features)
        try Parallel.withThreadCount(generator.integer(1...3)) { try part.add(x[row..<row + taken]) }
        parts.append(part)
        row += taken
      }
      parts.shuffle(using: &generator)
      var merged = FeatureStatistics(features: features)
      for part in parts { merged.merge(part) }
      #expect(merged.rows == rows)
      let reference = x.scalars.map { Double($0) }
      for index in 0..<features {
        let column = (0..<rows).map { reference[$0 * features + index] }
        let mean = column.reduce(0, +) / Double(rows)
        let squares = column.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        for found in [whole, merged] {
          #expect(abs(found[index].mean - mean) <= 1e-14 * max(abs(mean), 1), "\(features) × \(rows)")
          #expect(abs(found.moments[index].squares.high - squares) <= 1e-9 * squares, "\(features) × \(rows)")
          #expect(found[index].minimum == column.min() && found[index].maximum == column.max())
        }
        #expect(abs(whole.moments[index].squares.high - merged.moments[index].squares.high) <= 1e-13 * squares)
      }
    }
  }

  @Test func missingValuesAddNothing() throws {
    var generator = TestGenerator()
    let (rows, features) = (3000, 5)
    var x = generator.normals(rows * features, mean: 1e5, as: Double.self)
    for place in x.indices where place % features != 4 && generator.integer(0...3) == 0 { x[place] = .nan }
    // No value at first, and none at all.
    for row in 0..<700 { x[row * features + 2] = .nan }
    for row in 0..<rows { x[row * features + 3] = .nan }
    let moments = FeatureMoments(features: features)
    var row = 0
    while row < rows {
      let taken = min(rows - row, generator.integer(1...500))
      var chunk = Array(x[row * features..<(row + taken) * features])
      chunk.withUnsafeMutableBufferPointer { moments.add(filling: $0.baseAddress!, rows: taken) }
      row += taken
    }
    let found = moments.finished()
    for index in 0..<features {
      let column = stride(from: index, to: x.count, by: features).map { x[$0] }.filter { !$0.isNaN }
      #expect(found[index].count == Double(column.count))
      guard !column.isEmpty else { continue }
      let mean = column.reduce(0) { $0 + ($1 - 1e5) } / Double(column.count) + 1e5
      let squares = column.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      #expect(abs(found[index].mean.high - mean) <= 1e-10)
      #expect(abs(found[index].squares.high - squares) <= 1e-9 * squares)
      #expect(found[index].minimum == column.min() && found[index].maximum == column.max())
    }
  }

  @Test func whatIsNotFiniteIsNamed() throws {
    for (rows, features) in [(1, 1), (5, 3), (1000, 17), (40_000, 2)] {
      for bad in [Float.nan, .infinity, -.infinity] {
        var x = Tensor<Float>.ones(shape: [rows, features])
        x[rows - 1, features - 1] = bad
        var statistics = FeatureStatistics(features: features)
        try statistics.add(Tensor<Float>.ones(shape: [2, features]))
        let before = statistics
        let error = #expect(throws: FileError.self) { try statistics.add(x, source: "x.npy") }
        #expect(error?.kind == .notFinite && error?.path == "x.npy")
        #expect(error?.found == "\(bad) at row \(rows + 1), column \(features - 1)")
        #expect(statistics == before)
      }
    }
    var named = FeatureStatistics(features: 2, names: ["a", "b"])
    let error = #expect(throws: FileError.self) { try named.add(Tensor<Double>([[1, .nan]])) }
    #expect(error?.found == "nan at row 0, column 1 ('b')")
  }

  @Test func theFirstThatIsNotFiniteIsNamedOnAnyThreads() throws {
    var x = Tensor<Float>.ones(shape: [60_000, 3])
    for row in [59_999, 30_001, 123] { x[row, 1] = .nan }
    for threads in 1...3 {
      var statistics = FeatureStatistics(features: 3)
      let error = #expect(throws: FileError.self) {
        try Parallel.withThreadCount(threads) { try statistics.add(x) }
      }
      #expect(error?.found == "nan at row 123, column 1")
    }
  }

  @Test func noRowsAndHugeValuesAreRefused() throws {
    let empty = #expect(throws: FileError.self) { try FeatureStandardizer(FeatureStatistics(features: 2)) }
    #expect(empty?.kind == .empty)
    let huge = Tensor<Double>([[1e200], [-1e200]])
    let error = #expect(throws: FileError.self) { try FeatureStandardizer.fit(huge) }
    #expect(error?.kind == .outOfRange)
    #expect(try MinMaxScaler.fit(huge).transform(huge).scalars == [1, 0])
  }
}
