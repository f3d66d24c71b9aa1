/// A JSON value (RFC 8259), with the members of objects in order.
///
/// The parser is strict and made for files that nobody vouches for: it refuses invalid UTF-8, duplicate keys, numbers
/// beyond `Double`, anything after the value, and nesting deeper than ``maximumDepth``.
package enum JSONValue: Equatable, Sendable {
  case null
  case bool(Bool)
  /// A number without fraction and exponent that fits.
  case integer(Int)
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([Member])

  package struct Member: Equatable, Sendable {
    package let key: String
    package let value: JSONValue

    package init(_ key: String, _ value: JSONValue) {
      self.key = key
      self.value = value
    }
  }

  /// How deep arrays and objects may nest.
  package static let maximumDepth = 64

  /// Parses the one value in `text`.
  package init(parsing text: [UInt8]) throws(JSONError) {
    var parser = JSONParser(text: text)
    self = try parser.document()
  }

  /// The value of an object's `key`, or nil.
  package subscript(key: String) -> JSONValue? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.key == key }?.value
  }

  /// The number, or nil where it is none.
  var double: Double? {
    switch self {
    case .number(let value): value
    case .integer(let value): Double(value)
    default: nil
    }
  }

  /// The value in one line without spaces. NaN and the infinities, which JSON does not have, become `null`.
  package func serialized() -> String {
    var text = ""
    append(to: &text)
    return text
  }

  private func append(to text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .number(let value): text += value.isFinite ? value.description : "null"
    case .string(let value): Self.append(quoted: value, to: &text)
    case .array(let values):
      text += "["
      for (index, value) in values.enumerated() {
        if index > 0 { text += "," }
        value.append(to: &text)
      }
      text += "]"
    case .object(let members):
      text += "{"
      for (index, member) in members.enumerated() {
        if index > 0 { text += "," }
        Self.append(quoted: member.key, to: &text)
        text += ":"
        member.value.append(to: &text)
      }
      text += "}"
    }
  }

  private static func append(quoted value: String, to text: inout String) {
    text += "\""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\u{0}"..<"\u{20}": text += "\\u00" + hexadecimal(UInt8(scalar.value))
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}

/// Where and why a text is not JSON.
package struct JSONError: Error, Equatable {
  /// The byte at which it fails.
  package let offset: Int
  package let expected: String
  package let found: String
}

private struct JSONParser {
  let text: [UInt8]
  var position = 0
  var depth = 0

  init(text: [UInt8]) { self.text = text }

  mutating func document() throws(JSONError) -> JSONValue {
    let value = try value()
    skipSpace()
    guard position == text.count else { throw failure("the end after the value") }
    return value
  }

  private var next: UInt8? { position < text.count ? text[position] : nil }

