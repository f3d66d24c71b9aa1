import Foundation
import Reference
import Testing

import Steppe

@Suite struct FeatureFileTests {
  /// Whole numbers in features that differ in size, the second one constant.
  private static func rows(_ count: Int, _ generator: inout TestGenerator) -> Tensor<Double> {
    let (means, deviations) = ([20, 5, 100, 70], [3.0, 0, 9, 20])
    return Tensor(
      shape: [count, 4],
      scalars: (0..<count * 4).map { place in
        let x = Double(means[place % 4]) + deviations[place % 4] * generator.normal()
        return min(max(x.rounded(), 0), 200)
      })
  }

  private static func write(_ text: String, _ path: String) throws {
    try Data(text.utf8).write(to: URL(fileURLWithPath: path))
  }

  /// NumPy's file of an array, made here: any type, byte order and order of axes.
  private static func npy(
    _ type: String, _ numbers: [Double], shape: [Int], fortran: Bool, _ path: String
  ) throws {
    let sizes = shape.map { "\($0), " }.joined()
    var header = "{'descr': '\(type)', 'fortran_order': \(fortran ? "True" : "False"), 'shape': (\(sizes)), }"
    header += String(repeating: " ", count: 127 - (10 + header.utf8.count) % 64) + "\n"
    var bytes: [UInt8] = [0x93] + Array("NUMPY".utf8)
    bytes += [1, 0, UInt8(header.utf8.count % 256), UInt8(header.utf8.count / 256)] + header.utf8
    func append<Bits: FixedWidthInteger>(_ bits: Bits) {
      withUnsafeBytes(of: type.hasPrefix(">") ? bits.bigEndian : bits.littleEndian) { bytes += $0 }
    }
    for index in numbers.indices {
      var place = index
      if fortran {
        // The first axis moves fastest.
        var rest = index
        let indices = shape.map { size in
          defer { rest /= size }
          return rest % size
        }
        place = zip(shape, indices).reduce(0) { $0 * $1.0 + $1.1 }
      }
      let number = numbers[place]
      switch type.dropFirst() {
      case "f4": append(Float(number).bitPattern)
      case "f8": append(number.bitPattern)
      case "i4": append(Int32(number))
      case "i8": append(Int64(number))
      case "u1": append(UInt8(number))
      default: append(Int16(number))
      }
    }
    try Data(bytes).write(to: URL(fileURLWithPath: path))
  }

  private func expectSame(_ found: FeatureStatistics, _ expected: FeatureStatistics, _ place: String) {
    #expect(found.rows == expected.rows && found.count == expected.count, "\(place)")
    for (a, b) in zip(found.features, expected.features) {
      #expect(abs(a.mean - b.mean) <= 1e-14 * abs(b.mean), "\(place)")
      #expect(abs(a.deviation - b.deviation) <= 1e-13 * b.deviation, "\(place)")
      #expect(a.minimum == b.minimum && a.maximum == b.maximum && a.count == b.count, "\(place)")
    }
  }

  /// A file's numbers are those of its tensor, whatever their type and order.
  @Test func anyTypeAndOrderOfNPY() throws {
    let folder = TemporaryFolder()
    var generator = TestGenerator()
    let x = Self.rows(531, &generator)
    let standardizer = try FeatureStandardizer.fit(x)
    let expected = standardizer.transform(x).scalars
    for type in ["<f4", ">f4", "<f8", ">f8", "<i4", ">i8", "|u1", ">i2"] {
      for (shape, fortran) in [([531, 4], false), ([531, 4], true), ([531, 2, 2], false), ([531, 2, 2], true)] {
        let path = folder("x.npy")
        try Self.npy(type, x.scalars, shape: shape, fortran: fortran, path)
        let place = "\(type) \(shape) \(fortran)"
        try Parallel.withThreadCount(generator.integer(1...3)) {
          let file = try FeatureFile(path)
          expectSame(try file.statistics(), standardizer.statistics, place)
          let output = folder("z.npy")
          let result = try file.transform(by: standardizer, to: output)
          #expect(result.rows == 531)
          #expect(file.elementType == (["<f8", ">f8", "<i4", ">i8"].contains(type) ? .float64 : .float32), "\(place)")
          let z = try NPY.read(output, as: Double.self)
          #expect(z.shape == [531, 4])
          #expect(zip(z.scalars, expected).allSatisfy { abs($0 - $1) <= 4e-6 * max(1, abs($1)) }, "\(place)")
        }
      }
    }
    // One axis is one feature.
    try NPY.write(Tensor<Float>([1, 2, 3]), to: folder("x.npy"))
    #expect(try FeatureFile(folder("x.npy")).statistics()[0].mean == 2)
  }

