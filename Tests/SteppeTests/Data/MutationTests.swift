import Foundation
import Reference
import Testing

import Steppe

extension DataTests {
  /// 120 000 broken files, drawn from a printed seed, go through every reader in a process of its own, whose memory is
  /// limited to little more than it has at the start and whose time to two minutes. None may end it.
  @Suite struct MutationTests {
    @Test func noBrokenFileCrashesOrHangsOrTakesMemory() async throws {
      try ExitTestArguments.pass("\(dataTestSeed("mutations"))", to: "mutations")
      await #expect(processExitsWith: .success) {
        let seed = try #require(UInt64(ExitTestArguments.received(by: "mutations")[0]))
        alarm(120)
        // Threads would need address space for their stacks.
        Parallel.threadCount = 1
        limitMemory(toFurther: 256 << 20)
        let file = ChangingFile()
        var mutator = Mutator(seed: seed)
        var (read, refused) = (0, 0)
        for _ in 0..<120_000 {
          let format = Format.allCases.randomElement(using: &mutator.generator)!
          file.write(mutator.mutation(of: format))
          do throws(FileError) {
            try format.read(file.path)
            read += 1
          } catch {
            guard error.description.hasPrefix(file.path), !error.expected.isEmpty else { exit(2) }
            refused += 1
          }
        }
        // The mutations must be neither all harmless nor all refused at the first byte.
        if read < 1000 || refused < 50_000 { exit(3) }
      }
    }
  }
}

/// Limits the address space to what is in use and `bytes` more.
private func limitMemory(toFurther bytes: UInt) {
  let pages = UInt(readSmallFile("/proc/self/statm")!.split(separator: " ")[0])!
  let size = pages * UInt(sysconf(Int32(_SC_PAGESIZE))) + bytes
  var limit = rlimit(rlim_cur: size, rlim_max: size)
  setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
}

/// A file that changes its contents and stays open: emptying one by opening it makes some file systems wait for the
/// disk.
private struct ChangingFile {
  let path: String
  private let folder = TemporaryFolder()
  private let descriptor: Int32

  init() {
    path = folder("file")
    descriptor = open(path, O_RDWR | O_CREAT, 0o600)
  }

  func write(_ bytes: [UInt8]) {
    guard pwrite(descriptor, bytes, bytes.count, 0) == bytes.count, ftruncate(descriptor, bytes.count) == 0 else {
      exit(4)
    }
  }
}

private enum Format: CaseIterable {
  case idx, gzip, npy, safetensors

  /// Files that the format's reader takes.
  static let intact: [Format: [[UInt8]]] = [
    .idx: [
      DataTests.IDXTests.plain, [0, 0, 0x0D, 1, 0, 0, 0, 2, 0x3F, 0xC0, 0, 0, 0xC0, 0, 0, 0],
      [0, 0, 0x0B, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 2, 0, 3, 0, 4],
    ],
    .gzip: [DataTests.IDXTests.compressed, DataTests.IDXTests.twoMembers],
    .npy: [
      DataTests.NPYTests.float32, DataTests.NPYTests.fortran,
      DataTests.NPYTests.file("{'descr': '>i2', 'fortran_order': True, 'shape': (2, 2)}", Array(0..<8), version: 2),
      DataTests.NPYTests.file("{'descr': '<u8', 'fortran_order': False, 'shape': ()}", Array(0..<8), version: 3),
    ],
    .safetensors: [
      DataTests.SafetensorsTests.fromPyTorch,
      DataTests.SafetensorsTests.file(
        #"{"__metadata__":{"a":"\u00e9\ud83d\ude00"},"x":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]}}"#,
        [1, 2, 3, 4]),
    ],
  ]

  /// Reads the file as its users do, and touches every number.
  func read(_ path: String) throws(FileError) {
    switch self {
    case .idx, .gzip:
      let file = try IDX.read(path)
      touch(file.tensor(as: Float.self))
      touch(file.tensor(scale: 0.5, as: Double.self))
      if file.elementType.isInteger { _ = try file.integers() }
    case .npy:
      touch(try NPY.read(path, as: Float.self))
      touch(try NPY.read(path, as: Double.self))
      _ = try NPY.readIntegers(path)
    case .safetensors:
      let file = try SafetensorsFile(path)
      for name in file.names {
        touch(try file.tensor(named: name, as: Float.self))
        touch(try file.tensor(named: name, as: Double.self))
        if file.elementType(of: name)!.isInteger { _ = try file.integers(named: name) }
      }
      try file.verifyChecksum()
    }
  }

  private func touch<Scalar: TensorScalar>(_ tensor: Tensor<Scalar>) {
    let sum = tensor.withUnsafeBufferPointer { $0.reduce(0, +) }
    // Uses the sum, so that the reading is not optimized away.
    if sum == 0.12345 { exit(5) }
  }
}

private struct Mutator {
  var generator: RandomGenerator

  init(seed: UInt64) { generator = RandomGenerator(seed: seed) }

  private static let numbers: [UInt64] = [
    0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 1 << 24, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32,
    1 << 40,
    1 << 62, 1 << 63, (1 << 63) - 1, .max,
  ]
  private static let words = [
    "0", "-1", "1", "2", "99999999", "4611686018427387904", "9223372036854775807", "99999999999999999999", "1e9", "[",
    "]",
    "{", "}", "(", ")", ",", ":", "\"", "'", "\\", "\\ud800", "null", "True", "F64", "BOOL", "<f8", ">i4", "|b1",
    "shape",
  ].map { Array($0.utf8) }

  /// One of the format's files with one to four changes.
  mutating func mutation(of format: Format) -> [UInt8] {
    var file = Format.intact[format]!.randomElement(using: &generator)!
    for _ in 0..<Int.random(in: 1...4, using: &generator) { mutate(&file) }
    return file
  }

  private mutating func mutate(_ file: inout [UInt8]) {
    // Headers matter most, so half of the places are among the first bytes.
    let reach = Bool.random(using: &generator) ? min(file.count, 24) : file.count
    let place = Int.random(in: 0...reach, using: &generator)
    let end = min(file.count, place + Int.random(in: 0...16, using: &generator))
    switch Int.random(in: 0..<8, using: &generator) {
    case 0: if place < file.count { file[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator) }
    case 1: if place < file.count { file[place] = .random(in: 0...255, using: &generator) }
    case 2: file.removeSubrange(place...)
    case 3: file.removeSubrange(place..<end)
    case 4: file.insert(contentsOf: file[place..<end], at: place)
    case 5: file.replaceSubrange(place..<end, with: Self.words.randomElement(using: &generator)!)
    case 6:
      let number = Self.numbers.randomElement(using: &generator)!
      var field: [UInt8] = []
      if Bool.random(using: &generator) { field.append(littleEndian: number) } else { field.append(bigEndian: number) }
      let size = [1, 2, 4, 8].randomElement(using: &generator)!
      let part = Bool.random(using: &generator) ? field.prefix(size) : field.suffix(size)
      file.replaceSubrange(place..<min(file.count, place + size), with: part)
    default:
      let other = Format.intact[Format.allCases.randomElement(using: &generator)!]!.randomElement(using: &generator)!
      let start = Int.random(in: 0...other.count, using: &generator)
      file.replaceSubrange(place..<end, with: other[start...].prefix(Int.random(in: 0...32, using: &generator)))
    }
  }
}
