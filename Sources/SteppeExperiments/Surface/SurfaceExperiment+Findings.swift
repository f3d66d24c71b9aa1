import Steppe

extension SurfaceExperiment {
  func linearFinding(_ linear: [ExperimentTable], paths: ExperimentTable, seed: UInt64) -> Finding {
    func conditions(_ surface: String) -> Spread {
      Spread(linear.map { $0.filtered("surface", surface).numbers("condition")[0] })!
    }
    /// The steps of each data set; nil where one did not come down.
    func steps(_ method: DescentMethod, _ surface: String) -> [Double]? {
      let rows = linear.map { $0.filtered("surface", surface).filtered("method", method.rawValue) }
      return rows.allSatisfy { $0.fields("reached") == ["true"] } ? rows.map { $0.numbers("steps")[0] } : nil
    }
    func ratio(_ method: DescentMethod) -> Double? {
      guard let raw = steps(method, "raw"), let standardized = steps(method, "standardized") else { return nil }
      return median(zip(raw, standardized).map { $0 / $1 })
    }
    func cell(_ method: DescentMethod, _ surface: String) -> String {
      steps(method, surface).map { Spread($0)!.text(threeDigits) } ?? "not in \(grouped(limit))"
    }
    let (raw, standardized) = (conditions("raw"), conditions("standardized"))
    let (sgd, level) = (ratio(.sgd), steps(.sgd, "standardized").map(median))
    let adaptive: [DescentMethod] = [.adagrad, .rmsProp, .adam]
    let ravine = adaptive.compactMap { steps($0, "raw").map(median) }.min()
    return Finding(
      "surface-linear", title: "The error surface of two features",
      question:
        "A small and a large feature make the error surface a ravine. What does it become when both are standardized, and which "
        + "way does gradient descent take?",
      pictures: [
        Picture(
          "linear",
          alternative: "Contours of the loss over two weights: on raw features a ravine with condition number "
            + "\(threeDigits(raw.median)), that the descents cross to and fro; on standardized ones a round bowl that they go straight down.",
          .descents(paths: paths, seed: seed)),
        Picture(
          "linear-loss", alternative: "The loss by step of five methods on both surfaces, both axes logarithmic.",
          .descentLosses(paths: paths, limit: loss)),
      ],
      table: FindingTable(
        header: ["steps to a loss of \(loss)", "raw", "standardized", "fewer"],
        rows: DescentMethod.allCases.map { method in
          [
            method.rawValue, cell(method, "raw"), cell(method, "standardized"),
            ratio(method).map { "× " + threeDigits($0) } ?? "–",
          ]
        }),
      published:
        "Gradient descent needs steps in proportion to the condition number κ (a textbook’s theorem); LeCun et al. 1998 "
        + "(“Efficient BackProp”) therefore standardize the inputs.",
      checks: [
        .init(
          "The condition number falls from above 1000 to below 2",
          "condition number: \(raw.text(threeDigits)) raw, \(standardized.text(threeDigits)) standardized",
          holds: raw.least > 1000 && standardized.greatest < 2),
        .init(
          "Gradient descent needs at least 100 times fewer steps",
          sgd.map { "\(threeDigits($0)) times fewer" } ?? "it does not come down", holds: (sgd ?? 0) >= 100),
        .init(
          "Adaptive rates come down the ravine too, but in more steps than plain gradient descent on the level surface",
          "\(ravine.map(threeDigits) ?? "none") steps against \(level.map(threeDigits) ?? "none")",
          holds: ravine != nil && level != nil && ravine! > level!),
      ],
      note:
        "A linear model of two weights on 200 examples, whole-data steps; each method has the rate, of 21 from a factor of 10⁵, that takes the fewest "
        + "steps. κ is LAPACK’s greatest over its least eigenvalue. "
        + (linear.count == 1 ? "One data set." : "Median and range of \(linear.count) data sets."))
  }

  struct Plane {
    let normalization: Normalization
    let random: ExperimentTable
    /// Along the way from the first weights to the learned ones, and a random direction.
    let training: ExperimentTable
  }

  func networkFinding(_ planes: [Plane], units: [Int]) -> Finding {
    let rises = planes.map { Self.rise($0.random) }
    let walls = planes.map { Self.rise($0.training) }
    let network = units.map(String.init).joined(separator: "-")
    return Finding(
      "surface-network", title: "The error surface of a deep network",
      question:
        "Does batch norm inside the network do to its surface what standardized inputs do to the linear model’s?",
      pictures: [
        Picture(
          "network",
          alternative:
            "The loss around the trained network along two random directions, as maps and in relief: at the border "
            + "\(threeDigits(rises[0].border)) in the median without batch norm, \(threeDigits(rises[1].border)) with it.",
          .planes(
            planes.map { ($0.normalization.title, $0.random) },
            title: "The loss of \(network) around what it learned, along two random directions",
            axes: ("first direction (norms of the weights)", "second direction"))),
        Picture(
          "network-training",
          alternative:
            "The loss along the way from the first weights to the learned ones and a random direction: at most "
            + "\(threeDigits(walls[0].greatest)) without batch norm, \(threeDigits(walls[1].greatest)) with it.",
          .planes(
            planes.map { ($0.normalization.title, $0.training) },
            title: "The loss of \(network) along the way that training took",
            axes: ("way of training: −1 the first weights, 0 the learned", "random direction"))),
      ],
      table: FindingTable(
        header: ["network", "loss at its place", "at the plane’s border (median)", "greatest"],
        rows: zip(planes, rises).map { plane, rise in
          [
            "\(plane.normalization.title)", threeDigits(rise.center), threeDigits(rise.border),
            threeDigits(rise.greatest),
          ]
        }),
      published:
        "Li et al. 2018 draw such planes for residual networks (“Visualizing the Loss Landscape”); Santurkar et al. 2018 find the "
        + "loss of networks with batch norm smoother. Neither gives figures for this network.",
      checks: [
        .init(
          "Around the network with batch norm the loss rises less",
          "\(threeDigits(rises[1].border)) against \(threeDigits(rises[0].border)) at the border, in the median",
          holds: rises[1].border < rises[0].border),
        .init(
          "… also where it rises most", "\(threeDigits(rises[1].greatest)) against \(threeDigits(rises[0].greatest))",
          holds: rises[1].greatest < rises[0].greatest),
      ],
      note:
        "\(network) with ReLU, \(grouped(trainingSteps)) steps of momentum 0.9 at rate \(Self.rate) from the same weights; a random "
        + "direction is normal noise in which a unit’s row has the norm of the unit’s weights (filter normalization), "
        + "so that networks of other weight sizes compare. "
        + "One seed."
    )
  }

  /// A plane's loss at the network's own place, and at its border.
  package static func rise(_ plane: ExperimentTable) -> (center: Double, border: Double, greatest: Double) {
    let points = zip(zip(plane.numbers("first"), plane.numbers("second")), plane.numbers("loss"))
    let border = points.filter { max(abs($0.0.0), abs($0.0.1)) == reach }.map(\.1)
    let center = points.min { max(abs($0.0.0), abs($0.0.1)) < max(abs($1.0.0), abs($1.0.1)) }!.1
    return (center, median(border), plane.numbers("loss").max()!)
  }
}