  /// More rows than a round takes: nothing is lost between rounds, and progress reaches the end.
  @Test func manyRounds() throws {
    let folder = TemporaryFolder()
    let (rows, features) = (300_007, 5)
    let numbers = (0..<rows * features).map { Float($0 % features) * 100 + Float($0 % 9973) / 100 }
    let x = Tensor<Float>(shape: [rows, features], scalars: numbers)
    try NPY.write(x, to: folder("x.npy"))
    try Self.npy("<f4", numbers.map { Double($0) }, shape: [rows, features], fortran: true, folder("f.npy"))
    let expected = try FeatureStandardizer.fit(x)
    let z = expected.transform(x).scalars
    for name in ["x.npy", "f.npy"] {
      for threads in 1...3 {
        try Parallel.withThreadCount(threads) {
          let file = try FeatureFile(folder(name))
          var last: FeatureProgress?
          let statistics = try file.statistics { progress in
            last = progress
            return true
          }
          let bytes = rows * features * 4
          #expect(last?.bytes == bytes && last?.totalBytes == bytes && last?.rows == rows)
          expectSame(statistics, expected.statistics, "\(name), \(threads)")
          try file.transform(by: expected, to: folder("z.npy"))
          #expect(try NPY.read(folder("z.npy"), as: Float.self).scalars == z, "\(name), \(threads)")
          try FeatureFile(folder("z.npy")).transform(by: expected, to: folder("back.npy"), inverse: true)
          let back = try NPY.read(folder("back.npy"), as: Float.self).scalars
          #expect(zip(back, numbers).allSatisfy { abs($0 - $1) <= 1e-3 })
        }
      }
    }
  }

  @Test func tablesOfText() throws {
    let folder = TemporaryFolder()
    var generator = TestGenerator()
    let x = Self.rows(2000, &generator)
    let numbers = x.scalars
    try CSV.write(x, header: ["a", "b", "c", "d"], to: folder("x.csv"))
    // The same columns elsewhere, beside others.
    let lines = (0..<2000).map { row in
      let at = { numbers[row * 4 + $0] }
      return "\"row, \(row)\",\(at(2)),\(at(0)),\(at(3)),\(at(1))"
    }
    try Self.write("id,c,a,d,b\n" + lines.joined(separator: "\n"), folder("y.csv"))
    for normalizer in [
      try FeatureStandardizer(FeatureFile(folder("x.csv")).statistics()),
      try MinMaxScaler(FeatureFile(folder("x.csv")).statistics(), range: -1...1),
      try Whitening(FeatureFile(folder("x.csv")).covariance(), method: .pca),
      try Whitening(FeatureFile(folder("x.csv")).covariance(), method: .zca),
    ] as [any FeatureNormalizer] {
      let other: FeatureStatistics = try FeatureFile(folder("y.csv"), columns: ["a", "b", "c", "d"]).statistics()
      expectSame(other, normalizer.statistics, "\(normalizer.method)")
      let expected = normalizer.transform(x)
      for name in ["x.csv", "y.csv"] {
        let file = try FeatureFile(folder(name), for: normalizer)
        #expect(file.omitted == (name == "y.csv" ? ["id"] : []))
        for (output, type) in [("z.npy", ElementType.float64), ("z.npy", .float32), ("z.csv", .float64)] {
          try file.transform(by: normalizer, to: folder(output), type: type)
          let z: Tensor<Double> =
            output == "z.npy"
            ? try NPY.read(folder(output)) : try CSV.read(folder(output), as: Double.self).rows
          #expect(z.shape == expected.shape)
          let tolerance = type == .float64 ? 1e-12 : 1e-6
          let isSame = zip(z.scalars, expected.scalars).allSatisfy { abs($0 - $1) <= tolerance * max(1, abs($1)) }
          #expect(isSame, "\(normalizer.method) \(name) \(output) \(type)")
        }
      }
      try FeatureFile(folder("z.csv"), for: normalizer, inverse: true)
        .transform(by: normalizer, to: folder("back.csv"), inverse: true, type: .float64)
      let back = try CSV.read(folder("back.csv"), as: Double.self)
      #expect(back.names == ["a", "b", "c", "d"])
      #expect(zip(back.rows.scalars, numbers).allSatisfy { abs($0 - $1) <= 1e-9 * max(1, abs($1)) })
    }
  }

