import COpenBLAS

/// The BLAS routines of one scalar type.
package struct BLAS<Scalar: TensorScalar>: Sendable {
  /// order, transposes of A and B, m, n, k, α, A, lda, B, ldb, β, C, ldc
  package typealias GEMM =
    @Sendable (
      CBLAS_ORDER, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE, blasint, blasint, blasint, Scalar, UnsafePointer<Scalar>?,
      blasint, UnsafePointer<Scalar>?, blasint, Scalar, UnsafeMutablePointer<Scalar>?, blasint
    ) -> Void
  /// order, transpose of A, m, n, α, A, lda, x, incx, β, y, incy
  package typealias GEMV =
    @Sendable (
      CBLAS_ORDER, CBLAS_TRANSPOSE, blasint, blasint, Scalar, UnsafePointer<Scalar>?, blasint, UnsafePointer<Scalar>?,
      blasint, Scalar, UnsafeMutablePointer<Scalar>?, blasint
    ) -> Void

  package let gemm: GEMM
  package let gemv: GEMV
}

extension BLAS<Float> {
  package static let single = BLAS(
    gemm: { cblas_sgemm($0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) },
    gemv: { cblas_sgemv($0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) })
}

extension BLAS<Double> {
  package static let double = BLAS(
    gemm: { cblas_dgemm($0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) },
    gemv: { cblas_dgemv($0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) })
}
