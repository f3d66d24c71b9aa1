import CSteppeKernels
import Glibc
import Reference
import Steppe
import Testing

@Suite struct ElementwiseKernelTests {
  private struct Binary: Sendable {
    let operation: steppe_binary
    let reference: @Sendable (Double, Double) -> Double
    var tolerance = 0.5
  }

  private static let binaries: [Binary] = [
    Binary(operation: STEPPE_ADD, reference: { $0 + $1 }),
    Binary(operation: STEPPE_SUBTRACT, reference: { $0 - $1 }),
    Binary(operation: STEPPE_MULTIPLY, reference: { $0 * $1 }),
    Binary(operation: STEPPE_DIVIDE, reference: { $0 / $1 }),
    Binary(operation: STEPPE_POWER, reference: { pow($0, $1) }, tolerance: 1),
    Binary(operation: STEPPE_MINIMUM, reference: { $0.isNaN || $1.isNaN ? .nan : min($0, $1) }),
    Binary(operation: STEPPE_MAXIMUM, reference: { $0.isNaN || $1.isNaN ? .nan : max($0, $1) }),
    Binary(operation: STEPPE_LESS, reference: { $0 < $1 ? 1 : 0 }),
    Binary(operation: STEPPE_LESS_EQUAL, reference: { $0 <= $1 ? 1 : 0 }),
    Binary(operation: STEPPE_GREATER, reference: { $0 > $1 ? 1 : 0 }),
    Binary(operation: STEPPE_GREATER_EQUAL, reference: { $0 >= $1 ? 1 : 0 }),
    Binary(operation: STEPPE_EQUAL, reference: { $0 == $1 ? 1 : 0 }),
    Binary(operation: STEPPE_NOT_EQUAL, reference: { $0 != $1 ? 1 : 0 }),
  ]

  private struct Unary: Sendable {
    let operation: steppe_unary
    let reference: @Sendable (Double) -> Double
    var tolerance = 0.5
  }

  private static let unaries: [Unary] = [
    Unary(operation: STEPPE_NEGATE, reference: { -$0 }),
    Unary(operation: STEPPE_ABSOLUTE, reference: { abs($0) }),
    Unary(operation: STEPPE_SIGN, reference: { $0.isNaN ? $0 : $0 > 0 ? 1 : $0 < 0 ? -1 : 0 }),
    Unary(operation: STEPPE_SQUARE, reference: { $0 * $0 }),
    Unary(operation: STEPPE_SQUARE_ROOT, reference: { $0.squareRoot() }),
    Unary(operation: STEPPE_RECIPROCAL, reference: { 1 / $0 }),
    Unary(operation: STEPPE_EXPONENTIAL, reference: { exp($0) }, tolerance: 2),
    Unary(operation: STEPPE_LOGARITHM, reference: { log($0) }, tolerance: 2),
    Unary(operation: STEPPE_FLOOR, reference: { $0.rounded(.down) }),
    Unary(operation: STEPPE_CEILING, reference: { $0.rounded(.up) }),
    Unary(operation: STEPPE_ROUND, reference: { $0.rounded(.toNearestOrEven) }),
    Unary(operation: STEPPE_SINE, reference: { sin($0) }, tolerance: 1),
    Unary(operation: STEPPE_COSINE, reference: { cos($0) }, tolerance: 1),
  ]

  @Test func binaryMatchesReference() {
    binary(Float.self)
    binary(Double.self)
  }