  @Test func missingNumbers() throws {
    let folder = TemporaryFolder()
    try Self.write("a,b\n1,10\n,20\n3,NA\n5,40\n", folder("x.csv"))
    let dropping = try FeatureFile(folder("x.csv"), missing: .drop).statistics()
    #expect(dropping.rows == 2 && dropping.features.map(\.mean) == [3, 25])
    let filling = try FeatureFile(folder("x.csv"), missing: .mean).statistics()
    #expect(filling.rows == 4 && filling.features.map(\.count) == [3, 3])
    #expect(filling[0].mean == 3 && abs(filling[1].mean - 70.0 / 3) < 1e-13)
    let standardizer = try FeatureStandardizer(filling)
    let file = try FeatureFile(folder("x.csv"), for: standardizer, missing: .mean)
    let result = try file.transform(by: standardizer, to: folder("z.npy"), type: .float64)
    #expect(result.rows == 4 && result.dropped == 0 && result.missing == 2)
    let z = try NPY.read(folder("z.npy"), as: Double.self)
    #expect(abs(z[1, 0]) < 1e-15 && abs(z[2, 1]) < 1e-15 && z[0, 0] < -1)
    let dropped = try FeatureFile(folder("x.csv"), for: standardizer, missing: .drop)
      .transform(by: standardizer, to: folder("z.npy"))
    #expect(dropped.rows == 2 && dropped.dropped == 2 && dropped.missing == 2)
    #expect(try NPY.read(folder("z.npy"), as: Double.self).shape == [2, 2])
    #expect(throws: FileError.self) { try FeatureFile(folder("x.csv"), missing: .mean).covariance() }
  }

  // MARK: What is refused

