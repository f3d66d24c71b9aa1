/// The library's version, by semantic versioning.
public enum SteppeVersion {
  /// Such as `0.1.0`.
  public static let current = "0.1.0"
}
