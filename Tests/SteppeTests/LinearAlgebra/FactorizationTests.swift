import Reference
import Steppe
import Testing

/// Results against the identities that define them, with errors in units of epsilon · size · norm.
extension LinearAlgebraTests {
  @Suite struct FactorizationTests {
    static let shapes = [(1, 1), (2, 2), (3, 5), (5, 3), (1, 7), (7, 1), (40, 40), (61, 30), (30, 61), (100, 100)]
    static let emptyShapes = [(0, 0), (0, 3), (3, 0)]
    static let sizes = [1, 2, 3, 10, 33, 100]

    /// Whether `a` equals `b` to `factor` · ε · size · scale.
    func close<Scalar: TensorScalar>(
      _ a: NaiveMatrix, _ b: NaiveMatrix, _: Scalar.Type, scale: Double, factor: Double = 10
    ) -> Bool {
      let size = Double(max(a.rows, a.columns, 1))
      return (a - b).norm <= factor * Double(Scalar.ulpOfOne) * size * max(scale, .leastNormalMagnitude)
    }

    // MARK: Cholesky

    @Test func cholesky() throws {
      try checkCholesky(Float.self)
      try checkCholesky(Double.self)
    }

    func checkCholesky<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("cholesky \(Scalar.self)")
      for size in Self.sizes {
        let g: Tensor<Scalar> = random.tensor([size, size + 3])
        var a = g.matmul(g, transposeRight: true)
        let full = NaiveMatrix(a)
        // What is above the diagonal is not read.
        for row in 0..<size { for column in row + 1..<max(size, row + 1) { a[row, column] = .nan } }
        let lower = NaiveMatrix(try a.cholesky())
        #expect(close(lower * lower.transposed, full, Scalar.self, scale: full.norm), "\(size)")
        for row in 0..<size {
          #expect(lower[row, row] > 0)
          for column in row + 1..<max(size, row + 1) { #expect(lower[row, column] == 0) }
        }
      }
      #expect(try Tensor<Scalar>.zeros(shape: [0, 0]).cholesky().shape == [0, 0])
      let batch = Tensor<Scalar>([[[4, 0], [2, 2]], [[9, 0], [3, 5]]])
      #expect(try batch.cholesky() == Tensor([[[2, 0], [1, 1]], [[3, 0], [1, 2]]]))
    }

    // MARK: LU and QR

    @Test func lu() throws {
      try checkLU(Float.self)
      try checkLU(Double.self)
    }

