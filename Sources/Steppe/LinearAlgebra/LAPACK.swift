import COpenBLAS

/// The LAPACK routines of one scalar type, through LAPACKE, on matrices in column-major order; each returns LAPACK's
/// `info`.
///
/// These are LAPACKE's functions that take their workspace: Steppe gives it from its pool, and has looked for NaN
/// itself.
package struct LAPACK<Scalar: TensorScalar>: Sendable {
  package typealias Matrix = UnsafeMutablePointer<Scalar>
  package typealias Integers = UnsafeMutablePointer<blasint>
  package typealias Info = blasint

  /// The letter that the routines' names begin with.
  package let prefix: String
  /// LU with partial pivoting: m, n, A, lda, pivots
  package let getrf: @Sendable (blasint, blasint, Matrix, blasint, Integers) -> Info
  /// solve from LU: n, right-hand sides, LU, lda, pivots, B, ldb
  package let getrs: @Sendable (blasint, blasint, Matrix, blasint, Integers, Matrix, blasint) -> Info
  /// inverse from LU: n, LU, lda, pivots, work, lwork
  package let getri: @Sendable (blasint, Matrix, blasint, Integers, Matrix, blasint) -> Info
  /// Cholesky, the triangle 'U' or 'L': uplo, n, A, lda
  package let potrf: @Sendable (CChar, blasint, Matrix, blasint) -> Info
  /// QR by reflectors: m, n, A, lda, τ, work, lwork
  package let geqrf: @Sendable (blasint, blasint, Matrix, blasint, Matrix, Matrix, blasint) -> Info
  /// Q from reflectors: m, n, k, A, lda, τ, work, lwork
  package let orgqr: @Sendable (blasint, blasint, blasint, Matrix, blasint, Matrix, Matrix, blasint) -> Info
  /// SVD by divide and conquer: job, m, n, A, lda, S, U, ldu, Vᵀ, ldvt, work, lwork, iwork
  package let gesdd:
    @Sendable (
      CChar, blasint, blasint, Matrix, blasint, Matrix, Matrix?, blasint, Matrix?, blasint, Matrix,
      blasint, Integers
    ) -> Info
  /// symmetric eigenvalues by divide and conquer: job, uplo, n, A, lda, w, work, lwork, iwork, liwork
  package let syevd:
    @Sendable (CChar, CChar, blasint, Matrix, blasint, Matrix, Matrix, blasint, Integers, blasint) -> Info
  /// eigenvalues: jobs left and right, n, A, lda, real and imaginary parts, left, ldvl, right, ldvr, work, lwork
  package let geev:
    @Sendable (
      CChar, CChar, blasint, Matrix, blasint, Matrix, Matrix, Matrix?, blasint, Matrix?, blasint, Matrix,
      blasint
    ) -> Info
  /// least squares by SVD: m, n, right-hand sides, A, lda, B, ldb, S, rcond, rank, work, lwork, iwork
  package let gelsd:
    @Sendable (
      blasint, blasint, blasint, Matrix, blasint, Matrix, blasint, Matrix, Scalar, Integers, Matrix,
      blasint, Integers
    ) -> Info
}

extension LAPACK<Float> {
  package static let single = LAPACK(
    prefix: "s",
    getrf: { LAPACKE_sgetrf_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4) },
    getrs: { LAPACKE_sgetrs_work(LAPACK_COL_MAJOR, notTransposed, $0, $1, $2, $3, $4, $5, $6) },
    getri: { LAPACKE_sgetri_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5) },
    potrf: { LAPACKE_spotrf_work(LAPACK_COL_MAJOR, $0, $1, $2, $3) },
    geqrf: { LAPACKE_sgeqrf_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6) },
    orgqr: { LAPACKE_sorgqr_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7) },
    gesdd: { LAPACKE_sgesdd_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) },
    syevd: { LAPACKE_ssyevd_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9) },
    geev: { LAPACKE_sgeev_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) },
    gelsd: { LAPACKE_sgelsd_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) })
}

extension LAPACK<Double> {
  package static let double = LAPACK(
    prefix: "d",
    getrf: { LAPACKE_dgetrf_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4) },
    getrs: { LAPACKE_dgetrs_work(LAPACK_COL_MAJOR, notTransposed, $0, $1, $2, $3, $4, $5, $6) },
    getri: { LAPACKE_dgetri_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5) },
    potrf: { LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, $0, $1, $2, $3) },
    geqrf: { LAPACKE_dgeqrf_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6) },
    orgqr: { LAPACKE_dorgqr_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7) },
    gesdd: { LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) },
    syevd: { LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9) },
    geev: { LAPACKE_dgeev_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) },
    gelsd: { LAPACKE_dgelsd_work(LAPACK_COL_MAJOR, $0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) })
}

private let notTransposed = CChar(UInt8(ascii: "N"))
