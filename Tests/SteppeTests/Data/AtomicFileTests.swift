import Foundation
import Testing

import Steppe

extension DataTests {
  @Suite struct AtomicFileTests {
    let folder = TemporaryFolder()

    @Test func writesSmallAndLargePieces() throws {
      let path = folder("pieces")
      var expected: [UInt8] = []
      try AtomicFile.write(to: path) { file throws(FileError) in
        for size in [0, 1, 70_000, 3, 65_535, 65_536, 10, 300_000] {
          let piece = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ size) }
          expected += piece
          try file.write(piece)
        }
        try file.write("end\n")
      }
      #expect(bytes(of: path) == expected + Array("end\n".utf8))
      #expect(folder.contents == ["pieces"])
    }

    @Test func replacesAnOldFileAndKeepsItsMode() throws {
      let path = folder.file("old", [1, 2, 3])
      chmod(path, 0o600)
      try AtomicFile.write(to: path) { file throws(FileError) in try file.write([4]) }
      #expect(bytes(of: path) == [4])
      var status = stat()
      stat(path, &status)
      #expect(status.st_mode & 0o777 == 0o600)
    }

    @Test func writesThroughALink() throws {
      let path = folder.file("target", [1])
      symlink(path, folder("link"))
      try AtomicFile.write(to: folder("link")) { file throws(FileError) in try file.write([2]) }
      #expect(bytes(of: path) == [2])
      #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder("link")) == path)
    }

    @Test func aFailureKeepsTheOldFile() {
      let path = folder.file("old", [1, 2, 3])
      let failure = FileError(path: "input", kind: .truncated, expected: "more", found: "less")
      #expect(throws: failure) {
        try AtomicFile.write(to: path) { file throws(FileError) in
          try file.write([UInt8](repeating: 9, count: 100_000))
          throw failure
        }
      }
      #expect(bytes(of: path) == [1, 2, 3])
      #expect(folder.contents == ["old"])
    }

    @Test func namesTheFileAndTheReason() {
      func write(_ path: String) throws(FileError) {
        try AtomicFile.write(to: path) { file throws(FileError) in try file.write([1]) }
      }
      let plain = folder.file("plain", [1])
      expectFailure(.cannotWrite, of: folder("no/such"), "No such file or directory", folder("no/")) {
        () throws(FileError) in
        try write(folder("no/such"))
      }
      expectFailure(.cannotWrite, of: plain + "/below", "Not a directory") { () throws(FileError) in
        try write(plain + "/below")
      }
      expectFailure(.cannotWrite, of: folder.path, "a folder") { () throws(FileError) in try write(folder.path) }
      expectFailure(.cannotWrite, of: "/dev/full", "No space left on device") { () throws(FileError) in
        try write("/dev/full")
      }
      expectFailure(.cannotWrite, of: "/proc/steppe", "expected a folder /proc/") { () throws(FileError) in
        try write("/proc/steppe")
      }
    }

    @Test func aDeviceIsNotReplaced() throws {
      try AtomicFile.write(to: "/dev/null") { file throws(FileError) in try file.write([1]) }
      var status = stat()
      #expect(stat("/dev/null", &status) == 0 && status.st_mode & S_IFMT == S_IFCHR)
    }

    @Test func aFullDiskKeepsTheOldFile() async {
      await #expect(processExitsWith: .success) {
        let folder = TemporaryFolder()
        let path = folder.file("old", [1, 2, 3])
        signal(SIGXFSZ, SIG_IGN)
        var limit = rlimit(rlim_cur: 1 << 20, rlim_max: 1 << 20)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
        do throws(FileError) {
          try NPY.write(Tensor<Float>.ones(shape: [1 << 20]), to: path)
          exit(1)
        } catch {
          guard error.kind == .cannotWrite, error.found == "File too large" else { exit(2) }
        }
        guard bytes(of: path) == [1, 2, 3], folder.contents == ["old"] else { exit(3) }
      }
    }
  }

  @Suite struct MappedFileTests {
    let folder = TemporaryFolder()

    @Test func mapsFilesAndEmptyFiles() throws {
      let file = try MappedFile(folder.file("a", [1, 2, 3]))
      #expect(file.count == 3)
      #expect(file.withUnsafeBytes { Array($0) } == [1, 2, 3])
      #expect(try MappedFile(folder.file("b", [])).count == 0)
    }

    @Test func outlivesARenameOver() throws {
      let path = folder("tensor.npy")
      try NPY.write(Tensor<Float>([1, 2]), to: path)
      let old = try NPY.read(path, as: Float.self)
      try NPY.write(Tensor<Float>([3, 4]), to: path)
      #expect(old.scalars == [1, 2])
      #expect(try NPY.read(path, as: Float.self).scalars == [3, 4])
    }

    @Test func refusesWhatIsNoFile() {
      mkfifo(folder("pipe"), 0o600)
      for (path, words) in [
        (folder.path, "a folder"), ("/dev/zero", "a device"), (folder("pipe"), "pipe"),
        (folder.file("x", [1]) + "/y", "Not a directory"),
      ] {
        expectFailure(.notReadable, of: path, words) { () throws(FileError) in try MappedFile(path) }
      }
      expectFailure(.missing, of: folder("none"), "No such file") { () throws(FileError) in
        try MappedFile(folder("none"))
      }
    }
  }
}