    func checkLU<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("lu \(Scalar.self)")
      for (rows, columns) in Self.shapes + Self.emptyShapes {
        let rank = min(rows, columns)
        let a: Tensor<Scalar> = random.tensor([rows, columns])
        let result = try a.lu()
        #expect(result.permutation.sorted() == Array(0..<rows))
        #expect(result.lower.shape == [rows, rank] && result.upper.shape == [rank, columns])
        let (lower, upper) = (NaiveMatrix(result.lower), NaiveMatrix(result.upper))
        let permuted = NaiveMatrix(rows, columns, result.permutation.flatMap { NaiveMatrix(a).row($0) })
        #expect(close(lower * upper, permuted, Scalar.self, scale: permuted.norm), "\(rows)×\(columns)")
        for row in 0..<rows {
          for column in 0..<rank {
            if row == column { #expect(lower[row, column] == 1) }
            if row < column { #expect(lower[row, column] == 0) }
            if row > column { #expect(abs(lower[row, column]) <= 1) }
          }
        }
        for row in 0..<rank { for column in 0..<min(row, columns) { #expect(upper[row, column] == 0) } }
      }
      let singular = try Tensor<Scalar>([[1, 2], [2, 4]]).lu()
      #expect(singular.upper[1, 1] == 0)
    }

    @Test func qr() throws {
      try checkQR(Float.self)
      try checkQR(Double.self)
    }

    func checkQR<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("qr \(Scalar.self)")
      for (rows, columns) in Self.shapes + Self.emptyShapes {
        let rank = min(rows, columns)
        let a: Tensor<Scalar> = random.tensor([rows, columns])
        let result = try a.qr()
        #expect(result.q.shape == [rows, rank] && result.r.shape == [rank, columns])
        let (q, r) = (NaiveMatrix(result.q), NaiveMatrix(result.r))
        #expect(close(q.transposed * q, .identity(rank), Scalar.self, scale: 1), "\(rows)×\(columns)")
        #expect(close(q * r, NaiveMatrix(a), Scalar.self, scale: NaiveMatrix(a).norm), "\(rows)×\(columns)")
        for row in 0..<rank { for column in 0..<min(row, columns) { #expect(r[row, column] == 0) } }
      }
    }

    // MARK: Singular values

    @Test func svd() throws {
      try checkSVD(Float.self)
      try checkSVD(Double.self)
    }

    func checkSVD<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("svd \(Scalar.self)")
      for (rows, columns) in Self.shapes + Self.emptyShapes {
        let rank = min(rows, columns)
        let a: Tensor<Scalar> = random.tensor([rows, columns])
        let result = try a.svd()
        let values = result.singularValues.scalars.map(Double.init)
        let (u, v) = (NaiveMatrix(result.u), NaiveMatrix(result.vTransposed).transposed)
        #expect(values.count == rank && values == values.sorted(by: >) && values.allSatisfy { $0 >= 0 })
        #expect(close(u.transposed * u, .identity(rank), Scalar.self, scale: 1), "\(rows)×\(columns)")
        #expect(close(v.transposed * v, .identity(rank), Scalar.self, scale: 1), "\(rows)×\(columns)")
        let norm = NaiveMatrix(a).norm
        #expect(close(u * .diagonal(values) * v.transposed, NaiveMatrix(a), Scalar.self, scale: norm))
        let alone = try a.singularValues().scalars.map(Double.init)
        #expect(zip(alone, values).allSatisfy { abs($0 - $1) <= 10 * Double(Scalar.ulpOfOne) * Double(rank) * norm })
        // A transposed view is the same decomposition the other way round.
        let other = try a.transposed().singularValues().scalars.map(Double.init)
        #expect(zip(other, values).allSatisfy { abs($0 - $1) <= 10 * Double(Scalar.ulpOfOne) * Double(rank) * norm })
      }
      #expect(try Tensor<Scalar>(diagonal: Tensor([3, -5, 4])).singularValues() == Tensor([5, 4, 3]))
      #expect(try Tensor<Scalar>([[2, 0], [0, 8]]).conditionNumber() == 4)
      #expect(try Tensor<Scalar>([[2, 0], [0, 0]]).conditionNumber() == .infinity)
    }

    @Test func aLargeFloatMatrixGetsALargeEnoughWorkspace() throws {
      // The workspace's size comes back as a Float, here beyond 2²⁴.
      var random = TestGenerator()
      let thin: Tensor<Float> = random.tensor([2100, 2])
      let a = thin.matmul(thin, transposeRight: true) + Tensor.identity(2100)
      let values = try a.symmetricEigen().values
      let inner = try thin.matmul(thin, transposeLeft: true).symmetricEigenvalues()
      #expect(abs(values[2099] - inner[1] - 1) <= 1e-5 * inner[1] && abs(values[0] - 1) <= 1e-5 * inner[1])
    }

    // MARK: Eigenvalues

    @Test func symmetricEigen() throws {
      try checkSymmetric(Float.self)
      try checkSymmetric(Double.self)
    }

    func checkSymmetric<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("symmetric \(Scalar.self)")
      for size in Self.sizes {
        let g: Tensor<Scalar> = random.tensor([size, size])
        var a = g + g.transposed()
        let full = NaiveMatrix(a)
        for row in 0..<size { for column in row + 1..<max(size, row + 1) { a[row, column] = .nan } }
        let result = try a.symmetricEigen()
        let values = result.values.scalars.map(Double.init)
        let v = NaiveMatrix(result.vectors)
        #expect(values == values.sorted())
        #expect(close(v.transposed * v, .identity(size), Scalar.self, scale: 1), "\(size)")
        #expect(close(full * v, v * .diagonal(values), Scalar.self, scale: full.norm), "\(size)")
        let alone = try a.symmetricEigenvalues().scalars.map(Double.init)
        let tolerance = 10 * Double(Scalar.ulpOfOne) * Double(size) * full.norm
        #expect(zip(alone, values).allSatisfy { abs($0 - $1) <= tolerance })
      }
      #expect(try Tensor<Scalar>.zeros(shape: [0, 0]).symmetricEigen().vectors.shape == [0, 0])
    }

    @Test func eigen() throws {
      try checkEigen(Float.self)
      try checkEigen(Double.self)
    }

    func checkEigen<Scalar: TensorScalar>(_: Scalar.Type) throws {
      var random = TestGenerator("eigen \(Scalar.self)")
      for size in Self.sizes {
        let a: Tensor<Scalar> = random.tensor([size, size])
        let matrix = NaiveMatrix(a)
        let result = try a.eigen()
        let (re, im) = (result.values.real.scalars.map(Double.init), result.values.imaginary.scalars.map(Double.init))
        let (x, y) = (NaiveMatrix(result.vectors.real), NaiveMatrix(result.vectors.imaginary))
        // A(x + iy) = (a + ib)(x + iy), the real and the imaginary parts.
        let (scale, s) = (matrix.norm, Scalar.self)
        #expect(close(matrix * x, x * .diagonal(re) - y * .diagonal(im), s, scale: scale), "\(size)")
        #expect(close(matrix * y, x * .diagonal(im) + y * .diagonal(re), s, scale: scale), "\(size)")
        for column in 0..<size {
          let norm = (0..<size).reduce(0.0) { $0 + x[$1, column] * x[$1, column] + y[$1, column] * y[$1, column] }
          #expect(abs(norm - 1) <= 10 * Double(Scalar.ulpOfOne) * Double(size))
        }
        #expect(
          abs(re.reduce(0, +) - (0..<size).reduce(0.0) { $0 + matrix[$1, $1] }) <= 10 * Double(Scalar.ulpOfOne)
            * Double(size) * scale)
        #expect(abs(im.reduce(0, +)) <= 10 * Double(Scalar.ulpOfOne) * Double(size) * scale)
        #expect(try a.eigenvalues().real.shape == [size])
      }
      let turn = try Tensor<Scalar>([[0, -1], [1, 0]]).eigenvalues()
      #expect(turn.real == Tensor([0, 0]) && turn.imaginary == Tensor([1, -1]))
      #expect(try Tensor<Scalar>.zeros(shape: [0, 0]).eigen().vectors.real.shape == [0, 0])
    }
  }
}

extension NaiveMatrix {
  func row(_ index: Int) -> [Double] { Array(elements[index * columns..<(index + 1) * columns]) }
}
