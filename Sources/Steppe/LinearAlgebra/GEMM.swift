import COpenBLAS
import CSteppeKernels

/// C ← f(α·op(A)·op(B) + β·C + bias) on row-major matrices: C is m × n, op(A) m × k, op(B) k × n, op the identity or the transpose,
/// `bias` a value for each column.
///
/// `lda`, `ldb` and `ldc` are the distances between the rows of A, B and C as stored. Where β is 0, C is not read and may hold anything;
/// where α or k is 0, A and B are not read. C must not overlap A or B. The work is cut for `threads` threads: one count gives one
/// result, bitwise. A caller that is itself a part of a ``Parallel/run(parts:_:)`` passes 1.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
package func gemm<Scalar: TensorScalar>(
  transposeA: Bool = false, transposeB: Bool = false, m: Int, n: Int, k: Int, alpha: Scalar = 1,
  a: UnsafePointer<Scalar>, lda: Int, b: UnsafePointer<Scalar>, ldb: Int, beta: Scalar = 0,
  c: UnsafeMutablePointer<Scalar>, ldc: Int, bias: UnsafePointer<Scalar>? = nil, activation: Activation = .identity,
  threads: Int = Parallel.threadCount
) {
  guard m > 0, n > 0 else { return }
  let finish = ProductFinish(alpha: alpha, beta: beta, bias: bias, activation: activation)
  if k == 0 || alpha == 0 {
    scaleRows(c, ldc: ldc, m: m, n: n, by: beta)
    return finish.apply(to: c, ldc: ldc, rows: m, columns: n)
  }
  // A vector on either side is bound by reading the other matrix once.
  if m == 1 || n == 1 {
    if m == 1 {
      gemv(
        transpose: !transposeB, rows: transposeB ? n : k, columns: transposeB ? k : n, alpha: alpha, a: b, lda: ldb,
        x: a, incx: transposeA ? lda : 1, beta: beta, y: c, threads: threads)
    } else {
      gemv(
        transpose: transposeA, rows: transposeA ? k : m, columns: transposeA ? m : k, alpha: alpha, a: a, lda: lda,
        x: b, incx: transposeB ? 1 : ldb, beta: beta, y: c, incy: ldc, threads: threads)
    }
    return finish.apply(to: c, ldc: ldc, rows: m, columns: n)
  }
  let product = MatrixProduct(transposeA: transposeA, transposeB: transposeB, a: a, lda: lda, b: b, ldb: ldb)
  product.check(m: m, n: n, k: k, ldc: ldc)
  let cut = ProductCut(
    m: m, n: n, k: k, threads: product.isCut ? threads : 1, lane: 64 / MemoryLayout<Scalar>.stride)
  if cut.depth == 1 {
    Parallel.run(parts: cut.parts) { part in
      let (rows, columns, depth) = cut.ranges(part)
      product.run(rows: rows, columns: columns, depth: depth, finish, into: c, ldc: ldc)
    }
    return
  }
  // The first slice of the depth goes to C itself, the others to scratch that is then added in their order.
  let scratch = Storage<Scalar>(count: (cut.depth - 1) * m * n)
  let partials = scratch.pointer
  let sums = ProductFinish(alpha: alpha, beta: 0)
  let first = ProductFinish(alpha: alpha, beta: beta)
  Parallel.run(parts: cut.parts) { part in
    let (rows, columns, depth) = cut.ranges(part)
    let slice = cut.depthIndex(part)
    if slice == 0 {
      product.run(rows: rows, columns: columns, depth: depth, first, into: c, ldc: ldc)
    } else {
      product.run(rows: rows, columns: columns, depth: depth, sums, into: partials + (slice - 1) * m * n, ldc: n)
    }
  }
  Parallel.ranges(m, grain: max(1, Parallel.elementGrain / (n * cut.depth))) { rows in
    for row in rows {
      for slice in 0..<cut.depth - 1 {
        Scalar.kernels.add_scaled(partials + (slice * m + row) * n, 1, c + row * ldc, n)
      }
    }
    finish.apply(to: c + rows.lowerBound * ldc, ldc: ldc, rows: rows.count, columns: n)
  }
  withExtendedLifetime(scratch) {}
}

