import Reference
import Testing

import Steppe

@Suite struct FeatureNormalizerTests {
  /// Features of large means and of deviations far apart, the third one constant.
  private static func data<Scalar: TensorScalar>(_ rows: Int, _ generator: inout TestGenerator) -> Tensor<Scalar> {
    let (means, deviations) = ([3, 1e4, 7, 1, -1e6], [2, 1, 0, 1e-3, 1])
    return Tensor(
      shape: [rows, 5], scalars: (0..<rows * 5).map { Scalar(means[$0 % 5] + deviations[$0 % 5] * generator.normal()) })
  }

  private static func reference(_ x: [Double], _ features: Int, _ index: Int) -> (mean: Double, deviation: Double) {
    let column = stride(from: index, to: x.count, by: features).map { x[$0] }
    let mean = column.reduce(0) { $0 + ($1 - column[0]) } / Double(column.count) + column[0]
    return (mean, (column.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(column.count)).squareRoot())
  }

  private func standardizes<Scalar: TensorScalar>(_: Scalar.Type, within tolerance: Double) throws {
    var generator = TestGenerator()
    let x: Tensor<Scalar> = Self.data(777, &generator)
    let standardizer = try FeatureStandardizer.fit(x)
    let y = standardizer.transform(x).scalars.map { Double($0) }
    let numbers = x.scalars.map { Double($0) }
    for index in 0..<5 {
      let (mean, deviation) = Self.reference(numbers, 5, index)
      for row in 0..<777 {
        let expected = index == 2 ? 0 : (numbers[row * 5 + index] - mean) / deviation
        #expect(abs(y[row * 5 + index] - expected) <= tolerance * max(1, abs(expected)), "\(index)")
      }
    }
    #expect(standardizer.statistics.constantFeatures == [2])
    let back = standardizer.inverseTransform(standardizer.transform(x)).scalars
    for (found, expected) in zip(back, x.scalars) {
      #expect(abs(Double(found - expected)) <= 4 * Double(Scalar.ulpOfOne) * abs(Double(expected)) + tolerance)
    }
  }

  @Test func standardizesFloat() throws { try standardizes(Float.self, within: 4e-6) }
  @Test func standardizesDouble() throws { try standardizes(Double.self, within: 1e-9) }

  @Test func scalesToARange() throws {
    var generator = TestGenerator()
    let x: Tensor<Double> = Self.data(100, &generator)
    for range in [0.0...1.0, -1.0...1.0, 5.0...7.5] {
      let scaler = try MinMaxScaler.fit(x, range: range)
      let y = scaler.transform(x)
      for index in 0..<5 {
        let column = (0..<100).map { y[$0, index] }
        if index == 2 {
          #expect(column.allSatisfy { $0 == range.lowerBound })
        } else {
          #expect(column.min() == range.lowerBound)
          #expect(abs(column.max()! - range.upperBound) < 1e-12)
        }
      }
      for (found, expected) in zip(scaler.inverseTransform(y).scalars, x.scalars) {
        #expect(abs(found - expected) <= 1e-9 * max(1, abs(expected)))
      }
    }
  }

  /// Correlated features: the covariance of what comes out is the identity.
  private func whitens<Scalar: TensorScalar>(_: Scalar.Type, within tolerance: Double) throws {
    var generator = TestGenerator()
    let mixing = Tensor<Double>(shape: [4, 4], scalars: generator.normals(16))
    let sources = Tensor<Double>(shape: [2000, 4], scalars: generator.normals(4 * 2000))
    let mixed = (sources.matmul(mixing) + 100).scalars
    let x = Tensor<Scalar>(shape: [2000, 4], scalars: mixed.map { Scalar($0) })
    for method in [FeatureMethod.pca, .zca] {
      let whitening = try Whitening.fit(x, method: method)
      #expect(whitening.rank == 4 && whitening.outputCount == 4)
      let y: [Double] = whitening.transform(x).scalars.map { Double($0) }
      for i in 0..<4 {
        for j in 0..<4 {
          var covariance = 0.0
          for row in 0..<2000 { covariance += y[row * 4 + i] * y[row * 4 + j] / 2000 }
          #expect(abs(covariance - (i == j ? 1 : 0)) < tolerance, "\(method) \(i) \(j): \(covariance)")
        }
      }
      for (found, expected) in zip(whitening.inverseTransform(whitening.transform(x)).scalars, x.scalars) {
        #expect(abs(Double(found - expected)) < 100 * tolerance)
      }
      if method == .zca {
        // The one symmetric whitening.
        let w = whitening.matrix
        #expect(zip(w.scalars, w.transposed().scalars).allSatisfy { abs($0 - $1) < 1e-9 * max(1, abs($0)) })
      } else {
        #expect(zip(whitening.variances, whitening.variances.dropFirst()).allSatisfy { $0 >= $1 })
      }
    }
    let two = try Whitening.fit(x, components: 2)
    #expect(two.transform(x).shape == [2000, 2] && two.inverseTransform(two.transform(x)).shape == [2000, 4])
  }

