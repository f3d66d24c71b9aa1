import CSteppeKernels
import Reference
import Steppe
import Testing

/// The numbers of each channel between normalization's passes, against Float64 written out.
@Suite struct ChannelKernelTests {
  /// Channels with statistics of all sizes, and the sums and parameters that go with them.
  private struct Channels<Scalar: TensorScalar> {
    let count: Int, fold: Int
    let values: Double
    let epsilon = 1e-5
    let mean: Guarded<Double>, remainder: Guarded<Double>, variance: Guarded<Double>
    let gamma: Guarded<Scalar>, beta: Guarded<Scalar>, shifts: Guarded<Scalar>
    let sums: [Double], others: [Double]

    init(count: Int, fold: Int, _ generator: inout TestGenerator) {
      (self.count, self.fold) = (count, fold)
      values = Double(generator.integer(2...500) * fold)
      let means: [Double] = (0..<count).map { _ in generator.normal() * 100 }
      mean = Guarded(means, shift: generator.integer(0...7))
      remainder = Guarded(means.map { $0 - Double(Scalar($0)) }, shift: generator.integer(0...7))
      variance = Guarded((0..<count).map { _ in abs(generator.normal()) }, shift: generator.integer(0...7))
      gamma = Guarded(generator.normals(count), shift: 1)
      beta = Guarded(generator.normals(count), shift: 2)
      let each: [Scalar] = generator.normals(count, mean: 3)
      shifts = Guarded(each.flatMap { Array(repeating: $0, count: fold) }, shift: 3)
      let scale = values / Double(fold)
      sums = (0..<count * fold).map { _ in generator.normal() * scale * 0.1 }
      others = (0..<count * fold).map { _ in (1 + abs(generator.normal())) * scale }
    }

    var kernel: steppe_channels {
      steppe_channels(
        count: count, fold: fold, values: values, epsilon: epsilon, mean: mean.pointer, remainder: remainder.pointer,
        variance: variance.pointer)
    }
    var isIntact: Bool { mean.isIntact && remainder.isIntact && variance.isIntact }

    func folded(_ columns: [Double], _ c: Int) -> Double { columns[c * fold..<(c + 1) * fold].reduce(0, +) }
    func rstd(_ c: Int) -> Double { 1 / (variance.scalars[c] + epsilon).squareRoot() }
  }

  private func close(_ a: Double, _ b: Double, _ size: Double, _ ulp: Double) -> Bool {
    abs(a - b) <= 4 * ulp * max(size, .leastNormalMagnitude)
  }

