import CSteppeKernels
import Foundation
import Reference
import Testing

import Steppe

@Suite struct CSVFileTests {
  private func parsed(_ text: String) -> (value: Double, length: Int) {
    let bytes = Array(text.utf8)
    return bytes.withUnsafeBufferPointer { bytes in
      var value = -1.0
      let end = steppe_parse_number(bytes.baseAddress!, bytes.baseAddress! + bytes.count, &value)
      return (value, end - bytes.baseAddress!)
    }
  }

  /// Every number is the one nearest to its digits, as the standard library has it.
  @Test func numbersAreRoundedRightly() {
    var generator = TestGenerator()
    func digits(_ count: Int) -> String {
      String((0..<count).map { _ in "0123456789".randomElement(using: &generator)! })
    }
    var texts = [
      "0", "-0", "+1", "1.", ".5", "-.25", "1e5", "1E+5", "1e-5", "9007199254740993", "9007199254740992.5",
      "0.1", "123456789012345678", "18446744073709551615", "18446744073709551616", "99999999999999999999",
      "0.000000000000000000000000000001", "1.7976931348623157e308", "4.9e-324", "2.2250738585072014e-308",
      "00000000000000000000000000000000012.5", "0.00000000000000000000123456789", "1e400", "1e-400", "6.02e23",
      // Halfway between two neighbours, and a little beyond.
      "9007199254740993.0000000000000000000001", "1.00000000000000011102230246251565",
      "1.00000000000000011102230246251566",
    ]
    for _ in 0..<20_000 {
      texts.append("\(Double(bitPattern: UInt64.random(in: 0...UInt64.max, using: &generator)))")
      texts.append("\(generator.normal())")
      texts.append("\(Float(generator.normal()) * 1000)")
      texts.append(digits(generator.integer(1...20)) + "." + digits(generator.integer(0...20)))
      texts.append("-0." + digits(generator.integer(1...24)))
      texts.append(digits(generator.integer(1...19)) + "e\(generator.integer(-40...40))")
    }
    for text in texts where !text.contains("n") {
      let (value, length) = parsed(text)
      let expected = Double(text)!
      #expect(value.bitPattern == expected.bitPattern && length == text.utf8.count, "\(text): \(value), \(expected)")
    }
    for (text, length) in [("", 0), ("-", 0), (".", 0), ("e5", 0), ("1e", 1), ("1e+", 1), ("12abc", 2), ("1.5.2", 3)] {
      #expect(parsed(text).length == length, "\(text)")
    }
  }

