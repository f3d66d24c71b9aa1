import Steppe
import SteppeExperiments

/// What `steppe surface` found, in words and tables.
enum SurfaceReport {
  static func summary(
    _ linear: [ExperimentTable], _ planes: [ExperimentTable], loss: Double, limit: Int
  ) -> String {
    let (raw, standardized) = (conditions(linear, "raw"), conditions(linear, "standardized"))
    var lines = [
      "condition number: \(range(raw)) raw, \(range(standardized)) standardized (median, least … greatest of "
        + "\(linear.count) data sets)", "",
      table(
        [["method, steps to a loss of \(loss)", "raw", "standardized", "ratio"]]
          + DescentMethod.allCases.map { row($0, linear, limit: limit) }),
    ]
    if let ratio = ratio(.sgd, linear) {
      lines += [
        "",
        "Standardization brought the condition number from \(threeDigits(median(raw))) to \(threeDigits(median(standardized))), and "
          + "gradient descent needs \(threeDigits(ratio)) times fewer steps.",
      ]
    }
    let rise = planes.map(self.rise)
    lines += [
      "",
      table(
        [["network", "loss at its place", "at the plane's border (median)", "greatest"]]
          + zip(["without batch norm", "with batch norm"], rise).map {
            [$0, threeDigits($1.center), threeDigits($1.border), threeDigits($1.greatest)]
          }),
      "",
      "One norm of its weights away the loss of the network without batch norm is \(threeDigits(rise[0].border)) and at most "
        + "\(threeDigits(rise[0].greatest)), with it \(threeDigits(rise[1].border)) and at most \(threeDigits(rise[1].greatest)).",
    ]
    return lines.joined(separator: "\n")
  }

  private static func conditions(_ linear: [ExperimentTable], _ surface: String) -> [Double] {
    linear.map { $0.filtered("surface", surface).numbers("condition")[0] }
  }

  /// The steps of each data set; nil where one did not come down.
  private static func steps(_ method: DescentMethod, _ linear: [ExperimentTable], _ surface: String) -> [Double]? {
    let rows = linear.map { $0.filtered("surface", surface).filtered("method", method.rawValue) }
    return rows.allSatisfy { $0.fields("reached") == ["true"] } ? rows.map { $0.numbers("steps")[0] } : nil
  }

  private static func ratio(_ method: DescentMethod, _ linear: [ExperimentTable]) -> Double? {
    guard let raw = steps(method, linear, "raw"), let standardized = steps(method, linear, "standardized") else {
      return nil
    }
    return median(zip(raw, standardized).map { $0 / $1 })
  }

  private static func row(_ method: DescentMethod, _ linear: [ExperimentTable], limit: Int) -> [String] {
    func cell(_ surface: String) -> String {
      steps(method, linear, surface).map(range) ?? "not in \(grouped(limit))"
    }
    return [method.rawValue, cell("raw"), cell("standardized"), ratio(method, linear).map(threeDigits) ?? "-"]
  }

  /// A plane's loss at the network's own place, and at its border.
  static func rise(_ plane: ExperimentTable) -> (center: Double, border: Double, greatest: Double) {
    let points = zip(zip(plane.numbers("first"), plane.numbers("second")), plane.numbers("loss"))
    let reach = SurfaceExperiment.reach
    let border = points.filter { max(abs($0.0.0), abs($0.0.1)) == reach }.map(\.1)
    let center = points.min { max(abs($0.0.0), abs($0.0.1)) < max(abs($1.0.0), abs($1.0.1)) }!.1
    return (center, median(border), plane.numbers("loss").max()!)
  }

  private static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }

  private static func range(_ values: [Double]) -> String {
    values.count == 1
      ? threeDigits(values[0])
      : "\(threeDigits(median(values))) (\(threeDigits(values.min()!)) … \(threeDigits(values.max()!)))"
  }
}
