import COpenBLAS
import Glibc

extension Tensor {
  /// The solution X of A·X = B, where this tensor is A: LU with partial pivoting (LAPACK's `getrf`, `getrs`).
  ///
  /// A is `[…, n, n]`; B is `[n]`, or `[…, n, r]` with r right-hand sides. The leading axes broadcast; X has B's last
  /// axes.
  ///
  /// - Throws: ``LinearAlgebraError/singular(routine:info:shape:batch:)`` where a pivot is exactly zero (a nearly
  ///   singular matrix passes: see ``conditionNumber()``),
  ///   ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func solve(_ rightHandSides: Tensor) throws(LinearAlgebraError) -> Tensor {
    let size = squareSize("solve")
    let isVector = rightHandSides.rank == 1
    let columns = isVector ? rightHandSides.expandingAxis(1) : rightHandSides
    require(
      columns.rank >= 2 && columns.shape[columns.rank - 2] == size,
      "Tensor.solve: right-hand sides \(rightHandSides.shape) do not fit the matrix \(shape)")
    let batch = broadcastShape(batchShape, columns.batchShape, "Tensor.solve: leading axes")
    let count = columns.shape[columns.rank - 1]
    let matrices = broadcast(to: batch + [size, size])
    let factors = matrices.columnMajorCopy()
    let solutions = columns.broadcast(to: batch + [size, count]).columnMajorCopy()
    try factors.checkFinite("getrf", info: -4, shape: shape)
    try solutions.checkFinite("getrs", "the right-hand side", info: -8, shape: rightHandSides.shape)
    let (a, x) = (factors.address, solutions.address)
    let lapack = Scalar.backend.lapack
    let (n, ld) = (blasint(size), blasint(Swift.max(size, 1)))
    let failure = firstFailure(among: batch.reduce(1, *), work: size * size * (size / 3 + count)) { matrix in
      let factor = a + matrix * size * size
      var pivots = [blasint](repeating: 0, count: size)
      return OpenBLAS.call {
        let info = lapack.getrf(n, n, factor, ld, &pivots)
        if info != 0 { return Int(info) }
        return Int(
          lapack.getrs(n, blasint(count), factor, ld, &pivots, x + matrix * size * count, ld))
      }
    }
    withExtendedLifetime((factors, solutions)) {}
    try matrices.throwSingular(failure, shape: shape)
    let result = solutions.fromColumnMajor()
    return isVector ? result.reshaped(batch + [size]) : result
  }

  /// The inverse of each matrix along the last two axes, `[…, n, n]` (LAPACK's `getrf`, `getri`).
  ///
  /// To solve equations, ``solve(_:)`` is faster and more exact.
  ///
  /// - Throws: ``LinearAlgebraError/singular(routine:info:shape:batch:)`` where a pivot is exactly zero,
  ///   ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func inverse() throws(LinearAlgebraError) -> Tensor {
    let size = squareSize("inverse")
    let result = columnMajorCopy()
    try result.checkFinite("getrf", info: -4, shape: shape)
    let a = result.address
    let lapack = Scalar.backend.lapack
    let (n, ld) = (blasint(size), blasint(Swift.max(size, 1)))
    let failure = firstFailure(among: batchShape.reduce(1, *), work: size * size * size) { matrix in
      let factor = a + matrix * size * size
      var pivots = [blasint](repeating: 0, count: size)
      let info = OpenBLAS.call { lapack.getrf(n, n, factor, ld, &pivots) }
      if info != 0 { return Int(info) }
      return withWorkspace { work, count in lapack.getri(n, factor, ld, &pivots, work, count) }
    }
    withExtendedLifetime(result) {}
    try throwSingular(failure, shape: shape)
    return result.fromColumnMajor()
  }

  private func throwSingular(_ failure: (matrix: Int, info: Int)?, shape: [Int]) throws(LinearAlgebraError) {
    guard let (matrix, info) = failure else { return }
    checkArguments(info, "getrf")
    throw .singular(routine: lapackName("getrf"), info: info, shape: shape, batch: batchIndex(matrix))
  }

  /// The determinant of a matrix `[n, n]`, 1 for n = 0, by LU (LAPACK's `getrf`). NaN where an element is NaN or
  /// infinite.
  ///
  /// Only the result can overflow or underflow, no product on the way to it; ``logDeterminant()`` never does.
  public func determinant() -> Scalar {
    require(rank == 2, "Tensor.determinant: expected one matrix, got shape \(shape); see determinants()")
    return determinants().scalar
  }

  /// The determinant of each matrix along the last two axes: `[…, n, n]` gives `[…]`.
  public func determinants() -> Tensor {
    let size = squareSize("determinants")
    let results = pivotProducts(size).map { product in
      // Out of range in the exponent is out of range in the result: infinity, or zero.
      Scalar(Double(sign: .plus, exponent: product.exponent, significand: product.significand))
    }
    return Tensor(shape: batchShape, scalars: results)
  }

  /// The sign (−1, 0 or 1) and the logarithm of the absolute value of a matrix's determinant; 0 and −∞ for a singular
  /// matrix, NaN and NaN where an element is NaN or infinite.
  public func logDeterminant() -> (sign: Scalar, logarithm: Scalar) {
    require(rank == 2, "Tensor.logDeterminant: expected one matrix, got shape \(shape)")
    let (significand, exponent) = pivotProducts(squareSize("logDeterminant"))[0]
    if significand == 0 { return (0, -.infinity) }
    if significand.isNaN { return (.nan, .nan) }
    return (significand < 0 ? -1 : 1, Scalar(Glibc.log(abs(significand)) + Double(exponent) * M_LN2))
  }

  /// The determinants as significand · 2^exponent.
  private func pivotProducts(_ size: Int) -> [(significand: Double, exponent: Int)] {
    // The transpose has the same determinant, so the rows may stand as LAPACK's columns.
    let factors = copied()
    let a = factors.address
    let lapack = Scalar.backend.lapack
    let n = blasint(size)
    let count = batchShape.reduce(1, *)
    let products = Storage<Double>(count: 2 * count)
    let failure = firstFailure(among: count, work: size * size * size / 3) { matrix in
      let factor = a + matrix * size * size
      var (significand, exponent) = (1.0, 0)
      if Scalar.kernels.all_finite(factor, size * size) {
        var pivots = [blasint](repeating: 0, count: size)
        let info = OpenBLAS.call { lapack.getrf(n, n, factor, Swift.max(n, 1), &pivots) }
        if info < 0 { return Int(info) }
        for index in 0..<size {
          let pivot = Double(factor[index * (size + 1)])
          if pivot == 0 {
            (significand, exponent) = (0, 0)
            break
          }
          let product = significand * pivot.significand * (pivot.sign == .minus ? -1 : 1)
          exponent += Int(pivot.exponent) + Int(product.exponent)
          significand = product.sign == .minus ? -product.significand : product.significand
          if pivots[index] != blasint(index + 1) { significand = -significand }
        }
      } else {
        significand = .nan
      }
      products.pointer[2 * matrix] = significand
      products.pointer[2 * matrix + 1] = Double(exponent)
      return 0
    }
    withExtendedLifetime(factors) {}
    if let failure { checkArguments(failure.info, "getrf") }
    return (0..<count).map { (products.pointer[2 * $0], Int(products.pointer[2 * $0 + 1])) }
  }
}

