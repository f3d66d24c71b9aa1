/// The version of the files that ``Layer/save(to:metadata:)`` and training write.
let checkpointVersion = 1
/// What names that version in a file's metadata.
private let versionKey = "steppe.format"
/// What begins the names of all that a training checkpoint holds beside the model.
let trainingPrefix = "steppe/"

extension Layer {
  /// Writes what ``state`` holds to a safetensors file, under PyTorch's names.
  ///
  /// ```swift
  /// try model.save(to: "model.safetensors")
  /// ```
  ///
  /// PyTorch reads it by `model.load_state_dict(safetensors.torch.load_file("model.safetensors"))`. The file appears complete or not at
  /// all, and carries a checksum.
  ///
  /// - Parameters:
  ///   - path: The file.
  ///   - metadata: Texts that the file carries along. The keys `format` and those that begin with `steppe.` are Steppe's.
  /// - Throws: ``FileError`` of kind `cannotWrite`.
  public func save(to path: String, metadata: [String: String] = [:]) throws(FileError) {
    var writer = checkpointWriter(metadata: metadata)
    writer.add(state)
    try writer.write(to: path)
  }

  /// Reads what ``state`` holds from a safetensors file with PyTorch's names: all of it or, after an error, nothing.
  ///
  /// Numbers are converted where the file has another floating-point type. A training checkpoint is read too; what it holds beside the
  /// model is left alone.
  ///
  /// - Throws: ``CheckpointError``: the file can't be read or is damaged, a newer version of Steppe wrote it, or its names, shapes or
  ///   types are not this model's, with every difference.
  public func load(from path: String) throws(CheckpointError) {
    let file = try openCheckpoint(path)
    let read = try CheckpointValues(file, state, where: { !$0.hasPrefix(trainingPrefix) })
    try read.check(path)
    read.apply()
  }
}

/// Why a checkpoint can't be read into a model.
public enum CheckpointError: Error, Equatable, CustomStringConvertible {
  /// The file is missing, damaged or no safetensors file.
  case file(FileError)
  /// A newer version of Steppe wrote the file.
  case newerVersion(path: String, found: String, supported: Int)
  /// The file is of another model (or optimizer): every difference.
  case mismatch(path: String, differences: [CheckpointDifference])

  /// One line with the file and all that is wrong.
  public var description: String {
    switch self {
    case .file(let error): error.description
    case .newerVersion(let path, let found, let supported):
      "\(path): expected a checkpoint of format \(supported), found format \(found), which a newer version of Steppe wrote"
    case .mismatch(let path, let differences):
      "\(path): not a checkpoint of this model: \(differences.map(\.description).joined(separator: "; "))"
    }
  }
}

/// One way in which a checkpoint differs from what a model needs.
public enum CheckpointDifference: Sendable, Equatable, CustomStringConvertible {
  /// The model has the entry, the file has not.
  case missing(name: String, shape: [Int])
  /// The file has the entry, the model has not.
  case unexpected(name: String, shape: [Int])
  /// Both have it, with different shapes.
  case shape(name: String, expected: [Int], found: [Int])
  /// The file's numbers are not of a type that the model can take.
  case type(name: String, expected: String, found: ElementType)
  /// A number of the file is not one that the model can take.
  case value(name: String, expected: String, found: Int)

  /// What differs, by its name in the file.
  public var description: String {
    switch self {
    case .missing(let name, let shape): "'\(name)' \(shape) is missing"
    case .unexpected(let name, let shape): "'\(name)' \(shape) is not in the model"
    case .shape(let name, let expected, let found): "'\(name)' is expected as \(expected) and found as \(found)"
    case .type(let name, let expected, let found): "'\(name)' is expected as \(expected) and found as \(found)"
    case .value(let name, let expected, let found): "'\(name)' is expected as \(expected) and found as \(found)"
    }
  }
}

/// A writer whose metadata name the format, and PyTorch as what other readers expect.
func checkpointWriter(metadata: [String: String] = [:]) -> SafetensorsWriter {
  SafetensorsWriter(metadata: metadata.merging(["format": "pt", versionKey: "\(checkpointVersion)"]) { $1 })
}