/// What becomes of a product's sums: C ← f(α·sums + β·C + bias).
package struct ProductFinish<Scalar: TensorScalar> {
  let alpha: Scalar
  let beta: Scalar
  /// A value for each column of the whole product.
  let bias: UnsafePointer<Scalar>?
  let activation: Activation

  init(alpha: Scalar = 1, beta: Scalar = 0, bias: UnsafePointer<Scalar>? = nil, activation: Activation = .identity) {
    (self.alpha, self.beta, self.bias, self.activation) = (alpha, beta, bias, activation)
  }

  private var isPlain: Bool { bias == nil && activation == .identity }

  /// Bias and activation alone, where α and β have been seen to.
  func apply(to c: UnsafeMutablePointer<Scalar>, ldc: Int, rows: Int, columns: Int) {
    if isPlain { return }
    Scalar.kernels.bias_activate(activation.kernel, activation.parameter, c, ldc, bias, c, ldc, rows, columns)
  }

  /// For the columns that begin at `column`. Of a depth that is taken in slices, the first begins with β, the last ends with bias and
  /// activation, and what lies between adds.
  func forKernel(column: Int, isFirst: Bool, isLast: Bool) -> steppe_product_finish {
    steppe_product_finish(
      alpha: Double(alpha), beta: isFirst ? Double(beta) : 1,
      bias: isLast ? bias.map { UnsafeRawPointer($0 + column) } : nil,
      kind: isLast ? activation.kernel : STEPPE_IDENTITY, parameter: activation.parameter, bias_by_rows: false)
  }
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

/// The factors of a product, of which one thread computes blocks: by Steppe's own kernels, or by OpenBLAS's where the instruction set
/// in use is too narrow for ours to be the faster ones.
struct MatrixProduct<Scalar: TensorScalar> {
  let transposeA: Bool
  let transposeB: Bool
  let a: UnsafePointer<Scalar>
  let lda: Int
  let b: UnsafePointer<Scalar>
  let ldb: Int

  /// Whether Steppe's kernels compute: measured faster than OpenBLAS's from AVX2 on.
  static var usesKernels: Bool { Scalar.kernels.vector_bytes >= 32 }

  /// Whether the work is cut for Steppe's threads: not where a host keeps OpenBLAS's own at work.
  var isCut: Bool { Self.usesKernels || OpenBLAS.isSingleThreaded }

  /// Stops the program where row distances are too short, or OpenBLAS could not count that far.
  func check(m: Int, n: Int, k: Int, ldc: Int) {
    require(
      lda >= (transposeA ? m : k) && ldb >= (transposeB ? k : n) && ldc >= n,
      "gemm: row distances \(lda), \(ldb), \(ldc) are too short for m, n, k = \(m), \(n), \(k)")
    require(
      Self.usesKernels || max(m, n, k, lda, ldb, ldc) <= Int(blasint.max),
      "gemm: m, n, k = \(m), \(n), \(k) with row distances \(lda), \(ldb), \(ldc) exceed OpenBLAS's \(blasint.max)")
  }

  private func leftFactor(_ row: Int, _ depth: Int) -> UnsafePointer<Scalar> {
    a + (transposeA ? depth * lda + row : row * lda + depth)
  }

  private func rightFactor(_ depth: Int, _ column: Int) -> UnsafePointer<Scalar> {
    b + (transposeB ? column * ldb + depth : depth * ldb + column)
  }

  /// Rows and columns of C from a part of the depth.
  func run(
    rows: Range<Int>, columns: Range<Int>, depth: Range<Int>, _ finish: ProductFinish<Scalar>,
    into c: UnsafeMutablePointer<Scalar>, ldc: Int
  ) {
    guard !rows.isEmpty, !columns.isEmpty else { return }
    if !Self.usesKernels {
      runOpenBLAS(rows, columns, depth, finish, c, ldc)
    } else if !transposeA && rows.count <= 2 * Int(Scalar.kernels.tile_rows) {
      runFewRows(rows, columns, depth, finish, c, ldc)
    } else {
      runTiles(rows, columns, depth, finish, c, ldc)
    }
  }

  private func runOpenBLAS(
    _ rows: Range<Int>, _ columns: Range<Int>, _ depth: Range<Int>, _ finish: ProductFinish<Scalar>,
    _ c: UnsafeMutablePointer<Scalar>, _ ldc: Int
  ) {
    let gemm = Scalar.backend.blas.gemm
    let (left, right) = (
      leftFactor(rows.lowerBound, depth.lowerBound), rightFactor(depth.lowerBound, columns.lowerBound)
    )
    let start = c + rows.lowerBound * ldc + columns.lowerBound
    OpenBLAS.call {
      gemm(
        CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
        blasint(rows.count), blasint(columns.count), blasint(depth.count), finish.alpha, left, blasint(lda), right,
        blasint(ldb), finish.beta, start, blasint(ldc))
    }
    let columnFinish = ProductFinish(
      bias: finish.bias.map { $0 + columns.lowerBound }, activation: finish.activation)
    columnFinish.apply(to: start, ldc: ldc, rows: rows.count, columns: columns.count)
  }

  /// Packing B would take longer than the few products that each of its values takes part in.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func runFewRows(
    _ rows: Range<Int>, _ columns: Range<Int>, _ depth: Range<Int>, _ finish: ProductFinish<Scalar>,
    _ c: UnsafeMutablePointer<Scalar>, _ ldc: Int
  ) {
    let kernels = Scalar.kernels
    let start = c + rows.lowerBound * ldc + columns.lowerBound
    for slice in ProductBlocks<Scalar>.slices(depth, longest: ProductBlocks<Scalar>.longestSum) {
      var settings = finish.forKernel(
        column: columns.lowerBound, isFirst: slice.lowerBound == depth.lowerBound,
        isLast: slice.upperBound == depth.upperBound)
      kernels.multiply_few(
        leftFactor(rows.lowerBound, slice.lowerBound), lda, rightFactor(slice.lowerBound, columns.lowerBound), ldb,
        transposeB, rows.count, columns.count, slice.count, &settings, start, ldc)
    }
  }

  /// B is packed in blocks that stay in the second-level cache while all rows pass over them. A stands as it is where its rows are
  /// contiguous; transposed it is packed too.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func runTiles(
    _ rows: Range<Int>, _ columns: Range<Int>, _ depth: Range<Int>, _ finish: ProductFinish<Scalar>,
    _ c: UnsafeMutablePointer<Scalar>, _ ldc: Int
  ) {
    let kernels = Scalar.kernels
    let blocks = ProductBlocks<Scalar>(rows: rows.count, columns: columns.count, depth: depth.count)
    let packed = Storage<Scalar>(count: blocks.depth * (blocks.columns + (transposeA ? blocks.rows : 0)))
    let (packedB, packedA) = (packed.pointer, packed.pointer + blocks.depth * blocks.columns)
    for someColumns in ProductBlocks<Scalar>.slices(columns, longest: blocks.columns) {
      for slice in ProductBlocks<Scalar>.slices(depth, longest: blocks.depth) {
        kernels.pack_columns(
          rightFactor(slice.lowerBound, someColumns.lowerBound), ldb, transposeB, slice.count, someColumns.count,
          packedB)
        var settings = finish.forKernel(
          column: someColumns.lowerBound, isFirst: slice.lowerBound == depth.lowerBound,
          isLast: slice.upperBound == depth.upperBound)
        for someRows in ProductBlocks<Scalar>.slices(rows, longest: blocks.rows) {
          let left = leftFactor(someRows.lowerBound, slice.lowerBound)
          if transposeA { kernels.pack_rows(left, lda, someRows.count, slice.count, packedA) }
          kernels.multiply(
            transposeA ? UnsafePointer(packedA) : left, transposeA ? 0 : lda, packedB, someRows.count,
            someColumns.count, slice.count, &settings, c + someRows.lowerBound * ldc + someColumns.lowerBound, ldc)
        }
      }
    }
    withExtendedLifetime(packed) {}
  }
}

