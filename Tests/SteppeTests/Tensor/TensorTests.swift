import Reference
import Steppe
import Testing

/// A tensor's indices walked one by one: the reference for views, broadcasting and reductions.
func allIndices(_ shape: [Int]) -> [[Int]] {
  shape.reduce([[]]) { indices, size in indices.flatMap { index in (0..<size).map { index + [$0] } } }
}

func element<Scalar>(_ tensor: Tensor<Scalar>, _ index: [Int]) -> Scalar {
  // By the scalars, not the subscript, which is itself tested.
  var place = 0
  for (i, size) in zip(index, tensor.shape) { place = place * size + i }
  return tensor.scalars[place]
}

@Suite struct TensorTests {
  func random(_ shape: [Int], _ generator: inout TestGenerator) -> Tensor<Double> {
    Tensor(shape: shape, scalars: generator.normals(shape.reduce(1, *)))
  }

  func randomShape(_ generator: inout TestGenerator, most: Int = 4) -> [Int] {
    (0..<generator.integer(0...most)).map { _ in generator.integer(1...6) }
  }

  // MARK: Values

  @Test func aCopyIsAValue() {
    let a = Tensor<Float>([[1, 2], [3, 4]])
    var b = a
    b[0, 1] = 9
    b += 1
    #expect(a == Tensor([[1, 2], [3, 4]]) && b == Tensor([[2, 10], [4, 5]]))
    var view = a.transposed()
    view *= 2
    #expect(a == Tensor([[1, 2], [3, 4]]) && view == Tensor([[2, 6], [4, 8]]))
    var whole = a
    whole[1...1] = Tensor([7, 8])
    #expect(whole == Tensor([[1, 2], [7, 8]]) && a[1, 0] == 3)
    whole += whole
    #expect(whole == Tensor([[2, 4], [14, 16]]))
  }

