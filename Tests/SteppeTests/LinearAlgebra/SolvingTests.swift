import Glibc
import Reference
import Steppe
import Testing

extension LinearAlgebraTests {
  @Suite struct SolvingTests {
    static let sizes = [1, 2, 3, 10, 33, 100]

    @Test func solve() throws {
      try checkSolve(Float.self)
      try checkSolve(Double.self)
    }

    func checkSolve<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("solve \(Scalar.self)")
      for size in Self.sizes {
        let a: Tensor<Scalar> = random.tensor([size, size])
        for count in [1, 4] {
          let b: Tensor<Scalar> = random.tensor([size, count])
          let x = try a.solve(b)
          // The backward error: ‖A·X − B‖ against ‖A‖·‖X‖.
          let (matrix, solution) = (NaiveMatrix(a), NaiveMatrix(x))
          let bound = 10 * Double(Scalar.ulpOfOne) * Double(size) * matrix.norm * solution.norm
          #expect((matrix * solution - NaiveMatrix(b)).norm <= bound, "\(size)")
          // A view is solved as what it shows, and a column as a vector.
          #expect(try a.transposed().transposed().solve(b) == x)
          if count == 1 { #expect(try a.solve(b.reshaped(size)) == x.reshaped(size)) }
        }
        let inverse = NaiveMatrix(try a.inverse())
        let bound = 10 * Double(Scalar.ulpOfOne) * Double(size) * NaiveMatrix(a).norm * inverse.norm * inverse.norm
        #expect((inverse * NaiveMatrix(a) * inverse - inverse).norm <= bound, "\(size)")
      }
      let empty = Tensor<Scalar>.zeros(shape: [0, 0])
      #expect(try empty.solve(.zeros(shape: [0, 3])).shape == [0, 3])
      #expect(try empty.solve(.zeros(shape: [0])).shape == [0])
      #expect(try Tensor<Scalar>.identity(2).solve(.zeros(shape: [2, 0])).shape == [2, 0])
      #expect(try empty.inverse().shape == [0, 0])
    }

    @Test(arguments: [1, 2, 3]) func batches(threads: Int) throws {
      var random = TestGenerator("batches \(threads)")
      let a: Tensor<Double> = random.tensor([30, 2, 12, 12])
      let b: Tensor<Double> = random.tensor([2, 12, 3])
      try Parallel.withThreadCount(threads) {
        let x = try a.solve(b)
        let inverse = try a.inverse()
        let determinants = a.determinants()
        #expect(x.shape == [30, 2, 12, 3] && inverse.shape == a.shape && determinants.shape == [30, 2])
        for (i, j) in [(0, 0), (7, 1), (29, 1)] {
          #expect(try a[i, j].solve(b[j]) == x[i, j])
          #expect(try a[i, j].inverse() == inverse[i, j])
          #expect(a[i, j].determinant() == determinants[i, j])
        }
        let vector: Tensor<Double> = random.tensor([12])
        #expect(try a.solve(vector).shape == [30, 2, 12])
      }
    }

    @Test func determinants() throws {
      var random = TestGenerator()
      for size in 0...6 {
        let a: Tensor<Double> = random.tensor([size, size])
        let expected = NaiveLinearAlgebra.determinant(a.scalars, size: size)
        let scale = max(1, (0..<size).reduce(1.0) { $0 * Double(a.row($1).norm()) })
        #expect(abs(a.determinant() - expected) <= 1e-14 * scale * Double(max(size, 1)))
        let single = Tensor<Float>(shape: a.shape, scalars: a.scalars.map(Float.init))
        #expect(abs(Double(single.determinant()) - expected) <= 1e-5 * scale)
        let (sign, logarithm) = a.logDeterminant()
        #expect(abs(sign * exp(logarithm) - a.determinant()) <= 1e-14 * abs(a.determinant()))
      }
      #expect(Tensor<Float>([[0, 1], [1, 0]]).determinant() == -1)
      #expect(Tensor<Float>([[1, 2], [2, 4]]).determinant() == 0)
      #expect(Tensor<Float>([[1, 2], [2, 4]]).logDeterminant() == (0, -.infinity))
      #expect(Tensor<Float>([[1, .nan], [2, 4]]).determinant().isNaN)
      #expect(Tensor<Float>([[1, .infinity], [2, 4]]).logDeterminant().sign.isNaN)
      // 10³⁰⁰·10³⁰⁰·10⁻³⁰⁰·10⁻³⁰⁰, in an order that overflows.
      let wide = Tensor(diagonal: Tensor<Double>([0x1p900, 0x1p900, 0x1p-900, -0x1p-899]))
      #expect(wide.determinant() == -2)
      #expect(Tensor<Double>(diagonal: Tensor(repeating: 0x1p900, shape: [3])).determinant() == .infinity)
      let (sign, logarithm) = Tensor<Double>(diagonal: Tensor(repeating: -0x1p900, shape: [3])).logDeterminant()
      #expect(sign == -1 && abs(logarithm / (2700 * 0.6931471805599453) - 1) < 1e-15)
    }

