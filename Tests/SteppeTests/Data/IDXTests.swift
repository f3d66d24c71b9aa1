import Foundation
import Testing

import Steppe

extension DataTests {
  @Suite struct IDXTests {
    let folder = TemporaryFolder()
    /// [[1, 2, 3], [4, 5, 250]] as bytes.
    static let plain: [UInt8] = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 250]
    /// The same, by Python's gzip; in one member, and in two that part after nine bytes.
    static let compressed = bytes(base64: "H4sIAAAAAAACA2Ng4GBiYGAAYWZGJmYW1l8Afyo1URIAAAA=")
    static let twoMembers = bytes(
      base64: "H4sIAAAAAAACA2Ng4GBiYGBgYgAAQJkYqgkAAAAfiwgAAAAAAAIDY2BgZmRiZmH9BQCDZt5TCQAAAA==")
    /// 2²⁰ zeros, by Python's gzip.
    static let megabyteOfZeros: [UInt8] =
      bytes(base64: "H4sIAAAAAAACA+3BMQEAAADCoPVPbQhfoA==") + [UInt8](repeating: 0, count: 1016)
      + [0x3E, 0x03, 0x1C, 0xEA, 0x38, 0xA7, 0x00, 0x00, 0x10, 0x00]

    @Test(arguments: [plain, compressed, twoMembers]) func readsBytes(_ file: [UInt8]) throws {
      let idx = try IDX.read(folder.file("misleading.name", file))
      #expect(idx.shape == [2, 3])
      #expect(idx.elementType == .uint8)
      #expect(idx.bytes == [1, 2, 3, 4, 5, 250])
      #expect(try idx.integers() == [1, 2, 3, 4, 5, 250])
      let tensor: Tensor<Float> = idx.tensor()
      #expect(tensor.shape == [2, 3] && tensor.scalars == [1, 2, 3, 4, 5, 250])
      #expect(idx.tensor(scale: 0.5, as: Double.self).scalars == [0.5, 1, 1.5, 2, 2.5, 125])
    }

    @Test func readsEveryType() throws {
      let cases: [(UInt8, [UInt8], [Double])] = [
        (0x09, [0xFF, 0x80], [-1, -128]),
        (0x0B, [0x01, 0x00, 0xFF, 0xFE], [256, -2]),
        (0x0C, [0x00, 0x01, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF], [65536, -1]),
        (0x0D, [0x3F, 0xC0, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x00], [1.5, -2]),
        (0x0E, [0x3F, 0xF8, 0, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0], [1.5, -2]),
      ]
      for (code, data, values) in cases {
        let path = folder.file("typed", [0, 0, code, 1, 0, 0, 0, 2] + data)
        #expect(try IDX.read(path).tensor(as: Double.self).scalars == values)
        if code < 0x0D {
          #expect(try IDX.read(path).integers() == values.map { Int($0) })
        } else {
          expectFailure(.unsupported, of: path, "integers", "float") { () throws(FileError) in
            try IDX.read(path).integers()
          }
        }
      }
    }

    @Test func writesWhatItReads() throws {
      let path = folder("written")
      try IDX.write([1, 2, 3, 4, 5, 250], shape: [2, 3], to: path)
      #expect(bytes(of: path) == Self.plain)
      try IDX.write([-1, 70_000], shape: [2], as: .int32, to: path)
      #expect(try IDX.read(path).integers() == [-1, 70_000])
      try IDX.write([], shape: [0, 28], to: path)
      #expect(try IDX.read(path).shape == [0, 28])
      #expect(try IDX.read(path).tensor(as: Float.self).count == 0)
      try IDX.write([-3], shape: [], as: .int16, to: path)
      #expect(try IDX.read(path).tensor(as: Float.self).scalar == -3)
    }