  @Test func making() {
    #expect(Tensor<Float>([[[1, 2]], [[3, 4]]]).shape == [2, 1, 2])
    #expect(Tensor<Float>(5).shape == [] && Tensor<Float>(5).scalar == 5)
    #expect(Tensor<Float>.identity(2) == Tensor([[1, 0], [0, 1]]))
    #expect(Tensor<Double>.range(from: 1, to: 2, by: 0.25) == Tensor([1, 1.25, 1.5, 1.75]))
    #expect(
      Tensor<Double>.range(to: 0).shape == [0] && Tensor<Double>.range(from: 3, to: 0, by: -1) == Tensor([3, 2, 1]))
    #expect(Tensor<Double>.linearSpace(from: 0, to: 1, count: 5) == Tensor([0, 0.25, 0.5, 0.75, 1]))
    #expect(Tensor<Float>.zeros(shape: [0, 3]).count == 0 && Tensor<Float>.zeros(shape: [0, 3]).sum() == 0)
  }

  // MARK: Views

  @Test func viewsAgainstTheirIndices() {
    var generator = TestGenerator()
    for _ in 0..<200 {
      let x = random(randomShape(&generator), &generator)
      let order = (0..<x.rank).shuffled(using: &generator)
      let y = x.transposed(order)
      for index in allIndices(y.shape) {
        var source = index
        for (axis, from) in order.enumerated() { source[from] = index[axis] }
        #expect(element(y, index) == element(x, source))
      }
      guard x.rank >= 2 else { continue }
      let rows = generator.integer(0...x.shape[0] - 1)
      let part = x[rows..., 0]
      #expect(part.shape == [x.shape[0] - rows] + x.shape.dropFirst(2))
      for index in allIndices(part.shape) {
        #expect(element(part, index) == element(x, [index[0] + rows, 0] + index.dropFirst()))
      }
      #expect(y.reshaped([-1]).scalars == y.scalars)
      #expect(part.transposed().transposed() == part)
    }
  }

  @Test func largeTransposesUseTheTiles() {
    var generator = RandomGenerator(seed: 1)
    for shape in [[300, 517], [5, 130, 77], [1000, 3]] {
      let x = Tensor<Float>.randomUniform(shape: shape, using: &generator)
      for threads in 1...3 {
        let y = Parallel.withThreadCount(threads) { x.swappingAxes(-1, -2).contiguousCopy() }
        let (source, target) = (x.scalars, y.scalars)
        let (rows, columns) = (shape[shape.count - 2], shape[shape.count - 1])
        var right = true
        for place in target.indices {
          let (matrix, rest) = place.quotientAndRemainder(dividingBy: rows * columns)
          right = right && target[place] == source[matrix * rows * columns + rest % rows * columns + rest / rows]
        }
        #expect(right, "\(shape)")
      }
    }
  }

  @Test func subscriptsReadAndWrite() {
    var x = Tensor<Float>.range(to: 24).reshaped(2, 3, 4)
    #expect(x[1, 2, 3] == 23 && x[-1, -1, -1] == 23 && x.row(1)[0, 0] == 12)
    let middle: Tensor<Float> = x[0..., 1..<2, ...2]
    #expect(middle == Tensor(shape: [2, 1, 3], scalars: [4, 5, 6, 16, 17, 18]))
    x[0, 0...1] = Tensor<Float>(-1)
    #expect(x[0, 1, 3] == -1 && x[0, 2, 0] == 8 && x.sum() == 276 - 28 - 8)
    #expect(x.gathering(rows: [1, 1, -2]).shape == [3, 3, 4])
    #expect(x.gathering([3, 0], axis: -1)[1, 2] as Tensor<Float> == Tensor([23, 20]))
  }

  @Test func joining() {
    var generator = TestGenerator()
    for _ in 0..<60 {
      var shape = randomShape(&generator)
      if shape.isEmpty { shape = [2] }
      let axis = generator.integer(0...shape.count - 1)
      let parts = (0..<generator.integer(1...4)).map { _ in
        var own = shape
        own[axis] = generator.integer(0...3)
        return random(own, &generator)
      }
      let whole = Tensor.concatenated(parts, axis: axis)
      var start = 0
      for part in parts {
        let ranges: [any TensorIndex] = shape.indices.map {
          $0 == axis ? start..<start + part.shape[axis] : 0..<shape[$0]
        }
        #expect(whole.subrange(ranges) == part)
        start += part.shape[axis]
      }
    }
    let a = Tensor<Float>([1, 2])
    #expect(Tensor.stacked([a, a + 1], axis: 1) == Tensor([[1, 2], [2, 3]]))
  }

  // MARK: Arithmetic

  @Test func broadcastingAgainstTheIndices() {
    var generator = TestGenerator()
    for _ in 0..<300 {
      let shape = randomShape(&generator)
      func operand() -> Tensor<Double> {
        let own = shape.map { generator.integer(0...2) == 0 ? 1 : $0 }
        return random(Array(own.dropFirst(generator.integer(0...shape.count))), &generator)
      }
      var (a, b) = (operand(), operand())
      if a.rank >= 2, generator.integer(0...2) == 0 { a = a.transposed() }
      if shape.count < max(a.rank, b.rank) { continue }
      guard fits(a.shape, b.shape) else { continue }
      let result = a - b
      for index in allIndices(result.shape) {
        func value(_ t: Tensor<Double>) -> Double {
          element(t, zip(index.suffix(t.rank), t.shape).map { $1 == 1 ? 0 : $0 })
        }
        #expect(element(result, index) == value(a) - value(b))
      }
      if result.shape == a.shape {
        var c = a
        c -= b
        #expect(c == result)
      }
    }
  }

  func fits(_ a: [Int], _ b: [Int]) -> Bool {
    zip(a.reversed(), b.reversed()).allSatisfy { $0 == $1 || $0 == 1 || $1 == 1 }
  }

  @Test func operatorsAndFunctions() {
    let (x, y) = (Tensor<Double>([1, -2, 4]), Tensor<Double>([2, 2, 0.5]))
    #expect(x + y == Tensor([3, 0, 4.5]) && x * y == Tensor([2, -4, 2]) && x / y == Tensor([0.5, -1, 8]))
    #expect(1 - x == Tensor([0, 3, -3]) && 4 / x == Tensor([4, -2, 1]) && -x == Tensor([-1, 2, -4]))
    #expect((x .> y) == Tensor([0, 0, 1]) && (x .== 4) == Tensor([0, 0, 1]) && (x .!= y) == Tensor([1, 1, 1]))
    #expect((x .<= 1) == Tensor([1, 1, 0]) && (x .< y) == Tensor([1, 1, 0]) && (x .>= y) == Tensor([0, 0, 1]))
    #expect(x.minimum(y) == Tensor([1, -2, 0.5]) && x.maximum(y) == Tensor([2, 2, 4]))
    #expect(x.squared().squareRoot() == x.absolute() && x.sign() == Tensor([1, -1, 1]))
    #expect(x.clamped(-1, 2) == Tensor([1, -1, 2]) && y.power(2) == y * y)
    #expect((x .> 0).selecting(x, otherwise: Tensor(0)) == Tensor([1, 0, 4]))
    #expect(x.map { $0 + 0.5 } == x + 0.5 && x.affine(scale: 2, offset: 1) == Tensor([3, -3, 9]))
    var z = x
    z.add(y, scale: 2)
    #expect(z == Tensor([5, 2, 5]))
    z.fill(3)
    #expect(z == Tensor(repeating: 3, shape: [3]))
    #expect(Tensor<Float>([.nan]) != Tensor<Float>([.nan]))
  }

  // MARK: Reductions

  @Test func reductionsAgainstTheIndices() {
    var generator = TestGenerator()
    for _ in 0..<200 {
      let x = random(randomShape(&generator), &generator)
      let axes = (0..<x.rank).filter { _ in generator.integer(0...1) == 0 }
      let keeping = generator.integer(0...1) == 0
      let sums = x.sum(axes: axes, keepingAxes: keeping)
      let variances = x.variance(axes: axes, keepingAxes: true)
      var groups: [[Int]: [Double]] = [:]
      for index in allIndices(x.shape) {
        groups[index.enumerated().map { axes.contains($0) ? 0 : $1 }, default: []].append(element(x, index))
      }
      for (index, values) in groups {
        let kept = keeping ? index : index.enumerated().filter { !axes.contains($0.offset) }.map(\.element)
        #expect(abs(element(sums, kept) - values.reduce(0, +)) < 1e-12)
        let mean = values.reduce(0, +) / Double(values.count)
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
        #expect(abs(element(variances, index) - variance) < 1e-12)
      }
      guard let axis = (0..<x.rank).randomElement(using: &generator) else { continue }
      let (least, greatest) = (x.min(axis: axis), x.max(axis: -x.rank + axis, keepingAxes: true))
      #expect(least.shape.count == x.rank - 1 && greatest.shape[axis] == 1)
      #expect(((x .<= greatest).min() == 1) && ((x .>= least.expandingAxis(axis)).min() == 1))
    }
  }

  @Test func largeReductionsInEveryDirection() {
    var generator = RandomGenerator(seed: 4)
    for shape in [[30_000, 3], [3, 30_000], [400, 500], [7, 90, 80], [100_000], [2, 3, 20_000]] {
      let x = Tensor<Float>.randomUniform(shape: shape, in: 0..<1, using: &generator)
      let values = x.scalars.map { Double($0) }
      for threads in 1...3 {
        Parallel.withThreadCount(threads) {
          let total = values.reduce(0, +)
          #expect(abs(Double(x.sum()) - total) <= 1e-7 * total)
          for axis in shape.indices {
            let inner = shape[(axis + 1)...].reduce(1, *)
            var expected = [Double](repeating: 0, count: x.count / shape[axis])
            for (place, value) in values.enumerated() {
              expected[place / (inner * shape[axis]) * inner + place % inner] += value
            }
            let found = x.sum(axis: axis).scalars
            let worst = zip(found, expected).map { abs(Double($0) / $1 - 1) }.max()!
            #expect(worst <= 2e-7, "\(shape) axis \(axis) at \(threads) threads: \(worst)")
          }
        }
      }
    }
  }

  @Test func statistics() {
    let x = Tensor<Float>([[1, 2], [3, 5]])
    #expect(x.mean() == 2.75 && x.variance() == 2.1875 && x.product() == 30 && x.min() == 1 && x.max() == 5)
    #expect(abs(x.variance(unbiased: true) - 2.9166667) < 1e-6 && x.mean(axis: 1) == Tensor([1.5, 4]))
    #expect(x.argmax() == 3 && x.argmaxOfRows() == [1, 1] && x.product(axis: 0) == Tensor([3, 10]))
    #expect(abs(x.standardDeviation(axis: 0)[1] - 1.5) < 1e-6)
    let offset = Tensor<Float>.range(to: 1000) + 1e6
    #expect(abs(offset.variance() - 83333.25) < 0.01)
    #expect(!Tensor<Float>([1, .nan]).isAllFinite() && x.isAllFinite())
    #expect(Tensor<Float>([1, .nan, 0]).max().isNaN && Tensor<Float>([1, .nan, 0]).min(axis: 0).scalar.isNaN)
  }

  // MARK: Programmers' mistakes

  @Test func shapesThatDoNotFitStopWithBoth() async {
    func message(_ result: ExitTest.Result?) -> String {
      String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    }
    let sum = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Tensor<Float>.ones(shape: [2, 3]) + Tensor<Float>.ones(shape: [2, 4])
    }
    #expect(message(sum).contains("[2, 3]") && message(sum).contains("[2, 4]"))
    let inPlace = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var x = Tensor<Float>.ones(shape: [3])
      x += .ones(shape: [2, 3])
    }
    #expect(message(inPlace).contains("[3]") && message(inPlace).contains("[2, 3]"))
    let shape = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Tensor<Float>.ones(shape: [2, 3]).reshaped(4, 2)
    }
    #expect(message(shape).contains("[2, 3]") && message(shape).contains("[4, 2]"))
    let index = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Tensor<Float>.ones(shape: [2, 3])[2, 0] as Float
    }
    #expect(message(index).contains("[2, 0]") && message(index).contains("[2, 3]"))
    let least = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Tensor<Float>.ones(shape: [2, 0, 3]).min(axis: 1)
    }
    #expect(message(least).contains("axis 1 of shape [2, 0, 3] has no elements"))
    let greatest = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Tensor<Float>.ones(shape: [2, 0]).max(axis: -1, keepingAxes: true)
    }
    #expect(message(greatest).contains("axis -1 of shape [2, 0] has no elements"))
    #expect(Tensor<Float>.ones(shape: [0, 2]).max(axis: 1).shape == [0], "no axis's elements are missed")
    let large = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = Tensor<Double>(repeating: 0, shape: [1 << 30, 1 << 31])
    }
    #expect(message(large).contains("[1073741824, 2147483648] has more elements than memory"))
  }

  /// Along axes as over all elements: at a mean of 10⁶ deviations the mean's own rounding would weigh a thousandth.
  @Test(arguments: [0, 1e4, 1e6, -1e6]) func variancesOfAnyMean(_ mean: Double) {
    var generator = TestGenerator("\(#function) \(mean)")
    let (outer, size, inner) = (5, 301, 6)
    let x: [Float] = generator.normals(outer * size * inner, mean: mean)
    let tensor = Tensor(shape: [outer, size, inner], scalars: x)
    func variance(_ values: [Float]) -> Double {
      let distances = values.map { Double($0) - mean }
      let center = distances.reduce(0, +) / Double(values.count)
      return distances.reduce(0) { $0 + ($1 - center) * ($1 - center) } / Double(values.count)
    }
    let (middle, sides) = (tensor.variance(axis: 1), tensor.variance(axes: [0, 2], unbiased: true))
    for row in 0..<outer {
      for column in 0..<inner {
        let values = (0..<size).map { (place: Int) -> Float in x[(row * size + place) * inner + column] }
        #expect(abs(Double(middle[row, column]) / variance(values) - 1) < 1e-6)
        #expect(abs(middle[row, column] / tensor[row, 0..., column].variance() - 1) < 1e-6)
      }
    }
    for place in 0..<size {
      let values = (0..<outer * inner).map { (index: Int) -> Float in
        x[(index / inner * size + place) * inner + index % inner]
      }
      #expect(abs(Double(sides[place]) / (variance(values) * 30 / 29) - 1) < 1e-6)
    }
    let constant = Tensor<Float>(repeating: Float(mean) + 0.1, shape: [1000, 3])
    #expect(constant.variance(axis: 0) == .zeros(shape: [3]))
  }
}

extension Tensor {
  /// Row-major scalars as a tensor of their own.
  func contiguousCopy() -> Tensor { Tensor(shape: shape, scalars: scalars) }
  /// The part that a list of ranges names, which the variadic subscript cannot take.
  func subrange(_ ranges: [any TensorIndex]) -> Tensor {
    ranges.enumerated().reduce(self) { tensor, next in
      let range = next.element.tensorRange(shape[next.offset])
      return tensor.gathering(Array(range), axis: next.offset)
    }
  }
}
