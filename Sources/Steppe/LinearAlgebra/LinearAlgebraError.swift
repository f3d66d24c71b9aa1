/// What a factorization could not do, with LAPACK's own account of it.
///
/// Each case names the LAPACK routine, its `info` and the shape of the tensor; `batch` is the index along the leading
/// axes where the tensor holds several matrices, else empty. The first matrix that fails is reported. Shapes that do
/// not fit are no error of this type: they stop the program.
public enum LinearAlgebraError: Error, Equatable {
  /// A pivot is exactly zero: `info` is its place on the diagonal of U, from 1.
  case singular(routine: String, info: Int, shape: [Int], batch: [Int])
  /// The leading minor of order `info` is not positive.
  case notPositiveDefinite(routine: String, info: Int, shape: [Int], batch: [Int])
  /// An iteration did not converge: `info` counts what is missing, as the routine's documentation says.
  case noConvergence(routine: String, info: Int, shape: [Int], batch: [Int])
  /// `argument` holds a NaN or an infinity: `info` is minus its place among LAPACKE's arguments, as LAPACKE reports a
  /// NaN.
  case nonFinite(routine: String, argument: String, info: Int, shape: [Int])

  /// LAPACK's number.
  public var info: Int {
    switch self {
    case .singular(_, let info, _, _), .notPositiveDefinite(_, let info, _, _), .noConvergence(_, let info, _, _),
      .nonFinite(_, _, let info, _):
      info
    }
  }

  /// The LAPACK routine, such as `dgetrf`.
  public var routine: String {
    switch self {
    case .singular(let routine, _, _, _), .notPositiveDefinite(let routine, _, _, _),
      .noConvergence(let routine, _, _, _),
      .nonFinite(let routine, _, _, _):
      routine
    }
  }
}

extension LinearAlgebraError: CustomStringConvertible {
  /// The routine, what went wrong with which matrix, and LAPACK's number.
  public var description: String {
    switch self {
    case .singular(let routine, let info, let shape, let batch):
      "\(routine): the matrix \(place(shape, batch)) is singular: U[\(info), \(info)] is zero (info \(info))"
    case .notPositiveDefinite(let routine, let info, let shape, let batch):
      "\(routine): the matrix \(place(shape, batch)) is not positive definite: "
        + "the leading minor of order \(info) is not positive (info \(info))"
    case .noConvergence(let routine, let info, let shape, let batch):
      "\(routine): no convergence for the matrix \(place(shape, batch)) (info \(info))"
    case .nonFinite(let routine, let argument, let info, let shape):
      "\(routine): \(argument) of shape \(shape) holds a NaN or an infinity (info \(info))"
    }
  }

  private func place(_ shape: [Int], _ batch: [Int]) -> String {
    batch.isEmpty ? "of shape \(shape)" : "at \(batch) of shape \(shape)"
  }
}