  private func binary<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    let special = specialNumbers(Scalar.self)
    for set in KernelSet<Scalar>.all {
      for size in KernelSet<Scalar>.sizes(&generator) + [special.count * special.count] {
        // At the last size every special number meets every other.
        let pairs = size == special.count * special.count
        let a: [Scalar] = pairs ? special.flatMap { x in special.map { _ in x } } : generator.normals(size)
        let b: [Scalar] = pairs ? special.flatMap { _ in special } : generator.normals(size)
        for test in Self.binaries {
          let steps = [(1, 1), (0, 1), (1, 0), (0, 0)][size == 0 ? 0 : generator.integer(0...3)]
          let x = Guarded(a, shift: generator.integer(0...15))
          let y = Guarded(b, shift: generator.integer(0...15))
          let z = Guarded<Scalar>(room: size, shift: generator.integer(0...15))
          set.kernels.binary(test.operation, x.pointer, steps.0, y.pointer, steps.1, z.pointer, size)
          let expected = (0..<size).map { test.reference(Double(a[$0 * steps.0]), Double(b[$0 * steps.1])) }
          let error = worstError(z.scalars, expected)
          #expect(error.ulps <= test.tolerance, "\(set.name) binary \(test.operation.rawValue) of \(size): \(error)")
          #expect(z.isIntact && x.isIntact && y.isIntact, "\(set.name) binary \(test.operation.rawValue) of \(size)")
          // In place of the first operand.
          if steps.0 == 1 {
            set.kernels.binary(test.operation, x.pointer, 1, y.pointer, steps.1, x.pointer, size)
            #expect(worstError(x.scalars, z.scalars.doubles).ulps == 0, "\(set.name) in place")
          }
        }
      }
    }
  }

  @Test func unaryMatchesReference() {
    unary(Float.self)
    unary(Double.self)
  }

  private func unary<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for size in KernelSet<Scalar>.sizes(&generator) {
        for test in Self.unaries {
          var a: [Scalar] = generator.normals(size, deviation: [1, 20, 1e-3][generator.integer(0...2)])
          if size > 1000 { a.replaceSubrange(17..<17 + specialNumbers(Scalar.self).count, with: specialNumbers()) }
          let x = Guarded(a, shift: generator.integer(0...15))
          let y = Guarded<Scalar>(room: size, shift: generator.integer(0...15))
          set.kernels.unary(test.operation, x.pointer, y.pointer, size)
          let error = worstError(y.scalars, a.map { test.reference(Double($0)) })
          #expect(error.ulps <= test.tolerance, "\(set.name) unary \(test.operation.rawValue) of \(size): \(error)")
          #expect(y.isIntact && x.isIntact, "\(set.name) unary \(test.operation.rawValue) of \(size)")
        }
      }
    }
  }

  @Test func exponentialAndLogarithmOverTheirRanges() {
    for set in KernelSet<Float>.all { sweep(set, from: -104, to: 89) }
    for set in KernelSet<Double>.all { sweep(set, from: -746, to: 710) }
  }

  private func sweep<Scalar: TensorScalar>(_ set: KernelSet<Scalar>, from low: Double, to high: Double) {
    let count = 50_000
    let x = Guarded((0..<count).map { Scalar(low + (high - low) * Double($0) / Double(count - 1)) }, shift: 1)
    let y = Guarded<Scalar>(room: count, shift: 0)
    set.kernels.unary(STEPPE_EXPONENTIAL, x.pointer, y.pointer, count)
    let powers = y.scalars
    #expect(worstError(powers, x.scalars.map { exp(Double($0)) }).ulps <= 2, "\(set.name)")
    set.kernels.unary(STEPPE_LOGARITHM, y.pointer, y.pointer, count)
    #expect(worstError(y.scalars, powers.map { log(Double($0)) }).ulps <= 2, "\(set.name)")
  }

  @Test func signsOfZero() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      for set in KernelSet<Scalar>.all {
        for (operation, minus) in [(STEPPE_NEGATE, false), (STEPPE_ABSOLUTE, false), (STEPPE_SQUARE_ROOT, true)] {
          let x = Guarded<Scalar>(Array(repeating: -0.0, count: 37), shift: 1)
          set.kernels.unary(operation, x.pointer, x.pointer, 37)
          #expect(x.scalars.allSatisfy { $0 == 0 && ($0.sign == .minus) == minus }, "\(set.name)")
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func affineFillClampSelectAndScaledSum() {
    linear(Float.self)
    linear(Double.self)
  }

  private func linear<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for size in KernelSet<Scalar>.sizes(&generator) {
        var a: [Scalar] = generator.normals(size)
        if size > 1000 { a.replaceSubrange(5..<5 + specialNumbers(Scalar.self).count, with: specialNumbers()) }
        let b: [Scalar] = generator.normals(size)
        let (scale, offset) = (Scalar(generator.normal()), Scalar(generator.normal()))
        let x = Guarded(a, shift: generator.integer(0...15))
        let y = Guarded(b, shift: generator.integer(0...15))
        let z = Guarded<Scalar>(room: size, shift: generator.integer(0...15))
        let message = "\(set.name) of \(size)"

        set.kernels.affine(x.pointer, Double(scale), Double(offset), z.pointer, size)
        let products = a.map { Double(scale) * Double($0) }
        #expect(
          worstError(z.scalars, products.map { $0 + Double(offset) }, magnitude: products.map(\.magnitude)).ulps <= 1,
          "affine \(message)")

        set.kernels.clamp(x.pointer, -0.5, 0.75, z.pointer, size)
        #expect(
          worstError(z.scalars, a.map { $0.isNaN ? .nan : min(max(Double($0), -0.5), 0.75) }).ulps == 0,
          "clamp \(message)")

        let chosen: [Scalar] = (0..<size).map { _ in [0, 1, -0.0, .nan][generator.integer(0...3)] }
        let mask = Guarded(chosen, shift: generator.integer(0...15))
        for (xStep, yStep) in [(1, 1), (0, 1), (1, 0), (0, 0)] where size > 0 {
          set.kernels.select(mask.pointer, x.pointer, xStep, y.pointer, yStep, z.pointer, size)
          let expected = (0..<size).map { Double(chosen[$0] != 0 ? a[$0 * xStep] : b[$0 * yStep]) }
          #expect(worstError(z.scalars, expected).ulps == 0, "select \(message)")
        }

        set.kernels.add_scaled(x.pointer, Double(scale), y.pointer, size)
        #expect(
          worstError(y.scalars, zip(products, b).map { $0 + Double($1) }, magnitude: products.map(\.magnitude)).ulps
            <= 1, "add_scaled \(message)")

        set.kernels.fill(Double(offset), z.pointer, size)
        #expect(z.scalars.allSatisfy { $0 == offset }, "fill \(message)")
        #expect(x.isIntact && y.isIntact && z.isIntact && mask.isIntact, "\(message)")

        let bytes = (0..<size).map { _ in UInt8.random(in: 0...255, using: &generator) }
        set.kernels.convert_bytes(bytes, 1.0 / 255, -0.5, z.pointer, size)
        let converted = bytes.map { Double(Scalar(1.0 / 255)) * Double($0) - 0.5 }
        #expect(worstError(z.scalars, converted, magnitude: converted.map { _ in 1 }).ulps <= 1, "bytes \(message)")
        #expect(z.isIntact, "\(message)")
      }
    }
  }

  @Test func allFiniteFindsEachPlace() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for set in KernelSet<Scalar>.all {
        for size in KernelSet<Scalar>.sizes(&generator) {
          let x = Guarded<Scalar>(generator.normals(size, deviation: 1e30), shift: generator.integer(0...15))
          #expect(set.kernels.all_finite(x.pointer, size), "\(set.name) of \(size)")
          for place in Set([0, size / 2, size - 1]) where size > 0 {
            for bad: Scalar in [.infinity, -.infinity, .nan] {
              let kept = x.pointer[place]
              x.pointer[place] = bad
              #expect(!set.kernels.all_finite(x.pointer, size), "\(set.name) of \(size), \(bad) at \(place)")
              x.pointer[place] = kept
            }
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func stridedCopiesAndTransposes() {
    layout(Float.self)
    layout(Double.self)
  }

  private func layout<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for size in Array(0...40) + [300] {
        let (from, to) = (generator.integer(0...3), generator.integer(1...3))
        let x = Guarded<Scalar>(generator.normals(max(1, size * max(from, 1))), shift: generator.integer(0...15))
        let y = Guarded<Scalar>(room: max(1, size * to), shift: generator.integer(0...15))
        set.kernels.copy_strided(x.pointer, from, y.pointer, to, size)
        let result = y.scalars
        #expect((0..<size).allSatisfy { result[$0 * to] == x.pointer[$0 * from] }, "\(set.name) \(size) \(from) \(to)")
        // What lies between the steps stays.
        #expect(result.indices.allSatisfy { $0 % to == 0 && $0 / to < size || result[$0].isNaN }, "\(set.name) \(size)")
        #expect(y.isIntact)
        // Backwards.
        if size > 0, from > 0 {
          set.kernels.copy_strided(x.pointer + (size - 1) * from, -from, y.pointer, to, size)
          let reversed = y.scalars
          #expect(
            (0..<size).allSatisfy { reversed[$0 * to] == x.pointer[(size - 1 - $0) * from] }, "\(set.name) \(size)")
        }
      }
      for _ in 0..<60 {
        let (rows, columns) = (generator.integer(0...70), generator.integer(0...70))
        let (ldx, ldy) = (columns + generator.integer(0...3), rows + generator.integer(0...3))
        let x = Guarded<Scalar>(generator.normals(rows * ldx), shift: generator.integer(0...15))
        let y = Guarded<Scalar>(room: columns * ldy, shift: generator.integer(0...15))
        set.kernels.transpose(x.pointer, ldx, y.pointer, ldy, rows, columns)
        let (a, b) = (x.scalars, y.scalars)
        let fits = (0..<columns).allSatisfy { c in
          (0..<ldy).allSatisfy { r in
            let found: Scalar = b[c * ldy + r]
            return r < rows ? found == a[r * ldx + c] : found.isNaN
          }
        }
        #expect(fits && y.isIntact, "\(set.name) \(rows) × \(columns)")
      }
    }
  }
}
