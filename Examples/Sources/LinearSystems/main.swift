// Linear algebra on tensors: a linear system, a least-squares fit, a compressed matrix, and what an impossible task throws.
import Foundation
import Steppe

// Solve A·x = b.
let a = Tensor<Double>([[4, -2, 1], [-2, 4, -2], [1, -2, 4]])
let b = Tensor<Double>([11, -16, 17])
let x = try a.solve(b)
print("x = \(x)")
print("largest residual: \((a.matmul(x) - b).absolute().max()), condition number: \(try a.conditionNumber())")

// Fit a parabola to noisy points: the columns 1, t, t² times the coefficients, as near to y as can be.
var generator = RandomGenerator(seed: 5)
let t = Tensor<Double>.linearSpace(from: -1, to: 1, count: 101)
let noise = Tensor<Double>.randomNormal(shape: [101], standardDeviation: 0.05, using: &generator)
let y = 1 - 2 * t + 3 * t.squared() + noise
let fit = try Tensor.stacked([.ones(shape: t.shape), t, t.squared()], axis: 1).leastSquares(y)
print("1 - 2t + 3t² was found as \(fit.solution), rank \(fit.rank)")

// Compress a matrix of rank 5 by its singular values: A ≈ U·diag(σ)·Vᵀ with the first five.
let left = Tensor<Double>.randomNormal(shape: [200, 5], using: &generator)
let right = Tensor<Double>.randomNormal(shape: [5, 300], using: &generator)
let matrix = left.matmul(right)
let svd = try matrix.svd()
let compressed = (svd.u[0..., ..<5] * svd.singularValues[..<5]).matmul(svd.vTransposed[..<5])
let error = (compressed - matrix).norm() / matrix.norm()
print("six singular values: \(svd.singularValues[..<6])")
print("relative error from 5 of \(svd.singularValues.count): \(error)")

// Errors say what went wrong; they can be caught.
do {
  _ = try Tensor<Double>([[1, 2], [2, 4]]).solve(Tensor([1, 1]))
} catch {
  print("as expected: \(error)")
}

let found = (fit.solution - Tensor([1, -2, 3])).absolute().max()
guard found < 0.05, error < 1e-12 else {
  print("a result is less exact than expected")
  exit(1)
}
