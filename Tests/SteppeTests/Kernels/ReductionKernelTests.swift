import CSteppeKernels
import Reference
import Steppe
import Testing

@Suite struct ReductionKernelTests {
  private static let operations = [
    STEPPE_SUM, STEPPE_SUM_OF_SQUARES, STEPPE_SUM_OF_ABSOLUTES, STEPPE_REDUCE_MINIMUM, STEPPE_REDUCE_MAXIMUM,
    STEPPE_PRODUCT,
  ]

  /// The reduction of `x` in Float64, and the size of the terms that its rounding goes by.
  private static func reference(_ operation: steppe_reduction, _ x: [Double]) -> (value: Double, magnitude: Double) {
    let size = NaiveKernels.sum(x.map(\.magnitude))
    switch operation {
    case STEPPE_SUM: return (NaiveKernels.sum(x), size)
    case STEPPE_SUM_OF_SQUARES: return (NaiveKernels.sum(x.map { $0 * $0 }), 0)
    case STEPPE_SUM_OF_ABSOLUTES: return (size, 0)
    case STEPPE_REDUCE_MINIMUM: return (x.contains(where: \.isNaN) ? .nan : x.min() ?? .infinity, 0)
    case STEPPE_REDUCE_MAXIMUM: return (x.contains(where: \.isNaN) ? .nan : x.max() ?? -.infinity, 0)
    default: return (x.reduce(1, *), 0)
    }
  }

  /// In ulps of the scalar type. A product of floats rounds in Double; a sum of doubles has nothing wider to go on in.
  private static func tolerance<Scalar: TensorScalar>(
    _ operation: steppe_reduction, _ count: Int, _ type: Scalar.Type
  ) -> Double {
    switch operation {
    case STEPPE_REDUCE_MINIMUM, STEPPE_REDUCE_MAXIMUM: 0
    case STEPPE_PRODUCT: Scalar.self == Float.self ? 1 : 2 + Double(count)
    default: Scalar.self == Float.self ? 2 : 4 + Double(count).squareRoot()
    }
  }

  @Test func wholeRangesMatchReference() {
    ranges(Float.self)
    ranges(Double.self)
  }

