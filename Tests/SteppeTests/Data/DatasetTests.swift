import Foundation
import Reference
import Testing

import Steppe

extension DataTests {
  @Suite struct DatasetTests {
    let folder = TemporaryFolder()

    @Test func assemblesBatchesFromScalars() throws {
      let features = Tensor<Double>(shape: [4, 2, 1], scalars: [0, 1, 2, 3, 4, 5, 6, 7])
      let data = try Dataset(features: features, labels: [0, 2, 1, 0])
      #expect(data.count == 4 && data.featureShape == [2, 1] && data.classes == 3)
      let (x, y) = data.batch(rows: [3, 0, 3])
      #expect(x.shape == [3, 2, 1] && x.scalars == [6, 7, 0, 1, 6, 7] && y == [0, 0, 0])
      #expect(data.batch(rows: []).features.shape == [0, 2, 1])
      let standardized = data.standardized(mean: 3, deviation: 2)
      #expect(standardized.batch(rows: [1]).features.scalars == [-0.5, 0])
      #expect(standardized.standardized(mean: -0.5, deviation: 0.5).batch(rows: [1]).features.scalars == [0, 1])
      let subset = data.subset(1..<3)
      #expect(subset.labels == [2, 1] && subset.features.scalars == [2, 3, 4, 5] && subset.classes == 3)
      #expect(subset.subset(1..<2).withFeatureShape([1, 2]).batch(rows: [0]).features.shape == [1, 1, 2])
    }

    @Test(arguments: [0, 1e4, 1e6, -1e6]) func standardizesAnyMeanExactly(_ mean: Double) throws {
      var generator = TestGenerator("\(#function) \(mean)")
      let x: [Float] = generator.normals(200 * 37, mean: mean, deviation: 1.1)
      let data = try Dataset(features: Tensor(shape: [200, 37], scalars: x), labels: Array(repeating: 0, count: 200))
      func check(_ found: Dataset<Float>, _ expected: [Double]) {
        let worst = zip(found.features.scalars, expected).map { abs(Double($0) - $1) / max(1, abs($1)) }.max()!
        #expect(worst < 4 * Double(Float.ulpOfOne))
      }
      let once = data.standardized(mean: mean + 0.3, deviation: 1.1)
      let z = x.map { (Double($0) - mean - 0.3) / 1.1 }
      check(once, z)
      check(once.subset(10..<200), Array(z[370...]))
      check(once.standardized(mean: 0.2, deviation: 0.5), z.map { ($0 - 0.2) / 0.5 })
    }

    @Test func standardizesBytesExactly() throws {
      let bytes = (0..<4000).map { 200 + $0 * 7 % 3 }
      try IDX.write(bytes, shape: [40, 100], to: folder("x.idx"))
      try IDX.write(Array(repeating: 0, count: 40), shape: [40], to: folder("y.idx"))
      let data = try Dataset<Float>(features: folder("x.idx"), labels: folder("y.idx"))
      let z = data.standardized(mean: 201.25 / 255, deviation: 0.0137 / 255).features.scalars
      for (found, byte) in zip(z, bytes) {
        let expected = (Double(byte) - 201.25) / 0.0137
        #expect(abs(Double(found) - expected) < 4e-7 * abs(expected))
      }
    }

