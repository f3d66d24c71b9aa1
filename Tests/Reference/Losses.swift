import Glibc

/// Losses and their gradients by their formulas, in Float64, one row or element at a time. Each returns the mean and its gradient.
public enum NaiveLosses {
  /// −Σ_c t_c log softmax(x)_c for each row of `x` [rows, columns], averaged; t = (1 − s)·targets + s/columns.
  public static func softmaxCrossEntropy(
    _ x: [Double], targets: [Double], columns: Int, smoothing: Double
  ) -> (loss: Double, gradient: [Double]) {
    let rows = x.count / columns
    var terms: [Double] = []
    var gradient = x
    for row in 0..<rows {
      let place = row * columns..<(row + 1) * columns
      let p = softmax(Array(x[place]))
      let logarithms = logSoftmax(Array(x[place]))
      let t = targets[place].map { (1 - smoothing) * $0 + smoothing / Double(columns) }
      let weight = NaiveKernels.sum(t)
      for c in 0..<columns {
        // A class of weight 0 costs nothing, even one of probability 0.
        if t[c] != 0 { terms.append(-t[c] * logarithms[c]) }
        gradient[row * columns + c] = (p[c] * weight - t[c]) / Double(rows)
      }
    }
    return (NaiveKernels.sum(terms) / Double(rows), gradient)
  }

  /// exp(x) / Σ exp(x) of one row.
  public static func softmax(_ x: [Double]) -> [Double] {
    let maximum = x.max()!
    let powers = x.map { exp($0 - maximum) }
    let sum = NaiveKernels.sum(powers)
    return powers.map { $0 / sum }
  }

  /// What rounding goes by in softmax(x) of one row: a distance d to the greatest, rounded once, is a relative error of |d| halves of
  /// an ulp in its exponential.
  public static func softmaxMagnitude(_ x: [Double]) -> [Double] {
    let maximum = x.max()!
    return zip(x, softmax(x)).map { (1 + maximum - $0) * $1 }
  }

  /// log softmax(x) of one row.
  public static func logSoftmax(_ x: [Double]) -> [Double] {
    let maximum = x.max()!
    let sum = NaiveKernels.sum(x.map { exp($0 - maximum) })
    return x.map { $0 - maximum - log(sum) }
  }

  /// (p − t)²
  public static func meanSquaredError(_ p: [Double], _ t: [Double]) -> (loss: Double, gradient: [Double]) {
    mean(p, t) { r in (r * r, 2 * r) }
  }

  /// |p − t|
  public static func meanAbsoluteError(_ p: [Double], _ t: [Double]) -> (loss: Double, gradient: [Double]) {
    mean(p, t) { r in (abs(r), r > 0 ? 1 : r < 0 ? -1 : 0) }
  }

  /// r²/2 where |r| ≤ δ, else δ(|r| − δ/2)
  public static func huber(_ p: [Double], _ t: [Double], delta: Double) -> (loss: Double, gradient: [Double]) {
    mean(p, t) { r in
      abs(r) <= delta ? (r * r / 2, r) : (delta * (abs(r) - delta / 2), r > 0 ? delta : -delta)
    }
  }

  /// −t log σ(x) − (1 − t) log(1 − σ(x)), with log σ(x) = −log(1 + exp(−x)) taken where it does not overflow.
  public static func binaryCrossEntropy(_ x: [Double], _ t: [Double]) -> (loss: Double, gradient: [Double]) {
    func softplus(_ x: Double) -> Double { x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)) }
    var (terms, gradient) = (x, x)
    for i in x.indices {
      terms[i] = t[i] * softplus(-x[i]) + (1 - t[i]) * softplus(x[i])
      gradient[i] = (1 / (1 + exp(-x[i])) - t[i]) / Double(x.count)
    }
    return (NaiveKernels.sum(terms) / Double(x.count), gradient)
  }

  private static func mean(
    _ p: [Double], _ t: [Double], _ term: (Double) -> (Double, Double)
  ) -> (loss: Double, gradient: [Double]) {
    let terms = zip(p, t).map { term($0 - $1) }
    let count = Double(terms.count)
    return (NaiveKernels.sum(terms.map(\.0)) / count, terms.map { $0.1 / count })
  }
}
