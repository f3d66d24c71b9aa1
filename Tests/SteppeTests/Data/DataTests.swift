import Foundation
import Testing

import Steppe

/// The tests of Sources/Steppe/Data: files, their formats, and data sets.
@Suite struct DataTests {}

/// A folder that lasts as long as the object.
final class TemporaryFolder: Sendable {
  let path: String

  init() {
    path = FileManager.default.temporaryDirectory.path + "/steppe-tests-\(UUID().uuidString)"
    try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  /// The path of `name` in it.
  func callAsFunction(_ name: String) -> String { path + "/" + name }

  /// The path of a file `name` in it with these bytes.
  func file(_ name: String, _ bytes: [UInt8]) -> String {
    try! Data(bytes).write(to: URL(fileURLWithPath: self(name)))
    return self(name)
  }

  var contents: [String] { try! FileManager.default.contentsOfDirectory(atPath: path).sorted() }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}

func bytes(of path: String) -> [UInt8] { [UInt8](try! Data(contentsOf: URL(fileURLWithPath: path))) }

func bytes(base64: String) -> [UInt8] { [UInt8](Data(base64Encoded: base64)!) }

/// Expects `body` to throw a ``FileError`` of `kind` whose description begins with `path` and holds each of `words`.
func expectFailure<Result>(
  _ kind: FileError.Kind, of path: String, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () throws(FileError) -> Result
) {
  do throws(FileError) {
    _ = try body()
    Issue.record("no error; expected one of kind \(kind)", sourceLocation: sourceLocation)
  } catch {
    #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
    #expect(error.path == path, sourceLocation: sourceLocation)
    let text = error.description
    for word in [path + ": " + kind.rawValue] + words {
      #expect(text.contains(word), "'\(word)' is not in: \(text)", sourceLocation: sourceLocation)
    }
  }
}

/// The seed of tests that draw at random: `STEPPE_TEST_SEED`, or another one each time.
func dataTestSeed(_ name: String) -> UInt64 {
  let seed = ProcessInfo.processInfo.environment["STEPPE_TEST_SEED"].flatMap(UInt64.init) ?? .random(in: 0...999_999)
  print("\(name): STEPPE_TEST_SEED=\(seed)")
  return seed
}
