/// Matrix products in Float64 by their definition, and a matrix class for writing identities down.
public enum NaiveLinearAlgebra {
  /// C = α·op(A)·op(B) + β·C on row-major arrays with rows `lda`, `ldb` and `ldc` apart: C [m, n], op(A) [m, k], op(B)
  /// [k, n].
  ///
  /// Returns all of `c`, and for each of its elements |α|·Σ|a·b| + |β·c|, the scale of its rounding errors.
  public static func product(
    transposeA: Bool, transposeB: Bool, m: Int, n: Int, k: Int, alpha: Double, a: [Double], lda: Int, b: [Double],
    ldb: Int, beta: Double, c: [Double], ldc: Int
  ) -> (values: [Double], scales: [Double]) {
    var (values, scales) = (c, c.map { _ in 0.0 })
    for i in 0..<m {
      for j in 0..<n {
        var (sum, scale) = (0.0, 0.0)
        for p in 0..<k {
          let term = (transposeA ? a[p * lda + i] : a[i * lda + p]) * (transposeB ? b[j * ldb + p] : b[p * ldb + j])
          sum += term
          scale += abs(term)
        }
        // β = 0 means that the old C does not count, whatever it holds.
        let old = beta == 0 ? 0 : beta * c[i * ldc + j]
        values[i * ldc + j] = alpha * sum + old
        scales[i * ldc + j] = abs(alpha) * scale + abs(old)
      }
    }
    return (values, scales)
  }

  /// The determinant of a row-major matrix, by expansion along the first row.
  public static func determinant(_ a: [Double], size: Int) -> Double {
    if size == 0 { return 1 }
    var sum = 0.0
    for column in 0..<size {
      var minor: [Double] = []
      for row in 1..<size {
        for other in 0..<size where other != column { minor.append(a[row * size + other]) }
      }
      sum += (column.isMultiple(of: 2) ? 1 : -1) * a[column] * determinant(minor, size: size - 1)
    }
    return sum
  }
}

/// A row-major matrix in Float64.
public struct NaiveMatrix {
  /// The number of rows.
  public let rows: Int
  /// The number of columns.
  public let columns: Int
  /// The elements, row by row.
  public var elements: [Double]

  /// A matrix by its elements, row by row.
  public init(_ rows: Int, _ columns: Int, _ elements: [Double]) {
    precondition(elements.count == rows * columns)
    (self.rows, self.columns, self.elements) = (rows, columns, elements)
  }

  /// One element.
  public subscript(row: Int, column: Int) -> Double { elements[row * columns + column] }

  /// The element [i, j] at [j, i].
  public var transposed: NaiveMatrix {
    NaiveMatrix(columns, rows, (0..<columns).flatMap { column in (0..<rows).map { self[$0, column] } })
  }

  /// √Σx²
  public var norm: Double { elements.reduce(0) { $0 + $1 * $1 }.squareRoot() }

  /// The greatest |x|, 0 for an empty matrix.
  public var greatest: Double { elements.reduce(0) { max($0, abs($1)) } }

  /// Ones on the diagonal.
  public static func identity(_ size: Int) -> NaiveMatrix {
    NaiveMatrix(size, size, (0..<size * size).map { $0 / size == $0 % size ? 1 : 0 })
  }

  /// `values` on the diagonal.
  public static func diagonal(_ values: [Double]) -> NaiveMatrix {
    let size = values.count
    return NaiveMatrix(size, size, (0..<size * size).map { $0 / size == $0 % size ? values[$0 / size] : 0 })
  }

  /// C[i, j] = Σ_p A[i, p]·B[p, j]
  public static func * (a: NaiveMatrix, b: NaiveMatrix) -> NaiveMatrix {
    precondition(a.columns == b.rows)
    var result = NaiveMatrix(a.rows, b.columns, [Double](repeating: 0, count: a.rows * b.columns))
    for i in 0..<a.rows {
      for p in 0..<a.columns {
        for j in 0..<b.columns { result.elements[i * b.columns + j] += a[i, p] * b[p, j] }
      }
    }
    return result
  }

  /// C[i, j] = A[i, j] − B[i, j]
  public static func - (a: NaiveMatrix, b: NaiveMatrix) -> NaiveMatrix {
    precondition(a.rows == b.rows && a.columns == b.columns)
    return NaiveMatrix(a.rows, a.columns, zip(a.elements, b.elements).map { $0 - $1 })
  }

  /// C[i, j] = A[i, j] + B[i, j]
  public static func + (a: NaiveMatrix, b: NaiveMatrix) -> NaiveMatrix {
    NaiveMatrix(a.rows, a.columns, zip(a.elements, b.elements).map { $0 + $1 })
  }
}
