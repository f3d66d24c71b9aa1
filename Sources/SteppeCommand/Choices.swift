import ArgumentParser

/// Some of the cases of an enumeration, by their names with commas between.
struct Choices<Choice: CaseIterable & RawRepresentable & Sendable & Equatable>: ExpressibleByArgument
where Choice.RawValue == String {
  /// In the order of the enumeration, each once.
  let values: [Choice]

  init?(argument: String) {
    let names = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard names.allSatisfy({ Choice(rawValue: $0) != nil }) else { return nil }
    values = Choice.allCases.filter { names.contains($0.rawValue) }
  }

  /// All names, as a message lists them.
  static var names: String { Choice.allCases.map(\.rawValue).joined(separator: ", ") }

  var text: String { values.map(\.rawValue).joined(separator: ",") }

  /// Refuses what `option` does not take.
  func check(_ option: String, among allowed: [Choice]) throws {
    if let other = values.first(where: { !allowed.contains($0) }) {
      throw ValidationError(
        "\(option): expected some of \(allowed.map(\.rawValue).joined(separator: ", ")), found \(other.rawValue)")
    }
  }
}
