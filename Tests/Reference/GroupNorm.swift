// Layer, RMS, group and instance normalization in Float64, as Mathematics §6 to §8 write them.

/// What normalizes together: the groups of `index`'s channels in each sample. Layer norm over D features is n = rows, c = D, s = 1 with
/// one group; instance norm has as many groups as channels.
public struct GroupReference {
  public var y: [Double] = []
  public var dx: [Double] = []
  public var dGamma: [Double]
  public var dBeta: [Double]
  /// For each value, 1/√(variance + ε) of its group.
  public var rstd: [Double] = []
  /// For each sample's groups in turn.
  public var means: [Double] = []
  public var variances: [Double] = []

  /// y = γ·x̂ + β and, with g = γ·dy, dx = rstd·(g − mean(g) − x̂·mean(g·x̂)), dγ = Σdy·x̂, dβ = Σdy. Without centering (RMSNorm)
  /// x̂ = x/√(mean(x²) + ε), and mean(g) is left out.
  public init(
    _ x: [Double], dy: [Double], _ index: ChannelIndex, groups: Int, gamma: [Double], beta: [Double], epsilon: Double,
    isCentered: Bool = true
  ) {
    y = Array(repeating: .nan, count: x.count)
    dx = y
    rstd = y
    var gammaSums = Array(repeating: CompensatedSum(), count: index.c)
    var betaSums = gammaSums
    let width = index.c / groups
    let m = Double(width * index.s)
    for i in 0..<index.n {
      for group in 0..<groups {
        let channels = group * width..<(group + 1) * width
        let places = channels.flatMap { j in (0..<index.s).map { k in (j, index.place(i, j, k)) } }
        // μ − origin, from the group's first value, so that a large mean costs the reference nothing
        let origin = isCentered ? x[places[0].1] : 0
        var total = CompensatedSum()
        for (_, p) in places { total.add(x[p] - origin) }
        let offset = isCentered ? total.value / m : 0
        var squares = CompensatedSum()
        for (_, p) in places {
          let d = x[p] - origin - offset
          squares.add(d * d)
        }
        let scale = 1 / (squares.value / m + epsilon).squareRoot()
        means.append(origin + offset)
        variances.append(squares.value / m)
        var (first, second) = (CompensatedSum(), CompensatedSum())
        for (j, p) in places {
          let hat = (x[p] - origin - offset) * scale
          y[p] = gamma[j] * hat + beta[j]
          first.add(gamma[j] * dy[p])
          second.add(gamma[j] * dy[p] * hat)
          gammaSums[j].add(dy[p] * hat)
          betaSums[j].add(dy[p])
        }
        for (j, p) in places {
          let hat = (x[p] - origin - offset) * scale
          let mean = isCentered ? first.value / m : 0
          dx[p] = scale * (gamma[j] * dy[p] - mean - hat * second.value / m)
          rstd[p] = scale
        }
      }
    }
    dGamma = gammaSums.map(\.value)
    dBeta = betaSums.map(\.value)
  }
}
