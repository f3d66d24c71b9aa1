import Reference
import Steppe
import Testing

@Suite struct LearningRateScheduleTests {
  @Test func constant() {
    #expect([0, 1, 1_000_000].allSatisfy { ConstantRate(0.3).rate(at: $0) == 0.3 })
  }

  @Test func stepDecay() {
    let schedule = StepDecay(initial: 0.8, factor: 0.5, every: 3)
    #expect((0..<9).map { schedule.rate(at: $0) } == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2])
  }

  @Test func cosineDecay() {
    let schedule = CosineDecay(initial: 1, final: 0.2, steps: 6)
    // cos of 0, 30, …, 180 degrees.
    let root = 3.0.squareRoot() / 2
    let expected = [1, root, 0.5, 0, -0.5, -root, -1].map { 0.2 + 0.8 * (1 + $0) / 2 }
    for (step, rate) in expected.enumerated() { #expect(abs(schedule.rate(at: step) - rate) < 1e-15) }
    #expect(schedule.rate(at: 7) == 0.2 && schedule.rate(at: 1000) == 0.2)
  }

  @Test func warmup() {
    let schedule = Warmup(steps: 4, then: StepDecay(initial: 1, factor: 0.1, every: 2))
    let expected = [0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1]
    for (step, rate) in expected.enumerated() { #expect(abs(schedule.rate(at: step) - rate) < 1e-15) }
    #expect(Warmup(steps: 0, then: ConstantRate(0.5)).rate(at: 0) == 0.5)
  }

  @Test func settingsThatMakeNoSenseStop() async {
    let rate = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = ConstantRate(-1)
    }
    let rateMessage = String(decoding: rate?.standardErrorContent ?? [], as: UTF8.self)
    #expect(rateMessage.contains("ConstantRate: expected rate"))
    let every = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      _ = StepDecay(initial: 1, factor: 0.1, every: 0)
    }
    let everyMessage = String(decoding: every?.standardErrorContent ?? [], as: UTF8.self)
    #expect(everyMessage.contains("StepDecay: expected every"))
  }
}