  private func failure(_ expected: String) -> JSONError {
    let found = next == nil ? "the end" : "'\(String(decoding: text[position...].prefix(12), as: UTF8.self))'"
    return JSONError(offset: position, expected: expected, found: found)
  }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { position += 1 }
  }

  private mutating func skip(_ character: Unicode.Scalar) -> Bool {
    guard next == UInt8(ascii: character) else { return false }
    position += 1
    return true
  }

  private mutating func expect(_ character: Unicode.Scalar) throws(JSONError) {
    guard skip(character) else { throw failure("'\(character)'") }
  }

  private mutating func word(_ word: String, _ value: JSONValue) throws(JSONError) -> JSONValue {
    guard text[position...].starts(with: word.utf8) else { throw failure("a value") }
    position += word.utf8.count
    return value
  }

  private mutating func value() throws(JSONError) -> JSONValue {
    skipSpace()
    switch next.map({ Unicode.Scalar($0) }) {
    case "{": return .object(try nested { parser throws(JSONError) in try parser.members() })
    case "[": return .array(try nested { parser throws(JSONError) in try parser.elements() })
    case "\"": return .string(try string())
    case "t": return try word("true", .bool(true))
    case "f": return try word("false", .bool(false))
    case "n": return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func nested<Value>(
    _ body: (inout JSONParser) throws(JSONError) -> Value
  ) throws(JSONError) -> Value {
    guard depth < JSONValue.maximumDepth else { throw failure("at most \(JSONValue.maximumDepth) levels of nesting") }
    depth += 1
    defer { depth -= 1 }
    position += 1
    return try body(&self)
  }

  private mutating func members() throws(JSONError) -> [JSONValue.Member] {
    var members: [JSONValue.Member] = []
    var keys: Set<String> = []
    skipSpace()
    if skip("}") { return members }
    repeat {
      skipSpace()
      let start = position
      let key = try string()
      guard keys.insert(key).inserted else {
        throw JSONError(offset: start, expected: "each key once", found: "a second '\(key)'")
      }
      skipSpace()
      try expect(":")
      members.append(.init(key, try value()))
      skipSpace()
    } while skip(",")
    try expect("}")
    return members
  }

  private mutating func elements() throws(JSONError) -> [JSONValue] {
    var elements: [JSONValue] = []
    skipSpace()
    if skip("]") { return elements }
    repeat {
      elements.append(try value())
      skipSpace()
    } while skip(",")
    try expect("]")
    return elements
  }

  private mutating func string() throws(JSONError) -> String {
    let start = position
    try expect("\"")
    var bytes: [UInt8] = []
    while let byte = next {
      switch byte {
      case UInt8(ascii: "\""):
        position += 1
        guard let value = String(validating: bytes, as: UTF8.self) else {
          throw JSONError(offset: start, expected: "a string in UTF-8", found: "invalid bytes")
        }
        return value
      case UInt8(ascii: "\\"):
        position += 1
        bytes += try escaped().utf8
      case 0..<0x20: throw failure("no control characters in a string")
      default:
        bytes.append(byte)
        position += 1
      }
    }
    throw failure("the string's end")
  }

  /// The character of the escape whose backslash is behind.
  private mutating func escaped() throws(JSONError) -> Character {
    guard let byte = next else { throw failure("an escape") }
    position += 1
    switch Unicode.Scalar(byte) {
    case "\"": return "\""
    case "\\": return "\\"
    case "/": return "/"
    case "b": return "\u{8}"
    case "f": return "\u{c}"
    case "n": return "\n"
    case "r": return "\r"
    case "t": return "\t"
    case "u":
      let unit = try fourDigits()
      if let scalar = Unicode.Scalar(unit) { return Character(scalar) }
      // What is no scalar is half of a surrogate pair.
      guard unit < 0xDC00, skip("\\"), skip("u"), case let low = try fourDigits(), 0xDC00...0xDFFF ~= low else {
        throw failure("a surrogate pair")
      }
      return Character(Unicode.Scalar(0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00))!)
    default:
      position -= 1
      throw failure("an escape")
    }
  }

  private mutating func fourDigits() throws(JSONError) -> UInt32 {
    var unit: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw failure("four hexadecimal digits")
      }
      unit = unit << 4 | UInt32(digit)
      position += 1
    }
    return unit
  }

  private mutating func digits() throws(JSONError) {
    let start = position
    while let byte = next, UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte { position += 1 }
    guard position > start else { throw failure("a digit") }
  }

  private mutating func number() throws(JSONError) -> JSONValue {
    let start = position
    var isInteger = true
    guard let first = next, first == UInt8(ascii: "-") || UInt8(ascii: "0")...UInt8(ascii: "9") ~= first else {
      throw failure("a value")
    }
    _ = skip("-")
    // A number has no leading zeros.
    if !skip("0") { try digits() }
    if skip(".") {
      isInteger = false
      try digits()
    }
    if skip("e") || skip("E") {
      isInteger = false
      if !skip("+") { _ = skip("-") }
      try digits()
    }
    let text = String(decoding: text[start..<position], as: UTF8.self)
    if isInteger, let value = Int(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else {
      throw JSONError(offset: start, expected: "a number that fits", found: "'\(text.prefix(24))'")
    }
    return .number(value)
  }
}
