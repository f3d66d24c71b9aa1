import Glibc

/// `value` with `digits` digits after the point.
package func fixed(_ value: Double, _ digits: Int) -> String { formatted("%.*f", value, digits) }

/// `value` with `digits` significant digits at the most, and an exponent where it is far from 1.
package func significant(_ value: Double, _ digits: Int) -> String { formatted("%.*g", value, digits) }

private func formatted(_ format: String, _ value: Double, _ digits: Int) -> String {
  var buffer = [CChar](repeating: 0, count: 400)
  return withVaList([Int32(digits), value]) { arguments in
    let count = vsnprintf(&buffer, buffer.count, format, arguments)
    return String(decoding: buffer.prefix(Int(count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// A whole number with thin groups of three digits, `60 000`.
package func grouped(_ number: Int) -> String {
  let digits = String(number.magnitude)
  var groups = ""
  for (index, digit) in digits.enumerated() {
    if index > 0, (digits.count - index) % 3 == 0 { groups += " " }
    groups.append(digit)
  }
  return (number < 0 ? "-" : "") + groups
}

/// A number to three digits or so: whole from 100 on, and where it is whole.
package func threeDigits(_ value: Double) -> String {
  guard value.isFinite else { return "\(value)" }
  let size = abs(value)
  if size >= 100 || value == value.rounded() {
    return size < 1e7 ? grouped(Int(value.rounded())) : significant(value, 3)
  }
  return size >= 0.001 ? fixed(value, size >= 10 ? 1 : size >= 0.1 ? 2 : 4) : significant(value, 3)
}

/// A share of 1 as a percentage, `98.7 %`.
package func percentage(_ share: Double, digits: Int = 1) -> String { fixed(100 * share, digits) + " %" }
