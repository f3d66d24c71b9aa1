import Reference
import Steppe
import Testing

/// The tests of Sources/Steppe/LinearAlgebra: products, factorizations, and the gate before OpenBLAS.
@Suite struct LinearAlgebraTests {}

extension NaiveMatrix {
  /// A matrix of the product's, in Float64.
  init<Scalar: TensorScalar>(_ tensor: Tensor<Scalar>) {
    self.init(tensor.shape[0], tensor.shape[1], tensor.scalars.map(Double.init))
  }
}

extension TestGenerator {
  /// Standard normal elements.
  mutating func tensor<Scalar: TensorScalar>(_ shape: [Int]) -> Tensor<Scalar> {
    Tensor(shape: shape, scalars: scalars(shape.reduce(1, *)))
  }

  /// Standard normal numbers, rounded to `Scalar`.
  mutating func scalars<Scalar: TensorScalar>(_ count: Int) -> [Scalar] { (0..<count).map { _ in Scalar(normal()) } }
}

/// The bits of a tensor's elements.
func bits<Scalar: TensorScalar>(_ tensor: Tensor<Scalar>) -> [UInt64] { tensor.scalars.map { Double($0).bitPattern } }
