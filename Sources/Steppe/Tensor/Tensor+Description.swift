import Glibc

// Printing as NumPy's: aligned columns, eight significant digits at most, large tensors shortened.
extension Tensor: CustomStringConvertible, CustomDebugStringConvertible {
  public var description: String { text(prefix: "") }

  public var debugDescription: String {
    let prefix = "Tensor<\(Scalar.self)>("
    return prefix + text(prefix: String(repeating: " ", count: prefix.count)) + ", shape: \(shape))"
  }

  private func text(prefix: String) -> String {
    if rank == 0 { return NumberFormat<Scalar>([scalar]).text(scalar, padded: false) }
    if count == 0 { return "[]" }
    let edge = count > 1000 ? 3 : Int.max
    let format = NumberFormat<Scalar>(shown(edge: edge).map { self.element($0) })
    return block(axis: 0, offset: offset, edge: edge, indent: prefix + " ", format: format)
  }

  private func element(_ offset: Int) -> Scalar { storage.pointer[offset] }

  /// The offsets of the elements that are shown.
  private func shown(edge: Int) -> [Int] {
    var offsets = [offset]
    for axis in shape.indices {
      let indices = shownIndices(axis, edge).compactMap { $0 }
      offsets = offsets.flatMap { start in indices.map { start + $0 * strides[axis] } }
    }
    return offsets
  }

  /// The indices shown on an axis; nil stands for those left out.
  private func shownIndices(_ axis: Int, _ edge: Int) -> [Int?] {
    guard edge < Int.max, shape[axis] > 2 * edge else { return Array(0..<shape[axis]) }
    return Array(0..<edge) + [nil] + Array(shape[axis] - edge..<shape[axis])
  }

  private func block(axis: Int, offset: Int, edge: Int, indent: String, format: NumberFormat<Scalar>) -> String {
    let indices = shownIndices(axis, edge)
    if axis == rank - 1 {
      var lines = ["["]
      for (place, index) in indices.enumerated() {
        let word = index.map { format.text(element(offset + $0 * strides[axis]), padded: true) } ?? "..."
        let last = lines.count - 1
        if place > 0, lines[last].count + indent.count + word.count > 76 {
          lines.append(indent + word)
        } else {
          lines[last] += (place == 0 ? "" : " ") + word
        }
      }
      return lines.joined(separator: "\n") + "]"
    }
    let separator = String(repeating: "\n", count: rank - 1 - axis) + indent
    let parts = indices.map { index in
      index.map {
        block(axis: axis + 1, offset: offset + $0 * strides[axis], edge: edge, indent: indent + " ", format: format)
      } ?? "..."
    }
    return "[" + parts.joined(separator: separator) + "]"
  }
}

/// One format for all numbers of a tensor: fixed with as many decimals as they need, or scientific where their range is wide.
private struct NumberFormat<Scalar: TensorScalar> {
  private var scientific = false
  private var decimals = 0
  private var width = 0

  init(_ numbers: [Scalar]) {
    let finite = numbers.filter { $0.isFinite && $0 != 0 }.map { Double($0.magnitude) }
    let (least, greatest) = (finite.min() ?? 1, finite.max() ?? 1)
    scientific = greatest >= 1e8 || least < 1e-4 || greatest / least > 1e3 && least < 1e-3
    let limit = scientific ? 8 : max(0, 8 - String(Int(greatest)).count + (greatest < 1 ? 1 : 0))
    decimals = numbers.reduce(0) { max($0, Self.neededDecimals($1, scientific: scientific, limit: limit)) }
    width = numbers.reduce(0) { max($0, text($1, padded: true).count) }
  }

  func text(_ number: Scalar, padded: Bool) -> String {
    var word = number.isNaN ? "nan" : number.isInfinite ? (number < 0 ? "-inf" : "inf") : formatted(Double(number))
    if !padded { while word.last == " " { word.removeLast() } }
    if padded, word.count < width { word = String(repeating: " ", count: width - word.count) + word }
    return word
  }

  private func formatted(_ number: Double) -> String {
    var text = Self.printed(scientific ? "%#.*e" : "%#.*f", Int32(decimals), number)
    if scientific { return text }
    // As NumPy prints them: the point stays, zeros after it give way to spaces.
    let length = text.count
    while text.last == "0" { text.removeLast() }
    return text + String(repeating: " ", count: length - text.count)
  }

  /// The decimals after which only zeros follow, at most `limit`, as the shortest text that reads back as the same scalar has them.
  private static func neededDecimals(_ number: Scalar, scientific: Bool, limit: Int) -> Int {
    guard number.isFinite else { return 0 }
    let text = printed(scientific ? "%.*e" : "%.*f", Int32(limit), Double(number))
    let mantissa = text.prefix { $0 != "e" }
    guard let point = mantissa.firstIndex(of: ".") else { return 0 }
    var places = mantissa[mantissa.index(after: point)...]
    while places.last == "0" { places.removeLast() }
    return places.count
  }

  private static func printed(_ format: String, _ decimals: Int32, _ number: Double) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 400) { buffer in
      let length = withVaList([decimals, number]) { vsnprintf(buffer.baseAddress!, buffer.count, format, $0) }
      return String(decoding: buffer.prefix(Int(length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }
}
