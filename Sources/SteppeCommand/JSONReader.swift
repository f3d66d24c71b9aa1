import Steppe

/// Takes values of known kinds out of a JSON object that somebody else may have written.
struct JSONReader {
  /// The file, for errors.
  let source: String
  /// Nil where the text is no JSON.
  let value: JSONValue?

  init(source: String, text: some StringProtocol) {
    self.source = source
    value = try? JSONValue(parsing: Array(text.utf8))
  }

  private init(source: String, value: JSONValue?) {
    self.source = source
    self.value = value
  }

  func failure(_ key: String, _ expected: String) -> FileError {
    let found = value == nil ? "a text that is not JSON" : value![key]?.serialized() ?? "none"
    return FileError(path: source, kind: .wrongFormat, expected: "\(expected) as '\(key)'", found: found)
  }

  /// Whether the object has the key.
  func has(_ key: String) throws(FileError) -> Bool {
    guard let value else { throw failure(key, "a JSON object that may have a string") }
    return value[key] != nil
  }

  private func isNull(_ key: String) -> Bool { value?[key] == .null }

  func object(_ key: String) throws(FileError) -> JSONReader {
    guard case .object? = value?[key] else { throw failure(key, "an object") }
    return JSONReader(source: source, value: value?[key])
  }

  /// Nil where there is none, as in files of before it was there.
  func optionalObject(_ key: String) throws(FileError) -> JSONReader? {
    value?[key] == nil || isNull(key) ? nil : try object(key)
  }

  func integer(_ key: String, atLeast least: Int) throws(FileError) -> Int {
    // Nothing that is counted here goes beyond, and products with more would overflow.
    try integer(key, in: least...1 << 40)
  }

  func integer(_ key: String, in range: ClosedRange<Int>) throws(FileError) -> Int {
    guard case .integer(let number)? = value?[key], range.contains(number) else {
      throw failure(key, "a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  func optionalInteger(_ key: String, in range: ClosedRange<Int>) throws(FileError) -> Int? {
    isNull(key) ? nil : try integer(key, in: range)
  }

  func unsigned(_ key: String) throws(FileError) -> UInt64 {
    guard let number = UInt64(try string(key)) else { throw failure(key, "a whole number in a string") }
    return number
  }

  func number(_ key: String, in range: ClosedRange<Double>? = nil) throws(FileError) -> Double {
    let number: Double? =
      switch value?[key] {
      case .integer(let number): Double(number)
      case .number(let number): number
      default: nil
      }
    guard let number, range?.contains(number) ?? true else {
      throw failure(key, range.map { "a number in \($0.lowerBound) … \($0.upperBound)" } ?? "a number")
    }
    return number
  }

  func optionalNumber(_ key: String) throws(FileError) -> Double? { isNull(key) ? nil : try number(key) }

  func boolean(_ key: String) throws(FileError) -> Bool {
    guard case .bool(let truth)? = value?[key] else { throw failure(key, "true or false") }
    return truth
  }

  func optionalBoolean(_ key: String) throws(FileError) -> Bool? { isNull(key) ? nil : try boolean(key) }

  func string(_ key: String) throws(FileError) -> String {
    guard case .string(let text)? = value?[key] else { throw failure(key, "a string") }
    return text
  }

  func optionalString(_ key: String) throws(FileError) -> String? { isNull(key) ? nil : try string(key) }

  func choice<Choice: CaseIterable & RawRepresentable<String>>(_ key: String) throws(FileError) -> Choice {
    guard case .string(let text)? = value?[key], let choice = Choice(rawValue: text) else {
      throw failure(key, "one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return choice
  }

  func optionalChoice<Choice: CaseIterable & RawRepresentable<String>>(
    _ key: String
  ) throws(FileError) -> Choice? { isNull(key) ? nil : try choice(key) }

  func integers(_ key: String, in range: ClosedRange<Int>) throws(FileError) -> [Int] {
    var numbers: [Int] = []
    for value in try array(key) {
      guard case .integer(let number) = value, range.contains(number) else {
        throw failure(key, "whole numbers from \(range.lowerBound) to \(range.upperBound)")
      }
      numbers.append(number)
    }
    return numbers
  }

  func integers(_ key: String, count: Int, in range: ClosedRange<Int>) throws(FileError) -> [Int] {
    let numbers = try integers(key, in: range)
    guard numbers.count == count else { throw failure(key, "\(count) whole numbers") }
    return numbers
  }

  func strings(_ key: String) throws(FileError) -> [String] {
    var texts: [String] = []
    for value in try array(key) {
      guard case .string(let text) = value else { throw failure(key, "strings") }
      texts.append(text)
    }
    return texts
  }

  private func array(_ key: String) throws(FileError) -> [JSONValue] {
    guard case .array(let values)? = value?[key] else { throw failure(key, "an array") }
    return values
  }
}
