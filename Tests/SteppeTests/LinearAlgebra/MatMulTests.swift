import Glibc
import Reference
import Steppe
import Synchronization
import Testing

extension LinearAlgebraTests {
  @Suite struct MatMulTests {
    /// `a.matmul(b)` by the definition, matrix by matrix, for operands whose leading axes were broadcast.
    func expect<Scalar: TensorScalar>(
      _ result: Tensor<Scalar>, isProductOf a: Tensor<Scalar>, _ b: Tensor<Scalar>, _ what: String
    ) {
      let (m, k, n) = (a.shape[a.rank - 2], a.shape[a.rank - 1], b.shape[b.rank - 1])
      let (x, y, z) = (a.scalars.map(Double.init), b.scalars.map(Double.init), result.scalars.map(Double.init))
      for matrix in 0..<(m * n == 0 ? 0 : z.count / (m * n)) {
        let expected = NaiveLinearAlgebra.product(
          transposeA: false, transposeB: false, m: m, n: n, k: k, alpha: 1,
          a: Array(x[matrix * m * k..<(matrix + 1) * m * k]), lda: k,
          b: Array(y[matrix * k * n..<(matrix + 1) * k * n]), ldb: n, beta: 0, c: [Double](repeating: 0, count: m * n),
          ldc: n)
        let wrong = (0..<m * n).first {
          !(abs(z[matrix * m * n + $0] - expected.values[$0])
            <= GEMMTests.tolerance(Scalar.self) * expected.scales[$0])
        }
        #expect(wrong == nil, "\(what), matrix \(matrix)")
      }
    }

    @Test(arguments: [1, 2, 3])
    func batchesBroadcast(threads: Int) {
      var random = TestGenerator("batches \(threads)")
      let cases: [(left: [Int], right: [Int], batch: [Int])] = [
        ([4, 5], [5, 6], []), ([3, 4, 5], [5, 6], [3]), ([4, 5], [3, 5, 6], [3]), ([3, 4, 5], [3, 5, 6], [3]),
        ([2, 1, 4, 5], [3, 5, 6], [2, 3]), ([7, 1, 1, 5], [1, 7, 5, 1], [7, 7]), ([0, 4, 5], [5, 6], [0]),
        ([2, 0, 5], [5, 6], [2]), ([3, 4, 0], [3, 0, 6], [3]), ([40, 20, 30], [40, 30, 20], [40]),
        ([2, 130, 140], [2, 140, 150], [2]), ([3, 4, 5], [3, 5, 0], [3]),
      ]
      for (left, right, batch) in cases {
        let (a, b): (Tensor<Float>, Tensor<Double>) = (random.tensor(left), random.tensor(right))
        Parallel.withThreadCount(threads) {
          checkBatch(a, Tensor(shape: right, scalars: b.scalars.map(Float.init)), batch)
          checkBatch(Tensor(shape: left, scalars: a.scalars.map(Double.init)), b, batch)
        }
      }
    }

    /// All four ways to state the transposes: as views and as arguments.
    func checkBatch<Scalar: TensorScalar>(_ a: Tensor<Scalar>, _ b: Tensor<Scalar>, _ batch: [Int]) {
      let (m, n) = (a.shape[a.rank - 2], b.shape[b.rank - 1])
      let fullA = a.broadcast(to: batch + a.shape.suffix(2))
      let fullB = b.broadcast(to: batch + b.shape.suffix(2))
      // The same matrices with their columns next to each other in memory.
      let columnsA = Tensor(shape: a.swappingAxes(-1, -2).shape, scalars: a.swappingAxes(-1, -2).scalars)
      let columnsB = Tensor(shape: b.swappingAxes(-1, -2).shape, scalars: b.swappingAxes(-1, -2).scalars)
      let results = [
        a.matmul(b), columnsA.swappingAxes(-1, -2).matmul(b), columnsA.matmul(b, transposeLeft: true),
        a.matmul(columnsB.swappingAxes(-1, -2)), a.matmul(columnsB, transposeRight: true),
        columnsA.matmul(columnsB, transposeLeft: true, transposeRight: true),
      ]
      for (index, result) in results.enumerated() {
        #expect(result.shape == batch + [m, n])
        expect(result, isProductOf: fullA, fullB, "\(Scalar.self) \(a.shape) · \(b.shape), way \(index)")
      }
    }