    // MARK: Least squares

    @Test func leastSquares() throws {
      try checkLeastSquares(Float.self)
      try checkLeastSquares(Double.self)
    }

    func checkLeastSquares<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("least squares \(Scalar.self)")
      let epsilon = Double(Scalar.ulpOfOne)
      for (rows, columns) in [(1, 1), (7, 3), (3, 7), (20, 20), (100, 17), (17, 100), (60, 60)] {
        let a: Tensor<Scalar> = random.tensor([rows, columns])
        let b: Tensor<Scalar> = random.tensor([rows, 3])
        let result = try a.leastSquares(b)
        let (matrix, x) = (NaiveMatrix(a), NaiveMatrix(result.solution))
        let residual = matrix * x - NaiveMatrix(b)
        #expect(result.rank == min(rows, columns))
        #expect(result.singularValues.count == min(rows, columns) && result.residuals.shape == [3])
        // The residual is orthogonal to A's columns, and X lies in its rows' space: Vᵀ's complement has no part in it.
        let bound =
          20 * epsilon * Double(max(rows, columns)) * matrix.norm * (matrix.norm * x.norm + NaiveMatrix(b).norm)
        #expect((matrix.transposed * residual).norm <= bound, "\(rows)×\(columns)")
        let v = NaiveMatrix(try a.svd().vTransposed)
        #expect((v.transposed * (v * x) - x).norm <= 20 * epsilon * Double(columns) * x.norm)
        for column in 0..<3 {
          let squares = (0..<rows).reduce(0.0) { $0 + residual[$1, column] * residual[$1, column] }
          #expect(abs(Double(result.residuals[column]) - squares) <= 1e3 * epsilon * (squares + NaiveMatrix(b).norm))
        }
        // One right-hand side as a vector.
        let one = try a.leastSquares(b[0..., 0])
        #expect(one.solution.shape == [columns] && one.residuals.shape == [])
      }
      let deficient = Tensor<Scalar>([[1, 1], [1, 1], [1, 1]])
      let result = try deficient.leastSquares(Tensor([1, 2, 3]))
      #expect(result.rank == 1)
      #expect(result.solution.scalars.allSatisfy { abs($0 - 1) < 20 * Scalar.ulpOfOne })
      #expect(abs(result.residuals.scalar - 2) < 50 * Scalar.ulpOfOne)
      #expect(try Tensor<Scalar>([[1, 0], [0, 0.25]]).leastSquares(Tensor([1, 1]), tolerance: 0.5).rank == 1)
      let noRows = try Tensor<Scalar>.zeros(shape: [0, 2]).leastSquares(.zeros(shape: [0, 3]))
      #expect(noRows.solution == .zeros(shape: [2, 3]) && noRows.rank == 0)
      let noColumns = try Tensor<Scalar>.zeros(shape: [2, 0]).leastSquares(Tensor([3, 4]))
      #expect(noColumns.solution.shape == [0] && noColumns.residuals.scalar == 25)
      #expect(try Tensor<Scalar>.identity(2).leastSquares(.zeros(shape: [2, 0])).solution.shape == [2, 0])
    }

    // MARK: Errors

