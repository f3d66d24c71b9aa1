#if MPI
  import Foundation
  import Glibc
  import Steppe

  /// Starts the cases under mpirun, and says what came of them.
  struct Launcher {
    private var mpirun = "mpirun"
    private var counts = [1, 2, 3, 4]
    private var filter = ""
    private let isOpenMPI: Bool
    private let program = CommandLine.arguments[0]
    /// The command, which is built beside.
    private var command: String {
      URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        .appendingPathComponent("steppe").path
    }

    /// - Parameter arguments: `--mpirun PROGRAM`, `--ranks 1,2`, `--filter TEXT`.
    init(_ arguments: [String]) {
      var rest = arguments[...]
      while let option = rest.popFirst() {
        let value = rest.popFirst() ?? ""
        switch option {
        case "--mpirun": mpirun = value
        case "--ranks": counts = value.split(separator: ",").compactMap { Int($0) }
        case "--filter": filter = value
        default:
          note("usage: steppe-mpi-tests [--mpirun PROGRAM] [--ranks 1,2,3,4] [--filter TEXT]")
          exit(64)
        }
      }
      isOpenMPI = Self.output([mpirun, "--version"]).contains("open-mpi.org")
    }

    struct Outcome {
      let code: Int32
      let text: String
      let seconds: Double
    }

    /// `mpirun -n COUNT` with what the two libraries need here: more ranks than processors, and as root where that is who runs it.
    func launch(_ count: Int) -> [String] {
      var words = [mpirun, "-n", "\(count)"]
      if isOpenMPI { words.insert("--oversubscribe", at: 1) }
      return words
    }

    private static func process(_ words: [String], in folder: String?) -> (Process, Pipe) {
      let (process, pipe) = (Process(), Pipe())
      process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      process.arguments = words
      var environment = ProcessInfo.processInfo.environment
      // What looks into a crash outlives a launcher that ends its rank meanwhile, and would be waited for.
      environment["SWIFT_BACKTRACE"] = environment["SWIFT_BACKTRACE"] ?? "enable=no"
      if getuid() == 0 {
        environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
      }
      process.environment = environment
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = pipe
      process.standardError = pipe
      if let folder { process.currentDirectoryURL = URL(fileURLWithPath: folder) }
      return (process, pipe)
    }

    private static func output(_ words: [String]) -> String {
      let (process, pipe) = process(words, in: nil)
      guard (try? process.run()) != nil else { return "" }
      defer { process.waitUntilExit() }
      return String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }

    /// Runs a program to its end, or for so many seconds at the most. `during` may do something to it meanwhile.
    func run(_ words: [String], in folder: String? = nil, limit: Double = 120, during: (Process) -> Void = { _ in })
      -> Outcome
    {
      let (process, pipe) = Self.process(words, in: folder)
      let start = Date()
      guard (try? process.run()) != nil else { return Outcome(code: 127, text: "can't start \(words)", seconds: 0) }
      let number = process.processIdentifier
      let killer = DispatchWorkItem { kill(number, SIGKILL) }
      DispatchQueue.global().asyncAfter(deadline: .now() + limit, execute: killer)
      during(process)
      let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      process.waitUntilExit()
      killer.cancel()
      return Outcome(code: process.terminationStatus, text: text, seconds: Date().timeIntervalSince(start))
    }

    // MARK: The list of checks

    func run() -> Bool {
      print("steppe-mpi-tests: \(isOpenMPI ? "Open MPI" : "MPICH"), \(mpirun)")
      var passed = true
      func check(_ name: String, _ body: () throws -> [String]) {
        guard filter.isEmpty || name.contains(filter) else { return }
        let start = Date()
        var problems: [String]
        do { problems = try body() } catch { problems = ["\(error)"] }
        let seconds = String(format: "%.1f s", Date().timeIntervalSince(start))
        print(
          problems.isEmpty
            ? "ok      \(name) (\(seconds))" : "FAILED  \(name) (\(seconds))\n" + problems.joined(separator: "\n"))
        fflush(nil)
        passed = passed && problems.isEmpty
      }
      for (name, least, _) in rankCases {
        for count in counts where count >= least {
          check("\(name) on \(count)") {
            let outcome = run(launch(count) + [program, "rank", name])
            return outcome.code == 0 ? [] : ["exit code \(outcome.code)", outcome.text]
          }
        }
      }
      check("alone, without mpirun") {
        let outcome = run([program, "rank", "training"])
        return outcome.code == 0 ? [] : ["exit code \(outcome.code)", outcome.text]
      }
      for count in counts where count > 1 {
        for name in ["hang", "stop", "kill"] { check("fault-\(name) on \(count)") { try fault(name, count) } }
      }
      CommandChecks(launcher: self, command: command).run(check)
      print(passed ? "steppe-mpi-tests: all passed" : "steppe-mpi-tests: FAILED")
      return passed
    }

    /// The last of `count` ranks hangs, stands still or dies: the job ends soon and says who it was, and the last checkpoint is whole.
    private func fault(_ name: String, _ count: Int) throws -> [String] {
      let folder = try TemporaryFolder()
      let outcome = run(launch(count) + [program, "rank", "fault-\(name)", folder.path + "/checkpoints"])
      var problems: [String] = []
      if outcome.code == 0 { problems.append("expected a failure, found success") }
      if outcome.seconds > 30 { problems.append("it took \(outcome.seconds) s") }
      let last = count - 1
      // Who was killed Open MPI says itself, and the guard under MPICH.
      let texts = [
        "hang": "rank \(last) hangs", "stop": "rank \(last) gives no sign of life",
        "kill": isOpenMPI ? "process rank \(last)" : "steppe: rank \(last) was ended by a signal",
      ]
      if !outcome.text.contains(texts[name]!) {
        problems.append("expected '\(texts[name]!)', found:\n\(outcome.text)")
      }
      if outcome.text.contains("no transfer is kept") { problems.append(outcome.text) }
      // Steps 0, 3, 6 and 9 were written, the last two are kept.
      let model = perceptron(12)
      let trainer = trainer(model, epochs: 5, batchSize: 16)
      do {
        let resumption = try trainer.resume(from: folder.path + "/checkpoints")
        if resumption.step != 9 || !resumption.skipped.isEmpty || resumption.rankCount != count {
          problems.append("the checkpoint is \(resumption)")
        }
      } catch {
        problems.append("no whole checkpoint: \(error)")
      }
      return problems
    }
  }

  /// A folder that lasts as long as the object.
  final class TemporaryFolder {
    let path: String

    init() throws {
      path = FileManager.default.temporaryDirectory.appendingPathComponent("steppe-mpi-tests-" + UUID().uuidString).path
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
  }
#endif
