import Foundation
import Testing

import Steppe

extension DataTests {
  @Suite struct NPYTests {
    let folder = TemporaryFolder()

    /// A file with this dictionary and data, in `version`, padded as NumPy pads.
    static func file(_ dictionary: String, _ data: [UInt8], version: UInt8 = 1) -> [UInt8] {
      var file: [UInt8] = [0x93, 0x4E, 0x55, 0x4D, 0x50, 0x59, version, 0]
      let start = version == 1 ? 10 : 12
      let length = (start + dictionary.utf8.count + 1 + 63) / 64 * 64 - start
      if version == 1 {
        file.append(littleEndian: UInt16(length))
      } else {
        file.append(littleEndian: UInt32(length))
      }
      file += dictionary.utf8
      file += [UInt8](repeating: 0x20, count: length - dictionary.utf8.count - 1) + [0x0A]
      return file + data
    }

    private func path(_ dictionary: String, _ data: [UInt8], version: UInt8 = 1) -> String {
      folder.file("array.npy", Self.file(dictionary, data, version: version))
    }

    // Files by NumPy 2.4.
    static let float32 = bytes(
      base64: "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAgICAg"
        + "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAACAPgAAAD8AAEA/AACAPwAA"
        + "oD8=")
    static let fortran = bytes(
      base64: "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAgICAg"
        + "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAABAQAAAgD8AAIBAAAAAQAAA"
        + "oEA=")

    @Test func readsNumPysFiles() throws {
      let plain = try NPY.read(folder.file("plain", Self.float32), as: Float.self)
      #expect(plain.shape == [2, 3] && plain.scalars == [0, 0.25, 0.5, 0.75, 1, 1.25])
      #expect(!plain.storage.isWritable, "read by map, without a copy")
      var changed = plain
      changed.withUnsafeMutableBufferPointer { $0[0] = 7 }
      #expect(changed.scalars[0] == 7 && plain.scalars[0] == 0)
      let transposed = try NPY.read(folder.file("fortran", Self.fortran), as: Float.self)
      #expect(transposed.shape == [2, 3] && transposed.scalars == [0, 1, 2, 3, 4, 5])
      #expect(!transposed.storage.isWritable)
    }

    @Test func writesNumPysBytes() throws {
      let tensor = Tensor<Float>([[0, 0.25, 0.5], [0.75, 1, 1.25]])
      try NPY.write(tensor, to: folder("written"))
      #expect(bytes(of: folder("written")) == Self.float32)
      try NPY.write(tensor.transposed().transposed(), to: folder("view"))
      #expect(bytes(of: folder("view")) == Self.float32)
    }

    @Test(arguments: [[], [0], [5], [1, 1], [3, 0, 2], [2, 3, 4, 5]]) func roundTrips(_ shape: [Int]) throws {
      let count = shape.reduce(1, *)
      let values = (0..<count).map { Double($0) * 0.1 - 3 }
      let path = folder("round")
      try NPY.write(Tensor<Double>(shape: shape, scalars: values), to: path)
      let doubles = try NPY.read(path, as: Double.self)
      #expect(doubles.shape == shape && doubles.scalars == values)
      #expect(try NPY.read(path, as: Float.self).scalars == values.map { Float($0) })
      try NPY.write((0..<count).map { $0 - 2 }, shape: shape, to: path)
      let (integers, integerShape) = try NPY.readIntegers(path)
      #expect(integers == (0..<count).map { $0 - 2 } && integerShape == shape)
      #expect(bytes(of: path).count % 8 == 0 && (bytes(of: path).count - 8 * count) % 64 == 0)
    }

    @Test func readsEveryType() throws {
      let cases: [(String, [UInt8], [Double])] = [
        ("|b1", [1, 0], [1, 0]), ("|u1", [200, 3], [200, 3]), ("|i1", [200, 3], [-56, 3]),
        ("<u2", [0, 255, 1, 0], [65280, 1]), (">i2", [255, 254, 1, 0], [-2, 256]),
        ("<i4", [254, 255, 255, 255, 1, 0, 0, 0], [-2, 1]), (">u4", [128, 0, 0, 0, 0, 0, 0, 1], [2_147_483_648, 1]),
        ("<i8", [255, 255, 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 0, 0, 0], [-1, 2]),
        ("<u8", [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], [1, 2]),
        ("<f2", [0, 0x3E, 0, 0xC0], [1.5, -2]), (">f4", [0x3F, 0xC0, 0, 0, 0xC0, 0, 0, 0], [1.5, -2]),
        ("=f8", [0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0, 0, 0, 0, 0, 0, 0, 0xC0], [1.5, -2]),
      ]
      for (type, data, values) in cases {
        let path = path("{'descr': '\(type)', 'fortran_order': False, 'shape': (2,), }", data)
        #expect(try NPY.read(path, as: Double.self).scalars == values, "\(type)")
        #expect(try NPY.read(path, as: Float.self).scalars == values.map { Float($0) }, "\(type)")
        if !type.contains("f") { #expect(try NPY.readIntegers(path).values == values.map { Int($0) }, "\(type)") }
      }
    }

    @Test(arguments: [1, 2, 3] as [UInt8]) func readsEveryVersionAndSpelling(_ version: UInt8) throws {
      for dictionary in [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }",
        "{\"shape\":(3L,),\"fortran_order\":False,\"descr\":\"|u1\"}",
        "{ 'fortran_order' : True , 'descr' : '<u1' , 'shape' : ( 3 , ) }",
      ] {
        let file = try NPY.readIntegers(path(dictionary, [1, 2, 3], version: version))
        #expect(file.values == [1, 2, 3] && file.shape == [3])
      }
    }

