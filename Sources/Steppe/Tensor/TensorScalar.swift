import CSteppeKernels

/// A scalar type that tensors hold: `Float` or `Double`.
///
/// The kernels, the BLAS and LAPACK stand behind ``backend``; no other type can conform usefully.
public protocol TensorScalar: BinaryFloatingPoint, Sendable, LosslessStringConvertible
where RawSignificand: FixedWidthInteger {
  /// What computes on this scalar type.
  static var backend: Backend<Self> { get }
}

/// The kernels and libraries that compute on one scalar type.
public struct Backend<Scalar: TensorScalar>: Sendable {
  /// The fused kernels of the instruction set in use.
  package let kernelTable: @Sendable () -> UnsafePointer<steppe_kernel_table>
  package let blas: BLAS<Scalar>
  package let lapack: LAPACK<Scalar>
}

extension TensorScalar {
  /// The kernels of the instruction set in use.
  @inline(__always)
  package static var kernels: steppe_kernel_table {
    @inline(__always) _read { yield backend.kernelTable().pointee }
  }

  /// y += x
  package static func add(_ x: UnsafePointer<Self>, to y: UnsafeMutablePointer<Self>, count: Int) {
    add(x, y, to: y, count: count)
  }

  /// z = x + y
  package static func add(
    _ x: UnsafePointer<Self>, _ y: UnsafePointer<Self>, to z: UnsafeMutablePointer<Self>, count: Int
  ) {
    kernels.binary(STEPPE_ADD, x, 1, y, 1, z, count)
  }
}

extension Float: TensorScalar {
  public static var backend: Backend<Float> { floatBackend }
}

extension Double: TensorScalar {
  public static var backend: Backend<Double> { doubleBackend }
}

private let floatBackend = Backend<Float>(
  kernelTable: { steppe_kernels_float() }, blas: .single, lapack: .single)
private let doubleBackend = Backend<Double>(
  kernelTable: { steppe_kernels_double() }, blas: .double, lapack: .double)
