import Reference
import Steppe
import Testing

extension LinearAlgebraTests {
  @Suite struct GEMMTests {
    /// The product's rounding errors stay below this share of Σ|a·b|.
    static func tolerance<Scalar: TensorScalar>(_: Scalar.Type) -> Double { 4e-6 / 0x1p-23 * Double(Scalar.ulpOfOne) }

    /// What a bias and an activation make of a product's value, whose roundings come to `error`, and how far off the result may be.
    static func finished<Scalar: TensorScalar>(
      _ value: Double, error: Double, bias: Scalar?, _ activation: Activation
    ) -> (value: Double, error: Double) {
      let sum = value + Double(bias ?? 0)
      let error = error + tolerance(Scalar.self) * abs(Double(bias ?? 0))
      switch activation {
      case .identity: return (sum, error)
      case .relu: return (max(sum, 0), error)
      case .gelu: return (NaiveKernels.gelu(sum).value, 1.2 * error + 8 * Double(Scalar.ulpOfOne) * (1 + abs(sum)))
      default: fatalError("no reference for \(activation)")
      }
    }

    /// One random case against the definition, at most `rowLimit` rows of it; elements between C's rows must stay.
    func check<Scalar: TensorScalar>(
      _: Scalar.Type, m: Int, n: Int, k: Int, threads: Int, transposeA: Bool? = nil, rowLimit: Int = .max,
      using random: inout TestGenerator
    ) {
      let (transposeA, transposeB) = (transposeA ?? Bool.random(using: &random), Bool.random(using: &random))
      let lda = (transposeA ? m : k) + random.integer(0...5)
      let ldb = (transposeB ? k : n) + random.integer(0...5)
      let ldc = n + random.integer(0...5)
      let alpha = Scalar([0, 1, -1, 0.75, 1, 1].randomElement(using: &random)!)
      let beta = Scalar([0, 1, -0.5, 0].randomElement(using: &random)!)
      let activation = [Activation.identity, .identity, .relu, .gelu].randomElement(using: &random)!
      let a: [Scalar] = random.scalars(max(1, (transposeA ? k : m) * lda))
      let b: [Scalar] = random.scalars(max(1, (transposeB ? n : k) * ldb))
      let bias: [Scalar]? = Bool.random(using: &random) ? random.scalars(n) : nil
      let old: [Scalar] = random.scalars(m * ldc)
      // Where β is 0, what C held must not be seen.
      let start = beta == 0 ? old.enumerated().map { $0.offset % ldc < n ? .nan : $0.element } : old
      func run() -> [Scalar] {
        var c = start
        Parallel.withThreadCount(threads) {
          gemm(
            transposeA: transposeA, transposeB: transposeB, m: m, n: n, k: k, alpha: alpha, a: a, lda: lda, b: b,
            ldb: ldb, beta: beta, c: &c, ldc: ldc, bias: bias, activation: activation)
        }
        return c
      }
      let c = run()
      let what = """
        \(Scalar.self) \(m)×\(n)×\(k) \(transposeA) \(transposeB) α \(alpha) β \(beta), bias \(bias != nil), \(activation), \
        \(threads) threads
        """
      let doubles = b.doubles
      // The first rows, the last ones, and some between.
      let rows =
        m <= rowLimit
        ? Array(0..<m)
        : (0..<rowLimit).map { $0 < 4 ? $0 : $0 < 8 ? m - 1 - ($0 - 4) : random.integer(0...m - 1) }
      for row in rows {
        let left = (0..<k).map { Double(transposeA ? a[$0 * lda + row] : a[row * lda + $0]) }
        let expected = NaiveLinearAlgebra.product(
          transposeA: false, transposeB: transposeB, m: 1, n: n, k: k, alpha: Double(alpha), a: left, lda: max(1, k),
          b: doubles, ldb: ldb, beta: Double(beta), c: old[row * ldc..<row * ldc + n].map { Double($0) }, ldc: n)
        let wrong = (0..<n).first {
          let wanted = Self.finished(
            expected.values[$0], error: Self.tolerance(Scalar.self) * expected.scales[$0], bias: bias?[$0], activation)
          return !(abs(Double(c[row * ldc + $0]) - wanted.value) <= wanted.error)
        }
        #expect(wrong == nil, "\(what): row \(row), column \(wrong ?? -1)")
        if wrong != nil { return }
      }
      #expect(c.indices.allSatisfy { $0 % ldc < n || c[$0] == old[$0] }, "\(what): between the rows")
      #expect(run() == c, "\(what): the same again")
    }

