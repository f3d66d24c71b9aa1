import Foundation
import Testing

import Steppe

extension DataTests {
  @Suite struct SafetensorsTests {
    let folder = TemporaryFolder()

    /// By PyTorch's safetensors 0.8: a F32 [2, 2], b BF16, h F16, n I64 scalar, d F64, m BOOL, metadata {format: pt}.
    static let fromPyTorch = bytes(
      base64: "cAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJuIjp7ImR0eXBlIjoiSTY0Iiwic2hhcGUiOltdLCJkYXRh"
        + "X29mZnNldHMiOlswLDhdfSwiZCI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMV0sImRhdGFfb2Zmc2V0cyI6WzgsMTZdfSwiYSI6eyJk"
        + "dHlwZSI6IkYzMiIsInNoYXBlIjpbMiwyXSwiZGF0YV9vZmZzZXRzIjpbMTYsMzJdfSwiYiI6eyJkdHlwZSI6IkJGMTYiLCJzaGFwZSI6"
        + "WzJdLCJkYXRhX29mZnNldHMiOlszMiwzNl19LCJoIjp7ImR0eXBlIjoiRjE2Iiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbMzYs"
        + "NDBdfSwibSI6eyJkdHlwZSI6IkJPT0wiLCJzaGFwZSI6WzJdLCJkYXRhX29mZnNldHMiOls0MCw0Ml19fSAgICAgIAcAAAAAAAAAmpmZ"
        + "mZmZuT8AAIA/AAAAQAAAQEAAAIDAwD9AwAA+AMABAA==")

    static func file(_ header: String, _ data: [UInt8] = []) -> [UInt8] {
      var file: [UInt8] = []
      file.append(littleEndian: UInt64(header.utf8.count))
      return file + header.utf8 + data
    }

    @Test func readsPyTorchsFile() throws {
      let file = try SafetensorsFile(folder.file("model", Self.fromPyTorch))
      #expect(file.names == ["n", "d", "a", "b", "h", "m"])
      #expect(file.metadata == ["format": "pt"])
      try file.verifyChecksum()
      #expect(file.shape(of: "n") == [] && file.elementType(of: "n") == .int64)
      #expect(try file.integers(named: "n") == [7] && file.integers(named: "m") == [1, 0])
      let a = try file.tensor(named: "a", as: Float.self)
      #expect(a.shape == [2, 2] && a.scalars == [1, 2, 3, -4])
      #expect(!a.storage.isWritable, "read by map, without a copy")
      #expect(try file.tensor(named: "a", as: Double.self).scalars == [1, 2, 3, -4])
      #expect(try file.tensor(named: "b", as: Float.self).scalars == [1.5, -3])
      #expect(try file.tensor(named: "h", as: Double.self).scalars == [1.5, -2])
      #expect(try file.tensor(named: "d", as: Double.self).scalars == [0.1])
      #expect(try file.tensor(named: "d", as: Float.self).scalars == [0.1])
      #expect(file.shape(of: "x") == nil && file.elementType(of: "x") == nil)
      expectFailure(.noSuchEntry, of: file.path, "a tensor 'x'", "[n, d, a, b, h, m]") { () throws(FileError) in
        try file.tensor(named: "x", as: Float.self)
      }
      expectFailure(.unsupported, of: file.path + " (a)", "integers", "float32") { () throws(FileError) in
        try file.integers(named: "a")
      }
    }

    @Test func readsUnalignedTensors() throws {
      let header =
        #"{"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#
      let file = try SafetensorsFile(folder.file("odd", Self.file(header, [9, 0, 0, 0xC0, 0x3F])))
      #expect(try file.tensor(named: "f", as: Float.self).scalars == [1.5])
      #expect(try file.tensor(named: "u", as: Float.self).scalars == [9])
    }

    @Test func writesTheFormatByteForByte() throws {
      var writer = SafetensorsWriter(metadata: ["format": "pt"])
      writer.add(bytes: [1, 2, 3], shape: [3], named: "u")
      writer.add(Tensor<Float>([1.5]), named: "0.weight")
      writer.add([7], shape: [], named: "1.num_batches_tracked")
      try writer.write(to: folder("model"))
      let data: [UInt8] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xC0, 0x3F, 1, 2, 3]
      let sum = String(format: "%08x", crc32(data))
      var header = #"{"__metadata__":{"format":"pt","steppe.crc32":"\#(sum)"},"#
      header += #""u":{"dtype":"U8","shape":[3],"data_offsets":[12,15]},"#
      header += #""0.weight":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"#
      header += #""1.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#
      while header.utf8.count % 8 != 0 { header += " " }
      #expect(bytes(of: folder("model")) == Self.file(header, data))
    }

    @Test func roundTrips() throws {
      var writer = SafetensorsWriter(metadata: ["a \"b\"\n": "ü😀"])
      let floats = Tensor<Float>(shape: [3, 5], scalars: (0..<15).map { Float($0) * 0.1 })
      let doubles = Tensor<Double>(shape: [2, 2], scalars: [.pi, -0.0, .infinity, 1e-300])
      writer.add(floats, named: "f")
      writer.add(doubles.transposed(), named: "d")
      writer.add([-1, .max, .min], shape: [3, 1], named: "i")
      writer.add(Tensor<Float>.zeros(shape: [0, 4]), named: "empty")
      writer.add(bytes: Array(0...255), shape: [16, 16], named: "名")
      try writer.write(to: folder("model"))
      let file = try SafetensorsFile(folder("model"))
      try file.verifyChecksum()
      #expect(file.names == ["f", "d", "i", "empty", "名"])
      #expect(file.metadata["a \"b\"\n"] == "ü😀" && file.metadata.count == 2)
      #expect(try file.tensor(named: "f", as: Float.self).scalars == floats.scalars)
      let d = try file.tensor(named: "d", as: Double.self)
      #expect(d.scalars.map(\.bitPattern) == doubles.transposed().scalars.map(\.bitPattern))
      #expect(!d.storage.isWritable)
      #expect(try file.integers(named: "i") == [-1, .max, .min] && file.shape(of: "i") == [3, 1])
      #expect(try file.tensor(named: "empty", as: Double.self).shape == [0, 4])
      #expect(try file.integers(named: "名") == Array(0...255))
      try SafetensorsWriter().write(to: folder("none"))
      #expect(try SafetensorsFile(folder("none")).names == [])
    }

