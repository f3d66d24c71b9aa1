// Comma-separated values, one character after the other.

/// The rows of a text as fields without their quotes (RFC 4180). Empty lines are no rows.
public func csvRows(_ text: String, separator: Unicode.Scalar = ",") -> [[String]] {
  var rows: [[String]] = []
  var row: [String] = []
  var field = String.UnicodeScalarView()
  var (isQuoted, wasQuoted) = (false, false)
  var characters = Array(text.unicodeScalars)[...]

  func endField() {
    row.append(String(field))
    (field, wasQuoted) = (.init(), false)
  }
  func endRow() {
    // A line without any character is none.
    if !(row.isEmpty && field.isEmpty && !wasQuoted) {
      endField()
      rows.append(row)
    }
    row = []
  }

  while let character = characters.popFirst() {
    if isQuoted {
      if character != "\"" {
        field.append(character)
      } else if characters.first == "\"" {
        field.append(characters.removeFirst())
      } else {
        isQuoted = false
      }
    } else if character == "\"" && field.isEmpty && !wasQuoted {
      (isQuoted, wasQuoted) = (true, true)
    } else if character == separator {
      endField()
    } else if character == "\n" {
      endRow()
    } else if character == "\r" && (characters.isEmpty || characters.first == "\n") {
      continue
    } else {
      field.append(character)
    }
  }
  endRow()
  return rows
}