    @Test func readsPairsOfFiles() throws {
      try IDX.write(Array(0..<12), shape: [3, 2, 2], to: folder("x.idx"))
      try IDX.write([0, 1, 2], shape: [3], to: folder("y.idx"))
      try NPY.write(Tensor<Float>(shape: [3, 4], scalars: (0..<12).map { Float($0) }), to: folder("x.npy"))
      try NPY.write([0, 1, 2], to: folder("y.npy"))
      _ = folder.file(
        "bytes.npy", NPYTests.file("{'descr': '|u1', 'fortran_order': True, 'shape': (3, 2)}", [0, 2, 4, 1, 3, 5]))
      for labels in ["y.idx", "y.npy"] {
        let bytes = try Dataset<Double>(features: folder("x.idx"), labels: folder(labels))
        #expect(bytes.featureShape == [2, 2] && bytes.classes == 3)
        #expect(
          zip(bytes.batch(rows: [2, 0]).features.scalars, [8, 9, 10, 11, 0, 1, 2, 3]).allSatisfy {
            abs($0 - $1 / 255) < 1e-15
          })
        #expect(bytes.subset(1..<3).batch(rows: [1]).features.scalars == bytes.batch(rows: [2]).features.scalars)
        let scalars = try Dataset<Double>(features: folder("x.npy"), labels: folder(labels), classes: 7)
        #expect(scalars.classes == 7 && scalars.batch(rows: [1]).features.scalars == [4, 5, 6, 7])
        let fortran = try Dataset<Float>(features: folder("bytes.npy"), labels: folder(labels))
        #expect(fortran.batch(rows: [1]).features.scalars == [2, 3])
      }
      let scaled = try Dataset<Float>(features: folder("x.idx"), labels: folder("y.idx"), scale: 2, offset: 1)
      #expect(scaled.batch(rows: [1]).features.scalars == [9, 11, 13, 15])
    }

    @Test func batchesAreTheSameOnAnyNumberOfThreads() throws {
      let features = Tensor<Float>(shape: [500, 97], scalars: (0..<500 * 97).map { Float($0) })
      let data = try Dataset(features: features, labels: [Int](repeating: 0, count: 500), scale: 0.5)
      let rows = (0..<300).map { $0 * 37 % 500 }
      let expected = rows.flatMap { row in (0..<97).map { Float(row * 97 + $0) * 0.5 } }
      for threads in 1...3 {
        #expect(Parallel.withThreadCount(threads) { data.batch(rows: rows).features.scalars } == expected)
      }
    }

    @Test func refusesBadData() throws {
      let x = Tensor<Float>([[1, 2], [3, 4]])
      func refuse(
        _ kind: FileError.Kind, _ words: String, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: () throws(FileError) -> Dataset<Float>
      ) {
        expectFailure(kind, of: "data set", words, sourceLocation: sourceLocation, body)
      }
      refuse(.mismatch, "expected 2 labels", { () throws(FileError) in try Dataset(features: x, labels: [0, 1, 0]) })
      refuse(.outOfRange, "labels in 0 ..< 2, found 2 at index 1") { () throws(FileError) in
        try Dataset(features: x, labels: [0, 2], classes: 2)
      }
      refuse(.outOfRange, "found -1 at index 0") { () throws(FileError) in try Dataset(features: x, labels: [-1, 0]) }
      refuse(.outOfRange, "at index 1") { () throws(FileError) in try Dataset(features: x, labels: [0, .max]) }
      refuse(.mismatch, "found shape [2]") { () throws(FileError) in
        try Dataset(features: Tensor<Float>([1, 2]), labels: [0, 0])
      }
      for value in [Float.nan, .infinity, -.infinity] {
        var bad = Tensor<Float>.zeros(shape: [40, 3, 5])
        bad.withUnsafeMutableBufferPointer { $0[31 * 15 + 14] = value }
        refuse(.notFinite, "found \(value) at row 31, column 14") { () throws(FileError) in
          try Dataset(features: bad, labels: [Int](repeating: 0, count: 40))
        }
      }
    }

    @Test func namesTheBadFile() throws {
      try IDX.write(Array(0..<12), shape: [3, 4], to: folder("x"))
      try IDX.write([0, 1], shape: [2], to: folder("two"))
      try IDX.write([0, 1, 10], shape: [3], to: folder("ten"))
      try NPY.write(Tensor<Double>([0, 1, 2]), to: folder("floats"))
      func refuse(
        _ kind: FileError.Kind, _ file: String, _ words: String, features: String = "x", labels: String,
        sourceLocation: SourceLocation = #_sourceLocation
      ) {
        expectFailure(kind, of: folder(file), words, sourceLocation: sourceLocation) { () throws(FileError) in
          try Dataset<Float>(features: folder(features), labels: folder(labels), classes: 10)
        }
      }
      refuse(.mismatch, "two", "one for each example of \(folder("x")), found 2 labels", labels: "two")
      refuse(.outOfRange, "ten", "found 10 at index 2", labels: "ten")
      refuse(.mismatch, "x", "labels with one axis, found shape [3, 4]", labels: "x")
      refuse(.unsupported, "floats", "integers", labels: "floats")
      refuse(.missing, "none", "No such file", labels: "none")
    }

