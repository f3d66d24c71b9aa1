import Foundation

/// What a test hands to the process that `#expect(processExitsWith:)` starts, whose body can capture nothing before Swift 6.3: a file that
/// the process finds by its parent's number. Processes with the same key come one after the other.
public enum ExitTestArguments {
  private static func path(_ process: Int32, _ key: String) -> String {
    FileManager.default.temporaryDirectory.appendingPathComponent("steppe-exit-test-\(process)-\(key)").path
  }

  /// In the test: what the next process of `key` receives.
  public static func pass(_ values: String..., to key: String) throws {
    try values.joined(separator: "\n").write(toFile: path(getpid(), key), atomically: true, encoding: .utf8)
  }

  /// In the process: what its test passed.
  public static func received(by key: String) throws -> [String] {
    let path = path(getppid(), key)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try String(contentsOfFile: path, encoding: .utf8).components(separatedBy: "\n")
  }
}