    @Test func theChecksumFindsEveryFlippedBit() throws {
      var writer = SafetensorsWriter()
      writer.add(Tensor<Float>([1, 2, 3]), named: "x")
      try writer.write(to: folder("model"))
      let good = bytes(of: folder("model"))
      for bit in (good.count - 12) * 8..<good.count * 8 {
        var broken = good
        broken[bit / 8] ^= 1 << (bit % 8)
        let path = folder.file("broken", broken)
        expectFailure(.corrupted, of: path, "CRC-32") { () throws(FileError) in
          try SafetensorsFile(path).verifyChecksum()
        }
      }
    }

    @Test func refusesBrokenFiles() {
      func refuse(
        _ file: [UInt8], _ kind: FileError.Kind, _ words: String, sourceLocation: SourceLocation = #_sourceLocation
      ) {
        let path = folder.file("broken", file)
        expectFailure(kind, of: path, words, sourceLocation: sourceLocation) { () throws(FileError) in
          try SafetensorsFile(path)
        }
      }
      func refuse(
        _ header: String, _ kind: FileError.Kind, _ words: String, sourceLocation: SourceLocation = #_sourceLocation
      ) {
        refuse(Self.file(header, [0, 0, 0, 0]), kind, words, sourceLocation: sourceLocation)
      }
      func entry(_ type: String, _ shape: String, _ offsets: String) -> String {
        #"{"x":{"dtype":"\#(type)","shape":\#(shape),"data_offsets":\#(offsets)}}"#
      }
      let good = Self.fromPyTorch
      refuse([], .empty, "a safetensors file")
      refuse([1, 2, 3], .truncated, "8 bytes of header length")
      refuse([UInt8](repeating: 255, count: 64), .wrongMagic, "18446744073709551615")
      refuse(Array(good.prefix(200)), .truncated, "368 bytes of header, found 192 bytes")
      refuse(good.dropLast(), .truncated, "42 bytes of data, found 41 bytes")
      refuse(good + [0], .trailingBytes, "found 43 bytes")
      refuse("[]", .wrongFormat, "a JSON object")
      refuse(" {}", .wrongFormat, "a JSON object")
      refuse("{", .wrongFormat, "JSON")
      refuse(#"{"__metadata__":[]}"#, .wrongFormat, "__metadata__")
      refuse(#"{"__metadata__":{"a":1}}"#, .wrongFormat, "metadata 'a'")
      refuse(entry("F32", "[1]", "[0,4]").replacingOccurrences(of: "}}", with: "},\"x\":1}"), .wrongFormat, "'x'")
      refuse(entry("F33", "[1]", "[0,4]"), .unsupported, "'F33'")
      refuse(entry("F8_E4M3", "[4]", "[0,4]"), .unsupported, "'F8_E4M3'")
      refuse(entry("F32", "[2]", "[0,4]"), .wrongFormat, "8 bytes for 'x' of type F32 and shape [2], found 4 bytes")
      refuse(entry("F32", "[-1]", "[0,4]"), .wrongFormat, "'x' with a dtype")
      refuse(entry("F32", "[1.0]", "[0,4]"), .wrongFormat, "'x' with a dtype")
      refuse(entry("F32", "[1]", "[4,0]"), .wrongFormat, "'x' with a dtype")
      refuse(entry("F32", "[1]", "[0,4,8]"), .wrongFormat, "'x' with a dtype")
      refuse(#"{"x":{"dtype":"F32","shape":[1]}}"#, .wrongFormat, "'x' with a dtype")
      refuse(entry("F32", "[4611686018427387904,4]", "[0,4]"), .wrongFormat, "more than all")
      refuse(entry("F32", "[0,4611686018427387904,4]", "[0,0]"), .wrongFormat, "more than all")
      refuse(entry("U8", "[4]", "[1,5]"), .wrongFormat, "'x' to begin at data byte 0, found 1")
      refuse(entry("U8", "[9]", "[0,9]"), .truncated, "9 bytes of data, found 4 bytes")
      refuse(entry("U8", "[3]", "[0,3]"), .trailingBytes, "3 bytes of data, found 4 bytes")
      refuse(
        #"{"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"y":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
        .wrongFormat, "'y' to begin at data byte 3, found 2")
      expectFailure(.missing, of: folder("none")) { () throws(FileError) in try SafetensorsFile(folder("none")) }
    }

    @Test func reportsWhatCannotBeWritten() {
      var writer = SafetensorsWriter()
      writer.add(Tensor<Float>.zeros(shape: [100_000]), named: "x")
      expectFailure(.cannotWrite, of: "/dev/full", "No space left on device") { () throws(FileError) in
        try writer.write(to: "/dev/full")
      }
      expectFailure(.cannotWrite, of: folder("no/such"), "No such file or directory") { () throws(FileError) in
        try writer.write(to: folder("no/such"))
      }
    }
  }
}