    @Test func singularMatricesThrowLAPACKsInfo() {
      let singular = Tensor<Double>([[1, 2, 3], [2, 4, 6], [0, 1, 1]])
      #expect(throws: LinearAlgebraError.singular(routine: "dgetrf", info: 3, shape: [3, 3], batch: [])) {
        try singular.solve(Tensor([1, 2, 3]))
      }
      // The first pivot that is zero, of A and not of its transpose.
      let first = Tensor<Float>([[0, 1], [0, 0]])
      #expect(throws: LinearAlgebraError.singular(routine: "sgetrf", info: 1, shape: [2, 2], batch: [])) {
        try first.inverse()
      }
      #expect(throws: LinearAlgebraError.singular(routine: "sgetrf", info: 2, shape: [2, 2], batch: [])) {
        try first.transposed().inverse()
      }
      var batch = Tensor<Double>.identity(4).broadcast(to: [3, 2, 4, 4])
      batch[2, 1, 3, 3] = 0
      #expect(throws: LinearAlgebraError.singular(routine: "dgetrf", info: 4, shape: [3, 2, 4, 4], batch: [2, 1])) {
        try batch.inverse()
      }
      #expect(throws: LinearAlgebraError.singular(routine: "dgetrf", info: 4, shape: [3, 2, 4, 4], batch: [2, 1])) {
        try batch.solve(Tensor([1, 2, 3, 4]))
      }
      let error = LinearAlgebraError.singular(routine: "dgetrf", info: 4, shape: [3, 2, 4, 4], batch: [2, 1])
      #expect(error.info == 4 && error.routine == "dgetrf")
      #expect(
        "\(error)"
          == "dgetrf: the matrix at [2, 1] of shape [3, 2, 4, 4] is singular: U[4, 4] is zero (info 4)")
    }

    @Test func matricesThatAreNotPositiveDefiniteThrowLAPACKsInfo() {
      let indefinite = Tensor<Float>([[4, 0, 0], [0, -1, 0], [0, 0, 1]])
      #expect(throws: LinearAlgebraError.notPositiveDefinite(routine: "spotrf", info: 2, shape: [3, 3], batch: [])) {
        try indefinite.cholesky()
      }
      var batch = Tensor<Double>.identity(3).broadcast(to: [5, 3, 3])
      batch[3, 2, 2] = 0
      #expect(throws: LinearAlgebraError.notPositiveDefinite(routine: "dpotrf", info: 3, shape: [5, 3, 3], batch: [3]))
      {
        try batch.cholesky()
      }
    }

    @Test func nonFiniteElementsThrow() {
      let identity = Tensor<Double>.identity(3)
      for value in [Double.nan, .infinity, -.infinity] {
        var a = identity
        a[2, 1] = value
        func expect<Result>(_ routine: String, _ info: Int, _ body: () throws -> Result) {
          #expect(
            throws: LinearAlgebraError.nonFinite(routine: routine, argument: "the matrix", info: info, shape: [3, 3])
          ) { _ = try body() }
        }
        expect("dgetrf", -4) { try a.solve(identity) }
        expect("dgetrf", -4) { try a.inverse() }
        expect("dgetrf", -4) { try a.lu() }
        expect("dpotrf", -4) { try a.cholesky() }
        expect("dgeqrf", -4) { try a.qr() }
        expect("dgesdd", -5) { try a.svd() }
        expect("dgesdd", -5) { try a.singularValues() }
        expect("dgesdd", -5) { try a.conditionNumber() }
        expect("dsyevd", -5) { try a.symmetricEigen() }
        expect("dgeev", -5) { try a.eigen() }
        expect("dgeev", -5) { try a.eigenvalues() }
        expect("dgelsd", -5) { try a.leastSquares(identity) }
        #expect(
          throws: LinearAlgebraError.nonFinite(
            routine: "dgetrs", argument: "the right-hand side", info: -8, shape: [3, 3])
        ) { try identity.solve(a) }
        #expect(
          throws: LinearAlgebraError.nonFinite(
            routine: "dgelsd", argument: "the right-hand side", info: -7, shape: [3, 3])
        ) { try identity.leastSquares(a) }
      }
    }

    @Test func shapesThatDoNotFitStopTheProgram() async {
      let sides = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = try Tensor<Float>.identity(3).solve(.zeros(shape: [4, 2]))
      }
      #expect(errorText(sides).contains("[3, 3]") && errorText(sides).contains("[4, 2]"))
      let square = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = try Tensor<Float>.zeros(shape: [3, 5]).inverse()
      }
      #expect(errorText(square).contains("square") && errorText(square).contains("[3, 5]"))
      let rows = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = try Tensor<Float>.zeros(shape: [6, 5]).leastSquares(.zeros(shape: [7]))
      }
      #expect(errorText(rows).contains("[6, 5]") && errorText(rows).contains("[7]"))
      let vector = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        _ = try Tensor<Float>.zeros(shape: [6]).svd()
      }
      #expect(errorText(vector).contains("[6]"))
    }

    // MARK: Small things

    @Test func normsTracesAndDiagonals() {
      let a = Tensor<Float>([[3, -4, 0], [0, 0, 12]])
      #expect(a.norm() == 13 && a.norm(.frobenius) == 13)
      #expect(a.norm(.one) == 12 && a.norm(.infinity) == 12)
      #expect(a.diagonal() == Tensor([3, 0]) && a.trace() == 3)
      #expect(Tensor<Float>(diagonal: Tensor([1, 2])) == Tensor([[1, 0], [0, 2]]))
      #expect(Tensor.stacked([a, a + 1]).diagonal() == Tensor([[3, 0], [4, 1]]))
      #expect(a.transposed().diagonal() == Tensor([3, 0]))
      // Squares that overflow or vanish.
      for scale: Float in [0x1p100, 0x1p-100, 0x1p-145] { #expect((a * scale).norm() == 13 * scale) }
      for scale in [0x1p900, 0x1p-900] {
        #expect(Tensor<Double>([3 * scale, -4 * scale]).norm() == 5 * scale)
      }
      #expect(Tensor<Double>([.nan, 1]).norm().isNaN)
      #expect(Tensor<Double>([-.infinity, 1]).norm() == .infinity)
      #expect(Tensor<Double>.zeros(shape: [3]).norm() == 0)
      #expect(Tensor<Double>.zeros(shape: [0]).norm() == 0)
      #expect(Tensor<Double>.zeros(shape: [0, 3]).norm(.one) == 0)
    }
  }
}
