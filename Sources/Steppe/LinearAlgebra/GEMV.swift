import COpenBLAS
import CSteppeKernels

/// y ← α·op(A)·x + β·y, where A is `rows` × `columns` as stored, row-major, its rows `lda` apart, and op the identity
/// or the transpose.
///
/// `incx` and `incy` are the distances between the elements of x and y, above 0. Where β is 0, y is not read; where α
/// is 0 or x empty, A is not. The outputs are cut for `threads` threads, or, where they are few, the sums' length,
/// whose partial results are added in a fixed order: one count gives one result, bitwise. A caller that is itself a
/// part of a ``Parallel/run(parts:_:)`` passes 1.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
package func gemv<Scalar: TensorScalar>(
  transpose: Bool = false, rows: Int, columns: Int, alpha: Scalar = 1, a: UnsafePointer<Scalar>, lda: Int,
  x: UnsafePointer<Scalar>, incx: Int = 1, beta: Scalar = 0, y: UnsafeMutablePointer<Scalar>, incy: Int = 1,
  threads: Int = Parallel.threadCount
) {
  let (outputs, length) = transpose ? (columns, rows) : (rows, columns)
  guard outputs > 0 else { return }
  if length == 0 || alpha == 0 {
    scaleRows(y, ldc: incy, m: outputs, n: 1, by: beta)
    return
  }
  let product = VectorProduct(transpose: transpose, alpha: alpha, a: a, lda: lda, x: x, incx: incx)
  product.check(rows: rows, columns: columns, incy: incy)
  let isCut = product.usesKernels(incy: incy) || OpenBLAS.isSingleThreaded
  let parts = isCut ? max(1, min(threads, rows * columns / VectorProduct<Scalar>.grain)) : 1
  // A transposed product's part is a band of columns: whole cache lines of each row.
  let unit = transpose ? 64 / MemoryLayout<Scalar>.stride : 4
  if parts == 1 || outputs >= 4 * unit * parts || length < 256 * parts || incy != 1 {
    let parts = min(parts, (outputs + unit - 1) / unit)
    Parallel.run(parts: parts) { part in
      let range = Parallel.range(part, of: parts, count: outputs, multiple: unit)
      product.run(outputs: range, length: 0..<length, beta: beta, into: y + range.lowerBound * incy, incy: incy)
    }
    return
  }
  let scratch = Storage<Scalar>(count: (parts - 1) * outputs)
  let partials = scratch.pointer
  Parallel.run(parts: parts) { part in
    let range = Parallel.range(part, of: parts, count: length, multiple: 16)
    if part == 0 {
      product.run(outputs: 0..<outputs, length: range, beta: beta, into: y, incy: 1)
    } else {
      product.run(outputs: 0..<outputs, length: range, beta: 0, into: partials + (part - 1) * outputs, incy: 1)
    }
  }
  for part in 0..<parts - 1 { Scalar.kernels.add_scaled(partials + part * outputs, 1, y, outputs) }
  withExtendedLifetime(scratch) {}
}

/// The factors of a product with a vector, of which one thread computes parts: by Steppe's own kernels where the vectors are contiguous
/// and the instruction set suits (see ``MatrixProduct``), otherwise by OpenBLAS's.
private struct VectorProduct<Scalar: TensorScalar> {
  /// Elements of the matrix below which a part is not worth a thread: a microsecond or two.
  static var grain: Int { 32768 }

  let transpose: Bool
  let alpha: Scalar
  let a: UnsafePointer<Scalar>
  let lda: Int
  let x: UnsafePointer<Scalar>
  let incx: Int

  func usesKernels(incy: Int) -> Bool { MatrixProduct<Scalar>.usesKernels && incx == 1 && incy == 1 }

  /// Stops the program where OpenBLAS would refuse the call or could not count that far.
  func check(rows: Int, columns: Int, incy: Int) {
    require(
      (lda >= columns || rows <= 1) && incx > 0 && incy > 0,
      "gemv: row distance \(lda), steps \(incx) and \(incy) do not fit a matrix of \(rows) rows and \(columns) columns")
    require(
      max(rows, columns, lda, incx, incy) <= Int(blasint.max),
      "gemv: \(rows) rows and \(columns) columns, row distance \(lda), exceed OpenBLAS's \(blasint.max)")
  }

  /// Some outputs, the first to be written at `y`, from a part of their sums.
  func run(outputs: Range<Int>, length: Range<Int>, beta: Scalar, into y: UnsafeMutablePointer<Scalar>, incy: Int) {
    guard !outputs.isEmpty else { return }
    let offset =
      transpose ? length.lowerBound * lda + outputs.lowerBound : outputs.lowerBound * lda + length.lowerBound
    if usesKernels(incy: incy) {
      for slice in ProductBlocks<Scalar>.slices(length, longest: ProductBlocks<Scalar>.longestSum) {
        let isFirst = slice.lowerBound == length.lowerBound
        let start = a + offset + (slice.lowerBound - length.lowerBound) * (transpose ? lda : 1)
        var finish = ProductFinish(alpha: alpha, beta: beta).forKernel(column: 0, isFirst: isFirst, isLast: true)
        Scalar.kernels.multiply_few(
          x + slice.lowerBound, 0, start, lda, !transpose, 1, outputs.count, slice.count, &finish, y, 0)
      }
      return
    }
    // OpenBLAS's versions differ in whether β = 0 clears a NaN in y, so it is cleared here.
    if beta == 0 {
      scaleRows(y, ldc: incy, m: outputs.count, n: 1, by: 0)
    }
    let (rows, columns) = transpose ? (length.count, outputs.count) : (outputs.count, length.count)
    let gemv = Scalar.backend.blas.gemv
    OpenBLAS.call {
      gemv(
        CblasRowMajor, transpose ? CblasTrans : CblasNoTrans, blasint(rows), blasint(columns), alpha, a + offset,
        blasint(max(lda, columns, 1)), x + length.lowerBound * incx, blasint(incx), beta == 0 ? 1 : beta, y,
        blasint(incy))
    }
  }
}