    /// Each instruction set in a process of its own, since the choice is the whole process's.
    @Test
    func equalsTheDefinitionOnEachInstructionSet() async throws {
      for name in InstructionSet.available {
        try ExitTestArguments.pass(
          name, "instruction set \(name) \(testSeed)", to: "equalsTheDefinitionOnEachInstructionSet")
        await #expect(processExitsWith: .success) {
          let arguments = try ExitTestArguments.received(by: "equalsTheDefinitionOnEachInstructionSet")
          let (name, salt) = (arguments[0], arguments[1])
          try InstructionSet.select(name)
          let tests = GEMMTests()
          var random = TestGenerator(fixed: salt)
          for threads in [1, 2, 3] {
            for _ in 0..<40 {
              let (m, n, k) = (random.integer(1...40), random.integer(1...70), random.integer(0...60))
              tests.check(Float.self, m: m, n: n, k: k, threads: threads, using: &random)
              tests.check(Double.self, m: m, n: n, k: k, threads: threads, using: &random)
            }
            // Cut by rows, columns and depth; a vector on either side; a transposed A of many rows.
            for (m, n, k) in [
              (300, 33, 64), (20, 400, 90), (8, 24, 4000), (33, 40, 1500), (3, 50, 5000), (65, 1, 900), (1, 97, 1100),
            ] {
              tests.check(Float.self, m: m, n: n, k: k, threads: threads, rowLimit: 40, using: &random)
              tests.check(Double.self, m: m, n: n, k: k, threads: threads, rowLimit: 40, using: &random)
            }
            tests.check(
              Float.self, m: 1500, n: 21, k: 70, threads: threads, transposeA: true, rowLimit: 60, using: &random)
            tests.check(
              Double.self, m: 700, n: 30, k: 150, threads: threads, transposeA: true, rowLimit: 60, using: &random)
          }
          // Several blocks of rows, columns and depth for one thread, whatever its caches.
          for (transposeA, threads) in [(false, 1), (true, 1), (false, 2)] {
            tests.check(
              Float.self, m: 300, n: 1100, k: 1500, threads: threads, transposeA: transposeA, rowLimit: 16,
              using: &random)
          }
          tests.check(Double.self, m: 300, n: 1100, k: 1500, threads: 1, rowLimit: 16, using: &random)
        }
      }
    }

    @Test(arguments: [1, 2, 3])
    func equalsTheDefinitionOnSmallShapes(threads: Int) {
      var random = TestGenerator("small \(threads)")
      for _ in 0..<60 {
        let (m, n, k) = (random.integer(1...40), random.integer(1...40), random.integer(0...60))
        check(Float.self, m: m, n: n, k: k, threads: threads, using: &random)
        check(Double.self, m: m, n: n, k: k, threads: threads, using: &random)
      }
    }

    @Test(arguments: [1, 2, 3, 7, 64])
    func equalsTheDefinitionWhereItIsCut(threads: Int) {
      var random = TestGenerator("cut \(threads)")
      for (m, n, k) in [
        (90, 70, 110), (300, 33, 64), (20, 400, 90), (8, 24, 4000), (33, 40, 1500), (65, 1, 900), (1, 97, 1100),
      ] {
        let (m, n) = (m + random.integer(0...7), n == 1 ? 1 : n + random.integer(0...17))
        check(Float.self, m: m, n: n, k: k, threads: threads, using: &random)
        check(Double.self, m: m, n: n, k: k, threads: threads, using: &random)
      }
    }

    @Test(arguments: [1, 2, 3, 16])
    func vectorProductsEqualTheDefinition(threads: Int) {
      var random = TestGenerator("vector \(threads)")
      for (rows, columns) in [
        (1, 1), (5, 7), (300, 400), (700, 129), (3, 90_000), (90_000, 3), (1000, 1000), (0, 5), (5, 0),
      ] {
        for transpose in [false, true] {
          checkVector(Float.self, transpose, rows, columns, threads, &random)
          checkVector(Double.self, transpose, rows, columns, threads, &random)
        }
      }
    }

