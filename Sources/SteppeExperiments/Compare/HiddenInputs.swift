import Steppe

/// The inputs of the last hidden layer's activation, whose distribution the paper follows through training (Mathematics §4): their 15th, 50th and
/// 85th percentile over test images, for some of the units.
package enum HiddenInputs {
  package static let percents = [15.0, 50, 85]
  /// How many units are followed, and over how many images.
  package static let units = 10
  static let images = 500

  package static func column(_ unit: Int, _ percent: Double) -> String { "unit\(unit)_p\(Int(percent))" }

  static let probe = Training.Probe(
    columns: (0..<units).flatMap { unit in percents.map { column(unit, $0) } },
    measure: { model, data in
      percentiles(model, data.test.batch(rows: Array(0..<min(images, data.test.count))).features)
    })

  /// For each unit the percentiles.
  package static func percentiles(_ model: Sequential<Float>, _ features: Tensor<Float>) -> [Double] {
    let last = model.layers.lastIndex { $0 is ActivationLayer<Float> }!
    let inputs = model.layers[..<last].reduce(features) { $1($0) }
    return (0..<units).flatMap { unit in
      let values = inputs[0..<inputs.shape[0], unit].scalars.map(Double.init)
      return percents.map { percentile($0, of: values) }
    }
  }

  /// The mean over the units of the way that `value` of a unit's percentiles goes, record by record.
  package static func way(_ table: ExperimentTable, _ value: ([Double]) -> Double) -> Double {
    let ways = (0..<units).map { unit -> Double in
      let columns = percents.map { table.numbers(column(unit, $0)) }
      let values = columns[0].indices.map { row in value(columns.map { $0[row] }) }.filter(\.isFinite)
      return zip(values, values.dropFirst()).reduce(0) { $0 + abs($1.1 - $1.0) }
    }
    return ways.reduce(0, +) / Double(units)
  }

  /// The first unit's percentiles by step, as a median and a band.
  static func series(_ title: String, _ style: Chart.Style, _ table: ExperimentTable) -> Chart.Series {
    let columns = percents.map { table.numbers(column(0, $0)) }
    let points = table.numbers("step").enumerated().compactMap { row, step in
      columns[0][row].isFinite ? Chart.Point(step, Spread(columns[0][row], columns[1][row], columns[2][row])) : nil
    }
    return Chart.Series(title, style, points, diverges: table.hasDiverged)
  }
}
