import Testing

import Steppe

extension DataTests {
  @Suite struct JSONTests {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

    @Test func parsesEveryKind() throws {
      #expect(
        try parse(#" {"a" : [1, -2.5e3, true, false, null], "b": {"": "x"}, "c": {}, "d": []} "#)
          == .object([
            .init("a", .array([.integer(1), .number(-2500), .bool(true), .bool(false), .null])),
            .init("b", .object([.init("", .string("x"))])),
            .init("c", .object([])),
            .init("d", .array([])),
          ]))
      #expect(try parse("9223372036854775807") == .integer(.max))
      #expect(try parse("9223372036854775808") == .number(0x1p63))
      #expect(try parse("0.1e-2") == .number(0.001))
      #expect(try parse(#""\"\\\/\b\f\n\r\t\u0041\ud83d\ude00é""#) == .string("\"\\/\u{8}\u{c}\n\r\tA😀é"))
      #expect(try parse(#"{"a":{"b":7}}"#)["a"]?["b"] == .integer(7))
      #expect(try parse(String(repeating: "[", count: 64) + String(repeating: "]", count: 64)) != .null)
    }

    @Test(arguments: [
      "", " ", "{", "[", "[1", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{'a':1}", "1 2", "nul",
      "truex", "01", "-", "1.", ".5", "+1", "1e", "1e+", "1e999", "NaN", "Infinity", "\"", "\"\\", "\"\\x\"", "\"\n\"",
      "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\ud800\\ud800\"", "// x\n1",
      "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}", "\u{FEFF}1", String(repeating: "[", count: 65),
      String(repeating: "[", count: 1_000_000),
    ]) func refuses(_ text: String) {
      #expect(throws: JSONError.self) { try parse(text) }
    }

    @Test func refusesBytesThatAreNotUTF8() {
      #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xFF, 0x22]) }
      #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xED, 0xA0, 0x80, 0x22]) }
      #expect(throws: JSONError.self) { try JSONValue(parsing: [0xFF]) }
    }

    @Test func saysWhere() throws {
      let error = try #require(throws: JSONError.self) { try parse(#"{"a":1,"a":2}"#) }
      #expect(error.offset == 7 && error.expected == "each key once" && error.found == "a second 'a'")
    }

    @Test func serializesWhatItParses() throws {
      let value = JSONValue.object([
        .init("text", .string("a\"\\\n\r\t\u{1}é😀/")),
        .init("numbers", .array([.integer(-3), .number(0.1), .number(1e300)])),
        .init("others", .array([.null, .bool(true), .bool(false), .object([]), .array([])])),
      ])
      let text = value.serialized()
      #expect(
        text == #"{"text":"a\"\\\n\r\t\u0001é😀/","numbers":[-3,0.1,1e+300],"others":[null,true,false,{},[]]}"#)
      #expect(try parse(text) == value)
      #expect(JSONValue.array([.number(.nan), .number(.infinity)]).serialized() == "[null,null]")
    }
  }
}