/// The sizes of the blocks in which one thread computes a product, by the caches: a strip of B fills the first level, a block of B half
/// of the second, and the rows of A that pass over it a quarter.
struct ProductBlocks<Scalar: TensorScalar> {
  let rows: Int
  let columns: Int
  let depth: Int

  /// The longest sum that is taken in one go: errors grow with it.
  static var longestSum: Int { 4096 }

  init(rows: Int, columns: Int, depth: Int) {
    let (bytes, tile) = (MemoryLayout<Scalar>.stride, Int(Scalar.kernels.tile_columns))
    let (deepest, level2) = (max(64, CacheSizes.level1 / (tile * bytes)), CacheSizes.level2)
    // Slices of equal depth.
    self.depth = Self.share(depth, longest: deepest)
    let room = max(tile, level2 / 2 / (self.depth * bytes) / tile * tile)
    self.columns = (Self.share(columns, longest: room) + tile - 1) / tile * tile
    self.rows = Self.share(rows, longest: max(64, level2 / 4 / (self.depth * bytes)))
  }

  /// The length of the fewest equal parts of `count` that are not longer than `longest`.
  private static func share(_ count: Int, longest: Int) -> Int {
    let parts = max(1, (count + longest - 1) / longest)
    return (count + parts - 1) / parts
  }

