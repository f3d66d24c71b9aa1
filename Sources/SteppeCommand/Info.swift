import ArgumentParser
import COpenBLAS
import Glibc
import Steppe

struct Info: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows versions, the BLAS and what the machine offers.",
    discussion: """
      What to send with a report, and where to see which instructions and how many threads are used.

      Example:
        steppe info --json | jq .blas
      """)

  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup var threads: ThreadOptions

  func run() {
    threads.apply()
    if json {
      print(JSONValue.object(Self.sections().map { .init($0.key, .object($0.members)) }).serialized())
      return
    }
    let rows = Self.sections().flatMap { section in
      section.members.map { member in
        [[section.key, member.key].joined(separator: " "), Self.text(member)]
      }
    }
    print(list(rows))
  }

  private struct Section {
    let key: String
    let members: [JSONValue.Member]
  }

  /// Numbers stand in bytes where their key says so.
  private static func text(_ member: JSONValue.Member) -> String {
    switch member.value {
    case .string(let text): text
    case .integer(let number): member.key.hasSuffix("bytes") ? byteCount(number) : String(number)
    case .array(let values):
      values.map { if case .string(let text) = $0 { text } else { $0.serialized() } }.joined(separator: ", ")
    default: member.value.serialized()
    }
  }

  private static func sections() -> [Section] {
    [
      Section(
        key: "steppe",
        members: [.init("version", .string(SteppeVersion.current)), .init("compiler", .string(compiler))]),
      Section(
        key: "blas",
        members: [
          .init("name", .string("OpenBLAS \(OpenBLAS.version)")),
          .init("kernel", .string(OpenBLAS.kernelName)),
          .init("threading", .string(blasThreading)),
          .init("managed by steppe", .bool(OpenBLAS.managesThreads)),
          .init("configuration", .string(OpenBLAS.configuration)),
          .init("lapack", .string(lapackVersion)),
        ]),
      Section(
        key: "kernels",
        members: [
          .init("instruction set", .string(InstructionSet.current)),
          .init("available", .array(InstructionSet.available.map { .string($0) })),
        ]),
      Section(
        key: "machine",
        members: [
          .init("processor", .string(processorName)),
          .init("processors available", .integer(Parallel.availableProcessors)),
          .init("threads used", .integer(Parallel.threadCount)),
          .init("level 1 data cache bytes", .integer(CacheSizes.level1)),
          .init("level 2 cache bytes", .integer(CacheSizes.level2)),
          .init("last level cache bytes", .integer(CacheSizes.last)),
          .init("memory bytes", .integer(sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)))),
          .init("huge pages", .string(hugePages)),
        ]),
    ]
  }

  /// The compiler's version as far as a program can ask for it.
  static var compiler: String {
    #if compiler(>=6.4)
      "Swift 6.4 or later"
    #elseif compiler(>=6.3)
      "Swift 6.3"
    #else
      "Swift 6.2"
    #endif
  }

  private static var blasThreading: String {
    switch openblas_get_parallel() {
    case 0: "none"
    case 2: "OpenMP"
    default: "pthreads"
    }
  }

  private static var lapackVersion: String {
    var (major, minor, patch): (Int32, Int32, Int32) = (0, 0, 0)
    ilaver_(&major, &minor, &patch)
    return "\(major).\(minor).\(patch)"
  }

  static var processorName: String {
    let lines = (readSmallFile("/proc/cpuinfo") ?? "").split(separator: "\n")
    let name = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last?.drop { $0 == " " }
    return name.map(String.init) ?? "unknown"
  }

  /// The system's choice stands in brackets: `always [madvise] never`.
  private static var hugePages: String {
    let text = readSmallFile("/sys/kernel/mm/transparent_hugepage/enabled") ?? ""
    return text.split(separator: "[").dropFirst().first?.split(separator: "]").first.map(String.init) ?? "unknown"
  }
}