    @Test func namesTheRowOfABadFeatureInAFile() throws {
      try IDX.write([0, 1, 2], shape: [3], to: folder("y"))
      try NPY.write(Tensor<Double>([[1, 0], [2, .nan], [2, 3]]), to: folder("nan"))
      expectFailure(.notFinite, of: folder("nan"), "nan at row 1, column 1") { () throws(FileError) in
        try Dataset<Float>(features: folder("nan"), labels: folder("y"))
      }
    }

    @Test func namesThePackageOfAMissingFashionMNIST() {
      let path = folder("train-images-idx3-ubyte.gz")
      expectFailure(.missing, of: path, "Debian's package dataset-fashion-mnist") { () throws(FileError) in
        try Dataset<Float>.fashionMNIST(folder: folder.path, split: .training)
      }
    }

    @Test(.enabled(if: access("/usr/share/datasets/fashion-mnist", F_OK) == 0)) func readsFashionMNIST() throws {
      let training = try Dataset<Float>.fashionMNIST(split: .training)
      #expect(training.count == 60_000 && training.featureShape == [784] && training.classes == 10)
      let test = try Dataset<Float>.fashionMNIST(split: .test, featureShape: [1, 28, 28])
      #expect(test.count == 10_000)
      #expect((0..<10).allSatisfy { label in test.labels.count { $0 == label } == 1000 })
      let (images, labels) = test.batch(rows: [0, 1])
      #expect(images.shape == [2, 1, 28, 28] && labels == [9, 2])
      #expect(images.scalars.allSatisfy { 0...1 ~= $0 } && images.scalars.contains(1))
    }
  }

  @Suite struct BatchSamplerTests {
    @Test(arguments: [true, false]) func visitsEveryRowOnce(_ shuffle: Bool) {
      var sampler = BatchSampler(count: 10, batchSize: 3, shuffle: shuffle, seed: 5)
      #expect(sampler.batchesPerEpoch == 4)
      var epochs: [[Int]] = []
      for _ in 0..<3 {
        var batches: [[Int]] = []
        while let rows = sampler.next() { batches.append(rows) }
        #expect(batches.map(\.count) == [3, 3, 3, 1])
        epochs.append(batches.flatMap { $0 })
      }
      #expect(epochs.allSatisfy { $0.sorted() == Array(0..<10) })
      #expect(Set(epochs).count == (shuffle ? 3 : 1))
      #expect(sampler.position == .init(epoch: 3))
    }

    @Test func dropsAnIncompleteBatch() {
      var sampler = BatchSampler(count: 10, batchSize: 3, dropLast: true)
      #expect(sampler.batchesPerEpoch == 3)
      var sizes: [Int] = []
      while let rows = sampler.next() { sizes.append(rows.count) }
      #expect(sizes == [3, 3, 3])
      #expect(BatchSampler(count: 9, batchSize: 3).batchesPerEpoch == 3)
      #expect(BatchSampler(count: 0, batchSize: 3).batchesPerEpoch == 0)
      #expect(BatchSampler(count: 2, batchSize: 3, dropLast: true).batchesPerEpoch == 0)
    }

    @Test func goesOnFromASavedPosition() {
      var whole = BatchSampler(count: 100, batchSize: 7, seed: 9)
      for _ in 0..<40 {
        var resumed = BatchSampler(count: 100, batchSize: 7, seed: 9)
        resumed.position = whole.position
        #expect(resumed.next() == whole.next())
        #expect(
          resumed.next()
            == {
              var copy = whole; return copy.next()
            }())
      }
      var other = BatchSampler(count: 100, batchSize: 7, seed: 10)
      var same = BatchSampler(count: 100, batchSize: 7, seed: 9)
      #expect(other.next() != same.next())
    }
  }
}
