import COpenBLAS

/// C ← α·op(A)·op(B) + β·C on row-major matrices: C is m × n, op(A) m × k, op(B) k × n, op the identity or the
/// transpose.
///
/// `lda`, `ldb` and `ldc` are the distances between the rows of A, B and C as stored. Where β is 0, C is not read and
/// may hold anything; where α or k is 0, A and B are not read. C must not overlap A or B. The work is cut for `threads`
/// threads: one count gives one result, bitwise. A caller that is itself a part of a ``Parallel/run(parts:_:)`` passes
/// 1.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
package func gemm<Scalar: TensorScalar>(
  transposeA: Bool = false, transposeB: Bool = false, m: Int, n: Int, k: Int, alpha: Scalar = 1,
  a: UnsafePointer<Scalar>, lda: Int, b: UnsafePointer<Scalar>, ldb: Int, beta: Scalar = 0,
  c: UnsafeMutablePointer<Scalar>, ldc: Int, threads: Int = Parallel.threadCount
) {
  guard m > 0, n > 0 else { return }
  if k == 0 || alpha == 0 {
    scaleRows(c, ldc: ldc, m: m, n: n, by: beta)
    return
  }
  // A vector on either side is bound by reading the other matrix once, which GEMM would also pack.
  if m == 1 {
    return gemv(
      transpose: !transposeB, rows: transposeB ? n : k, columns: transposeB ? k : n, alpha: alpha, a: b, lda: ldb, x: a,
      incx: transposeA ? lda : 1, beta: beta, y: c, threads: threads)
  }
  if n == 1 {
    return gemv(
      transpose: transposeA, rows: transposeA ? k : m, columns: transposeA ? m : k, alpha: alpha, a: a, lda: lda, x: b,
      incx: transposeB ? 1 : ldb, beta: beta, y: c, incy: ldc, threads: threads)
  }
  let product = MatrixProduct(
    transposeA: transposeA, transposeB: transposeB, alpha: alpha, a: a, lda: lda, b: b, ldb: ldb)
  product.check(m: m, n: n, k: k, ldc: ldc)
  let cut = ProductCut(
    m: m, n: n, k: k, threads: OpenBLAS.isSingleThreaded ? threads : 1, lane: 64 / MemoryLayout<Scalar>.stride)
  if cut.parts == 1 {
    return product.run(rows: 0..<m, columns: 0..<n, depth: 0..<k, beta: beta, into: c, ldc: ldc)
  }
  if cut.depth == 1 {
    Parallel.run(parts: cut.parts) { part in
      let (rows, columns, depth) = cut.ranges(part)
      product.run(rows: rows, columns: columns, depth: depth, beta: beta, into: c, ldc: ldc)
    }
    return
  }
  // The first slice of the depth goes to C itself, the others to scratch that is then added in their order.
  let scratch = Storage<Scalar>(count: (cut.depth - 1) * m * n)
  let partials = scratch.pointer
  Parallel.run(parts: cut.parts) { part in
    let (rows, columns, depth) = cut.ranges(part)
    let slice = cut.depthIndex(part)
    if slice == 0 {
      product.run(rows: rows, columns: columns, depth: depth, beta: beta, into: c, ldc: ldc)
    } else {
      product.run(
        rows: rows, columns: columns, depth: depth, beta: 0, into: partials + (slice - 1) * m * n, ldc: n)
    }
  }
  Parallel.ranges(m, grain: max(1, Parallel.elementGrain / (n * cut.depth))) { rows in
    for row in rows {
      for slice in 0..<cut.depth - 1 {
        Scalar.kernels.add_scaled(partials + (slice * m + row) * n, 1, c + row * ldc, n)
      }
    }
  }
  withExtendedLifetime(scratch) {}
}

/// C ← β·C for an m × n matrix; without a read where β is 0.
func scaleRows<Scalar: TensorScalar>(
  _ c: UnsafeMutablePointer<Scalar>, ldc: Int, m: Int, n: Int, by beta: Scalar
) {
  if beta == 1 { return }
  let (m, n) = ldc == n ? (1, m * n) : (m, n)
  for row in 0..<m {
    let start = c + row * ldc
    if beta == 0 {
      Scalar.kernels.fill(0, start, n)
    } else {
      Scalar.kernels.affine(start, Double(beta), 0, start, n)
    }
  }
}

/// The factors of a product, of which OpenBLAS computes blocks on one thread.
private struct MatrixProduct<Scalar: TensorScalar> {
  let transposeA: Bool
  let transposeB: Bool
  let alpha: Scalar
  let a: UnsafePointer<Scalar>
  let lda: Int
  let b: UnsafePointer<Scalar>
  let ldb: Int

  /// Stops the program where OpenBLAS would refuse the call or could not count that far.
  func check(m: Int, n: Int, k: Int, ldc: Int) {
    require(
      lda >= (transposeA ? m : k) && ldb >= (transposeB ? k : n) && ldc >= n,
      "gemm: row distances \(lda), \(ldb), \(ldc) are too short for m, n, k = \(m), \(n), \(k)")
    require(
      max(m, n, k, lda, ldb, ldc) <= Int(blasint.max),
      "gemm: m, n, k = \(m), \(n), \(k) with row distances \(lda), \(ldb), \(ldc) exceed OpenBLAS's \(blasint.max)")
  }