  private func refusal(
    _ name: String, _ folder: TemporaryFolder, by normalizer: any FeatureNormalizer,
    onProgress: (FeatureProgress) -> Bool = { _ in true }
  ) throws -> FileError? {
    try Self.write("as it was", folder("z.npy"))
    let before = try FileManager.default.contentsOfDirectory(atPath: folder(".")).sorted()
    let error = #expect(throws: FileError.self) {
      let file = try FeatureFile(folder(name), for: normalizer)
      try file.transform(by: normalizer, to: folder("z.npy"), onProgress: onProgress)
    }
    // Nothing is written, and nothing left behind.
    #expect(try String(contentsOf: URL(fileURLWithPath: folder("z.npy")), encoding: .utf8) == "as it was")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder(".")).sorted() == before)
    return error
  }

  @Test func brokenFilesAreNamedAndNothingIsWritten() throws {
    let folder = TemporaryFolder()
    var generator = TestGenerator()
    let x = Self.rows(400_000, &generator)
    let standardizer = try FeatureStandardizer.fit(x[0..<1000], names: ["a", "b", "c", "d"])
    for bad in [Float.nan, .infinity, -.infinity] {
      var numbers = Tensor<Float>(shape: x.shape, scalars: x.scalars.map { Float($0) })
      // The constant feature's column as well.
      for (row, column) in [(399_999, 3), (17, 1)] {
        numbers[row, column] = bad
        try NPY.write(numbers, to: folder("x.npy"))
        let found = "\(bad) at row \(row), column \(column)"
        #expect(try refusal("x.npy", folder, by: standardizer)?.found == found)
        let error = #expect(throws: FileError.self) { try FeatureFile(folder("x.npy")).statistics() }
        #expect(error?.found == found && error?.kind == .notFinite)
        #expect(throws: FileError.self) { try FeatureFile(folder("x.npy")).covariance() }
      }
    }
    let good = String(repeating: "1,2,3,4\n", count: 20_000)
    for (rows, kind, found) in [
      ("1,2,x,4\n", FileError.Kind.wrongFormat, "'x' in column 2 ('c') at row 20000, line 20002"),
      ("1,2,,4\n", .notFinite, "the missing '' in column 2 ('c') at row 20000, line 20002"),
      ("1,inf,3,4\n", .notFinite, "'inf' in column 1 ('b') at row 20000, line 20002"),
      ("1,2,3\n1,2,3,4\n", .wrongFormat, "3 at row 20000, line 20002"),
      ("1,2", .truncated, "2 in the last, which no line's end follows, at row 20000, line 20002"),
    ] {
      try Self.write("a,b,c,d\n" + good + rows, folder("x.csv"))
      let error = try refusal("x.csv", folder, by: standardizer)
      #expect(error?.kind == kind && error?.found == found, "\(error?.description ?? "")")
      #expect(throws: FileError.self) { try FeatureFile(folder("x.csv")).statistics() }
    }
    try Self.write("a,b,c,d\n" + good, folder("x.csv"))
    #expect(try refusal("x.csv", folder, by: standardizer, onProgress: { _ in false })?.kind == .interrupted)
    // A file cut short.
    try NPY.write(x, to: folder("x.npy"))
    let whole = try Data(contentsOf: URL(fileURLWithPath: folder("x.npy")))
    try whole.dropLast(100).write(to: URL(fileURLWithPath: folder("x.npy")))
    #expect(try refusal("x.npy", folder, by: standardizer)?.kind == .truncated)
    // A result beyond the type's numbers.
    let tiny = try FeatureStandardizer.fit(Tensor<Double>([[0], [1e-150]]))
    try NPY.write(Tensor<Double>([[1], [1e200]]), to: folder("x.npy"))
    #expect(try refusal("x.npy", folder, by: tiny)?.kind == .outOfRange)
  }

  @Test func otherFeaturesAreRefused() throws {
    let folder = TemporaryFolder()
    let standardizer = try FeatureStandardizer.fit(Tensor<Double>([[1, 2], [3, 5]]), names: ["a", "b"])
    try Self.write("a,c\n1,2\n", folder("x.csv"))
    #expect(
      try refusal("x.csv", folder, by: standardizer)?.description
        == "\(folder("x.csv")): mismatch: expected a column 'b', which the normalization was fitted on, found a, c")
    try NPY.write(Tensor<Float>.ones(shape: [3, 3]), to: folder("x.npy"))
    #expect(
      try refusal("x.npy", folder, by: standardizer)?.description
        == "\(folder("x.npy")): mismatch: expected 2 features, which the normalization was fitted on, found 3")
    for (columns, without) in [(["a", "q"], []), (nil, ["q"]), (["a", "a"], []), (nil, ["a", "c"])]
      as [([String]?, [String])]
    {
      #expect(throws: FileError.self) { try FeatureFile(folder("x.csv"), columns: columns, without: without) }
    }
    #expect(throws: FileError.self) { try FeatureFile(folder("x.npy"), without: ["a"]) }
    try Self.write("no array", folder("no.npy"))
    let error = #expect(throws: FileError.self) { try FeatureFile(folder("no.npy")) }
    #expect(error?.kind == .wrongMagic)
    // A file without rows.
    try Self.write("a,b\n", folder("empty.csv"))
    let empty = #expect(throws: FileError.self) {
      try FeatureStandardizer(FeatureFile(folder("empty.csv")).statistics(), source: "empty.csv")
    }
    #expect(empty?.kind == .empty)
    try FeatureFile(folder("empty.csv")).transform(by: standardizer, to: folder("none.npy"))
    #expect(try NPY.read(folder("none.npy"), as: Float.self).shape == [0, 2])
  }
}