  private func ranges<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for size in KernelSet<Scalar>.sizes(&generator) {
        // Near 1 in magnitude, so that products stay in range.
        let a: [Scalar] = (0..<size).map { _ in
          Scalar(generator.uniform(0.9...1.1) * (generator.integer(0...1) == 0 ? 1 : -1))
        }
        let x = Guarded(a, shift: generator.integer(0...15))
        for operation in Self.operations {
          let expected = Self.reference(operation, a.doubles)
          let result = set.kernels.reduce(operation, x.pointer, size)
          let error = ulps(Scalar(result), expected.value, magnitude: expected.magnitude)
          #expect(
            error <= Self.tolerance(operation, size, Scalar.self),
            "\(set.name) reduction \(operation.rawValue) of \(size): \(result), expected \(expected.value): \(error) ulps"
          )
        }
        let b: [Scalar] = generator.normals(size)
        let y = Guarded(b, shift: generator.integer(0...15))
        let terms = zip(a, b).map { Double($0) * Double($1) }
        let error = ulps(
          Scalar(set.kernels.dot(x.pointer, y.pointer, size)), NaiveKernels.sum(terms),
          magnitude: NaiveKernels.sum(terms.map(\.magnitude)))
        #expect(error <= 4, "\(set.name) dot of \(size): \(error) ulps")
        #expect(x.isIntact && y.isIntact)
      }
    }
  }

  @Test func notANumberAndInfinityAreSeenAtEachPlace() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for set in KernelSet<Scalar>.all {
        for size in (1...70) + [1000] {
          let x = Guarded<Scalar>(generator.normals(size), shift: generator.integer(0...15))
          for place in Set([0, size / 3, size / 2, size - 1]) {
            for special: Scalar in [.nan, .infinity, -.infinity] {
              let kept = x.pointer[place]
              x.pointer[place] = special
              for operation in Self.operations where operation != STEPPE_PRODUCT {
                let expected = Self.reference(operation, x.scalars.doubles).value
                let result = set.kernels.reduce(operation, x.pointer, size)
                #expect(
                  ulps(Scalar(result), expected) <= 4 || expected.isFinite,
                  "\(set.name) \(operation.rawValue) of \(size) with \(special) at \(place): \(result)")
              }
              let index = set.kernels.index_of_maximum(x.pointer, size)
              #expect(
                index == NaiveKernels.indexOfMaximum(x.scalars.doubles),
                "\(set.name) index_of_maximum of \(size) with \(special) at \(place): \(index)")
              x.pointer[place] = kept
            }
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func indexOfMaximumIsTheFirst() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for set in KernelSet<Scalar>.all {
        for size in KernelSet<Scalar>.sizes(&generator) where size > 0 {
          // Few different values, so that the greatest comes often.
          let a = (0..<size).map { _ in Scalar(generator.integer(-2...2)) }
          let x = Guarded(a, shift: generator.integer(0...15))
          #expect(
            set.kernels.index_of_maximum(x.pointer, size) == NaiveKernels.indexOfMaximum(a.doubles),
            "\(set.name) of \(size)")
          let low = Guarded<Scalar>(Array(repeating: -.infinity, count: size), shift: 1)
          #expect(set.kernels.index_of_maximum(low.pointer, size) == 0, "\(set.name) of \(size) times −∞")
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func rowsAndColumnsMatchReference() {
    matrices(Float.self)
    matrices(Double.self)
  }

  private func matrices<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    let fixed = [(0, 5), (5, 0), (1, 1), (3, 600), (600, 3), (1200, 1), (130, 17), (40, 1100), (2000, 64), (9, 513)]
    for set in KernelSet<Scalar>.all {
      for (rows, columns) in fixed + (0..<40).map({ _ in (generator.integer(1...80), generator.integer(1...80)) }) {
        let ldx = columns + [0, 0, 1, 5][generator.integer(0...3)]
        let a: [Scalar] = (0..<rows * ldx).map { _ in
          Scalar(generator.uniform(0.9...1.1) * (generator.integer(0...1) == 0 ? 1 : -1))
        }
        let x = Guarded(a, shift: generator.integer(0...15))
        for operation in Self.operations {
          let byRow = Guarded<Scalar>(room: rows, shift: generator.integer(0...15))
          set.kernels.reduce_rows(operation, x.pointer, ldx, rows, columns, byRow.pointer)
          let byColumn = Guarded<Scalar>(room: columns, shift: generator.integer(0...15))
          set.kernels.reduce_columns(operation, x.pointer, ldx, rows, columns, byColumn.pointer)
          let ofRows = (0..<rows).map { r in
            Self.reference(operation, (0..<columns).map { Double(a[r * ldx + $0]) })
          }
          let ofColumns = (0..<columns).map { c in
            Self.reference(operation, (0..<rows).map { Double(a[$0 * ldx + c]) })
          }
          let rowError = worstError(byRow.scalars, ofRows.map(\.value), magnitude: ofRows.map(\.magnitude))
          let columnError = worstError(byColumn.scalars, ofColumns.map(\.value), magnitude: ofColumns.map(\.magnitude))
          #expect(
            rowError.ulps <= Self.tolerance(operation, columns, Scalar.self),
            "\(set.name) rows, \(operation.rawValue), \(rows) × \(columns): \(rowError)")
          #expect(
            columnError.ulps <= Self.tolerance(operation, rows, Scalar.self),
            "\(set.name) columns, \(operation.rawValue), \(rows) × \(columns): \(columnError)")
          #expect(byRow.isIntact && byColumn.isIntact && x.isIntact)
        }
      }
    }
  }

  @Test func matricesPassNotANumberOn() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      for set in KernelSet<Scalar>.all {
        for (rows, columns) in [(5, 7), (700, 3), (40, 70)] {
          let x = Guarded<Scalar>(Array(repeating: 1, count: rows * columns), shift: 3)
          let (row, column) = (rows / 2, columns - 1)
          x.pointer[row * columns + column] = .nan
          for operation in Self.operations {
            let byRow = Guarded<Scalar>(room: rows, shift: 0)
            let byColumn = Guarded<Scalar>(room: columns, shift: 0)
            set.kernels.reduce_rows(operation, x.pointer, columns, rows, columns, byRow.pointer)
            set.kernels.reduce_columns(operation, x.pointer, columns, rows, columns, byColumn.pointer)
            #expect(byRow.scalars.indices.allSatisfy { byRow.scalars[$0].isNaN == ($0 == row) }, "\(set.name)")
            #expect(byColumn.scalars.indices.allSatisfy { byColumn.scalars[$0].isNaN == ($0 == column) }, "\(set.name)")
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  /// 10⁸ numbers around 0, whose sum is small beside the sum of their magnitudes.
  @Test func sumOfAHundredMillionFloats() {
    let count = 100_000_000
    var generator = TestGenerator()
    var state = UInt32(truncatingIfNeeded: generator.next()) | 1
    var (sum, magnitudes) = (0.0, 0.0)
    let x = Tensor<Float>(unsafeUninitializedShape: [count]) { buffer in
      for index in 0..<count {
        state = state &* 1_664_525 &+ 1_013_904_223
        let number = Float(Int32(bitPattern: state)) * 0x1p-31
        buffer.initializeElement(at: index, to: number)
        // Floats below 1 in Double: its own rounding is far below what is tested.
        sum += Double(number)
        magnitudes += Double(abs(number))
      }
    }
    for threads in 1...3 {
      let result = Parallel.withThreadCount(threads) { x.sum() }
      #expect(abs(Double(result) - sum) <= 1e-8 * magnitudes, "\(threads) threads: \(result), expected \(sum)")
    }
  }
}
