import Glibc
import Steppe

/// The folder of an experiment: the parameters that it runs with, and a table for each part that is done, so that an experiment that was
/// stopped goes on where it was.
public struct ExperimentFolder {
  public let path: String
  /// Held against other processes that would write here too.
  private let lock: FolderLock

  private static let parametersName = "experiment.json"

  /// Opens or makes the folder `path` for the experiment `name` with `parameters`.
  ///
  /// - Throws: ``FileError`` where the folder holds something else, or an experiment with other parameters, which the message lists, or
  ///   cannot be written; ``TrainingError/folderInUse(folder:reason:)``.
  public init(_ path: String, experiment name: String, parameters: KeyValuePairs<String, String>) throws {
    let wanted = JSONValue.object(
      [.init("experiment", .string(name))] + parameters.map { .init($0.key, .string($0.value)) })
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
      try AtomicFile.write(to: file) { output throws(FileError) in try output.write(wanted.serialized() + "\n") }
    }
  }

  /// The tables `names` of one part of the work: read where that part is done, else made by `body`, in the same order, and written.
  public func tables(_ names: String..., body: () throws -> [ExperimentTable]) throws -> [ExperimentTable] {
    let files = names.map { "\(path)/\($0).csv" }
    if files.allSatisfy({ access($0, F_OK) == 0 }) { return try files.map { try ExperimentTable(contentsOf: $0) } }
    let tables = try body()
    for (file, table) in zip(files, tables) { try table.write(to: file) }
    return tables
  }

  private static func compare(_ file: String, _ wanted: JSONValue) throws(FileError) {
    let text = try MappedFile(file).withUnsafeBytes { Array($0) }
    guard let found = try? JSONValue(parsing: text), case .object(let old) = found,
      case .object(let new) = wanted
    else {
      throw FileError(path: file, kind: .wrongFormat, expected: "an experiment's parameters", found: "other text")
    }
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