  /// Hundreds of thousands of fields on each instruction set, in a process of its own: every bit is as the C library has it.
  @Test func fieldsAreRoundedAsTheCLibraryDoes() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "\(testSeed)", to: "decimals")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "decimals")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: "\(name) \(salt)")
        let columns = 25
        for ending in ["\n", "\r\n"] {
          var texts: [[UInt8]] = []
          for _ in 0..<10_000 * columns { texts.append(Self.decimal(&generator)) }
          var table: [UInt8] = []
          for (index, text) in texts.enumerated() {
            table += text
            table += index % columns == columns - 1 ? Array(ending.utf8) : [UInt8(ascii: ",")]
          }
          let numbers = Self.parsed(table, columns: columns)
          #expect(numbers.count == texts.count)
          for (number, text) in zip(numbers, texts) {
            let expected = (text + [0]).withUnsafeBytes {
              strtod($0.baseAddress!.assumingMemoryBound(to: CChar.self), nil)
            }
            guard number.bitPattern != expected.bitPattern else { continue }
            Issue.record("\(String(decoding: text, as: UTF8.self)) on \(name): \(number), not \(expected)")
          }
        }
      }
    }
  }

  /// The numbers of a table without a header.
  private static func parsed(_ table: [UInt8], columns: Int) -> [Double] {
    let kinds = Array(repeating: STEPPE_CSV_NUMBER, count: columns)
    return table.withUnsafeBufferPointer { table in
      kinds.withUnsafeBufferPointer { kinds in
        var format = steppe_csv_format(
          separator: UInt8(ascii: ","), missing: STEPPE_CSV_REFUSE_MISSING, columns: columns, kinds: kinds.baseAddress!)
        var numbers = Array(repeating: 0.0, count: table.count + columns)
        let (begin, end) = (table.baseAddress!, table.baseAddress! + table.count)
        let rows = withUnsafeTemporaryAllocation(of: steppe_csv_result.self, capacity: 1) { result in
          steppe_csv_parse(&format, begin, end, end, true, &numbers, nil, result.baseAddress!)
          #expect(result[0].problem == STEPPE_CSV_NONE && result[0].next == end)
          return Int(result[0].rows)
        }
        return Array(numbers.prefix(rows * columns))
      }
    }
  }

  /// A finite number's text: digits of any length with a point anywhere, numbers halfway between two doubles or next to that, all
  /// digits of a double, and exponents, subnormal and tiny numbers among them.
  private static func decimal(_ generator: inout TestGenerator) -> [UInt8] {
    func digits(_ count: Int) -> [UInt8] {
      (0..<count).map { _ in UInt8(ascii: "0") + UInt8(generator.integer(0...9)) }
    }
    func with(point places: Int, _ digits: [UInt8]) -> [UInt8] {
      let digits = Array(repeating: UInt8(ascii: "0"), count: max(0, places - digits.count)) + digits
      return digits.dropLast(places) + [UInt8(ascii: ".")] + digits.suffix(places)
    }
    func exponent(_ range: ClosedRange<Int>) -> [UInt8] { Array("e\(generator.integer(range))".utf8) }
    let sign: [UInt8] = generator.integer(0...1) == 0 ? [] : [generator.integer(0...9) == 0 ? 0x2B : 0x2D]
    switch generator.integer(0...9) {
    case 0...3: return sign + with(point: generator.integer(0...8), digits(generator.integer(1...16)))
    case 4: return sign + digits(generator.integer(1...24))
    case 5: return sign + with(point: generator.integer(0...30), digits(generator.integer(1...24)))
    case 6: return sign + with(point: generator.integer(0...19), digits(generator.integer(1...20))) + exponent(-45...45)
    case 7: return sign + digits(generator.integer(1...25)) + exponent(-345...280)
    case 8:
      // An odd number of 54 bits, times a power of five that 64 bits still hold.
      let places = generator.integer(-20...3)
      let five = (0..<abs(places)).reduce(UInt64(1)) { power, _ in power * 5 }
      let least = UInt64(1) << 53
      var number =
        places >= 0
        ? (UInt64.random(in: least..<2 * least, using: &generator) | 1) * five
        : UInt64.random(in: least / five...2 * least / five, using: &generator) | 1
      number = number &+ UInt64(bitPattern: Int64(generator.integer(-1...1)))
      let text = Array("\(number)".utf8)
      return sign + (places >= 0 ? with(point: places, text) : text + Array("e\(-places)".utf8))
    default:
      let number = Double(bitPattern: UInt64.random(in: 0..<0x7FF0_0000_0000_0000, using: &generator))
      return sign + Array((generator.integer(0...1) == 0 ? number : generator.normal().magnitude).description.utf8)
    }
  }

  /// Columns of numbers, of text and of both, with all that the format allows.
  private func table(
    _ rows: Int, _ generator: inout TestGenerator
  ) -> (text: String, kinds: [steppe_csv_column]) {
    let kinds = (0..<generator.integer(1...6)).map { _ in
      [STEPPE_CSV_NUMBER, STEPPE_CSV_NUMBER, STEPPE_CSV_TEXT, STEPPE_CSV_SKIP].randomElement(using: &generator)!
    }
    // Fields that are longer than what is looked at in one go, here and there in a long table.
    let isLong = rows > 100
    let words = [
      "", "a", "\"\"", "\"x,y\"", "\"two\nlines\"", "\"a \"\"b\"\" c\"", "5\" pipe", "\"\n\"", "é", "\"1\r\n2\"",
    ]
    let end = generator.integer(0...1) == 0 ? "\n" : "\r\n"
    var text = ""
    for row in 0..<rows {
      let fields = kinds.map { kind -> String in
        let isLong = isLong && generator.integer(0...99) == 0, length = generator.integer(100...6000)
        guard kind == STEPPE_CSV_NUMBER else {
          return isLong
            ? "\"\(String(repeating: "x,\n", count: length / 3))\"" : words.randomElement(using: &generator)!
        }
        if isLong { return "-\(String(repeating: "0", count: length))5" }
        let number = "\(generator.integer(-1000...1000))"
        return [number, number + ".25", "\"\(number)\"", " \(number) ", "NA", "", "1e3"].randomElement(
          using: &generator)!
      }
      // Of a single empty field nothing would be left.
      text += fields == [""] ? "7" : fields.joined(separator: ",")
      if row < rows - 1 || generator.integer(0...1) == 0 { text += end }
      if generator.integer(0...9) == 0 { text += row < rows - 1 ? end : "" }
    }
    return (text, kinds)
  }

  /// In whatever parts a table is read, on whatever threads, the rows are those that a reader of characters finds.
  @Test func anyPartsGiveTheSameRows() throws {
    let folder = TemporaryFolder()
    var generator = TestGenerator()
    for index in 0..<430 {
      let isLong = index >= 400
      let (text, kinds) = table(isLong ? generator.integer(500...1500) : generator.integer(1...40), &generator)
      let path = folder("table.csv")
      try Data(text.utf8).write(to: URL(fileURLWithPath: path))
      let rows = csvRows(text)
      guard rows.allSatisfy({ $0.count == kinds.count }) else { continue }
      let file = try CSVFile(path, format: CSVFormat(hasHeader: false))
      for missing in [MissingValues.mean, .drop] {
        let isMissing = { (row: [String]) in
          zip(row, kinds).contains { $1 == STEPPE_CSV_NUMBER && ["", "NA"].contains($0) }
        }
        let kept = missing == .drop ? rows.filter { !isMissing($0) } : rows
        func expected(_ kind: steppe_csv_column) -> [String] {
          kept.flatMap { zip($0, kinds).filter { $1 == kind }.map(\.0) }
        }
        let numbers = expected(STEPPE_CSV_NUMBER).map { Double($0.filter { $0 != " " }) ?? .nan }
        for partSize in isLong ? [1000, 5000, 100_000] : [1, 3, 10, 50, 100_000] {
          let threads = generator.integer(1...3)
          try Parallel.withThreadCount(threads) {
            let pass = CSVPass(file, kinds: kinds, missing: missing, partSize: partSize)
            var (found, texts): ([Double], [String]) = ([], [])
            var places: [Int] = []
            while let parts = try pass.next() {
              for part in parts where part.rows > 0 {
                places.append(part.first)
                let width = kinds.count { $0 == STEPPE_CSV_NUMBER }
                found += (0..<part.rows * width).map { part.numbers.pointer[$0] }
                texts += part.texts(of: file)
              }
            }
            let place = "parts of \(partSize), \(threads) threads, \(isLong ? "long" : text.debugDescription)"
            #expect(found.map(\.bitPattern) == numbers.map(\.bitPattern), "\(place)")
            #expect(texts == expected(STEPPE_CSV_TEXT), "\(place)")
            #expect(pass.rows == kept.count && pass.dropped == rows.count - kept.count, "\(place)")
            #expect(places == places.sorted())
          }
        }
      }
    }
  }

  @Test func headers() throws {
    let folder = TemporaryFolder()
    func file(_ text: String, _ format: CSVFormat = CSVFormat()) throws -> CSVFile {
      try Data(text.utf8).write(to: URL(fileURLWithPath: folder("t.csv")))
      return try CSVFile(folder("t.csv"), format: format)
    }
    #expect(try file("a,\"b,c\",\"say \"\"x\"\"\"\n1,2,3\n").names == ["a", "b,c", "say \"x\""])
    #expect(try file("\u{FEFF}a;b\r\n1;2\r\n", CSVFormat(separator: ";")).names == ["a", "b"])
    #expect(try file("1,2\n3,4\n", CSVFormat(hasHeader: false)).names == [])
    #expect(try file("1,2\n3,4\n", CSVFormat(hasHeader: true)).names == ["1", "2"])
    #expect(try file("1,x\n3,4\n", CSVFormat(hasHeader: false)).columnCount == 2)
    for (text, kind, found) in [
      ("1,2\n3,4\n", FileError.Kind.wrongFormat, "numbers alone in the first line"), ("", .empty, "0 bytes"),
      ("a,b,a\n", .wrongFormat, "'a' for columns 0 and 2"), ("a,,b\n", .wrongFormat, "none for column 1"),
      ("\n\n", .wrongFormat, "an empty one"),
    ] {
      let error = #expect(throws: FileError.self) { try file(text) }
      #expect(error?.kind == kind && error?.found == found, "\(text.debugDescription): \(error?.description ?? "")")
    }
  }

  @Test func readsIntoMemory() throws {
    let folder = TemporaryFolder()
    let path = folder("t.csv")
    try Data("a,b,c\n1,2,x\n3,NA,y\n5,6,z\n".utf8).write(to: URL(fileURLWithPath: path))
    let (rows, names) = try CSV.read(path, columns: ["b", "a"], missing: .drop, as: Float.self)
    #expect(names == ["b", "a"] && rows.shape == [2, 2] && rows.scalars == [2, 1, 6, 5])
    let (kept, _) = try CSV.read(path, columns: ["a", "b"], missing: .mean, as: Double.self)
    #expect(kept.shape == [3, 2] && kept[1, 1].isNaN && kept[2, 1] == 6)
    let error = #expect(throws: FileError.self) { try CSV.read(path, columns: ["a", "q"], as: Float.self) }
    #expect(error?.description == "\(path): no such entry: expected a column 'q', found a, b, c")
    // What is written reads back.
    let x = Tensor<Double>([[0.1, -1e300], [.pi, .leastNonzeroMagnitude]])
    try CSV.write(x, header: ["p", "q, \"r\""], to: folder("w.csv"))
    let back = try CSV.read(folder("w.csv"), as: Double.self)
    #expect(back.rows.scalars == x.scalars && back.names == ["p", "q, \"r\""])
  }

  /// What is wrong is named with row, line and column, whichever part of the file it stands in.
  @Test func brokenTablesAreNamed() throws {
    let folder = TemporaryFolder()
    let path = folder("t.csv")
    let good = (0..<5000).map { "\($0),0.5,\"x\"\n" }.joined()
    for (rows, message) in [
      ("1,abc,x\n", "wrong format: expected numbers, found 'abc' in column 1 ('b') at row 5000, line 5002"),
      ("1,2 3,x\n", "wrong format: expected numbers, found '2 3' in column 1 ('b') at row 5000, line 5002"),
      (
        "1,,x\n",
        "not finite: expected a number in each field, found the missing '' in column 1 ('b') at row 5000, line 5002"
      ),
      (
        "nan,1,x\n",
        "not finite: expected a number in each field, found the missing 'nan' in column 0 ('a') at row 5000, line 5002"
      ),
      ("-inf,1,x\n", "not finite: expected finite numbers, found '-inf' in column 0 ('a') at row 5000, line 5002"),
      ("1e999,1,x\n", "not finite: expected finite numbers, found '1e999' in column 0 ('a') at row 5000, line 5002"),
      ("1,2,3,4\n1,2,3\n", "wrong format: expected 3 fields in each row, found 4 at row 5000, line 5002"),
      ("1,2\n1,2,3\n", "wrong format: expected 3 fields in each row, found 2 at row 5000, line 5002"),
      (
        "\n1,2,3\n1,2",
        "truncated: expected 3 fields in each row, found 2 in the last, which no line's end follows, at row 5001, line 5004"
      ),
      (
        "1,2,\"open\n",
        "wrong format: expected a quoted field that ends with its last quote, found a field that begins with '\"open ' in column 2 ('c') at row 5000, line 5002"
      ),
      (
        "1,2,\"a\"b\n",
        "wrong format: expected a quoted field that ends with its last quote, found a field that begins with '\"a\"b' in column 2 ('c') at row 5000, line 5002"
      ),
    ] {
      try Data(("a,b,c\n" + good + rows).utf8).write(to: URL(fileURLWithPath: path))
      for partSize in [100, 1 << 20] {
        let file = try CSVFile(path)
        let pass = CSVPass(
          file, kinds: [STEPPE_CSV_NUMBER, STEPPE_CSV_NUMBER, STEPPE_CSV_SKIP], missing: .refuse, partSize: partSize)
        let error = #expect(throws: FileError.self) { while try pass.next() != nil {} }
        #expect(error?.description == "\(path): \(message)")
      }
    }
  }
}