    func checkVector<Scalar: TensorScalar>(
      _: Scalar.Type, _ transpose: Bool, _ rows: Int, _ columns: Int, _ threads: Int, _ random: inout TestGenerator
    ) {
      let lda = max(1, columns + random.integer(0...3))
      let (incx, incy) = (random.integer(1...2), random.integer(1...2))
      let (outputs, length) = transpose ? (columns, rows) : (rows, columns)
      let alpha = Scalar([1, 0.5].randomElement(using: &random)!)
      let beta = Scalar([0, 1, 2].randomElement(using: &random)!)
      let a: [Scalar] = random.scalars(max(1, rows * lda))
      let x: [Scalar] = random.scalars(max(1, length * incx))
      let old: [Scalar] = random.scalars(outputs * incy)
      let expected = NaiveLinearAlgebra.product(
        transposeA: transpose, transposeB: false, m: outputs, n: 1, k: length, alpha: Double(alpha),
        a: a.map(Double.init), lda: lda, b: x.map(Double.init), ldb: incx, beta: Double(beta), c: old.map(Double.init),
        ldc: incy)
      func run() -> [Scalar] {
        var y = old
        if beta == 0 { for index in 0..<outputs { y[index * incy] = .nan } }
        Parallel.withThreadCount(threads) {
          gemv(
            transpose: transpose, rows: rows, columns: columns, alpha: alpha, a: a, lda: lda, x: x, incx: incx,
            beta: beta, y: &y, incy: incy)
        }
        return y
      }
      let y = run()
      // A sum of n terms in one accumulator loses up to n/2 units; kernels keep several.
      let tolerance = Self.tolerance(Scalar.self) * max(1, Double(length) / 2000)
      let wrong = y.indices.first { !(abs(Double(y[$0]) - expected.values[$0]) <= tolerance * expected.scales[$0]) }
      #expect(wrong == nil, "\(Scalar.self) \(rows)×\(columns) \(transpose) α \(alpha) β \(beta)")
      #expect(run() == y, "the same again")
    }

    @Test func everyCutCoversTheProductOnce() {
      var random = TestGenerator()
      for _ in 0..<400 {
        let (m, n, k) = (
          random.integer(1...70), random.integer(1...90), random.integer(1...2000) * random.integer(1...9)
        )
        let threads = random.integer(1...64)
        let cut = ProductCut(m: m, n: n, k: k, threads: threads, lane: random.integer(0...1) == 0 ? 8 : 16)
        #expect((1...threads).contains(cut.parts))
        var covered = [Int](repeating: 0, count: m * n)
        for part in 0..<cut.parts {
          let (rows, columns, depth) = cut.ranges(part)
          for row in rows {
            for column in columns { covered[row * n + column] += depth.count }
          }
        }
        #expect(covered.allSatisfy { $0 == k }, "\(m)×\(n)×\(k) for \(threads): \(cut)")
      }
    }

    @Test func cutsFollowTheShape() {
      func cut(_ m: Int, _ n: Int, _ k: Int, _ threads: Int) -> [Int] {
        let cut = ProductCut(m: m, n: n, k: k, threads: threads, lane: 16)
        return [cut.rows, cut.columns, cut.depth]
      }
      #expect(cut(8, 8, 8, 64) == [1, 1, 1])
      #expect(cut(64, 4096, 1024, 4) == [1, 4, 1])
      #expect(cut(4096, 64, 1024, 4) == [4, 1, 1])
      #expect(cut(1024, 1024, 1024, 16) == [4, 4, 1])
      #expect(cut(16, 16, 100_000, 8) == [1, 1, 8])
    }

    @Test func refusesWhatOpenBLASCannotCount() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try? InstructionSet.select("baseline")
        var c: [Float] = [0]
        gemm(m: 1 << 31, n: 2, k: 2, a: [0], lda: 2, b: [0], ldb: 2, c: &c, ldc: 2)
      }
      #expect(errorText(result).contains("2147483648"))
    }
  }
}

/// What a process of an exit test wrote to standard error.
func errorText(_ result: ExitTest.Result?) -> String {
  String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
}
