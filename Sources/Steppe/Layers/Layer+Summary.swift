extension Layer {
  /// This layer and those within it, a line for each with its name, its type and the shapes of its own parameters, under a line that counts
  /// the numbers in all of them.
  ///
  /// ```
  /// Sequential, 79510 numbers in 5 parameters
  ///   0  Dense      weight [100, 784]
  ///   1  BatchNorm  gamma [100], beta [100]
  ///   2  ReLU
  ///   3  Dense      weight [10, 100], bias [10]
  /// ```
  public var summary: String {
    let rows = Self.rows(of: innerLayers, within: name)
    let (names, types) = (rows.map(\.name.count).max() ?? 0, rows.map(\.type.count).max() ?? 0)
    func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: width - text.count) }
    let all = distinct(parameters)
    var lines = ["\(typeName), \(all.reduce(0) { $0 + $1.value.count }) numbers in \(all.count) parameters"]
    for row in rows {
      let name = "  \(padded(row.name, names))  "
      lines.append(row.parameters.isEmpty ? name + row.type : "\(name)\(padded(row.type, types))  \(row.parameters)")
    }
    return lines.joined(separator: "\n")
  }

  private static func rows(
    of layers: [any Layer<Scalar>], within name: String
  ) -> [(name: String, type: String, parameters: String)] {
    var rows: [(name: String, type: String, parameters: String)] = []
    for layer in layers {
      let inner = Set(layer.innerLayers.flatMap { $0.parameters }.map { ObjectIdentifier($0) })
      let own = layer.parameters.filter { !inner.contains(ObjectIdentifier($0)) }.map { parameter in
        let name = parameter.name.split(separator: ".").last ?? "parameter"
        return "\(name) \(parameter.value.shape)\(parameter.isTrainable ? "" : " (fixed)")"
      }
      // A residual block's branch has the block's own name, and needs no line.
      if !(layer is Sequential<Scalar> && layer.name == name) {
        rows.append((layer.name, layer.typeName, own.joined(separator: ", ")))
      }
      rows += Self.rows(of: layer.innerLayers, within: layer.name)
    }
    return rows
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
