import COpenBLAS

/// P·A = L·U, with rows exchanged for the greatest pivots.
public struct LUFactorization<Scalar: TensorScalar>: Sendable {
  /// Row i of P·A is row `permutation[i]` of A.
  public let permutation: [Int]
  /// L, with ones on the diagonal: `[m, min(m, n)]`.
  public let lower: Tensor<Scalar>
  /// U: `[min(m, n), n]`.
  public let upper: Tensor<Scalar>
}

/// A = Q·R, reduced.
public struct QRFactorization<Scalar: TensorScalar>: Sendable {
  /// Orthonormal columns: `[m, min(m, n)]`.
  public let q: Tensor<Scalar>
  /// Upper triangular: `[min(m, n), n]`.
  public let r: Tensor<Scalar>
}

/// A = U·diag(σ)·Vᵀ, reduced to k = min(m, n).
public struct SingularValueDecomposition<Scalar: TensorScalar>: Sendable {
  /// Orthonormal columns: `[m, k]`.
  public let u: Tensor<Scalar>
  /// The singular values σ, greatest first: `[k]`.
  public let singularValues: Tensor<Scalar>
  /// Vᵀ, orthonormal rows: `[k, n]`.
  public let vTransposed: Tensor<Scalar>
}

extension Tensor {
  /// The lower triangular L with A = L·Lᵀ for each symmetric positive definite matrix along the last two axes, `[…, n,
  /// n]` (LAPACK's `potrf`).
  ///
  /// Only the diagonal and what is below it are read.
  ///
  /// - Throws: ``LinearAlgebraError/notPositiveDefinite(routine:info:shape:batch:)``, with the order of the first
  ///   leading minor that is not positive, ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or
  ///   infinity.
  public func cholesky() throws(LinearAlgebraError) -> Tensor {
    let size = squareSize("cholesky")
    // Row by row, the lower triangle is LAPACK's upper one, and L comes out in its place.
    let result = triangle(upper: false)
    try result.checkFinite("potrf", info: -4, shape: shape)
    let a = result.address
    let lapack = Scalar.backend.lapack
    let n = blasint(size)
    let failure = firstFailure(among: batchShape.reduce(1, *), work: size * size * size / 6) { matrix in
      OpenBLAS.call { Int(lapack.potrf(lapackOption("U"), n, a + matrix * size * size, Swift.max(n, 1))) }
    }
    withExtendedLifetime(result) {}
    if let (matrix, info) = failure {
      checkArguments(info, "potrf")
      throw .notPositiveDefinite(
        routine: lapackName("potrf"), info: info, shape: shape, batch: batchIndex(matrix))
    }
    return result
  }