  /// `range` in parts of `longest`, the last one shorter.
  static func slices(_ range: Range<Int>, longest: Int) -> some Sequence<Range<Int>> {
    stride(from: range.lowerBound, to: range.upperBound, by: longest).lazy.map {
      $0..<min($0 + longest, range.upperBound)
    }
  }
}

/// How a product m × n × k is cut into blocks: `rows` · `columns` · `depth` of them.
///
/// Each block costs its multiplications, the packing of its two panels, and for a cut depth the partial
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
  private let packing: Double

  package var parts: Int { rows * columns * depth }

  /// What a fork and join cost, in multiplications of one core: less work is not worth a second thread.
  static let forkAndJoin = 40_000
  // In the same unit (some fifty to the nanosecond), for each scalar packed or added, from single-core times of blocks
  // on an AVX2 machine: the cut changes little when they are off by half.
  private static let packing = 12.0
  private static let partialSum = 16.0
  /// Multiples that blocks begin at; `lane` columns are a cache line, which two threads then never share.
  private static let rowTile = 8
  private static let depthTile = 16
  private static let leastDepth = 256

  /// The cut for `threads` threads of scalars that come `lane` to a cache line. Where B `isPacked` already, `lane` is the width of its
  /// strips and the depth stays whole.
  package init(m: Int, n: Int, k: Int, threads: Int, lane: Int, isPacked: Bool = false) {
    (self.m, self.n, self.k, self.lane) = (m, n, k, lane)
    packing = isPacked ? 0 : Self.packing
    let work = Double(m) * Double(n) * Double(k)
    let limit = Int(min(Double(threads), work / Double(Self.forkAndJoin / 2)))
    guard limit > 1 else { return }
    let (rowTiles, columnTiles) = ((m + Self.rowTile - 1) / Self.rowTile, (n + lane - 1) / lane)
    var least = cost(1, 1, 1)
    for depth in 1...(isPacked ? 1 : max(1, min(limit, k / Self.leastDepth))) {
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
    // Below two rows the loads of B are what takes the time.
    var cost = max(2, blockRows) * blockColumns * blockDepth + packing * blockDepth * (blockRows + blockColumns)
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
