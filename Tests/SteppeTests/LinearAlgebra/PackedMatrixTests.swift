import Reference
import Steppe
import Testing

extension LinearAlgebraTests {
  @Suite struct PackedMatrixTests {
    typealias GEMM = LinearAlgebraTests.GEMMTests

    /// One random case against the definition; elements between C's rows must stay.
    static func check<Scalar: TensorScalar>(
      _: Scalar.Type, rows: Int, columns: Int, depth: Int, using random: inout TestGenerator
    ) {
      let transposed = Bool.random(using: &random)
      let lda = depth + random.integer(0...5)
      let ldb = (transposed ? depth : columns) + random.integer(0...5)
      let ldc = columns + random.integer(0...5)
      let activation = [Activation.identity, .relu, .gelu].randomElement(using: &random)!
      let a: [Scalar] = random.scalars(rows * lda)
      let b: [Scalar] = random.scalars((transposed ? columns : depth) * ldb)
      let bias: [Scalar]? = Bool.random(using: &random) ? random.scalars(columns) : nil
      let packed = PackedMatrix(b, ldb: ldb, transposed: transposed, depth: depth, columns: columns)
      let expected = NaiveLinearAlgebra.product(
        transposeA: false, transposeB: transposed, m: rows, n: columns, k: depth, alpha: 1, a: a.doubles, lda: lda,
        b: b.doubles, ldb: ldb, beta: 0, c: [Double](repeating: 0, count: rows * ldc), ldc: ldc)
      for threads in [1, 2, 3, 8] {
        let what = """
          \(Scalar.self) \(rows)×\(columns)×\(depth), transposed \(transposed), bias \(bias != nil), \(activation), \
          \(threads) threads
          """
        func run() -> [Scalar] {
          // What C held must not be seen.
          var c = (0..<rows * ldc).map { $0 % ldc < columns ? Scalar.nan : 777 }
          Parallel.withThreadCount(threads) {
            packed.multiply(a, lda: lda, rows: rows, bias: bias, activation: activation, into: &c, ldc: ldc)
          }
          return c
        }
        let c = run()
        let wrong = c.indices.first {
          if $0 % ldc >= columns { return c[$0] != 777 }
          let wanted = GEMM.finished(
            expected.values[$0], error: GEMM.tolerance(Scalar.self) * expected.scales[$0], bias: bias?[$0 % ldc],
            activation)
          return !(abs(Double(c[$0]) - wanted.value) <= wanted.error)
        }
        #expect(wrong == nil, "\(what): row \((wrong ?? 0) / ldc), column \((wrong ?? 0) % ldc)")
        #expect(run() == c, "\(what): the same again")
      }
    }

    /// Each instruction set in a process of its own, since the choice is the whole process's.
    @Test
    func equalsTheDefinition() async throws {
      for name in InstructionSet.available {
        try ExitTestArguments.pass(name, "packed \(name) \(testSeed)", to: "equalsTheDefinition")
        await #expect(processExitsWith: .success) {
          let arguments = try ExitTestArguments.received(by: "equalsTheDefinition")
          let (name, salt) = (arguments[0], arguments[1])
          try InstructionSet.select(name)
          var random = TestGenerator(fixed: salt)
          for _ in 0..<40 {
            let (rows, columns, depth) = (random.integer(1...40), random.integer(1...130), random.integer(1...70))
            Self.check(Float.self, rows: rows, columns: columns, depth: depth, using: &random)
            Self.check(Double.self, rows: rows, columns: columns, depth: depth, using: &random)
          }
          // Cut by rows and columns; a depth in slices; more rows than the second-level cache takes at a time.
          for (rows, columns, depth) in [
            (64, 300, 400), (900, 20, 70), (1, 700, 500), (5, 40, 9000), (1, 65, 4097), (30, 3, 4096), (700, 17, 1500),
          ] {
            Self.check(Float.self, rows: rows, columns: columns, depth: depth, using: &random)
            Self.check(Double.self, rows: rows, columns: columns, depth: depth, using: &random)
          }
        }
      }
    }
  }
}