  @Test func whitensFloat() throws { try whitens(Float.self, within: 2e-4) }
  @Test func whitensDouble() throws { try whitens(Double.self, within: 1e-9) }

  @Test func whiteningLeavesOutWhatDoesNotVary() throws {
    var generator = TestGenerator()
    let a = generator.normals(500, as: Double.self)
    let x = Tensor<Double>(a.map { [$0, 2 * $0, 5] })
    let pca = try Whitening.fit(x)
    #expect(pca.rank == 1 && pca.outputCount == 1)
    let zca = try Whitening.fit(x, method: .zca)
    let y = zca.transform(x)
    #expect(zca.rank == 1 && y.shape == [500, 3])
    #expect((0..<500).allSatisfy { abs(y[$0, 2]) < 1e-12 })
    for (found, expected) in zip(pca.inverseTransform(pca.transform(x)).scalars, x.scalars) {
      #expect(abs(found - expected) < 1e-12 * max(1, abs(expected)))
    }
    #expect(throws: FileError.self) { try Whitening.fit(Tensor<Double>.ones(shape: [9, 2])) }
  }

  @Test func covarianceMergesInAnyOrder() throws {
    var generator = TestGenerator()
    let x = Tensor<Double>(shape: [3001, 6], scalars: generator.normals(3001 * 6, mean: 1e6))
    var whole = FeatureCovariance(features: 6)
    try whole.add(x)
    var parts: [FeatureCovariance] = []
    for range in [0..<1, 1..<700, 700..<2900, 2900..<3001] {
      var part = FeatureCovariance(features: 6)
      try part.add(x[range])
      parts.append(part)
    }
    parts.shuffle(using: &generator)
    var merged = FeatureCovariance(features: 6)
    for part in parts { merged.merge(part) }
    let numbers = x.scalars
    for i in 0..<6 {
      for j in 0..<6 {
        let (a, b) = (Self.reference(numbers, 6, i).mean, Self.reference(numbers, 6, j).mean)
        var expected = 0.0
        for row in 0..<3001 { expected += (numbers[row * 6 + i] - a) * (numbers[row * 6 + j] - b) / 3001 }
        #expect(abs(whole.matrix[i, j] - expected) < 1e-11)
        #expect(abs(merged.matrix[i, j] - whole.matrix[i, j]) < 1e-13)
      }
    }
  }

  // MARK: Layers

  private static var normalizers: [any FeatureNormalizer] {
    get throws {
      var generator = TestGenerator()
      let x: Tensor<Double> = data(400, &generator)
      return [
        try FeatureStandardizer.fit(x), try MinMaxScaler.fit(x, range: -1...1),
        try Whitening.fit(x, method: .pca), try Whitening.fit(x, method: .zca, epsilon: 1e-3),
      ]
    }
  }

  private func standsFirst<Scalar: TensorScalar>(_: Scalar.Type, within tolerance: Double) throws {
    var generator = TestGenerator()
    let x: Tensor<Scalar> = Self.data(64, &generator)
    let folder = TemporaryFolder()
    for normalizer in try Self.normalizers {
      func network(_ first: any Layer<Scalar>) -> Sequential<Scalar> {
        Sequential(seed: 3) {
          first
          Dense(normalizer.outputCount, 7)
          ReLU()
          Dense(7, 2)
        }
      }
      let model = network(normalizer.layer())
      let rest = Sequential(Array(model.layers.dropFirst()))
      let expected = rest(normalizer.transform(x)).scalars.map { Double($0) }
      func check(_ found: Tensor<Scalar>, _ what: String) {
        for (found, expected) in zip(found.scalars, expected) {
          #expect(abs(Double(found) - expected) <= tolerance * max(1, abs(expected)), "\(normalizer.method) \(what)")
        }
      }
      check(model(x), "evaluated")
      check(model.forward(x).output, "in training")
      check(model.folded()(x), "folded")
      let path = folder("model.safetensors")
      try model.save(to: path)
      let isWhitening = normalizer is Whitening
      let keys = isWhitening ? ["0.bias", "0.shift", "0.weight"] : ["0.offset", "0.scale", "0.shift"]
      #expect(try SafetensorsFile(path).names.filter { $0.hasPrefix("0.") }.sorted() == keys)
      let other = network(
        isWhitening ? FeatureWhitening(5, normalizer.outputCount) as any Layer<Scalar> : FeatureScaling(5))
      try other.load(from: path)
      #expect(other(x).scalars == model(x).scalars)
      #expect(model.parameters.count == 4)
    }
  }

