import CSteppeKernels
import Glibc
import Reference
import Steppe
import Testing

@Suite struct ActivationKernelTests {
  struct Activation: Sendable {
    let kind: steppe_activation
    var parameter = 0.0
    /// f(x) and f′(x).
    let reference: @Sendable (Double) -> (value: Double, slope: Double)
  }

  static let all: [Activation] = [
    Activation(kind: STEPPE_IDENTITY) { ($0, 1) },
    Activation(kind: STEPPE_RELU) { ($0 < 0 ? 0 : $0, $0 > 0 ? 1 : 0) },
    Activation(kind: STEPPE_LEAKY_RELU, parameter: 0.25) { ($0 < 0 ? 0.25 * $0 : $0, $0 > 0 ? 1 : 0.25) },
    Activation(kind: STEPPE_SIGMOID) {
      (NaiveKernels.sigmoid($0), NaiveKernels.sigmoid($0) * NaiveKernels.sigmoid(-$0))
    },
    Activation(kind: STEPPE_TANH) { NaiveKernels.tangent($0) },
    Activation(kind: STEPPE_GELU) { NaiveKernels.gelu($0) },
    Activation(kind: STEPPE_GELU_TANH) { NaiveKernels.geluTanh($0) },
    Activation(kind: STEPPE_SILU) { NaiveKernels.silu($0) },
  ]

  /// Ulps that a value may be off: its own few, and what the function's condition makes of half an ulp on the way.
  ///
  /// A factor below the normal numbers is rounded to a multiple of their least, which x·factor repeats |x| times. The exponent of the
  /// tanh form is 2u, whose error is a relative error of the result: six roundings of half an ulp (the square, the cube, a sum, two
  /// products with constants, which are rounded too) in the kernel and six in the reference in Double make 12u. Φ(x) loses the digits
  /// of x².
  private static func tolerance<Scalar: TensorScalar>(
    _ kind: steppe_activation, _ x: Double, _ type: Scalar.Type
  ) -> Double {
    let a = abs(x)
    let u = kind == STEPPE_GELU_TANH ? 0.8 * (a + 0.045 * a * a * a) : 0
    let square = kind == STEPPE_GELU && Scalar.self == Double.self ? 2 * a * a : 0
    return 6 + min(a + 12 * u + square, 3000)
  }

  @Test func valuesMatchReference() {
    values(Float.self)
    values(Double.self)
  }

  private func inputs<Scalar: TensorScalar>(_ size: Int, _ generator: inout TestGenerator) -> [Scalar] {
    var result: [Scalar] = generator.normals(size, deviation: [1, 6, 1e-4][generator.integer(0...2)])
    if size > 1000 {
      result.replaceSubrange(9..<9 + specialNumbers(Scalar.self).count, with: specialNumbers())
    }
    return result
  }