extension SafetensorsWriter {
  /// Adds all of `state`.
  package mutating func add<Scalar: TensorScalar>(_ state: [StateEntry<Scalar>], prefix: String = "") {
    for entry in state {
      switch entry.get() {
      case .tensor(let tensor): add(tensor, named: prefix + entry.key)
      case .integer(let value): add([Int64(value)], shape: [], named: prefix + entry.key)
      }
    }
  }
}

/// Opens a whole file of a known version.
func openCheckpoint(_ path: String) throws(CheckpointError) -> SafetensorsFile {
  let file = try CheckpointError.onFailure { () throws(FileError) in
    let file = try SafetensorsFile(path)
    try file.verifyChecksum()
    return file
  }
  if let text = file.metadata[versionKey] {
    guard let version = Int(text), version >= 1 else {
      throw .file(
        FileError(path: path, kind: .wrongFormat, expected: "a \(versionKey) from 1", found: "'\(text)'"))
    }
    if version > checkpointVersion { throw .newerVersion(path: path, found: text, supported: checkpointVersion) }
  }
  return file
}

extension CheckpointError {
  /// The result of `body`, its error as one of a checkpoint.
  static func onFailure<Result>(_ body: () throws(FileError) -> Result) throws(CheckpointError) -> Result {
    do throws(FileError) { return try body() } catch { throw .file(error) }
  }
}

/// What a file holds for some entries, read and compared before any of them is set.
package struct CheckpointValues<Scalar: TensorScalar> {
  package private(set) var differences: [CheckpointDifference] = []
  private var values: [(entry: StateEntry<Scalar>, value: StateEntry<Scalar>.Value)] = []

  /// - Parameters:
  ///   - prefix: What the entries' keys are preceded by in the file.
  ///   - covers: Which of the file's names must be among the entries'.
  package init(
    _ file: SafetensorsFile, _ state: [StateEntry<Scalar>], prefix: String = "", where covers: (String) -> Bool
  ) throws(CheckpointError) {
    var known: Set<String> = []
    for entry in state {
      let names = ([entry.key] + entry.aliases).map { prefix + $0 }
      let name = names.first { file.shape(of: $0) != nil } ?? names[0]
      known.insert(name)
      try read(entry, named: name, from: file)
    }
    for name in file.names where covers(name) && !known.contains(name) {
      differences.append(.unexpected(name: name, shape: file.shape(of: name)!))
    }
  }

  private mutating func read(
    _ entry: StateEntry<Scalar>, named name: String, from file: SafetensorsFile
  ) throws(CheckpointError) {
    let current = entry.get()
    let expected = if case .tensor(let tensor) = current { tensor.shape } else { [Int]() }
    guard let shape = file.shape(of: name), let type = file.elementType(of: name) else {
      return differences.append(.missing(name: name, shape: expected))
    }
    guard shape == expected else {
      return differences.append(.shape(name: name, expected: expected, found: shape))
    }
    switch current {
    case .tensor:
      guard !type.isInteger else {
        return differences.append(.type(name: name, expected: "floating-point numbers", found: type))
      }
      // A copy of the model's own: the file may change once it is closed.
      let tensor: Tensor<Scalar> = try CheckpointError.onFailure { () throws(FileError) in try file.tensor(named: name)
      }
      values.append((entry, .tensor(tensor.copied())))
    case .integer:
      guard type.isInteger else {
        return differences.append(.type(name: name, expected: "an integer", found: type))
      }
      let value = try CheckpointError.onFailure { () throws(FileError) in try file.integers(named: name) }[0]
      guard value >= 0 else {
        return differences.append(.value(name: name, expected: "a count from 0", found: value))
      }
      values.append((entry, .integer(value)))
    }
  }

  /// Throws what differs, if anything does.
  func check(_ path: String) throws(CheckpointError) {
    if !differences.isEmpty { throw .mismatch(path: path, differences: differences) }
  }

  /// Sets all entries.
  package func apply() {
    for (entry, value) in values { entry.set(value) }
  }
}
