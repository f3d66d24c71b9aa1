import CSteppeKernels

/// A matrix [depth, columns] laid out once for many products with rows: what a folded model's weights become.
///
/// Kept as strips of a tile's columns, each read straight on, for the instruction set in use when it was made, whose kernels it keeps
/// using. A long depth is laid out in slices, so that no sum grows too long.
package struct PackedMatrix<Scalar: TensorScalar>: @unchecked Sendable {
  package let depth: Int
  package let columns: Int
  /// The slices of the depth one after another, each with all strips; written by `init` alone.
  private let storage: Storage<Scalar>
  private let kernels: UnsafePointer<steppe_kernel_table>
  private let paddedColumns: Int

  /// Lays out `b`, or where `transposed` the transpose of the [columns, depth] at `b`, with rows `ldb` apart.
  package init(_ b: UnsafePointer<Scalar>, ldb: Int, transposed: Bool, depth: Int, columns: Int) {
    kernels = Scalar.backend.kernelTable()
    self.depth = depth
    self.columns = columns
    let lanes = Int(kernels.pointee.vector_bytes) / MemoryLayout<Scalar>.stride
    paddedColumns = (columns + lanes - 1) / lanes * lanes
    storage = Storage(count: depth * paddedColumns)
    for slice in slices {
      kernels.pointee.pack_columns(
        b + slice.lowerBound * (transposed ? 1 : ldb), ldb, transposed, slice.count, columns,
        storage.pointer + slice.lowerBound * paddedColumns)
    }
  }

  private var slices: some Sequence<Range<Int>> {
    ProductBlocks<Scalar>.slices(0..<depth, longest: ProductBlocks<Scalar>.longestSum)
  }

  /// C ← f(A·B + bias) with A [rows, depth] and C [rows, columns], their rows `lda` and `ldc` apart, on `threads` threads.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  package func multiply(
    _ a: UnsafePointer<Scalar>, lda: Int, rows: Int, bias: UnsafePointer<Scalar>?, activation: Activation,
    into c: UnsafeMutablePointer<Scalar>, ldc: Int, threads: Int = Parallel.threadCount
  ) {
    let cut = ProductCut(
      m: rows, n: columns, k: depth, threads: threads, lane: Int(kernels.pointee.tile_columns), isPacked: true)
    let finish = ProductFinish(bias: bias, activation: activation)
    let height = ProductBlocks<Scalar>(rows: rows, columns: columns, depth: depth).rows
    Parallel.run(parts: cut.parts) { part in
      let (ownRows, ownColumns, _) = cut.ranges(part)
      guard !ownColumns.isEmpty else { return }
      for someRows in ProductBlocks<Scalar>.slices(ownRows, longest: height) {
        for slice in slices {
          var settings = finish.forKernel(
            column: ownColumns.lowerBound, isFirst: slice.lowerBound == 0, isLast: slice.upperBound == depth)
          let strips = storage.pointer + slice.lowerBound * paddedColumns + ownColumns.lowerBound * slice.count
          kernels.pointee.multiply(
            a + someRows.lowerBound * lda + slice.lowerBound, lda, strips, someRows.count, ownColumns.count,
            slice.count, &settings, c + someRows.lowerBound * ldc + ownColumns.lowerBound, ldc)
        }
      }
    }
  }
}
