import CSteppeKernels
import Reference
import Testing

import Steppe

@Suite struct FeatureKernelTests {
  private func check<Scalar: TensorScalar>(_: Scalar.Type) {
    var generator = TestGenerator("\(Scalar.self)")
    for set in KernelSet<Scalar>.all {
      for columns in Array(1...40) + [63, 64, 65, 130] {
        for rows in [0, 1, 7, 8, 9, generator.integer(10...300), 600] {
          let ldx = columns + [0, 0, 3][generator.integer(0...2)]
          let a = generator.normals(max(rows, 1) * ldx, mean: 100, as: Scalar.self)
          let x = Guarded(a, shift: generator.integer(0...15))
          let shift = (0..<columns).map { _ in 100 + generator.normal() }
          let sums = Guarded<Double>(Array(repeating: 1, count: columns), shift: 1)
          let squares = Guarded<Double>(Array(repeating: 2, count: columns), shift: 0)
          let least = Guarded<Scalar>(Array(repeating: 100, count: columns), shift: 3)
          let greatest = Guarded<Scalar>(Array(repeating: 100, count: columns), shift: 2)
          let centered = Guarded<Double>(room: rows * columns, shift: 1)
          set.kernels.feature_moments(
            x.pointer, ldx, rows, columns, shift, sums.pointer, squares.pointer, least.pointer, greatest.pointer)
          set.kernels.feature_center(x.pointer, ldx, rows, columns, shift, centered.pointer)
          for c in 0..<columns {
            let column = (0..<rows).map { Double(a[$0 * ldx + c]) }
            let d = column.map { $0 - shift[c] }
            let (sum, square) = (1 + d.reduce(0, +), 2 + d.reduce(0) { $0 + $1 * $1 })
            let place = "\(set.name), \(rows) × \(columns) of \(ldx)"
            #expect(abs(sums.scalars[c] - sum) <= 1e-13 * Double(rows + 1), "\(place)")
            #expect(abs(squares.scalars[c] - square) <= 1e-13 * square, "\(place)")
            #expect(Double(least.scalars[c]) == min(100, column.min() ?? 100), "\(place)")
            #expect(Double(greatest.scalars[c]) == max(100, column.max() ?? 100), "\(place)")
            #expect((0..<rows).allSatisfy { centered.scalars[$0 * columns + c] == d[$0] }, "\(place)")
          }
          #expect(
            x.isIntact && sums.isIntact && squares.isIntact && least.isIntact && greatest.isIntact && centered.isIntact)
        }
      }
    }
  }

  @Test func float() { check(Float.self) }
  @Test func double() { check(Double.self) }

  /// NaN stays in its column's sums and out of the extremes.
  @Test func notANumberIsPassedOn() {
    for set in KernelSet<Float>.all {
      for columns in [1, 3, 16, 33] {
        var x = [Float](repeating: 1, count: 200 * columns)
        x[77 * columns + columns - 1] = .nan
        let (zeros, ones) = ([Double](repeating: 0, count: columns), [Float](repeating: 1, count: columns))
        var (sums, squares, least, greatest) = (zeros, zeros, ones, ones)
        set.kernels.feature_moments(x, columns, 200, columns, zeros, &sums, &squares, &least, &greatest)
        #expect(sums.indices.allSatisfy { sums[$0].isNaN == ($0 == columns - 1) }, "\(set.name)")
        #expect(least == ones && greatest == ones, "\(set.name)")
      }
    }
  }
}
