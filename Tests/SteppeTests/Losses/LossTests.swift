import Reference
import Steppe
import Testing

@Suite struct LossTests {
  private typealias Loss<Scalar: TensorScalar> = (Tensor<Scalar>, Tensor<Scalar>) -> (
    loss: Scalar, gradient: Tensor<Scalar>
  )

  /// An elementwise loss, its reference, and what its targets are.
  private static func elementwise<Scalar: TensorScalar>(
    _ type: Scalar.Type
  ) -> [(name: String, loss: Loss<Scalar>, reference: ([Double], [Double]) -> (loss: Double, gradient: [Double]))] {
    [
      ("meanSquaredError", { meanSquaredError($0, $1) }, NaiveLosses.meanSquaredError),
      ("meanAbsoluteError", { meanAbsoluteError($0, $1) }, NaiveLosses.meanAbsoluteError),
      ("huber 1", { huber($0, $1) }, { NaiveLosses.huber($0, $1, delta: 1) }),
      ("huber 0.25", { huber($0, $1, delta: 0.25) }, { NaiveLosses.huber($0, $1, delta: 0.25) }),
      ("binaryCrossEntropy", { binaryCrossEntropy(logits: $0, targets: $1) }, NaiveLosses.binaryCrossEntropy),
    ]
  }

  @Test func elementwiseLossesMatchReference() {
    elementwise(Float.self)
    elementwise(Double.self)
  }

  private func elementwise<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for shape in [
      [1], [7], [3, 5], [2, 3, 4], [generator.integer(1...50), 67], [2049], [40, 1001], [generator.integer(1...9000)],
    ] {
      let count = shape.reduce(1, *)
      let x: [Scalar] = generator.normals(count, deviation: 3)
      let t = (0..<count).map { _ in Scalar(generator.uniform()) }
      for (name, loss, reference) in Self.elementwise(Scalar.self) {
        let expected = reference(x.map { Double($0) }, t.map { Double($0) })
        var first: (loss: Scalar, gradient: Tensor<Scalar>)?
        for threads in 1...3 {
          let result = Parallel.withThreadCount(threads) {
            loss(Tensor(shape: shape, scalars: x), Tensor(shape: shape, scalars: t))
          }
          #expect(ulps(result.loss, expected.loss) <= 8, "\(name) \(shape): \(result.loss), expected \(expected.loss)")
          // A gradient is a difference of numbers of size 1, scaled.
          let size = expected.gradient.map { max(abs($0), 1 / Double(count)) }
          let error = worstError(result.gradient.scalars, expected.gradient, magnitude: size)
          #expect(error.ulps <= 4, "\(name) \(shape): gradient \(error)")
          #expect(result.gradient.shape == shape)
          // The same bits with any number of threads.
          if let first { #expect(result == first, "\(name) \(shape), \(threads) threads") } else { first = result }
        }
      }
    }
  }

  @Test func softmaxCrossEntropyMatchesReference() {
    crossEntropy(Float.self)
    crossEntropy(Double.self)
  }

