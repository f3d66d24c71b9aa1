import CSteppeKernels

extension Tensor {
  /// The matrix product, with NumPy's rules for shapes.
  ///
  /// ```swift
  /// weights.matmul(x)                       // [m, k] · [k, n] → [m, n]
  /// x.matmul(weights, transposeRight: true) // [m, k] · [n, k]ᵀ → [m, n]
  /// ```
  ///
  /// - `[m, k]` and `[k, n]` give `[m, n]`.
  /// - `[…, m, k]` and `[…, k, n]` give `[…, m, n]`: a product for each index of the leading axes, which broadcast.
  /// - A vector `[k]` on the left counts as `[1, k]`, on the right as `[k, 1]`, and that axis is dropped from the
  ///   result; two vectors give a scalar.
  ///
  /// Transposed views and rows apart from each other go to OpenBLAS as they are, without a copy. Shapes that do not fit
  /// stop the program.
  ///
  /// - Parameters:
  ///   - other: The right factor.
  ///   - transposeLeft: Exchanges the last two axes of this tensor first; a vector stays as it is.
  ///   - transposeRight: Exchanges the last two axes of `other` first; a vector stays as it is.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func matmul(_ other: Tensor, transposeLeft: Bool = false, transposeRight: Bool = false) -> Tensor {
    let left = transposeLeft && rank > 1 ? swappingAxes(-1, -2) : self
    let right = transposeRight && other.rank > 1 ? other.swappingAxes(-1, -2) : other
    func operands() -> String { "\(shape)\(transposeLeft ? "ᵀ" : "") and \(other.shape)\(transposeRight ? "ᵀ" : "")" }
    require(rank > 0 && other.rank > 0, "Tensor.matmul: \(operands()): a scalar is no factor; use *")
    let a = left.rank == 1 ? left.expandingAxis(0) : left
    let b = right.rank == 1 ? right.expandingAxis(1) : right
    let (m, k, n) = (a.shape[a.rank - 2], a.shape[a.rank - 1], b.shape[b.rank - 1])
    require(b.shape[b.rank - 2] == k, "Tensor.matmul: shapes \(operands()) do not fit")
    let batch = broadcastShape(
      Array(a.shape.dropLast(2)), Array(b.shape.dropLast(2)), "Tensor.matmul: \(operands()): leading axes")
    let result = Tensor(uninitialized: batch + [m, n])
    Self.multiply(a, b, into: result, batch: batch)
    if rank > 1 && other.rank > 1 { return result }
    // A vector's axis of size 1 goes.
    return result.reshaped(batch + (rank > 1 ? [m] : []) + (other.rank > 1 ? [n] : []))
  }

  /// One product for each index of `batch`, into a fresh contiguous tensor.
  private static func multiply(_ a: Tensor, _ b: Tensor, into result: Tensor, batch: [Int]) {
    let (m, k, n) = (a.shape[a.rank - 2], a.shape[a.rank - 1], b.shape[b.rank - 1])
    let matrices = batch.reduce(1, *)
    if result.count == 0 { return }
    let c = result.address
    // Many left matrices against one right matrix are one tall product.
    if b.rank == 2, a.rank > 2, a.isContiguous {
      let (tall, right) = (a.reshaped(matrices * m, k).asFactor(), b.asFactor())
      gemm(tall, right, m: matrices * m, n: n, k: k, into: c)
      return
    }
    let (left, right) = (a.asFactor(), b.asFactor())
    if matrices == 1 { return gemm(left, right, m: m, n: n, k: k, into: c) }
    let x = left.tensor.broadcast(to: batch + left.tensor.shape.suffix(2))
    let y = right.tensor.broadcast(to: batch + right.tensor.shape.suffix(2))
    let strides = [Array(x.strides.dropLast(2)), Array(y.strides.dropLast(2))]
    let threads = Parallel.threadCount
    let work = m * n * k
    func products(_ range: Range<Int>, threads: Int) {
      var place = range.lowerBound
      forEachOffset(shape: batch, strides: strides, range: range) { offsets in
        gemm(left, right, offsets[0], offsets[1], m: m, n: n, k: k, into: c + place * m * n, threads: threads)
        place += 1
      }
    }
    // Few large products are each cut for all threads; otherwise each thread takes whole products.
    if matrices < 4 * threads, work >= 1 << 20 {
      products(0..<matrices, threads: threads)
    } else {
      Parallel.ranges(matrices, grain: Swift.max(1, ProductCut.forkAndJoin / Swift.max(1, work))) {
        products($0, threads: 1)
      }
    }
  }

  private static func gemm(
    _ left: Factor, _ right: Factor, _ leftOffset: Int = 0, _ rightOffset: Int = 0, m: Int, n: Int, k: Int,
    into c: UnsafeMutablePointer<Scalar>, threads: Int = Parallel.threadCount
  ) {
    withExtendedLifetime((left, right)) {
      Steppe.gemm(
        transposeA: left.isTransposed, transposeB: right.isTransposed, m: m, n: n, k: k,
        a: left.tensor.storage.pointer + left.tensor.offset + leftOffset, lda: left.rowDistance,
        b: right.tensor.storage.pointer + right.tensor.offset + rightOffset, ldb: right.rowDistance, c: c,
        ldc: Swift.max(n, 1),
        threads: threads)
    }
  }

  /// A tensor whose matrices stand in memory as BLAS takes them.
  private struct Factor {
    let tensor: Tensor
    let isTransposed: Bool
    let rowDistance: Int
  }

  /// Itself where one of the last two strides is 1 and the other long enough, a copy otherwise.
  private func asFactor() -> Factor {
    let (rows, columns) = (shape[rank - 2], shape[rank - 1])
    let (rowStride, columnStride) = (strides[rank - 2], strides[rank - 1])
    if columns <= 1 || columnStride == 1 {
      if rows <= 1 { return Factor(tensor: self, isTransposed: false, rowDistance: Swift.max(columns, 1)) }
      if rowStride >= Swift.max(columns, 1) { return Factor(tensor: self, isTransposed: false, rowDistance: rowStride) }
    }
    if rows <= 1 || rowStride == 1 {
      if columns <= 1 { return Factor(tensor: self, isTransposed: true, rowDistance: Swift.max(rows, 1)) }
      if columnStride >= Swift.max(rows, 1) {
        return Factor(tensor: self, isTransposed: true, rowDistance: columnStride)
      }
    }
    return Factor(tensor: copied(), isTransposed: false, rowDistance: Swift.max(columns, 1))
  }

  /// The inner product of two vectors of one length: Σ aᵢ·bᵢ.
  public func dot(_ other: Tensor) -> Scalar {
    require(
      rank == 1 && shape == other.shape,
      "Tensor.dot: expected two vectors of one length, got \(shape) and \(other.shape)")
    let (x, y) = (contiguous(), other.contiguous())
    let (a, b) = (x.address, y.address)
    let parts = Parallel.partCount(count, grain: 2 * Parallel.elementGrain)
    let sums = [Double](unsafeUninitializedCapacity: parts) { buffer, initialized in
      let base = buffer.baseAddress!
      Parallel.run(parts: parts) { part in
        let range = Parallel.range(part, of: parts, count: x.count, multiple: 16)
        (base + part).initialize(to: Scalar.kernels.dot(a + range.lowerBound, b + range.lowerBound, range.count))
      }
      initialized = parts
    }
    withExtendedLifetime((x, y)) {}
    return Scalar(sums.reduce(0, +))
  }

  /// The outer product of two vectors: `[m]` and `[n]` give `[m, n]` with the elements aᵢ·bⱼ.
  public func outer(_ other: Tensor) -> Tensor {
    require(rank == 1 && other.rank == 1, "Tensor.outer: expected two vectors, got \(shape) and \(other.shape)")
    return expandingAxis(1) * other
  }
}