  /// Rows and columns of C from a part of the depth k.
  func run(
    rows: Range<Int>, columns: Range<Int>, depth: Range<Int>, beta: Scalar, into c: UnsafeMutablePointer<Scalar>,
    ldc: Int
  ) {
    guard !rows.isEmpty, !columns.isEmpty else { return }
    let aOffset =
      transposeA ? depth.lowerBound * lda + rows.lowerBound : rows.lowerBound * lda + depth.lowerBound
    let bOffset =
      transposeB ? columns.lowerBound * ldb + depth.lowerBound : depth.lowerBound * ldb + columns.lowerBound
    let gemm = Scalar.backend.blas.gemm
    OpenBLAS.call {
      gemm(
        CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
        blasint(rows.count), blasint(columns.count), blasint(depth.count), alpha, a + aOffset, blasint(lda),
        b + bOffset,
        blasint(ldb), beta, c + rows.lowerBound * ldc + columns.lowerBound, blasint(ldc))
    }
  }
}

/// How a product m × n × k is cut into blocks: `rows` · `columns` · `depth` of them.
///
/// Each block costs its multiplications, the packing of its two panels by OpenBLAS, and for a cut depth the partial
/// sums; the cut whose longest block costs least is taken. So a wide product is cut by columns, a tall one by rows, and
/// one of few outputs by its depth.
package struct ProductCut {
  package private(set) var rows = 1
  package private(set) var columns = 1
  package private(set) var depth = 1
  private let m: Int
  private let n: Int
  private let k: Int
  private let lane: Int

  package var parts: Int { rows * columns * depth }

  /// What a fork and join cost, in multiplications of one core: less work is not worth a second thread.
  static let forkAndJoin = 40_000
  // In the same unit (some fifty to the nanosecond), for each scalar packed or added, from single-core times of blocks
  // on an AVX2 machine: the cut changes little when they are off by half.
  private static let packing = 12.0
  private static let partialSum = 16.0
  /// Blocks of OpenBLAS's inner kernels; `lane` columns are a cache line, which two threads then never share.
  private static let rowTile = 8
  private static let depthTile = 16
  private static let leastDepth = 256

  /// The cut for `threads` threads of scalars that come `lane` to a cache line.
  package init(m: Int, n: Int, k: Int, threads: Int, lane: Int) {
    (self.m, self.n, self.k, self.lane) = (m, n, k, lane)
    let work = Double(m) * Double(n) * Double(k)
    let limit = Int(min(Double(threads), work / Double(Self.forkAndJoin / 2)))
    guard limit > 1 else { return }
    let (rowTiles, columnTiles) = ((m + Self.rowTile - 1) / Self.rowTile, (n + lane - 1) / lane)
    var least = cost(1, 1, 1)
    for depth in 1...max(1, min(limit, k / Self.leastDepth)) {
      for rows in 1...min(limit / depth, rowTiles) {
        let columns = min(limit / (depth * rows), columnTiles)
        let cost = cost(rows, columns, depth)
        if cost < least {
          least = cost
          (self.rows, self.columns, self.depth) = (rows, columns, depth)
        }
      }
    }
  }

  private func cost(_ rows: Int, _ columns: Int, _ depth: Int) -> Double {
    func longest(_ count: Int, _ tile: Int, _ parts: Int) -> Double {
      let tiles = (count + tile - 1) / tile
      return Double((tiles + parts - 1) / parts * tile)
    }
    let (blockRows, blockColumns) = (longest(m, Self.rowTile, rows), longest(n, lane, columns))
    let blockDepth = depth == 1 ? Double(k) : longest(k, Self.depthTile, depth)
    var cost = blockRows * blockColumns * blockDepth + Self.packing * blockDepth * (blockRows + blockColumns)
    if rows * columns * depth > 1 { cost += Double(Self.forkAndJoin) }
    if depth > 1 {
      let perThread = Double(m) * Double(n) / Double(rows * columns * depth)
      cost += Double(Self.forkAndJoin) + Self.partialSum * (blockRows * blockColumns + perThread * Double(depth))
    }
    return cost
  }

  /// Which slice of the depth a block belongs to.
  package func depthIndex(_ part: Int) -> Int { part / (rows * columns) }

  /// A block's rows and columns of C and its part of the depth.
  package func ranges(_ part: Int) -> (rows: Range<Int>, columns: Range<Int>, depth: Range<Int>) {
    (
      Parallel.range(part / columns % rows, of: rows, count: m, multiple: Self.rowTile),
      Parallel.range(part % columns, of: columns, count: n, multiple: lane),
      Parallel.range(depthIndex(part), of: depth, count: k, multiple: Self.depthTile)
    )
  }
}