    @Test func refusesBrokenFiles() {
      func refuse(
        _ file: [UInt8], _ kind: FileError.Kind, _ words: String, sourceLocation: SourceLocation = #_sourceLocation
      ) {
        let path = folder.file("broken", file)
        expectFailure(kind, of: path, words, sourceLocation: sourceLocation) { () throws(FileError) in
          try IDX.read(path)
        }
      }
      let (plain, compressed) = (Self.plain, Self.compressed)
      refuse([], .empty, "an IDX file")
      refuse([0, 0, 8], .truncated, "expected 4 bytes of IDX magic number, found 3 bytes")
      refuse(Array(plain.prefix(9)), .truncated, "expected 8 bytes of axis sizes, found 5 bytes")
      refuse(plain.dropLast(), .truncated, "expected 6 bytes of uint8 data for shape [2, 3], found 5 bytes")
      refuse(plain + [0], .trailingBytes, "found 7 bytes")
      refuse([0, 0, 7] + plain.dropFirst(3), .wrongMagic, "00 00 07 02")
      refuse([0x89, 0x50, 0x4E, 0x47], .wrongMagic, "89 50 4e 47")
      refuse([2, 8, 0, 0] + plain.dropFirst(4), .wrongByteOrder, "02 08 00 00")
      refuse([0, 0, 8, 1, 2, 0, 0, 0, 9, 9], .wrongByteOrder, "found 2 bytes")
      refuse([0, 0, 8, 4] + [UInt8](repeating: 255, count: 16), .truncated, "more bytes than fit any file")
      refuse([0, 0, 8, 4] + [UInt8](repeating: 255, count: 12) + [0, 0, 0, 0], .truncated, "more bytes")
      refuse(compressed.dropLast(4), .truncated, "a complete gzip stream")
      refuse(Array(compressed.prefix(15)), .truncated, "a complete gzip stream")
      refuse(compressed + [0], .trailingBytes, "1 more bytes")
      var flipped = compressed
      flipped[flipped.count - 6] ^= 1
      refuse(flipped, .corrupted, "incorrect data check")
      flipped = compressed
      flipped[2] = 7
      refuse(flipped, .corrupted, "unknown compression method")
      expectFailure(.missing, of: folder("none")) { () throws(FileError) in try IDX.read(folder("none")) }
    }

    /// A stored block: gzip without compression.
    private func stored(_ data: [UInt8]) -> [UInt8] {
      var file: [UInt8] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 1]
      file.append(littleEndian: UInt16(data.count))
      file.append(littleEndian: ~UInt16(data.count))
      file += data
      file.append(littleEndian: crc32(data))
      file.append(littleEndian: UInt32(data.count))
      return file
    }

    @Test func compressedHeadersClaimNoMemory() {
      let path = folder.file("claims", stored([0, 0, 8, 2, 0, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 1]))
      expectFailure(.truncated, of: path, "at most") { () throws(FileError) in try IDX.read(path) }
      let short = folder.file("short", stored([0, 0, 8, 1, 0, 0, 1, 0, 1, 2, 3]))
      expectFailure(.truncated, of: short, "256 bytes", "found 3 bytes") { () throws(FileError) in try IDX.read(short) }
      let swapped = folder.file("swapped", stored([0, 0, 8, 1, 3, 0, 0, 0, 1, 2, 3]))
      expectFailure(.wrongByteOrder, of: swapped) { () throws(FileError) in try IDX.read(swapped) }
    }

    @Test func bombsStopAtTheHeadersSize() throws {
      // 1 GiB of zeros behind a header of three bytes of data, and one that announces all of them.
      let zeros = Array([[UInt8]](repeating: Self.megabyteOfZeros, count: 1024).joined())
      let small = folder.file("small", stored([0, 0, 8, 1, 0, 0, 0, 3]) + zeros)
      expectFailure(.trailingBytes, of: small, "3 bytes") { () throws(FileError) in try IDX.read(small) }
      let large = folder.file("large", stored([0, 0, 8, 1, 0x40, 0, 0, 0]) + zeros)
      expectFailure(.tooLarge, of: large, "at most 1000000 bytes") { () throws(FileError) in
        try IDX.read(large, limit: 1_000_000)
      }
      let honest = folder.file("honest", stored([0, 0, 8, 1, 0, 0x20, 0, 0]) + zeros.prefix(2 * 1051))
      #expect(try IDX.read(honest).bytes == [UInt8](repeating: 0, count: 1 << 21))
    }
  }
}

/// CRC-32 by its definition, bit by bit.
func crc32(_ data: some Sequence<UInt8>) -> UInt32 {
  var sum: UInt32 = ~0
  for byte in data {
    sum ^= UInt32(byte)
    for _ in 0..<8 { sum = sum & 1 == 1 ? sum >> 1 ^ 0xEDB8_8320 : sum >> 1 }
  }
  return ~sum
}