    @Test func vectorsFollowNumPy() {
      let matrix = Tensor<Double>([[1, 2, 3], [4, 5, 6]])
      let (two, three) = (Tensor<Double>([1, 10]), Tensor<Double>([1, 0, 2]))
      #expect(matrix.matmul(three) == Tensor([7, 16]))
      #expect(two.matmul(matrix) == Tensor([41, 52, 63]))
      #expect(three.matmul(three) == Tensor(5))
      #expect(matrix.matmul(two, transposeLeft: true) == Tensor([41, 52, 63]))
      #expect(Tensor.stacked([matrix, matrix]).matmul(three).shape == [2, 2])
      #expect(two.matmul(Tensor.stacked([matrix, matrix, matrix])).shape == [3, 3])
      #expect(three.dot(Tensor([2, 5, 7])) == 16)
      #expect(two.outer(three) == Tensor([[1, 0, 2], [10, 0, 20]]))
      #expect(Tensor<Double>([Double]()).dot(Tensor([Double]())) == 0)
    }

    @Test func slicesGoWithTheirRowsApart() {
      var random = TestGenerator()
      let a: Tensor<Double> = random.tensor([30, 40])
      let b: Tensor<Double> = random.tensor([40, 30])
      let (left, right) = (a[2..<12, 5..<25], b[7..<27, 3..<18])
      expect(left.matmul(right), isProductOf: left, right, "slices")
      expect(left.transposed().matmul(right, transposeLeft: true), isProductOf: left, right, "transposed slice")
      let column = b[7..<27, 3]
      expect(left.matmul(column).expandingAxis(1), isProductOf: left, column.expandingAxis(1), "a column")
      let repeated = a[0..<1, 0..<20].broadcast(to: [10, 20])
      expect(repeated.matmul(right), isProductOf: repeated, right, "a repeated row")
    }

    @Test func longInnerProductsKeepTheirDigits() {
      var random = TestGenerator()
      let (x, y): (Tensor<Float>, Tensor<Float>) = (random.tensor([100_003]), random.tensor([100_003]))
      let terms = zip(x.scalars, y.scalars).map { Double($0) * Double($1) }
      let scale = terms.reduce(0) { $0 + abs($1) }
      for threads in [1, 2, 3] {
        let result = Parallel.withThreadCount(threads) { x.dot(y) }
        #expect(abs(Double(result) - terms.reduce(0, +)) <= 4e-6 * scale)
      }
    }

    @Test func oneThreadCountGivesOneResult() {
      var random = TestGenerator()
      let (a, b): (Tensor<Float>, Tensor<Float>) = (random.tensor([150, 700]), random.tensor([700, 90]))
      for threads in [1, 2, 3] {
        Parallel.withThreadCount(threads) {
          let first = bits(a.matmul(b))
          for _ in 0..<20 { #expect(bits(a.matmul(b)) == first) }
        }
      }
    }

    @Test func manyHostThreadsAtOnceAreAllRight() {
      var random = TestGenerator()
      let (a, b): (Tensor<Float>, Tensor<Float>) = (random.tensor([96, 200]), random.tensor([200, 120]))
      let (small, column): (Tensor<Double>, Tensor<Double>) = (random.tensor([20, 20]), random.tensor([20]))
      let product = bits(a.matmul(b))
      let solution = bits(try! small.solve(column))
      let wrong = Atomic<Int>(0)
      onThreads(32) {
        for _ in 0..<40 {
          if bits(a.matmul(b)) != product { wrong.add(1, ordering: .relaxed) }
          if bits(try! small.solve(column)) != solution { wrong.add(1, ordering: .relaxed) }
        }
      }
      #expect(wrong.load(ordering: .relaxed) == 0)
    }

    @Test func mismatchesNameBothShapes() async {
      let inner = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Tensor<Float>.zeros(shape: [2, 3]).matmul(.zeros(shape: [4, 5]))
      }
      #expect(errorText(inner).contains("[2, 3]") && errorText(inner).contains("[4, 5]"))
      let batch = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Tensor<Float>.zeros(shape: [2, 2, 3]).matmul(.zeros(shape: [3, 3, 5]))
      }
      #expect(errorText(batch).contains("[2, 2, 3]") && errorText(batch).contains("[3, 3, 5]"))
      let vectors = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = Tensor<Float>.zeros(shape: [7]).dot(.zeros(shape: [8]))
      }
      #expect(errorText(vectors).contains("[7]") && errorText(vectors).contains("[8]"))
    }
  }
}

/// Runs `body` on `count` new threads and waits for all.
func onThreads(_ count: Int, _ body: @escaping @Sendable () -> Void) {
  final class Work: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  var threads = [pthread_t](repeating: pthread_t(), count: count)
  for index in 0..<count {
    let status = pthread_create(
      &threads[index], nil,
      { argument in
        Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue().body()
        return nil
      }, Unmanaged.passRetained(Work(body)).toOpaque())
    precondition(status == 0)
  }
  for thread in threads { pthread_join(thread, nil) }
}
