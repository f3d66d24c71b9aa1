/// How often examples of each class were given each class.
///
/// ```swift
/// let result = try evaluate(model, on: test)
/// print(result.confusion)                    // the counts, and precision, recall and F1 of each class
/// ```
public struct ConfusionMatrix: Sendable, Hashable, CustomStringConvertible {
  /// `counts[label][prediction]`: how many examples of class `label` were given class `prediction`.
  public private(set) var counts: [[Int]]

  /// An empty matrix for `classes` classes.
  public init(classes: Int) {
    require(classes >= 0, "ConfusionMatrix: expected a number of classes from 0, got \(classes)")
    counts = Array(repeating: Array(repeating: 0, count: classes), count: classes)
  }

  /// The matrix of such counts, row after row.
  init(counts: [Int], classes: Int) {
    self.counts = (0..<classes).map { Array(counts[$0 * classes..<($0 + 1) * classes]) }
  }

  /// The number of classes.
  public var classes: Int { counts.count }
  /// The number of examples.
  public var total: Int { counts.reduce(0) { $0 + $1.reduce(0, +) } }
  /// The number of examples that were given their class.
  public var correct: Int { counts.indices.reduce(0) { $0 + counts[$1][$1] } }
  /// ``correct`` over ``total``; NaN where there are no examples.
  public var accuracy: Double { Double(correct) / Double(total) }

  /// Counts examples by their labels and predictions, all of them classes.
  public mutating func add(labels: [Int], predictions: [Int]) {
    require(
      labels.count == predictions.count,
      "ConfusionMatrix.add: \(labels.count) labels and \(predictions.count) predictions")
    for (label, prediction) in zip(labels, predictions) {
      require(
        counts.indices.contains(label) && counts.indices.contains(prediction),
        "ConfusionMatrix.add: label \(label) or prediction \(prediction) is outside 0 ..< \(classes)")
      counts[label][prediction] += 1
    }
  }

  /// The same counts among more classes.
  func widened(to classes: Int) -> ConfusionMatrix {
    var result = ConfusionMatrix(classes: classes)
    for label in counts.indices { result.counts[label].replaceSubrange(0..<self.classes, with: counts[label]) }
    return result
  }

  /// The share of the examples given `label` that are of it; NaN where none was given it.
  public func precision(of label: Int) -> Double { Double(counts[label][label]) / Double(predicted(label)) }

  /// The share of the examples of `label` that were given it; NaN where there are none.
  public func recall(of label: Int) -> Double { Double(counts[label][label]) / Double(actual(label)) }

  /// The harmonic mean of precision and recall, 2·TP/(2·TP + FP + FN); NaN where none is of `label` or was given it.
  public func f1(of label: Int) -> Double {
    2 * Double(counts[label][label]) / Double(predicted(label) + actual(label))
  }

  private func predicted(_ label: Int) -> Int { counts.reduce(0) { $0 + $1[label] } }
  private func actual(_ label: Int) -> Int { counts[label].reduce(0, +) }

  /// A table: a row for each class with its counts by prediction, then its recall, precision and F1 in percent.
  public var description: String {
    let width = max(5, "\(counts.joined().max() ?? 0)".count, "\(classes)".count) + 1
    func cell(_ text: String) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
    func percent(_ value: Double) -> String {
      if value.isNaN { return cell("-") }
      let tenths = Int((value * 1000).rounded())
      return cell("\(tenths / 10).\(tenths % 10)")
    }
    let measures = ["rec.%", "prec%", "F1 %"].map(cell).joined()
    let header = cell("class") + counts.indices.map { cell("\($0)") }.joined() + measures
    let rows = counts.indices.map { label in
      cell("\(label)") + counts[label].map { cell("\($0)") }.joined() + percent(recall(of: label))
        + percent(precision(of: label)) + percent(f1(of: label))
    }
    return ([header] + rows).joined(separator: "\n")
  }
}