  /// Calls `body` with shapes at which slices and chunks of channels end differently.
  private func forEach<Scalar: TensorScalar>(
    _ type: Scalar.Type, _ body: (KernelSet<Scalar>, Channels<Scalar>, inout TestGenerator, String) -> Void
  ) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for count in Array(0...20) + [63, 64, 65, 127, 200] {
        for fold in [1, 2, 7] {
          let channels = Channels<Scalar>(count: count, fold: fold, &generator)
          body(set, channels, &generator, "\(set.name), \(count) channels of \(fold) columns")
        }
      }
    }
  }

  @Test func momentsAndShifts() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      forEach(type) { set, channels, generator, label in
        var kernel = channels.kernel
        let (sums, others) = (Guarded(channels.sums, shift: 1), Guarded(channels.others, shift: 2))
        let near = set.kernels.channel_moments(&kernel, channels.shifts.pointer, sums.pointer, others.pointer)
        var wanted = true
        for c in 0..<channels.count {
          let start = Double(channels.shifts.scalars[c * channels.fold])
          let distance = channels.folded(channels.sums, c) / channels.values
          let meanSquare = channels.folded(channels.others, c) / channels.values
          let variance = max(0, meanSquare - distance * distance)
          let mean = start + distance
          if distance * distance > meanSquare - distance * distance { wanted = false }
          #expect(close(channels.mean.scalars[c], mean, abs(start) + abs(distance), .ulpOfOne), "\(label): mean \(c)")
          #expect(close(channels.variance.scalars[c], variance, meanSquare, .ulpOfOne), "\(label): variance \(c)")
          let remainder = start - Double(Scalar(channels.mean.scalars[c])) + distance
          let found = channels.remainder.scalars[c]
          #expect(close(found, remainder, abs(start) + abs(distance), .ulpOfOne), "\(label): remainder \(c)")
        }
        #expect(near == wanted && channels.isIntact, "\(label)")

        let rows = generator.integer(1...9)
        let columns = channels.count * channels.fold
        let first = Guarded<Scalar>(generator.normals(columns), shift: 2)
        var totals: [Scalar] = generator.normals(columns)
        if columns > 2 { totals[2] = generator.integer(0...1) == 0 ? .infinity : .nan }
        let result = Guarded(totals, shift: 5)
        set.kernels.channel_shifts(channels.count, channels.fold, rows, first.pointer, result.pointer)
        for c in 0..<channels.count {
          let range = c * channels.fold..<(c + 1) * channels.fold
          let mean = totals[range].reduce(0.0) { $0 + Double($1) } / Double(rows * channels.fold)
          let wanted = mean.isFinite ? mean : Double(first.scalars[range.lowerBound])
          for column in range {
            #expect(close(Double(result.scalars[column]), wanted, 8, Double(Scalar.ulpOfOne)), "\(label): shift")
          }
        }
        #expect(result.isIntact, "\(label)")
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func coefficients() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      let ulp = Double(Scalar.ulpOfOne)
      forEach(type) { set, channels, generator, label in
        var kernel = channels.kernel
        let columns = channels.count * channels.fold
        let out = (0..<6).map { _ in Guarded<Scalar>(room: columns, shift: generator.integer(0...15)) }
        set.kernels.channel_affine(
          &kernel, channels.gamma.pointer, channels.beta.pointer, out[0].pointer, out[1].pointer, out[2].pointer)
        let alone = Guarded<Scalar>(room: columns, shift: 1)
        set.kernels.channel_affine(&kernel, nil, nil, alone.pointer, nil, nil)
        let (sums, products) = (Guarded(channels.sums, shift: 1), Guarded(channels.others, shift: 0))
        let (dGamma, dBeta) = (
          Guarded<Double>(room: channels.count, shift: 3), Guarded<Double>(room: channels.count, shift: 4)
        )
        set.kernels.channel_gradients(&kernel, sums.pointer, products.pointer, dGamma.pointer, dBeta.pointer)
        set.kernels.channel_slopes(
          &kernel, channels.gamma.pointer, dGamma.pointer, dBeta.pointer, out[3].pointer, out[4].pointer, out[5].pointer
        )
        for c in 0..<channels.count {
          let (rstd, remainder) = (channels.rstd(c), channels.remainder.scalars[c])
          let (sum, product) = (channels.folded(channels.sums, c), channels.folded(channels.others, c))
          let (g, b, m) = (Double(channels.gamma.scalars[c]), Double(channels.beta.scalars[c]), channels.values)
          let scale = g * rstd
          let gradient = (product - remainder * sum) * rstd
          #expect(close(dBeta.scalars[c], sum, sum.magnitude + m, .ulpOfOne), "\(label): dβ \(c)")
          let size = (product.magnitude + sum.magnitude + m) * rstd
          #expect(close(dGamma.scalars[c], gradient, size, .ulpOfOne), "\(label): dγ \(c)")
          let slope = -scale * rstd * gradient / m
          let wanted = [
            Double(Scalar(channels.mean.scalars[c])), scale, b - remainder * scale, scale, slope,
            -scale * sum / m - slope * remainder,
          ]
          for (index, value) in wanted.enumerated() {
            for column in c * channels.fold..<(c + 1) * channels.fold {
              let size = value.magnitude + (index == 5 ? (scale * sum / m).magnitude : b.magnitude * 1e-3)
              let found = Double(out[index].scalars[column])
              #expect(close(found, value, size, ulp), "\(label): coefficient \(index) of \(c): \(found), not \(value)")
            }
          }
        }
        #expect(alone.scalars == out[0].scalars && alone.isIntact, "\(label)")
        #expect(
          (out.map(\.isIntact) + [dGamma.isIntact, dBeta.isIntact, channels.isIntact]).allSatisfy { $0 }, "\(label)")
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func notANumberStaysInItsChannel() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      forEach(type) { set, channels, _, label in
        guard channels.count > 1 else { return }
        var (sums, others) = (channels.sums, channels.others)
        sums[channels.fold] = .nan
        others[channels.fold] = .nan
        var kernel = channels.kernel
        _ = set.kernels.channel_moments(&kernel, channels.shifts.pointer, sums, others)
        for c in 0..<channels.count {
          #expect(
            channels.mean.scalars[c].isNaN == (c == 1) && channels.variance.scalars[c].isNaN == (c == 1), "\(label)")
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }

  @Test func blending() {
    func check<Scalar: TensorScalar>(_ type: Scalar.Type) {
      var generator = TestGenerator()
      for set in KernelSet<Scalar>.all {
        for count in KernelSet<Scalar>.sizes(&generator) {
          for (factor, kept) in [(0.1, 0.9), (1, 0), (1, 1), (2.5, 0.5)] {
            let x: [Double] = generator.normals(count)
            let old: [Scalar] = kept == 0 ? Array(repeating: .nan, count: count) : generator.normals(count)
            let (from, to) = (Guarded(x, shift: 1), Guarded(old, shift: generator.integer(0...15)))
            set.kernels.blend_doubles(from.pointer, factor, kept, to.pointer, count)
            let found = to.scalars
            let wrong = x.indices.first {
              let before = kept == 0 ? 0 : kept * Double(old[$0])
              let size = abs(factor * x[$0]) + abs(before)
              return !close(Double(found[$0]), factor * x[$0] + before, size, Double(Scalar.ulpOfOne))
            }
            #expect(wrong == nil && to.isIntact, "\(set.name), \(count) values, \(factor) and \(kept): \(wrong ?? -1)")
          }
        }
      }
    }
    check(Float.self)
    check(Double.self)
  }
}
