import COpenBLAS

// What the factorizations share: shapes, column-major copies, workspaces, and the loop over the matrices of a tensor.
extension Tensor {
  /// Rows and columns of the matrices along the last two axes, which LAPACK must be able to count.
  func matrixSize(_ operation: StaticString) -> (rows: Int, columns: Int) {
    require(rank >= 2, "Tensor.\(operation): expected a matrix, got shape \(shape)")
    let (rows, columns) = (shape[rank - 2], shape[rank - 1])
    require(
      Swift.max(rows, columns) <= Int(blasint.max), "Tensor.\(operation): shape \(shape) exceeds LAPACK's integers")
    return (rows, columns)
  }

  /// Rows and columns of the one matrix.
  func singleMatrixSize(_ operation: StaticString) -> (rows: Int, columns: Int) {
    require(rank == 2, "Tensor.\(operation): expected one matrix, got shape \(shape)")
    return matrixSize(operation)
  }

  /// The size of square matrices.
  func squareSize(_ operation: StaticString) -> Int {
    let (rows, columns) = matrixSize(operation)
    require(rows == columns, "Tensor.\(operation): expected a square matrix, got shape \(shape)")
    return rows
  }

  /// The axes before the last two.
  var batchShape: [Int] { Array(shape.dropLast(2)) }

  /// The index along the leading axes of matrix `number`.
  func batchIndex(_ number: Int) -> [Int] {
    var rest = number
    return batchShape.reversed().map { size in
      defer { rest /= size }
      return rest % size
    }.reversed()
  }

  /// The matrices, each column by column, as LAPACK takes them: the memory of their transposes.
  func columnMajorCopy() -> Tensor { swappingAxes(-1, -2).copied() }

  /// The matrices whose columns stand one after another in this tensor's memory.
  func fromColumnMajor() -> Tensor { swappingAxes(-1, -2).contiguous() }

  /// A contiguous copy with zeros above the diagonal, or below it.
  func triangle(upper: Bool) -> Tensor {
    let (rows, columns) = (shape[rank - 2], shape[rank - 1])
    let result = copied()
    let base = result.address
    guard result.count > 0 else { return result }
    for matrix in 0..<result.count / (rows * columns) {
      for row in 0..<rows {
        let start = base + (matrix * rows + row) * columns
        if upper {
          Scalar.kernels.fill(0, start, Swift.min(row, columns))
        } else if row + 1 < columns {
          Scalar.kernels.fill(0, start + row + 1, columns - row - 1)
        }
      }
    }
    return result
  }

  /// Throws where an element is NaN or infinite, under which LAPACK's iterations may not end.
  func checkFinite(
    _ routine: StaticString, _ argument: String = "the matrix", info: Int, shape: [Int]
  ) throws(LinearAlgebraError) {
    if !isAllFinite() {
      throw .nonFinite(routine: lapackName(routine), argument: argument, info: info, shape: shape)
    }
  }

  /// The routine's full name, such as `dgetrf`.
  func lapackName(_ routine: StaticString) -> String { "\(Scalar.backend.lapack.prefix)\(routine)" }
}

/// Calls a LAPACK routine twice: to learn how large a workspace it wants, and with that workspace from the pool.
func withWorkspace<Scalar: TensorScalar>(
  _ routine: (UnsafeMutablePointer<Scalar>, blasint) -> blasint
) -> Int {
  var wanted: Scalar = 0
  let status = OpenBLAS.call { routine(&wanted, -1) }
  guard status == 0 else { return Int(status) }
  // The size comes back as a scalar, which may have been rounded down. Nothing is allocated inside the gate: a fork
  // that holds the pool waits for it.
  let count = Swift.max(1, Int(wanted.nextUp.rounded(.up)))
  let work = Storage<Scalar>(count: count)
  defer { withExtendedLifetime(work) {} }
  return OpenBLAS.call { Int(routine(work.pointer, blasint(clamping: count))) }
}

/// Calls `factorize` for each of `count` matrices, on several threads where they are many, and returns the first that
/// failed with its `info`.
///
/// - Parameter work: Multiplications to one matrix, roughly.
func firstFailure(
  among count: Int, work: Int, _ factorize: (Int) -> Int
) -> (matrix: Int, info: Int)? {
  let results = [Int](unsafeUninitializedCapacity: count) { buffer, initialized in
    initialized = count
    guard let base = buffer.baseAddress else { return }
    Parallel.ranges(count, grain: Swift.max(1, ProductCut.forkAndJoin / Swift.max(1, work))) { range in
      for matrix in range { (base + matrix).initialize(to: factorize(matrix)) }
    }
  }
  guard let matrix = results.firstIndex(where: { $0 != 0 }) else { return nil }
  return (matrix, results[matrix])
}

/// A character argument of LAPACK's.
func lapackOption(_ letter: Unicode.Scalar) -> CChar { CChar(letter.value) }

/// Stops the program where LAPACK refuses an argument, which is Steppe's mistake and no matrix's.
func checkArguments(_ info: Int, _ routine: StaticString) {
  require(info >= 0, "LAPACK's \(routine) refused its argument number \(-info)")
}
