import Glibc
import Steppe

/// The folder of an experiment: the parameters that it runs with, and a table for each part that is done, so that an experiment that was
/// stopped goes on where it was.
public final class ExperimentFolder {
  public let path: String
  /// Held against other processes that would write here too.
  private let lock: FolderLock
  /// The seconds that each part took, by its name.
  private var times: [JSONValue.Member] = []

  private static let parametersName = "experiment.json"

  /// Opens or makes the folder `path` for the experiment `name` with `parameters`.
  ///
  /// - Throws: ``FileError`` where the folder holds something else, or an experiment with other parameters, which the message lists, or
  ///   cannot be written; ``TrainingError/folderInUse(folder:reason:)``.
  public init(_ path: String, experiment name: String, parameters: [(name: String, value: String)]) throws {
    let wanted = JSONValue.object(
      [.init("experiment", .string(name))] + parameters.map { .init($0.name, .string($0.value)) })
    self.path = path
    try Folder.make(path, "a folder for an experiment")
    lock = try FolderLock(path)
    let file = path + "/" + Self.parametersName
    if access(file, F_OK) == 0 {
      try Self.compare(file, wanted)
    } else {
      if let entry = try Folder.names(in: path, "a folder for an experiment").min() {
        throw FileError(
          path: path, kind: .mismatch, expected: "an empty folder or that of an experiment", found: "'\(entry)' in it")
      }
      try Self.write(wanted, to: file)
    }
    if access(timesPath, F_OK) == 0 {
      times = try Self.members(of: timesPath, "the seconds of an experiment's parts").1
    }
  }

  private var timesPath: String { path + "/seconds.json" }

  /// How long all parts took that are done, in whatever number of goes.
  public var seconds: Double {
    times.reduce(0) { sum, member in
      guard case .number(let seconds) = member.value else { return sum }
      return sum + seconds
    }
  }

  /// The tables `names`, which one part of the work makes; nil where it is not done.
  func tables(_ names: [String]) throws -> [ExperimentTable]? {
    let files = names.map { "\(path)/\($0).csv" }
    guard files.allSatisfy({ access($0, F_OK) == 0 }) else { return nil }
    return try files.map { try ExperimentTable(contentsOf: $0) }
  }

  /// Writes the tables of a part that took `seconds`.
  func keep(_ tables: [(name: String, table: ExperimentTable)], seconds: Double) throws {
    for (name, table) in tables { try table.write(to: "\(path)/\(name).csv") }
    let name = tables.map(\.name).joined(separator: " ")
    times = times.filter { $0.key != name } + [.init(name, .number(seconds))]
    try Self.write(.object(times), to: timesPath)
  }

  private static func write(_ value: JSONValue, to file: String) throws {
    try AtomicFile.write(to: file) { output throws(FileError) in try output.write(value.serialized() + "\n") }
  }

  /// The object in `file`, and its members.
  private static func members(of file: String, _ purpose: String) throws(FileError) -> (JSONValue, [JSONValue.Member]) {
    let text = try MappedFile(file).withUnsafeBytes { Array($0) }
    guard let value = try? JSONValue(parsing: text), case .object(let members) = value else {
      throw FileError(path: file, kind: .wrongFormat, expected: purpose, found: "other text")
    }
    return (value, members)
  }

  private static func compare(_ file: String, _ wanted: JSONValue) throws(FileError) {
    let (found, old) = try members(of: file, "an experiment's parameters")
    guard case .object(let new) = wanted else { return }
    func words(_ value: JSONValue?) -> String {
      guard case .string(let text)? = value else { return "none" }
      return text
    }
    let keys = new.map(\.key) + old.map(\.key).filter { wanted[$0] == nil }
    let differences = keys.filter { wanted[$0] != found[$0] }
    guard differences.isEmpty else {
      throw FileError(
        path: file, kind: .mismatch,
        expected: differences.map { "\($0) \(words(wanted[$0]))" }.joined(separator: ", "),
        found: differences.map { "\($0) \(words(found[$0]))" }.joined(separator: ", "))
    }
  }
}