  /// P·A = L·U for a matrix `[m, n]` of any rank (LAPACK's `getrf`); a singular one has zeros on U's diagonal.
  ///
  /// ```swift
  /// let lu = try a.lu()
  /// a.gathering(rows: lu.permutation)   // = lu.lower.matmul(lu.upper)
  /// ```
  ///
  /// - Throws: ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func lu() throws(LinearAlgebraError) -> LUFactorization<Scalar> {
    let (rows, columns) = singleMatrixSize("lu")
    let rank = Swift.min(rows, columns)
    let factors = columnMajorCopy()
    try factors.checkFinite("getrf", info: -4, shape: shape)
    var permutation = Array(0..<rows)
    if rank > 0 {
      let lapack = Scalar.backend.lapack
      var pivots = [blasint](repeating: 0, count: rank)
      let a = factors.address
      let info = OpenBLAS.call {
        lapack.getrf(blasint(rows), blasint(columns), a, blasint(rows), &pivots)
      }
      checkArguments(Int(info), "getrf")
      for row in 0..<rank { permutation.swapAt(row, Int(pivots[row]) - 1) }
    }
    let matrix = factors.swappingAxes(-1, -2)
    var lower = matrix[0..., 0..<rank].triangle(upper: false)
    lower.withUnsafeMutableBufferPointer { buffer in
      for index in 0..<rank { buffer[index * (rank + 1)] = 1 }
    }
    return LUFactorization(
      permutation: permutation, lower: lower, upper: matrix[0..<rank].triangle(upper: true))
  }

  /// A = Q·R for a matrix `[m, n]`, by Householder's reflections (LAPACK's `geqrf`, `orgqr`). R's diagonal may have
  /// either sign.
  ///
  /// - Throws: ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func qr() throws(LinearAlgebraError) -> QRFactorization<Scalar> {
    let (rows, columns) = singleMatrixSize("qr")
    let rank = Swift.min(rows, columns)
    let factors = columnMajorCopy()
    try factors.checkFinite("geqrf", info: -4, shape: shape)
    guard rank > 0 else {
      return QRFactorization(q: .zeros(shape: [rows, 0]), r: .zeros(shape: [0, columns]))
    }
    let lapack = Scalar.backend.lapack
    let reflections = Tensor(uninitialized: [rank])
    let (a, tau) = (factors.address, reflections.address)
    let (m, n, k) = (blasint(rows), blasint(columns), blasint(rank))
    checkArguments(withWorkspace { lapack.geqrf(m, n, a, m, tau, $0, $1) }, "geqrf")
    let r = factors.swappingAxes(-1, -2)[0..<rank].triangle(upper: true)
    checkArguments(withWorkspace { lapack.orgqr(m, k, k, a, m, tau, $0, $1) }, "orgqr")
    withExtendedLifetime(reflections) {}
    return QRFactorization(q: factors[0..<rank].fromColumnMajor(), r: r)
  }

  /// A = U·diag(σ)·Vᵀ for a matrix `[m, n]`, by divide and conquer (LAPACK's `gesdd`).
  ///
  /// - Throws: ``LinearAlgebraError/noConvergence(routine:info:shape:batch:)``,
  ///   ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func svd() throws(LinearAlgebraError) -> SingularValueDecomposition<Scalar> {
    let (rows, columns) = singleMatrixSize("svd")
    let rank = Swift.min(rows, columns)
    let u = Tensor(uninitialized: [rows, rank])
    let vTransposed = Tensor(uninitialized: [rank, columns])
    let values = try decomposeSingularValues(rows, columns, u: u, vTransposed: vTransposed)
    return SingularValueDecomposition(u: u, singularValues: values, vTransposed: vTransposed)
  }

  /// The singular values of a matrix, greatest first; the first is its spectral norm.
  ///
  /// - Throws: As ``svd()``.
  public func singularValues() throws(LinearAlgebraError) -> Tensor {
    let (rows, columns) = singleMatrixSize("singularValues")
    return try decomposeSingularValues(rows, columns, u: nil, vTransposed: nil)
  }

  /// The singular values, and the vectors where there is room for them.
  private func decomposeSingularValues(
    _ rows: Int, _ columns: Int, u: Tensor?, vTransposed: Tensor?
  ) throws(LinearAlgebraError) -> Tensor {
    let rank = Swift.min(rows, columns)
    require(
      4 * rank * rank + 128 * (rows + columns) <= Int(blasint.max),
      "Tensor.svd: shape \(shape) needs a workspace beyond LAPACK's integers")
    let values = Tensor(uninitialized: [rank])
    let copy = copied()
    try copy.checkFinite("gesdd", info: -5, shape: shape)
    guard rank > 0 else { return values }
    // Row by row A is LAPACK's Aᵀ = V·diag(σ)·Uᵀ: its left vectors, column by column, are Vᵀ row by row, and its right
    // ones U.
    let lapack = Scalar.backend.lapack
    let (a, s, left, right) = (copy.address, values.address, vTransposed?.address, u?.address)
    var integers = [blasint](repeating: 0, count: 8 * rank)
    let info = withWorkspace { work, size in
      lapack.gesdd(
        lapackOption(u == nil ? "N" : "S"), blasint(columns), blasint(rows), a, blasint(columns), s, left,
        blasint(columns), right, blasint(rank), work, size, &integers)
    }
    withExtendedLifetime((copy, u, vTransposed)) {}
    checkArguments(info, "gesdd")
    if info > 0 { throw .noConvergence(routine: lapackName("gesdd"), info: info, shape: shape, batch: []) }
    return values
  }
}