  private func values<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for size in KernelSet<Scalar>.sizes(&generator) {
        for test in Self.all {
          let a: [Scalar] = inputs(size, &generator)
          let x = Guarded(a, shift: generator.integer(0...15))
          let y = Guarded<Scalar>(room: size, shift: generator.integer(0...15))
          set.kernels.activate(test.kind, test.parameter, x.pointer, y.pointer, size)
          let result = y.scalars
          for i in 0..<size {
            let expected = a[i].isNaN ? .nan : test.reference(Double(a[i])).value
            let error = ulps(result[i], expected)
            if error > Self.tolerance(test.kind, Double(a[i]), Scalar.self) {
              Issue.record(
                "\(set.name) \(test.kind.rawValue)(\(a[i])) = \(result[i]), expected \(expected): \(error) ulps")
            }
          }
          #expect(x.isIntact && y.isIntact, "\(set.name) \(test.kind.rawValue) of \(size)")
          set.kernels.activate(test.kind, test.parameter, x.pointer, x.pointer, size)
          #expect(worstError(x.scalars, result.doubles).ulps == 0, "\(set.name) in place")
        }
      }
    }
  }

  @Test func derivativesMatchReference() {
    derivatives(Float.self)
    derivatives(Double.self)
  }

  private func derivatives<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for size in KernelSet<Scalar>.sizes(&generator) {
        for test in Self.all {
          let a: [Scalar] = inputs(size, &generator)
          let b: [Scalar] = generator.normals(size)
          let x = Guarded(a, shift: generator.integer(0...15))
          let dy = Guarded(b, shift: generator.integer(0...15))
          let dx = Guarded<Scalar>(room: size, shift: generator.integer(0...15))
          set.kernels.activate_backward(test.kind, test.parameter, x.pointer, dy.pointer, dx.pointer, size)
          let result = dx.scalars
          for i in 0..<size where !a[i].isNaN {
            let slope = test.reference(Double(a[i])).slope
            // Derivatives that cross 0 at negative x are sums of terms of the size of σ or Φ there.
            let magnitude = abs(Double(b[i])) * min(0.5, exp(-abs(Double(a[i])) / 2))
            let crosses = [STEPPE_GELU, STEPPE_GELU_TANH, STEPPE_SILU].contains(test.kind)
            let error = ulps(result[i], slope * Double(b[i]), magnitude: crosses ? magnitude : 0)
            if error > 2 * Self.tolerance(test.kind, Double(a[i]), Scalar.self) {
              let expected = slope * Double(b[i])
              Issue.record(
                "\(set.name) \(test.kind.rawValue)′(\(a[i]))·\(b[i]) = \(result[i]), expected \(expected): \(error) ulps"
              )
            }
          }
          #expect(x.isIntact && dy.isIntact && dx.isIntact, "\(set.name) \(test.kind.rawValue) of \(size)")
        }
      }
    }
  }

  /// The references' own derivatives are held to their values.
  @Test func referenceSlopesAreDerivatives() {
    for test in Self.all {
      for x in [-3.7, -1.2, -0.4, 0.3, 1.1, 2.9] {
        let difference = centralDifferences(at: [x]) { test.reference($0[0]).value }[0]
        #expect(abs(difference - test.reference(x).slope) < 1e-8, "\(test.kind.rawValue) at \(x)")
      }
    }
  }

  @Test func biasIsAddedBeforeTheActivation() {
    bias(Float.self)
    bias(Double.self)
  }

  private func bias<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for _ in 0..<40 {
        let (rows, columns) = (generator.integer(0...9), generator.integer(0...70))
        let (ldx, ldy) = (columns + generator.integer(0...3), columns + generator.integer(0...3))
        let a: [Scalar] = generator.normals(rows * ldx)
        let b: [Scalar] = generator.normals(columns)
        for test in Self.all {
          for biased in [false, true] {
            let x = Guarded(a, shift: generator.integer(0...15))
            let c = Guarded(b, shift: generator.integer(0...15))
            let y = Guarded<Scalar>(room: rows * ldy, shift: generator.integer(0...15))
            set.kernels.bias_activate(
              test.kind, test.parameter, x.pointer, ldx, biased ? UnsafeRawPointer(c.pointer) : nil, y.pointer, ldy,
              rows,
              columns)
            let result = y.scalars
            var worst = 0.0
            for r in 0..<rows {
              for column in 0..<ldy {
                let value = result[r * ldy + column]
                if column >= columns {
                  #expect(value.isNaN, "\(set.name): what lies between the rows stays")
                } else {
                  // The sum is rounded once, as the kernel's is.
                  let sum = biased ? a[r * ldx + column] + b[column] : a[r * ldx + column]
                  let error = ulps(value, test.reference(Double(sum)).value)
                  worst = max(worst, error / Self.tolerance(test.kind, Double(sum), Scalar.self))
                }
              }
            }
            #expect(
              worst <= 1, "\(set.name) \(test.kind.rawValue) \(rows) × \(columns): \(worst) times what is allowed")
            #expect(x.isIntact && y.isIntact && c.isIntact)
          }
        }
      }
    }
  }
}