    @Test func readsIntegersInFortransOrder() throws {
      let path = path("{'descr': '|i1', 'fortran_order': True, 'shape': (2, 3), }", [0, 3, 1, 4, 2, 5])
      #expect(try NPY.readIntegers(path).values == [0, 1, 2, 3, 4, 5])
    }

    @Test func refusesBrokenFiles() {
      func refuse(
        _ file: [UInt8], _ kind: FileError.Kind, _ words: String, sourceLocation: SourceLocation = #_sourceLocation
      ) {
        let path = folder.file("broken.npy", file)
        expectFailure(kind, of: path, words, sourceLocation: sourceLocation) { () throws(FileError) in
          try NPY.read(path, as: Float.self)
        }
      }
      func refuse(
        _ dictionary: String, _ kind: FileError.Kind, _ words: String, sourceLocation: SourceLocation = #_sourceLocation
      ) {
        refuse(Self.file(dictionary, [0, 0, 0, 0]), kind, words, sourceLocation: sourceLocation)
      }
      let good = Self.float32
      refuse([], .empty, "an NPY file")
      refuse([1, 2, 3], .wrongMagic, "01 02 03")
      refuse(Array(good.prefix(11)), .truncated, "header")
      refuse(Array(good.prefix(100)), .truncated, "118 bytes of header")
      refuse(good.dropLast(), .truncated, "24 bytes of float32 data for shape [2, 3], found 23 bytes")
      refuse(good + [0], .trailingBytes, "found 25 bytes")
      refuse(Array(good[..<6]) + [4, 0] + good[8...], .unsupported, "4.0")
      refuse("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", .unsupported, "'<c8'")
      refuse("{'descr': 'f4', 'fortran_order': False, 'shape': (1,), }", .unsupported, "'f4'")
      refuse("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", .wrongFormat, "a string")
      refuse("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", .wrongFormat, "True or False")
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", .wrongFormat, "a size")
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': 1, }", .wrongFormat, "'('")
      refuse("{'descr': '<f4', 'fortran_order': False, }", .wrongFormat, "keys")
      refuse("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", .wrongFormat, "'descr'")
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", .wrongFormat, "'x'")
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x", .wrongFormat, "the header's end")
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (1", .wrongFormat, "')'")
      refuse(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", .truncated, "more bytes than")
      refuse(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4), }", .truncated, "more bytes")
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", .wrongFormat, "a size")
      let axes = String(repeating: "1,", count: 65)
      refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (\(axes)), }", .unsupported, "64 axes")
      let path = path("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", [UInt8](repeating: 255, count: 8))
      expectFailure(.outOfRange, of: path, "18446744073709551615 at index 0") { () throws(FileError) in
        try NPY.readIntegers(path)
      }
      let floats = folder.file("floats.npy", good)
      expectFailure(.unsupported, of: floats, "integers") { () throws(FileError) in try NPY.readIntegers(floats) }
      expectFailure(.missing, of: folder("none")) { () throws(FileError) in try NPY.readIntegers(folder("none")) }
    }
  }

  @Suite struct CSVTests {
    let folder = TemporaryFolder()

    @Test func writesMatricesAndColumns() throws {
      try CSV.write(Tensor<Float>([[1, 0.1], [-2.5e-8, .infinity]]), header: ["a", "b, \"c\""], to: folder("a.csv"))
      #expect(
        String(decoding: bytes(of: folder("a.csv")), as: UTF8.self) == "a,\"b, \"\"c\"\"\"\n1.0,0.1\n-2.5e-08,inf\n")
      try CSV.write(Tensor<Double>([0.1, .nan]), to: folder("b.csv"))
      #expect(String(decoding: bytes(of: folder("b.csv")), as: UTF8.self) == "0.1\nnan\n")
      try CSV.write(Tensor<Double>.zeros(shape: [0, 3]), header: ["x", "y", "z"], to: folder("c.csv"))
      #expect(String(decoding: bytes(of: folder("c.csv")), as: UTF8.self) == "x,y,z\n")
    }

    @Test func reportsAFullDisk() {
      expectFailure(.cannotWrite, of: "/dev/full", "No space left on device") { () throws(FileError) in
        try CSV.write(Tensor<Float>([1]), to: "/dev/full")
      }
    }
  }
}
