import CSteppeKernels
import Reference
import Steppe
import Testing

/// The kernels on rows of weights, and batch renormalization's numbers for each channel.
@Suite struct WeightKernelTests {
  @Test func rowsAreMultipliedAndCombined() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for set in KernelSet<Scalar>.all {
        for columns in KernelSet<Scalar>.sizes(&generator) {
          let rows = generator.integer(1...4)
          let (gapX, gapY, gapZ) = (generator.integer(0...3), generator.integer(0...3), generator.integer(0...3))
          func matrix(_ ld: Int) -> Guarded<Scalar> {
            Guarded(generator.normals((rows - 1) * ld + columns), shift: generator.integer(0...15))
          }
          let (ldx, ldz) = (columns + gapX, columns + gapZ)
          let ldy = generator.integer(0...2) == 0 ? 0 : columns + gapY
          let (x, y) = (matrix(ldx), matrix(ldy == 0 ? 0 : ldy))
          let (a, b): ([Double], [Double]) = (generator.normals(rows), generator.normals(rows))
          let label = "\(set.name), \(rows) rows of \(columns)"
          let ulp = Double(Scalar.ulpOfOne)
          let dots = Guarded<Double>(room: rows, shift: 1)
          set.kernels.dot_rows(x.pointer, ldx, y.pointer, ldy, rows, columns, dots.pointer)
          for row in 0..<rows {
            let terms = (0..<columns).map { Double(x.scalars[row * ldx + $0]) * Double(y.scalars[row * ldy + $0]) }
            let size = terms.reduce(0) { $0 + abs($1) }
            #expect(abs(dots.scalars[row] - terms.reduce(0, +)) <= 1e-14 * size, "\(label): product \(row)")
          }
          for both in [true, false] {
            for adding in [true, false] {
              let z = matrix(ldz)
              let before = z.scalars
              set.kernels.combine_rows(
                x.pointer, ldx, a, both ? y.pointer : nil, ldy, both ? b : nil, z.pointer, ldz, rows, columns, adding)
              var worst = 0.0
              for row in 0..<rows {
                for column in 0..<columns {
                  let first = Double(Scalar(a[row])) * Double(x.scalars[row * ldx + column])
                  let second = both ? Double(Scalar(b[row])) * Double(y.scalars[row * ldy + column]) : 0
                  let third = adding ? Double(before[row * ldz + column]) : 0
                  let size = abs(first) + abs(second) + abs(third)
                  let error = abs(Double(z.scalars[row * ldz + column]) - (first + second + third))
                  worst = max(worst, size == 0 ? error : error / size)
                }
                for gap in 0..<(row + 1 < rows ? gapZ : 0) {
                  let place = row * ldz + columns + gap
                  #expect(z.scalars[place] == before[place], "\(label): between rows")
                }
              }
              #expect(worst <= 3 * ulp && z.isIntact, "\(label), two \(both), adding \(adding): \(worst)")
            }
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func renormalizationOfChannels() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for set in KernelSet<Scalar>.all {
        for count in Array(0...20) + [63, 64, 65] {
          var mean: [Double] = generator.normals(count)
          if count > 3 { mean[3] = .nan }
          let variance = (0..<count).map { _ in generator.uniform(0...4) }
          let (gamma, beta): ([Scalar], [Scalar]) = (generator.normals(count), generator.normals(count))
          let running: [Scalar] = generator.normals(count)
          let deviation = (0..<count).map { _ in Scalar(generator.uniform(0.2...3)) }
          let (m, v) = (Guarded(mean, shift: 1), Guarded(variance, shift: 2))
          var kernel = steppe_channels(
            count: count, fold: 1, values: 9, epsilon: 1e-5, mean: m.pointer, remainder: m.pointer, variance: v.pointer)
          let (r, d) = (Guarded<Double>(room: count, shift: 1), Guarded<Double>(room: count, shift: 3))
          let (scaled, shifted) = (Guarded<Scalar>(room: count, shift: 1), Guarded<Scalar>(room: count, shift: 2))
          let inputs = [gamma, beta, running, deviation].map { Guarded($0, shift: 3) }
          set.kernels.channel_renormalize(
            &kernel, inputs[0].pointer, inputs[1].pointer, inputs[2].pointer, inputs[3].pointer, 1.5, 0.5, r.pointer,
            d.pointer, scaled.pointer, shifted.pointer)
          let ulp = Double(Scalar.ulpOfOne)
          for c in 0..<count {
            let ratio = (variance[c] + 1e-5).squareRoot() / Double(deviation[c])
            let wantedR = min(max(ratio, 1 / 1.5), 1.5)
            let distance = (mean[c] - Double(running[c])) / Double(deviation[c])
            #expect(abs(r.scalars[c] - wantedR) <= 1e-15 * 4, "\(set.name): r of \(c) in \(count)")
            #expect(abs(Double(scaled.scalars[c]) - Double(gamma[c]) * wantedR) <= 2 * ulp * abs(Double(gamma[c])))
            if distance.isNaN {
              #expect(d.scalars[c].isNaN && shifted.scalars[c].isNaN, "\(set.name): NaN of \(c) in \(count)")
              continue
            }
            let wantedD = min(max(distance, -0.5), 0.5)
            #expect(abs(d.scalars[c] - wantedD) <= 1e-15 * 4, "\(set.name): d of \(c) in \(count)")
            let size = abs(Double(gamma[c])) + abs(Double(beta[c]))
            #expect(abs(Double(shifted.scalars[c]) - Double(gamma[c]) * wantedD - Double(beta[c])) <= 2 * ulp * size)
          }
          #expect(r.isIntact && d.isIntact && scaled.isIntact && shifted.isIntact && m.isIntact && v.isIntact)
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }
}
