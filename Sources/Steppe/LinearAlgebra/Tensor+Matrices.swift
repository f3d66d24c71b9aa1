import CSteppeKernels

/// A norm of a matrix that its elements give directly.
public enum MatrixNorm: Sendable {
  /// The root of the sum of squares.
  case frobenius
  /// The greatest column sum of absolute values.
  case one
  /// The greatest row sum of absolute values.
  case infinity
}

extension Tensor {
  /// A square matrix `[n, n]` with the vector `diagonal` on its diagonal and zeros elsewhere.
  public init(diagonal: Tensor) {
    require(diagonal.rank == 1, "Tensor(diagonal:): expected a vector, got shape \(diagonal.shape)")
    let size = diagonal.count
    self = .zeros(shape: [size, size])
    copyStrided(
      shape: [size], from: diagonal.storage.pointer + diagonal.offset, strides: diagonal.strides, to: address,
      strides: [size + 1])
  }

  /// The main diagonal of each matrix along the last two axes: `[…, m, n]` gives `[…, min(m, n)]`. A view.
  public func diagonal() -> Tensor {
    let (rows, columns) = matrixSize("diagonal")
    return Tensor(
      storage: storage, shape: batchShape + [Swift.min(rows, columns)],
      strides: strides.dropLast(2) + [strides[rank - 2] + strides[rank - 1]], offset: offset)
  }

  /// The sum of a matrix's main diagonal.
  public func trace() -> Scalar {
    require(rank == 2, "Tensor.trace: expected one matrix, got shape \(shape)")
    return diagonal().sum()
  }

  /// The root of the sum of all elements' squares, for any shape; it overflows only where the result does.
  public func norm() -> Scalar {
    let squares = reduced(STEPPE_SUM_OF_SQUARES)
    // In the middle of the range no square was lost.
    let middle = Double(Scalar.leastNormalMagnitude / Scalar.ulpOfOne)...Double(Scalar.greatestFiniteMagnitude)
    if squares.isNaN || middle.contains(squares) { return Scalar(squares.squareRoot()) }
    let greatest = absolute().max(orEmpty: 0)
    if greatest == 0 || !greatest.isFinite { return greatest }
    // A power of two scales without rounding.
    let scale = Scalar(sign: .plus, exponent: greatest.exponent, significand: 1)
    return scale * Scalar((self / scale).reduced(STEPPE_SUM_OF_SQUARES).squareRoot())
  }

  /// A norm of a matrix. The spectral norm is the first of ``singularValues()``.
  public func norm(_ kind: MatrixNorm) -> Scalar {
    require(rank == 2, "Tensor.norm(_:): expected one matrix, got shape \(shape)")
    switch kind {
    case .frobenius: return norm()
    case .one: return absolute().sum(axis: 0).max(orEmpty: 0)
    case .infinity: return absolute().sum(axis: 1).max(orEmpty: 0)
    }
  }

  /// The greatest singular value over the least; infinity for a singular matrix. The matrix must have elements.
  ///
  /// ``solve(_:)`` loses about log₁₀ of it in decimal digits.
  ///
  /// - Throws: As ``svd()``.
  public func conditionNumber() throws(LinearAlgebraError) -> Scalar {
    require(count > 0, "Tensor.conditionNumber: shape \(shape) has no elements")
    let values = try singularValues()
    let (greatest, least) = (values[0], values[values.count - 1])
    return least == 0 ? .infinity : greatest / least
  }
}
