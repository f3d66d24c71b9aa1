/// What one run has to do at the least, which turns its time into a rate that can be held against the machine's limits.
public struct Work: Sendable {
  /// What operations are done on.
  public enum Precision: Sendable { case float, double }

  /// Floating-point operations; 0 where moving data is all that counts.
  public var operations: Double
  /// What they are done on.
  public var precision: Precision
  /// Bytes that must be read.
  public var read: Double
  /// Bytes that must be written.
  public var written: Double
  /// Bytes that one run touches, which decides what cache may hold them.
  public var workingSet: Double

  /// Operations on data of which `read` bytes come in and `written` go out.
  public static func operations(
    _ count: Double, _ precision: Precision = .float, read: Double, written: Double
  ) -> Work {
    Work(operations: count, precision: precision, read: read, written: written, workingSet: read + written)
  }

  /// Data moved, with little to compute. `inPlace` says that what is written is what was read.
  public static func bytes(read: Double, written: Double, inPlace: Bool = false) -> Work {
    Work(
      operations: 0, precision: .float, read: read, written: written, workingSet: inPlace ? read : read + written)
  }

  /// What a rate counts: operations where there are any, else bytes.
  public var amount: Double { operations > 0 ? operations : read + written }

  /// The rate's unit: billions in a second.
  public var unit: String { operations > 0 ? "GFLOP/s" : "GB/s" }
}

/// The bytes of `count` values.
func bytes<Scalar>(_ count: Int, of type: Scalar.Type = Float.self) -> Double {
  Double(count * MemoryLayout<Scalar>.size)
}
