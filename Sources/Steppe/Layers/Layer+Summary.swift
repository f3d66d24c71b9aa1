extension Layer {
  /// A line that counts the numbers in all parameters, and one for each layer, this one where it has parameters of its own and all within it,
  /// with name, type and the shapes of its own parameters.
  ///
  /// ```
  /// Sequential, 79510 numbers in 5 parameters
  ///   0  Dense      weight [100, 784]
  ///   1  BatchNorm  gamma [100], beta [100]
  ///   2  ReLU
  ///   3  Dense      weight [10, 100], bias [10]
  /// ```
  public var summary: String {
    let rows = (ownParameters.isEmpty ? [] : [row]) + Self.rows(of: innerLayers, within: name)
    let (names, types) = (rows.map(\.name.count).max() ?? 0, rows.map(\.type.count).max() ?? 0)
    func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: width - text.count) }
    let all = distinct(parameters)
    var lines = [
      "\(typeName), \(all.reduce(0) { $0 + $1.value.count }) numbers in \(all.count) parameter\(all.count == 1 ? "" : "s")"
    ]
    for row in rows {
      let name = "  \(padded(row.name, names))  "
      lines.append(row.parameters.isEmpty ? name + row.type : "\(name)\(padded(row.type, types))  \(row.parameters)")
    }
    return lines.joined(separator: "\n")
  }

  private typealias SummaryRow = (name: String, type: String, parameters: String)

  private static func rows(of layers: [any Layer<Scalar>], within name: String) -> [SummaryRow] {
    var rows: [SummaryRow] = []
    for layer in layers {
      // A residual block's branch has the block's own name, and needs no line.
      if !(layer is Sequential<Scalar> && layer.name == name) { rows.append(layer.row) }
      rows += Self.rows(of: layer.innerLayers, within: layer.name)
    }
    return rows
  }

  private var row: SummaryRow {
    let parameters = ownParameters.map { parameter in
      let name = parameter.name.split(separator: ".").last ?? "parameter"
      return "\(name) \(parameter.value.shape)\(parameter.isTrainable ? "" : " (fixed)")"
    }
    return (name, typeName, parameters.joined(separator: ", "))
  }

  /// What no layer within holds.
  private var ownParameters: [Parameter<Scalar>] {
    let inner = Set(innerLayers.flatMap { $0.parameters }.map { ObjectIdentifier($0) })
    return parameters.filter { !inner.contains(ObjectIdentifier($0)) }
  }
}

extension Sequential: CustomStringConvertible {
  /// See ``Layer/summary``.
  public var description: String { summary }
}

extension Residual: CustomStringConvertible {
  /// See ``Layer/summary``.
  public var description: String { summary }
}
