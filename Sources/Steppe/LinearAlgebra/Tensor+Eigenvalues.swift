import COpenBLAS
import CSteppeKernels

/// Complex numbers as two tensors of one shape.
public struct ComplexTensor<Scalar: TensorScalar>: Sendable {
  /// The real parts.
  public let real: Tensor<Scalar>
  /// The imaginary parts.
  public let imaginary: Tensor<Scalar>
}

/// A·v = λ·v for a symmetric matrix: A = V·diag(λ)·Vᵀ.
public struct SymmetricEigendecomposition<Scalar: TensorScalar>: Sendable {
  /// The eigenvalues λ, least first: `[n]`.
  public let values: Tensor<Scalar>
  /// V, whose column j is the eigenvector of `values[j]`; orthonormal: `[n, n]`.
  public let vectors: Tensor<Scalar>
}

/// A·v = λ·v for any square matrix.
public struct Eigendecomposition<Scalar: TensorScalar>: Sendable {
  /// The eigenvalues λ: `[n]`. Conjugate pairs stand together, the one with the positive imaginary part first.
  public let values: ComplexTensor<Scalar>
  /// Column j is an eigenvector of λⱼ of Euclidean norm 1: `[n, n]`.
  public let vectors: ComplexTensor<Scalar>
}

extension Tensor {
  /// Eigenvalues and eigenvectors of a symmetric matrix `[n, n]`, by divide and conquer (LAPACK's `syevd`).
  ///
  /// Only the diagonal and what is below it are read.
  ///
  /// - Throws: ``LinearAlgebraError/noConvergence(routine:info:shape:batch:)``,
  ///   ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func symmetricEigen() throws(LinearAlgebraError) -> SymmetricEigendecomposition<Scalar> {
    let (values, vectors) = try decomposeSymmetric("symmetricEigen", withVectors: true)
    return SymmetricEigendecomposition(values: values, vectors: vectors.fromColumnMajor())
  }

  /// The eigenvalues of a symmetric matrix, least first; only the diagonal and what is below it are read.
  ///
  /// - Throws: As ``symmetricEigen()``.
  public func symmetricEigenvalues() throws(LinearAlgebraError) -> Tensor {
    try decomposeSymmetric("symmetricEigenvalues", withVectors: false).values
  }

  /// The eigenvalues, and each vector in a row.
  private func decomposeSymmetric(
    _ operation: StaticString, withVectors: Bool
  ) throws(LinearAlgebraError) -> (values: Tensor, vectors: Tensor) {
    _ = singleMatrixSize(operation)
    let size = squareSize(operation)
    require(
      2 * size * size + 64 * size <= Int(blasint.max),
      "Tensor.\(operation): shape \(shape) needs a workspace beyond LAPACK's integers")
    // Row by row, the lower triangle is LAPACK's upper one.
    let vectors = triangle(upper: false)
    let values = Tensor(uninitialized: [size])
    try vectors.checkFinite("syevd", info: -5, shape: shape)
    guard size > 0 else { return (values, vectors) }
    let lapack = Scalar.backend.lapack
    let (a, w, n) = (vectors.address, values.address, blasint(size))
    let job = lapackOption(withVectors ? "V" : "N")
    var integers = [blasint](repeating: 0, count: withVectors ? 3 + 5 * size : 1)
    let integerCount = blasint(integers.count)
    let info = withWorkspace { work, count in
      lapack.syevd(job, lapackOption("U"), n, a, n, w, work, count, &integers, count == -1 ? -1 : integerCount)
    }
    checkArguments(info, "syevd")
    if info > 0 { throw .noConvergence(routine: lapackName("syevd"), info: info, shape: shape, batch: []) }
    return (values, vectors)
  }

  /// Eigenvalues and right eigenvectors of any square matrix `[n, n]` (LAPACK's `geev`).
  ///
  /// - Throws: ``LinearAlgebraError/noConvergence(routine:info:shape:batch:)``,
  ///   ``LinearAlgebraError/nonFinite(routine:argument:info:shape:)`` for NaN or infinity.
  public func eigen() throws(LinearAlgebraError) -> Eigendecomposition<Scalar> {
    let (values, packed) = try decompose("eigen", withVectors: true)
    let size = shape[0]
    let (real, imaginary) = (Tensor(uninitialized: shape), Tensor.zeros(shape: shape))
    let (source, re, im) = (packed.address, real.address, imaginary.address)
    var column = 0
    while column < size {
      let here = column * size
      (re + here).update(from: source + here, count: size)
      if values.imaginary.address[column] == 0 {
        column += 1
        continue
      }
      // A conjugate pair: LAPACK gives the real parts in one column and the imaginary parts in the next.
      let next = here + size
      (re + next).update(from: source + here, count: size)
      (im + here).update(from: source + next, count: size)
      Scalar.kernels.unary(STEPPE_NEGATE, source + next, im + next, size)
      column += 2
    }
    withExtendedLifetime(packed) {}
    return Eigendecomposition(
      values: values,
      vectors: ComplexTensor(real: real.fromColumnMajor(), imaginary: imaginary.fromColumnMajor()))
  }

  /// The eigenvalues of any square matrix; conjugate pairs stand together, the positive imaginary part first.
  ///
  /// - Throws: As ``eigen()``.
  public func eigenvalues() throws(LinearAlgebraError) -> ComplexTensor<Scalar> {
    try decompose("eigenvalues", withVectors: false).values
  }

  /// The eigenvalues, and each vector in a row as LAPACK packs it.
  private func decompose(
    _ operation: StaticString, withVectors: Bool
  ) throws(LinearAlgebraError) -> (values: ComplexTensor<Scalar>, packed: Tensor) {
    _ = singleMatrixSize(operation)
    let size = squareSize(operation)
    let copy = columnMajorCopy()
    try copy.checkFinite("geev", info: -5, shape: shape)
    let values = ComplexTensor(real: Tensor(uninitialized: [size]), imaginary: Tensor(uninitialized: [size]))
    let vectors = Tensor(uninitialized: withVectors ? shape : [0, 0])
    guard size > 0 else { return (values, vectors) }
    let lapack = Scalar.backend.lapack
    let (a, re, im, v) = (copy.address, values.real.address, values.imaginary.address, vectors.address)
    let n = blasint(size)
    let job = lapackOption(withVectors ? "V" : "N")
    let info = withWorkspace { work, count in
      lapack.geev(
        lapackOption("N"), job, n, a, n, re, im, nil, n, withVectors ? v : nil, n, work, count)
    }
    withExtendedLifetime((copy, vectors)) {}
    checkArguments(info, "geev")
    if info > 0 { throw .noConvergence(routine: lapackName("geev"), info: info, shape: shape, batch: []) }
    return (values, vectors)
  }
}