  @Test func layersStandFirstInFloat() throws { try standsFirst(Float.self, within: 2e-5) }
  @Test func layersStandFirstInDouble() throws { try standsFirst(Double.self, within: 1e-9) }

  /// A large mean is not folded into the product, which would lose it; a small one is.
  @Test func foldsOnlyWhereItIsExact() throws {
    for (mean, steps) in [(0.5, 1), (1e6, 2)] {
      let model = Sequential<Float>(seed: 1) {
        FeatureScaling(3, mean: mean, deviation: 1)
        Dense(3, 4)
      }
      #expect(model.folded().steps.count == steps)
      let x = Tensor<Float>([[Float(mean) + 1, Float(mean) - 2, Float(mean)]])
      for (found, expected) in zip(model.folded()(x).scalars, model(x).scalars) {
        #expect(abs(found - expected) <= 4e-6 * max(1, abs(expected)))
      }
    }
  }

  @Test func gradientsPassThrough() throws {
    for normalizer in try Self.normalizers {
      let layer: any Layer<Double> = normalizer.layer()
      var generator = TestGenerator()
      let x = generator.normals(3 * 5, as: Double.self)
      let w = generator.normals(3 * normalizer.outputCount, as: Double.self)
      let (output, pullback) = layer.forward(Tensor(shape: [3, 5], scalars: x))
      let dx = pullback(Tensor(shape: output.shape, scalars: w))
      let expected = centralDifferences(at: x) { x in
        zip(layer(Tensor(shape: [3, 5], scalars: x)).scalars, w).reduce(0) { $0 + $1.0 * $1.1 }
      }
      #expect(dx.shape == [3, 5])
      // Outputs are as large as the distance from a mean of 1e6.
      #expect(relativeDistance(dx.scalars, expected) < 1e-3, "\(normalizer.method)")
    }
  }

  @Test func channelsOfImages() {
    let layer = FeatureScaling<Float>(1, mean: 2, deviation: 4, layout: .channelsFirst)
    let x = Tensor<Float>(repeating: 6, shape: [2, 1, 3, 3])
    #expect(layer(x).scalars == Array(repeating: 1, count: 18))
    #expect(layer.folded()(x).scalars == layer(x).scalars)
    #expect(throws: LayerError.self) { try layer.outputShape(for: [2, 3, 3, 3], training: true) }
  }

  // MARK: Files

  @Test func filesReadBackAlike() throws {
    let folder = TemporaryFolder()
    var generator = TestGenerator()
    let x: Tensor<Float> = Self.data(30, &generator)
    for normalizer in try Self.normalizers {
      let path = folder("\(normalizer.method).safetensors")
      try normalizer.save(to: path)
      let read = try featureNormalizer(from: path)
      #expect(read.method == normalizer.method && read.statistics == normalizer.statistics)
      #expect(read.transform(x).scalars == normalizer.transform(x).scalars)
      let y = read.transform(x)
      #expect(read.inverseTransform(y).scalars == normalizer.inverseTransform(y).scalars)
    }
    let path = folder("standardize.safetensors")
    #expect(try FeatureStandardizer(from: path).method == .standardize)
    let error = #expect(throws: FileError.self) { try MinMaxScaler(from: path) }
    #expect(error?.kind == .mismatch)
    try Sequential<Float> { Dense(2, 2) }.save(to: folder("model.safetensors"))
    #expect(throws: FileError.self) { try featureNormalizer(from: folder("model.safetensors")) }
  }

  @Test func otherFeaturesAreRefused() throws {
    let standardizer = try FeatureStandardizer.fit(Tensor<Double>([[1, 2], [3, 5]]), names: ["a", "b"])
    try standardizer.check(features: 2, names: ["a", "b"], source: "x.csv")
    try standardizer.check(features: 2, source: "x.npy")
    let count = #expect(throws: FileError.self) { try standardizer.check(features: 3, source: "x.npy") }
    #expect(
      count?.description == "x.npy: mismatch: expected 2 features, which the normalization was fitted on, found 3")
    let names = #expect(throws: FileError.self) {
      try standardizer.check(features: 2, names: ["a", "c"], source: "x.csv")
    }
    #expect(
      names?.description
        == "x.csv: mismatch: expected 'b' as column 1, which the normalization was fitted on, found 'c'")
  }
}