/// What ``Tensor/leastSquares(_:tolerance:)`` finds.
public struct LeastSquaresSolution<Scalar: TensorScalar>: Sendable {
  /// The X of least norm among those that make ‖A·X − B‖ least: `[n]` or `[n, r]`.
  public let solution: Tensor<Scalar>
  /// ‖A·x − b‖² for each right-hand side: `[]` or `[r]`.
  public let residuals: Tensor<Scalar>
  /// How many singular values are above the tolerance.
  public let rank: Int
  /// A's singular values, greatest first: `[min(m, n)]`.
  public let singularValues: Tensor<Scalar>
}

extension Tensor {
  /// The X of least norm that minimizes ‖A·X − B‖ column by column, where this tensor is A (LAPACK's `gelsd`).
  ///
  /// - Parameters:
  ///   - rightHandSides: B: `[m]`, or `[m, r]` with r right-hand sides, for A `[m, n]`.
  ///   - tolerance: Singular values up to this share of the greatest count as zero; machine epsilon times max(m, n) if
  ///     not given.
  /// - Throws: ``LinearAlgebraError/noConvergence(routine:info:shape:batch:)`` where the singular values do not
  ///   converge, ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func leastSquares(
    _ rightHandSides: Tensor, tolerance: Scalar? = nil
  ) throws(LinearAlgebraError) -> LeastSquaresSolution<Scalar> {
    let (rows, columns) = singleMatrixSize("leastSquares")
    let isVector = rightHandSides.rank == 1
    let b = isVector ? rightHandSides.expandingAxis(1) : rightHandSides
    require(
      b.rank == 2 && b.shape[0] == rows,
      "Tensor.leastSquares: right-hand sides \(rightHandSides.shape) do not fit the matrix \(shape)")
    let count = b.shape[1]
    let (long, short) = (Swift.max(rows, columns), Swift.min(rows, columns))
    require(
      short * count + 512 * long <= Int(blasint.max),
      "Tensor.leastSquares: shapes \(shape) and \(rightHandSides.shape) need a workspace beyond LAPACK's integers")
    let factors = columnMajorCopy()
    // B goes in and X comes out in the same columns, so they have the length of the longer. LAPACK wants one at least.
    let columnsInOut = Tensor.zeros(shape: [Swift.max(count, 1), long])
    copyStrided(
      shape: [count, rows], from: b.storage.pointer + b.offset, strides: [b.strides[1], b.strides[0]],
      to: columnsInOut.address, strides: [long, 1])
    try factors.checkFinite("gelsd", info: -5, shape: shape)
    try columnsInOut.checkFinite("gelsd", "the right-hand side", info: -7, shape: rightHandSides.shape)
    let singularValues = Tensor(uninitialized: [short])
    var rank: blasint = 0
    if short > 0 {
      let lapack = Scalar.backend.lapack
      let rcond = tolerance ?? Scalar.ulpOfOne * Scalar(long)
      let (a, x, s) = (factors.address, columnsInOut.address, singularValues.address)
      // LAPACK: 3·short·levels + 11·short, with levels about log₂ of short.
      var integers = [blasint](repeating: 0, count: short * (3 * (Int.bitWidth - short.leadingZeroBitCount) + 11))
      let info = withWorkspace { work, size in
        lapack.gelsd(
          blasint(rows), blasint(columns), blasint(Swift.max(count, 1)), a, blasint(rows), x, blasint(long), s, rcond,
          &rank, work, size, &integers)
      }
      checkArguments(info, "gelsd")
      if info > 0 { throw .noConvergence(routine: lapackName("gelsd"), info: info, shape: shape, batch: []) }
    }
    // Without rows or columns X is zero, which the columns need not be.
    let solution =
      short > 0 ? columnsInOut[0..<count, 0..<columns].fromColumnMajor() : .zeros(shape: [columns, count])
    let residuals = (matmul(solution) - b).squared().sum(axis: 0)
    return LeastSquaresSolution(
      solution: isVector ? solution.reshaped(columns) : solution,
      residuals: isVector ? residuals.reshaped([]) : residuals, rank: Int(rank), singularValues: singularValues)
  }
}
