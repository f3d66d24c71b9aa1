import CSteppeKernels
import Glibc
import Reference
import Steppe
import Testing

@Suite struct OptimizerKernelTests {
  /// A kernel with its settings, and the same step on one element in Float64 (`s` and `t` are its state).
  private struct Case {
    let name: String
    var settings: steppe_optimizer_step
    let run: (steppe_kernel_table, inout steppe_optimizer_step, [UnsafeMutableRawPointer], Int) -> Void
    let states: Int
    let reference: (_ p: inout Double, _ g: Double, _ s: inout Double, _ t: inout Double) -> Void
  }

  private static func cases() -> [Case] {
    var base = steppe_optimizer_step()
    base.learning_rate = 0.05
    base.gradient_scale = 0.75
    base.weight_decay = 0.1
    var cases: [Case] = []
    for (momentum, dampening, nesterov, first) in [
      (0, 0, false, false), (0.9, 0, false, true), (0.9, 0.25, false, false), (0.9, 0, true, false),
      (0.9, 0, true, true),
    ] {
      var settings = base
      (settings.momentum, settings.dampening) = (momentum, dampening)
      (settings.nesterov, settings.first) = (nesterov, first)
      cases.append(
        Case(
          name: "sgd \(momentum) \(dampening) \(nesterov) \(first)", settings: settings,
          run: { $0.sgd(&$1, $2[0], $2[1], momentum == 0 ? nil : $2[2], $3) }, states: momentum == 0 ? 0 : 1,
          reference: { p, g, s, _ in
            var velocity: Double? = first ? nil : s
            NaiveOptimizers.sgd(
              &p, 0.75 * g, velocity: &velocity, rate: 0.05, momentum: momentum, dampening: dampening,
              nesterov: nesterov, decay: 0.1)
            s = velocity ?? s
          }))
    }
    var adaptive = base
    adaptive.epsilon = 1e-3
    cases.append(
      Case(
        name: "adagrad", settings: adaptive, run: { $0.adagrad(&$1, $2[0], $2[1], $2[2], $3) }, states: 1,
        reference: { p, g, s, _ in
          NaiveOptimizers.adagrad(&p, 0.75 * g, sum: &s, rate: 0.05, epsilon: 1e-3, decay: 0.1)
        }))
    for momentum in [0, 0.8] {
      var settings = adaptive
      (settings.beta2, settings.momentum) = (0.95, momentum)
      cases.append(
        Case(
          name: "rmsprop \(momentum)", settings: settings,
          run: { $0.rmsprop(&$1, $2[0], $2[1], $2[2], momentum == 0 ? nil : $2[3], $3) }, states: momentum == 0 ? 1 : 2,
          reference: { p, g, s, t in
            NaiveOptimizers.rmsProp(
              &p, 0.75 * g, average: &s, buffer: &t, rate: 0.05, alpha: 0.95, epsilon: 1e-3, momentum: momentum,
              decay: 0.1)
          }))
    }
    for decoupled in [false, true] {
      var settings = adaptive
      (settings.beta1, settings.beta2, settings.decoupled) = (0.9, 0.99, decoupled)
      (settings.bias_correction1, settings.bias_correction2) = (1 - pow(0.9, 3), 1 - pow(0.99, 3))
      cases.append(
        Case(
          name: "adam \(decoupled)", settings: settings, run: { $0.adam(&$1, $2[0], $2[1], $2[2], $2[3], $3) },
          states: 2,
          reference: { p, g, s, t in
            NaiveOptimizers.adam(
              &p, 0.75 * g, m: &s, v: &t, step: 3, rate: 0.05, beta1: 0.9, beta2: 0.99, epsilon: 1e-3, decay: 0.1,
              decoupled: decoupled)
          }))
    }
    return cases
  }

  @Test func stepsMatchReference() {
    steps(Float.self)
    steps(Double.self)
  }

  private func steps<Scalar: TensorScalar>(_ type: Scalar.Type) {
    var generator = TestGenerator()
    for set in KernelSet<Scalar>.all {
      for test in Self.cases() {
        for size in Array(0...70) + [1000, generator.integer(1001...5000)] {
          for clears in [false, true] {
            var settings = test.settings
            settings.clear_gradient = clears
            let p = Guarded<Scalar>(generator.normals(size), shift: generator.integer(0...15))
            let g = Guarded<Scalar>(generator.normals(size), shift: generator.integer(0...15))
            // Not negative, as sums of squares are.
            let s = Guarded<Scalar>(generator.normals(size).map { abs($0) }, shift: generator.integer(0...15))
            let t = Guarded<Scalar>(generator.normals(size).map { abs($0) }, shift: generator.integer(0...15))
            // What a first step must not read.
            if settings.first { s.pointer.update(repeating: .nan, count: size) }
            let before = (p: p.scalars.doubles, g: g.scalars.doubles, s: s.scalars.doubles, t: t.scalars.doubles)
            test.run(set.kernels, &settings, [p.pointer, g.pointer, s.pointer, t.pointer], size)
            var after = before
            for i in 0..<size { test.reference(&after.p[i], before.g[i], &after.s[i], &after.t[i]) }
            let message = "\(set.name) \(test.name) of \(size)"
            // A step rounds at each term: those are of the rate's size and a few times more.
            let terms = zip(before.p, after.p).map { abs($0) + abs($1) + 4 * settings.learning_rate }
            let value = worstError(p.scalars, after.p, magnitude: terms)
            #expect(value.ulps <= 4, "\(message): parameter \(value)")
            if test.states > 0 {
              let error = worstError(s.scalars, after.s, magnitude: after.s.map { max(abs($0), 4) })
              #expect(error.ulps <= 4, "\(message): first state \(error)")
            }
            let second = worstError(
              t.scalars, test.states > 1 ? after.t : before.t, magnitude: after.t.map { max(abs($0), 4) })
            #expect(second.ulps <= (test.states > 1 ? 4 : 0), "\(message): second state \(second)")
            #expect(g.scalars.doubles == (clears ? before.g.map { _ in 0 } : before.g), "\(message): gradient")
            #expect(p.isIntact && g.isIntact && s.isIntact && t.isIntact, "\(message)")
          }
        }
      }
    }
  }
}
