/// Writes matrices as comma-separated values (RFC 4180 with lines that end in `\n`).
public enum CSV {
  /// Writes the rows of `tensor`, of shape `[rows, columns]` or `[rows]` for a single column, below the column names in
  /// `header`.
  ///
  /// Every number is the shortest that reads back as the same; NaN and the infinities are `nan`, `inf` and `-inf`.
  /// Names with commas, quotes or line breaks are quoted. The file appears complete or not at all.
  public static func write<Scalar: TensorScalar>(
    _ tensor: Tensor<Scalar>, header: [String]? = nil, to path: String
  ) throws(FileError) {
    require(1...2 ~= tensor.rank, "CSV.write: expected 1 or 2 axes, got shape \(tensor.shape)")
    let columns = tensor.rank == 2 ? tensor.shape[1] : 1
    if let header {
      require(header.count == columns, "CSV.write: \(header.count) names for \(columns) columns")
    }
    try AtomicFile.write(to: path) { file throws(FileError) in
      if let header { try file.write(header.map(quoted).joined(separator: ",") + "\n") }
      try tensor.withUnsafeBufferPointer { scalars throws(FileError) in
        for row in 0..<tensor.shape[0] {
          let values = scalars[row * columns..<(row + 1) * columns]
          try file.write(values.map(\.description).joined(separator: ",") + "\n")
        }
      }
    }
  }

  /// `name` as one field.
  package static func quoted(_ name: String) -> String {
    guard name.unicodeScalars.contains(where: { ",\"\n\r".unicodeScalars.contains($0) }) else { return name }
    return "\"" + name.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
  }
}
