import CSteppeKernels
import Foundation
import Reference
import Steppe
import Testing

@Suite struct SoftmaxKernelTests {
  @Test func softmaxAndItsGradientMatchReference() {
    softmax(Float.self)
    softmax(Double.self)
  }

  private func softmax<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for columns in Array(1...70) + [1000, 2051] {
        let rows = generator.integer(1...4)
        let (ldx, ldy) = (columns + generator.integer(0...3), columns + generator.integer(0...3))
        let a: [Scalar] = generator.normals(rows * ldx, mean: generator.normal() * 100, deviation: 3)
        let x = Guarded(a, shift: generator.integer(0...15))
        for logarithm in [false, true] {
          let y = Guarded<Scalar>(room: rows * ldy, shift: generator.integer(0...15))
          set.kernels.softmax_rows(logarithm, x.pointer, ldx, y.pointer, ldy, rows, columns)
          let result = y.scalars
          var packed: [Scalar] = []
          for r in 0..<rows {
            let row = Array(a[r * ldx..<r * ldx + columns]).doubles
            let expected = logarithm ? NaiveLosses.logSoftmax(row) : NaiveLosses.softmax(row)
            let got = Array(result[r * ldy..<r * ldy + columns])
            let greatest = row.max()!
            let magnitude =
              logarithm
              ? zip(row, expected).map { max(abs($1), 1 + greatest - $0) } : NaiveLosses.softmaxMagnitude(row)
            let error = worstError(got, expected, magnitude: magnitude)
            // The sum's own error, and that of each exponential in it.
            let tolerance = 2 * sumTolerance(columns, Scalar.self)
            #expect(error.ulps <= tolerance, "\(set.name) \(logarithm) \(rows) × \(columns): \(error)")
            #expect(result[r * ldy + columns..<(r + 1) * ldy].allSatisfy { $0.isNaN }, "\(set.name)")
            packed += got
          }
          #expect(y.isIntact && x.isIntact)

          let slopes: [Scalar] = generator.normals(rows * columns)
          let p = Guarded(packed, shift: generator.integer(0...15))
          let dy = Guarded(slopes, shift: generator.integer(0...15))
          let dx = Guarded<Scalar>(room: rows * columns, shift: generator.integer(0...15))
          set.kernels.softmax_rows_backward(logarithm, p.pointer, dy.pointer, dx.pointer, rows, columns)
          for r in 0..<rows {
            let place = r * columns..<(r + 1) * columns
            let (out, slope) = (Array(packed[place]).doubles, Array(slopes[place]).doubles)
            // Of the output that the kernel is given, whose own rounding is no error here: its exponentials need not add up to 1.
            let probabilities = logarithm ? out.map { exp($0) } : out
            let inner = NaiveKernels.sum(logarithm ? slope : zip(out, slope).map { $0 * $1 })
            let total = slope.reduce(0) { max($0, abs($1)) } + abs(inner)
            let expected = place.indices.map { i -> Double in
              let c = i - place.lowerBound
              return logarithm ? slope[c] - probabilities[c] * inner : out[c] * (slope[c] - inner)
            }
            let magnitude = place.indices.map { i -> Double in
              logarithm ? total : out[i - place.lowerBound] * total
            }
            let error = worstError(Array(dx.scalars[place]), expected, magnitude: magnitude)
            #expect(
              error.ulps <= 2 * sumTolerance(columns, Scalar.self),
              "\(set.name) gradient \(logarithm) \(rows) × \(columns): \(error)")
          }
          #expect(dx.isIntact && dy.isIntact && p.isIntact)
        }
      }
    }
  }

  @Test func crossEntropyMatchesReference() {
    crossEntropy(Float.self)
    crossEntropy(Double.self)
  }

  private func crossEntropy<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for columns in Array(1...70) + [1000] {
        let rows = generator.integer(1...4)
        let a: [Scalar] = generator.normals(rows * columns, mean: generator.normal() * 10, deviation: 3)
        let labels = (0..<rows).map { _ in Int32(generator.integer(0...columns - 1)) }
        let weights: [Scalar] = (0..<rows * columns).map { _ in Scalar(generator.uniform()) }
        let smoothing = [0, 0.1, 1][generator.integer(0...2)]
        let scale = 0.25
        for classes in [true, false] {
          let x = Guarded(a, shift: generator.integer(0...15))
          let t = Guarded(weights, shift: generator.integer(0...15))
          let gradient = Guarded<Scalar>(room: rows * columns, shift: generator.integer(0...15))
          let losses = Guarded<Double>(room: rows, shift: 1)
          func run(_ target: UnsafeMutablePointer<Scalar>) {
            if classes {
              set.kernels.cross_entropy_classes(
                x.pointer, labels, smoothing, scale, losses.pointer, target, rows, columns)
            } else {
              set.kernels.cross_entropy_distributions(
                x.pointer, t.pointer, smoothing, scale, losses.pointer, target, rows, columns)
            }
          }
          run(gradient.pointer)
          for r in 0..<rows {
            let place = r * columns..<(r + 1) * columns
            let targets = classes ? (0..<columns).map { $0 == Int(labels[r]) ? 1 : 0 } : Array(weights[place]).doubles
            let expected = NaiveLosses.softmaxCrossEntropy(
              Array(a[place]).doubles, targets: targets, columns: columns, smoothing: smoothing)
            let weight = targets.reduce(0, +)
            let error = ulps(Scalar(losses.scalars[r]), expected.loss, magnitude: weight)
            #expect(
              error <= 16, "\(set.name) loss \(rows) × \(columns): \(losses.scalars[r]), \(expected.loss): \(error)")
            let row = Array(a[place]).doubles
            let magnitude = zip(NaiveLosses.softmaxMagnitude(row), targets).map {
              scale * (weight * $0 + $1 + smoothing / Double(columns))
            }
            let slopes = worstError(
              Array(gradient.scalars[place]), expected.gradient.map { scale * $0 }, magnitude: magnitude)
            #expect(
              slopes.ulps <= sumTolerance(columns, Scalar.self),
              "\(set.name) gradient \(classes) \(smoothing) \(rows) × \(columns): \(slopes)")
          }
          #expect(gradient.isIntact && losses.isIntact && x.isIntact && t.isIntact)
          // In place of the logits.
          run(x.pointer)
          #expect(worstError(x.scalars, gradient.scalars.doubles).ulps <= 1, "\(set.name) in place")
        }
      }
    }
  }

  @Test func extremeRows() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      for set in KernelSet<Scalar>.all {
        func rows(_ logarithm: Bool, _ row: [Scalar]) -> [Scalar] {
          let (x, y) = (Guarded(row, shift: 1), Guarded<Scalar>(room: row.count, shift: 1))
          set.kernels.softmax_rows(logarithm, x.pointer, row.count, y.pointer, row.count, 1, row.count)
          return y.scalars
        }
        #expect(rows(false, [1e4, -1e4, 1e4]) == [0.5, 0, 0.5], "\(set.name)")
        #expect(rows(true, [1e4, -1e4])[1] == -2e4, "\(set.name)")
        #expect(rows(false, Array(repeating: 7, count: 64)).allSatisfy { $0 == 1.0 / 64 }, "\(set.name)")
        let least = -Scalar.infinity
        #expect(rows(false, [least, 0, least]) == [0, 1, 0], "\(set.name)")
        #expect(rows(true, [least, 0]) == [least, 0], "\(set.name)")
        #expect(rows(false, [1, .nan, 2]).allSatisfy { $0.isNaN }, "\(set.name)")
        #expect(rows(true, Array(repeating: 0, count: 40) + [Scalar.nan]).allSatisfy { $0.isNaN }, "\(set.name)")
        #expect(rows(false, [.infinity, 0]).contains { $0.isNaN }, "\(set.name)")
      }
    }
    check(Float.self)
    check(Double.self)
  }
}
