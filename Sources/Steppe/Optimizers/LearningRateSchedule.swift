import Glibc

/// The learning rate as a function of the step alone, so that a resumed run goes on with the same rates.
///
/// ```swift
/// let schedule = Warmup(steps: 500, then: CosineDecay(initial: 0.1, final: 0, steps: 20_000))
/// optimizer.learningRate = schedule.rate(at: optimizer.stepCount)
/// ```
public protocol LearningRateSchedule: Sendable {
  /// The rate of a step, counted from 0.
  func rate(at step: Int) -> Double
}

/// The same rate at every step.
public struct ConstantRate: LearningRateSchedule, Equatable {
  /// The rate.
  public let rate: Double

  /// A schedule of `rate`, at least 0.
  public init(_ rate: Double) {
    requireRate("ConstantRate", "rate", rate)
    self.rate = rate
  }

  /// ``rate``.
  public func rate(at step: Int) -> Double { rate }
}

/// A rate that is multiplied by a factor every so many steps: initial · factor^⌊step / every⌋.
public struct StepDecay: LearningRateSchedule, Equatable {
  /// The rate of the first steps.
  public let initial: Double
  /// What the rate is multiplied by.
  public let factor: Double
  /// The steps from one change to the next.
  public let every: Int

  /// - Parameters:
  ///   - initial: The rate of the first steps, at least 0.
  ///   - factor: What the rate is multiplied by, at least 0.
  ///   - every: The steps from one change to the next, at least 1.
  public init(initial: Double, factor: Double, every: Int) {
    requireRate("StepDecay", "initial", initial)
    requireRate("StepDecay", "factor", factor)
    require(every > 0, "StepDecay: expected every above 0, got \(every)")
    (self.initial, self.factor, self.every) = (initial, factor, every)
  }

  /// initial · factor^⌊step / every⌋.
  public func rate(at step: Int) -> Double { initial * pow(factor, Double(max(step, 0) / every)) }
}

/// A rate that falls along half a cosine and then stays (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts):
/// final + (initial − final) · (1 + cos(π · step / steps)) / 2.
public struct CosineDecay: LearningRateSchedule, Equatable {
  /// The rate at step 0.
  public let initial: Double
  /// The rate from step `steps` on.
  public let final: Double
  /// How many steps the fall takes.
  public let steps: Int

  /// - Parameters:
  ///   - initial: The rate at step 0, at least 0.
  ///   - final: The rate from step `steps` on, at least 0.
  ///   - steps: How many steps the fall takes, at least 1.
  public init(initial: Double, final: Double, steps: Int) {
    requireRate("CosineDecay", "initial", initial)
    requireRate("CosineDecay", "final", final)
    require(steps > 0, "CosineDecay: expected steps above 0, got \(steps)")
    (self.initial, self.final, self.steps) = (initial, final, steps)
  }

  /// The cosine's value, or `final` from step `steps` on.
  public func rate(at step: Int) -> Double {
    if step >= steps { return final }
    return final + (initial - final) * (1 + cos(.pi * Double(max(step, 0)) / Double(steps))) / 2
  }
}

/// A rate that rises evenly to the first rate of another schedule, which then follows (Goyal et al. 2017, arXiv 1706.02677).
///
/// Step s of the rise has (s + 1) / (steps + 1) of that rate; step `steps` is the other schedule's step 0.
public struct Warmup: LearningRateSchedule {
  /// How many steps the rise takes.
  public let steps: Int
  /// What follows.
  public let schedule: any LearningRateSchedule

  /// - Parameters:
  ///   - steps: How many steps the rise takes, at least 0.
  ///   - schedule: What follows.
  public init(steps: Int, then schedule: any LearningRateSchedule) {
    require(steps >= 0, "Warmup: expected steps of at least 0, got \(steps)")
    (self.steps, self.schedule) = (steps, schedule)
  }

  /// The rise's value, or the other schedule's from step `steps` on.
  public func rate(at step: Int) -> Double {
    if step >= steps { return schedule.rate(at: step - steps) }
    return schedule.rate(at: 0) * Double(max(step, 0) + 1) / Double(steps + 1)
  }
}

private func requireRate(_ schedule: StaticString, _ name: StaticString, _ value: Double) {
  require(value >= 0 && value.isFinite, "\(schedule): expected \(name) at least 0, got \(value)")
}