  private func crossEntropy<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for (rows, columns) in [
      (1, 1), (1, 2), (5, 10), (64, 10), (700, 10), (3, 5000), (generator.integer(1...90), generator.integer(2...90)),
    ] {
      let x: [Scalar] = generator.normals(rows * columns, deviation: 4)
      let labels = (0..<rows).map { _ in generator.integer(0...columns - 1) }
      let oneHot = labels.flatMap { label in (0..<columns).map { $0 == label ? 1.0 : 0 } }
      let soft = (0..<rows * columns).map { _ in Scalar(generator.uniform(0...2) / Double(columns)) }
      let logits = Tensor(shape: [rows, columns], scalars: x)
      let distributions = Tensor(shape: [rows, columns], scalars: soft)
      let magnitudes = (0..<rows).flatMap { row in
        NaiveLosses.softmaxMagnitude(x[row * columns..<(row + 1) * columns].map { Double($0) })
      }
      for smoothing: Scalar in [0, 0.125] {
        for (targets, loss) in [
          (oneHot, { softmaxCrossEntropy(logits, labels, labelSmoothing: smoothing) }),
          (soft.map { Double($0) }, { softmaxCrossEntropy(logits, distributions, labelSmoothing: smoothing) }),
        ] as [([Double], () -> (loss: Scalar, gradient: Tensor<Scalar>))] {
          let message = "\(rows) × \(columns), smoothing \(smoothing)"
          let expected = NaiveLosses.softmaxCrossEntropy(
            x.map { Double($0) }, targets: targets, columns: columns, smoothing: Double(smoothing))
          let results = (1...3).map { threads in Parallel.withThreadCount(threads) { loss() } }
          #expect(
            ulps(results[0].loss, expected.loss, magnitude: 1) <= sumTolerance(columns, Scalar.self),
            "\(message): \(results[0].loss), \(expected.loss)")
          // The weights of a row sum to 2 at most.
          let magnitude = zip(magnitudes, targets).map {
            (2 * $0 + $1 + Double(smoothing) / Double(columns)) / Double(rows)
          }
          let error = worstError(results[0].gradient.scalars, expected.gradient, magnitude: magnitude)
          #expect(error.ulps <= sumTolerance(columns, Scalar.self), "\(message): gradient \(error)")
          // The same bits with any number of threads.
          #expect(results[1] == results[0] && results[2] == results[0], "\(message)")
        }
      }
    }
  }

  /// Every gradient against central differences of the loss itself, in Double.
  @Test func gradientsAreDerivatives() {
    var generator = TestGenerator()
    for _ in 0..<5 {
      let (rows, columns) = (generator.integer(1...6), generator.integer(2...9))
      let count = rows * columns
      let x: [Double] = generator.normals(count, deviation: 2)
      let t = (0..<count).map { _ in generator.uniform() }
      let labels = (0..<rows).map { _ in generator.integer(0...columns - 1) }
      let targets = Tensor(shape: [rows, columns], scalars: t)
      var losses: [(String, (Tensor<Double>) -> (loss: Double, gradient: Tensor<Double>))] = [
        ("labels", { softmaxCrossEntropy($0, labels) }),
        ("smoothed labels", { softmaxCrossEntropy($0, labels, labelSmoothing: 0.2) }),
        ("distributions", { softmaxCrossEntropy($0, targets) }),
        ("smoothed distributions", { softmaxCrossEntropy($0, targets, labelSmoothing: 0.3) }),
        ("sum", { softmaxCrossEntropy($0, labels, reduction: .sum) }),
        ("squared sum", { meanSquaredError($0, targets, reduction: .sum) }),
      ]
      for (name, loss, _) in Self.elementwise(Double.self) { losses.append((name, { loss($0, targets) })) }
      for (name, loss) in losses {
        let differences = centralDifferences(at: x) { loss(Tensor(shape: [rows, columns], scalars: $0)).loss }
        let gradient = loss(Tensor(shape: [rows, columns], scalars: x)).gradient.scalars
        let distance = relativeDistance(gradient, differences)
        #expect(distance < 1e-7, "\(name): \(distance)")
      }
    }
  }

  @Test func extremeLogits() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      let wide = Tensor<Scalar>([[1e4, -1e4, 0], [-1e4, 1e4, 0]])
      let (right, rightGradient) = softmaxCrossEntropy(wide, [0, 1])
      #expect(right == 0 && rightGradient.scalars.allSatisfy { $0 == 0 })
      let (wrong, wrongGradient) = softmaxCrossEntropy(wide, [1, 0])
      #expect(wrong == 2e4)
      #expect(wrongGradient == Tensor<Scalar>([[0.5, -0.5, 0], [-0.5, 0.5, 0]]))
      let equal = softmaxCrossEntropy(Tensor<Scalar>(repeating: 1e4, shape: [2, 4]), [3, 0])
      #expect(ulps(equal.loss, 1.3862943611198906) <= 1)
      // A class of probability 0 that is not asked for costs nothing.
      let impossible = softmaxCrossEntropy(Tensor<Scalar>([[-Scalar.infinity, 0, 0]]), [1])
      #expect(ulps(impossible.loss, 0.6931471805599453) <= 1)
      #expect(impossible.gradient == Tensor<Scalar>([[0, -0.5, 0.5]]))
      #expect(softmaxCrossEntropy(Tensor<Scalar>([[-Scalar.infinity, 0]]), [0]).loss == .infinity)
      #expect(softmaxCrossEntropy(Tensor<Scalar>([[.nan, 0]]), [1]).loss.isNaN)

      let logits = Tensor<Scalar>([1e4, -1e4, 1e4, -1e4, 0])
      let (loss, gradient) = binaryCrossEntropy(
        logits: logits, targets: Tensor<Scalar>([1, 0, 0, 1, 1]), reduction: .sum)
      #expect(ulps(loss, 2e4 + 0.6931471805599453) <= 1)
      #expect(gradient == Tensor<Scalar>([0, 0, 1, -1, -0.5]))
      // The tail log(1 + e⁻ˣ) keeps its digits.
      let tail = binaryCrossEntropy(logits: Tensor<Scalar>([40]), targets: Tensor<Scalar>([1]))
      #expect(ulps(tail.loss, 4.248354255291589e-18) <= 4, "\(tail.loss)")
      #expect(binaryCrossEntropy(logits: Tensor<Scalar>([.nan]), targets: Tensor<Scalar>([1])).loss.isNaN)

      let far = huber(Tensor<Scalar>([.infinity, -2, 0]), Tensor<Scalar>([0, 0, 0]))
      #expect(far.loss == .infinity && far.gradient.scalars.map { $0 * 3 } == [1, -1, 0])
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func sumsAreMeansTimesCounts() {
    var generator = TestGenerator()
    let x = Tensor<Double>(shape: [4, 3], scalars: generator.normals(12))
    let mean = softmaxCrossEntropy(x, [0, 1, 2, 0])
    let sum = softmaxCrossEntropy(x, [0, 1, 2, 0], reduction: .sum)
    #expect(abs(sum.loss - 4 * mean.loss) < 1e-14 && (sum.gradient - 4 * mean.gradient).absolute().max() < 1e-15)
  }

  @Test func noRowsHaveNoMean() {
    #expect(softmaxCrossEntropy(Tensor<Float>.zeros(shape: [0, 3]), []).loss.isNaN)
    #expect(meanSquaredError(Tensor<Float>.zeros(shape: [0]), Tensor<Float>.zeros(shape: [0])).loss.isNaN)
    #expect(
      meanSquaredError(Tensor<Float>.zeros(shape: [0]), Tensor<Float>.zeros(shape: [0]), reduction: .sum).loss == 0)
  }

  @Test func viewsAreReadAsTheyLook() {
    var generator = TestGenerator()
    let x = Tensor<Float>(shape: [5, 4], scalars: generator.normals(20))
    let (a, b) = (
      softmaxCrossEntropy(x.transposed(), [0, 1, 2, 4]), softmaxCrossEntropy(x.transposed().map { $0 }, [0, 1, 2, 4])
    )
    #expect(a == b)
    let y = Tensor<Float>(shape: [4, 5], scalars: generator.normals(20))
    #expect(huber(x.transposed(), y) == huber(x.transposed().map { $0 }, y))
    #expect(x.transposed().softmax() == x.transposed().map { $0 }.softmax())
  }

  @Test func softmaxAlongTheLastAxis() {
    var generator = TestGenerator()
    for shape in [[7], [3, 1], [4, 33], [2, 3, 130], [900, 10], [0, 4], [4, 0]] {
      let x = Tensor<Float>(shape: shape, scalars: generator.normals(shape.reduce(1, *), deviation: 3))
      for threads in 1...3 {
        let (p, logP) = Parallel.withThreadCount(threads) { (x.softmax(), x.logSoftmax()) }
        #expect(p.shape == shape && logP.shape == shape)
        if x.count == 0 { continue }
        let columns = shape.last!
        for row in 0..<x.count / columns {
          let place = row * columns..<(row + 1) * columns
          let values = x.scalars[place].map { Double($0) }
          let magnitude = NaiveLosses.softmaxMagnitude(values)
          let error = worstError(Array(p.scalars[place]), NaiveLosses.softmax(values), magnitude: magnitude)
          #expect(error.ulps <= sumTolerance(columns, Float.self), "\(shape): \(error)")
          let expected = NaiveLosses.logSoftmax(values)
          #expect(
            worstError(Array(logP.scalars[place]), expected, magnitude: expected.map { abs($0) + 1 }).ulps <= 4,
            "\(shape)")
        }
      }
    }
  }

  @Test func shapesThatDifferStopWithBoth() async {
    func check(_ content: [UInt8]?, _ words: String...) {
      let text = String(decoding: content ?? [], as: UTF8.self)
      for word in words { #expect(text.contains(word), "\(text)") }
    }
    let squared = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = meanSquaredError(Tensor<Float>.zeros(shape: [2, 3]), Tensor<Float>.zeros(shape: [3, 2]))
    }
    check(squared?.standardErrorContent, "meanSquaredError", "[2, 3]", "[3, 2]")
    let binary = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = binaryCrossEntropy(logits: Tensor<Float>.zeros(shape: [4]), targets: Tensor<Float>.zeros(shape: [4, 1]))
    }
    check(binary?.standardErrorContent, "binaryCrossEntropy", "[4]", "[4, 1]")
    let distributions = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = softmaxCrossEntropy(Tensor<Float>.zeros(shape: [2, 3]), Tensor<Float>.zeros(shape: [2, 4]))
    }
    check(distributions?.standardErrorContent, "softmaxCrossEntropy", "[2, 3]", "[2, 4]")
    let labels = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = softmaxCrossEntropy(Tensor<Float>.zeros(shape: [2, 3]), [1])
    }
    check(labels?.standardErrorContent, "[2, 3]", "2 labels, got 1")
    let outside = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = softmaxCrossEntropy(Tensor<Float>.zeros(shape: [2, 3]), [1, 3])
    }
    check(outside?.standardErrorContent, "label 3 at index 1", "0 ..< 3")
    let negative = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = softmaxCrossEntropy(Tensor<Float>.zeros(shape: [2, 3]), [-1, 0])
    }
    check(negative?.standardErrorContent, "label -1 at index 0")
    let rank = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = softmaxCrossEntropy(Tensor<Float>.zeros(shape: [3]), [1, 2, 0])
    }
    check(rank?.standardErrorContent, "[rows, classes]", "[3]")
  }
}
