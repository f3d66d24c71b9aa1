import Glibc

/// Mathematics §11: one step of each optimizer on one element, in Float64, as the papers and PyTorch's documentation write them.
public enum NaiveOptimizers {
  /// Stochastic gradient descent. `velocity` is nil before the element's first step.
  public static func sgd(
    _ p: inout Double, _ g: Double, velocity: inout Double?, rate: Double, momentum: Double, dampening: Double,
    nesterov: Bool, decay: Double
  ) {
    let g = g + decay * p
    if momentum == 0 {
      p = p - rate * g
      return
    }
    let v = velocity == nil ? g : momentum * velocity! + (1 - dampening) * g
    velocity = v
    p = p - rate * (nesterov ? g + momentum * v : v)
  }

  /// Adagrad.
  public static func adagrad(
    _ p: inout Double, _ g: Double, sum: inout Double, rate: Double, epsilon: Double, decay: Double
  ) {
    let g = g + decay * p
    sum = sum + g * g
    p = p - rate * g / (sqrt(sum) + epsilon)
  }

  /// RMSProp.
  public static func rmsProp(
    _ p: inout Double, _ g: Double, average: inout Double, buffer: inout Double, rate: Double, alpha: Double,
    epsilon: Double, momentum: Double, decay: Double
  ) {
    let g = g + decay * p
    average = alpha * average + (1 - alpha) * g * g
    let u = g / (sqrt(average) + epsilon)
    if momentum == 0 {
      p = p - rate * u
      return
    }
    buffer = momentum * buffer + u
    p = p - rate * buffer
  }

  /// Adam at the `step`-th step, from 1; AdamW where `decoupled`.
  public static func adam(
    _ p: inout Double, _ g: Double, m: inout Double, v: inout Double, step: Int, rate: Double, beta1: Double,
    beta2: Double, epsilon: Double, decay: Double, decoupled: Bool
  ) {
    var g = g
    if decoupled { p = p - rate * decay * p } else { g = g + decay * p }
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    let unbiasedM = m / (1 - pow(beta1, Double(step)))
    let unbiasedV = v / (1 - pow(beta2, Double(step)))
    p = p - rate * unbiasedM / (sqrt(unbiasedV) + epsilon)
  }
}
