#if MPI
  import Foundation
  import Glibc
  import Steppe

  /// `steppe train` under mpirun, as a person runs it.
  struct CommandChecks {
    let launcher: Launcher
    /// The program.
    let command: String

    func run(_ check: (String, () throws -> [String]) -> Void) {
      check("command: the same run on 1, 2 and 3 ranks") { try sameRun() }
      check("command: without mpirun") { try alone() }
      check("command: resumed on the same ranks after one was killed") { try killed() }
      check("command: resumed on more ranks and on one") { try resumed() }
      check("command: threads of a resumed run") { try threads() }
      check("command: stopped by a signal") { try stopped() }
      check("command: stopped by Ctrl-C") { try stoppedByLauncher() }
      check("command: ranks with different seeds") { try different() }
      check("command: one rank without its data") { try missingData() }
      check("command: a residual network") { try images() }
    }

    /// Collects what is not as it shall be.
    private final class Problems {
      var list: [String] = []
      func expect(_ holds: Bool, _ message: @autoclosure () -> String) { if !holds { list.append(message()) } }
    }

    private static let data = [
      "--train-images", "x.npy", "--train-labels", "y.npy", "--test-images", "x.npy", "--test-labels", "y.npy",
    ]
    private static let recipe = ["--hidden", "32,32", "--batch-size", "32", "--seed", "3", "--threads", "1"]

    /// A folder with images and labels.
    private func folder(count: Int = 500) throws -> TemporaryFolder {
      let result = try TemporaryFolder()
      let data = try clusters(count, inputs: 64)
      try NPY.write(data.features.reshaped([count, 8, 8]), to: result.path + "/x.npy")
      try NPY.write(data.labels, shape: [count], to: result.path + "/y.npy")
      return result
    }

    private func train(_ ranks: Int, _ more: [String]) -> [String] {
      launcher.launch(ranks) + [command, "train"] + Self.data + Self.recipe + more
    }

    private func numbers(_ folder: TemporaryFolder, _ run: String) throws -> [(epoch: Int, loss: Double, test: Double)]
    {
      try String(contentsOfFile: "\(folder.path)/\(run)/metrics.jsonl", encoding: .utf8).split(separator: "\n")
        .dropFirst().map {
          let line = try JSONValue(parsing: Array($0.utf8))
          func number(_ key: String) -> Double {
            switch line[key] {
            case .number(let value)?: value
            case .integer(let value)?: Double(value)
            default: .nan
            }
          }
          return (Int(number("epoch")), number("loss"), number("test_accuracy"))
        }
    }

    private func model(_ folder: TemporaryFolder, _ run: String) -> Data? {
      FileManager.default.contents(atPath: "\(folder.path)/\(run)/model.safetensors")
    }

    private func sameRun() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let one = launcher.run(
        [command, "train"] + Self.data + Self.recipe + ["--epochs", "4", "--output", "one"], in: folder.path)
      problems.expect(one.code == 0, one.text)
      let expected = try numbers(folder, "one")
      for count in 1...3 {
        let several = launcher.run(train(count, ["--epochs", "4", "--output", "run\(count)"]), in: folder.path)
        problems.expect(several.code == 0, several.text)
        // One line for each epoch, and one report.
        let lines = several.text.split(separator: "\n")
        problems.expect(lines.count { $0.hasPrefix("epoch ") } == 4, several.text)
        problems.expect(lines.count { $0.contains("test accuracy") && !$0.hasPrefix("epoch ") } == 1, several.text)
        problems.expect(count == 1 || several.text.contains("\(count) ranks on "), several.text)
        let found = try numbers(folder, "run\(count)")
        for (a, b) in zip(found, expected) {
          problems.expect(
            abs(a.loss - b.loss) <= 1e-4 * b.loss,
            "\(count) ranks, epoch \(a.epoch): loss \(a.loss), expected \(b.loss)")
          problems.expect(abs(a.test - b.test) <= 1.5 / 500, "\(count) ranks: accuracy \(a.test), expected \(b.test)")
        }
        problems.expect(found.count == 4, "\(found.count) epochs")
      }
      // What several ranks trained is a model like any other.
      let evaluation = launcher.run(
        [command, "evaluate", "run3/model.safetensors", "--test-images", "x.npy", "--test-labels", "y.npy"],
        in: folder.path)
      problems.expect(evaluation.code == 0, evaluation.text)
      return problems.list
    }

    private func alone() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let arguments = Self.data + Self.recipe + ["--epochs", "2"]
      let plain = launcher.run([command, "train"] + arguments + ["--output", "plain"], in: folder.path)
      let asked = launcher.run(
        [command, "train"] + arguments + ["--distributed", "--output", "asked"], in: folder.path)
      problems.expect(plain.code == 0 && asked.code == 0, plain.text + asked.text)
      let (a, b) = (try numbers(folder, "plain"), try numbers(folder, "asked"))
      problems.expect(zip(a, b).allSatisfy { abs($0.loss - $1.loss) <= 1e-4 * $0.loss } && a.count == 2, "\(a) \(b)")
      return problems.list
    }

    /// Runs until the metrics hold so many epochs, and then does `act`.
    private func interrupted(
      _ words: [String], in folder: TemporaryFolder, run: String, epochs: Int, _ act: (Process) -> Void
    ) -> Launcher.Outcome {
      launcher.run(words, in: folder.path) { process in
        let deadline = Date(timeIntervalSinceNow: 30)
        while Date() < deadline, process.isRunning {
          if let found = try? numbers(folder, run), found.count >= epochs { break }
          usleep(2000)
        }
        act(process)
      }
    }

    /// The processes of the command that run in `folder`.
    private func ranks(in folder: TemporaryFolder) -> [Int32] {
      let place = URL(fileURLWithPath: folder.path).resolvingSymlinksInPath().path
      let processes = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
      return processes.compactMap { Int32($0) }.filter { number in
        let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(number)/cwd")
        let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(number)/exe")
        return own == place && program == URL(fileURLWithPath: command).resolvingSymlinksInPath().path
      }.sorted()
    }

    private func killed() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let arguments = ["--epochs", "60", "--output"]
      let whole = launcher.run(train(2, arguments + ["whole"]), in: folder.path)
      problems.expect(whole.code == 0, whole.text)
      let start = Date()
      let outcome = interrupted(train(2, arguments + ["killed"]), in: folder, run: "killed", epochs: 3) { _ in
        if let last = ranks(in: folder).last { kill(last, SIGKILL) }
      }
      problems.expect(
        outcome.code != 0 && Date().timeIntervalSince(start) < 30, "code \(outcome.code): \(outcome.text)")
      problems.expect(model(folder, "killed") == nil, "the run was over before it was killed")
      let resumed = launcher.run(
        launcher.launch(2) + [command, "train", "--output", "killed", "--resume"], in: folder.path)
      problems.expect(resumed.code == 0, resumed.text)
      problems.expect(
        model(folder, "killed") == model(folder, "whole"), "the resumed run's model is not the whole one's")
      problems.expect(try numbers(folder, "killed").map(\.epoch) == Array(1...60), "epochs")
      return problems.list
    }

    private func resumed() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let whole = launcher.run(train(2, ["--epochs", "12", "--output", "whole"]), in: folder.path)
      problems.expect(whole.code == 0, whole.text)
      let expected = try numbers(folder, "whole")
      for (count, name) in [(3, "three"), (1, "one"), (0, "none")] {
        let first = interrupted(train(2, ["--epochs", "12", "--output", name]), in: folder, run: name, epochs: 2) { _ in
          for number in ranks(in: folder) { kill(number, SIGKILL) }
        }
        problems.expect(first.code != 0, "the run was over before it was killed")
        let words = (count > 0 ? launcher.launch(count) : []) + [command, "train", "--output", name, "--resume"]
        let second = launcher.run(words, in: folder.path)
        problems.expect(second.code == 0, second.text)
        problems.expect(second.text.contains("the run had 2 ranks"), second.text)
        let found = try numbers(folder, name)
        problems.expect(found.count == 12, "\(found.count) epochs")
        for (a, b) in zip(found, expected) {
          problems.expect(abs(a.loss - b.loss) <= 1e-3 * b.loss, "epoch \(a.epoch): \(a.loss), expected \(b.loss)")
        }
      }
      return problems.list
    }

    /// A run takes its threads along to as many ranks; others share the processors out.
    private func threads() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let processors = Parallel.availableProcessors
      func run(_ ranks: Int, _ more: [String], expecting threads: Int...) {
        let words = (ranks > 0 ? launcher.launch(ranks) : []) + [command, "train", "--output", "run"] + more
        let outcome = launcher.run(words, in: folder.path)
        problems.expect(
          outcome.code == 0 && threads.contains { outcome.text.contains("examples, \($0) threads") },
          "\(ranks) ranks, \(more): expected \(threads) threads, found code \(outcome.code): \(outcome.text)")
      }
      let more = processors + 1
      run(0, Self.data + ["--hidden", "8", "--epochs", "1", "--threads", "\(more)"], expecting: more)
      run(0, ["--resume"], expecting: more)
      // The launcher may put each on a host of its own.
      run(2, ["--resume"], expecting: max(1, processors / 2), processors)
      run(2, ["--resume", "--threads", "\(more)"], expecting: more)
      run(2, ["--resume"], expecting: more)
      run(0, ["--resume"], expecting: processors)
      return problems.list
    }

    /// The launcher passes a Ctrl-C on to the ranks, each of which must count it once: MPICH's as it is, Open MPI's as a SIGTERM.
    private func stoppedByLauncher() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let outcome = interrupted(train(2, ["--epochs", "5000", "--output", "run"]), in: folder, run: "run", epochs: 2) {
        kill($0.processIdentifier, SIGINT)
      }
      // MPICH's launcher ends with the ranks' code or with none.
      problems.expect(outcome.seconds < 30, "\(outcome.seconds) s: \(outcome.text)")
      problems.expect(outcome.text.contains("steppe: interrupted after step "), outcome.text)
      return problems.list
    }

    private func stopped() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      // To every rank, as a batch system sends it.
      let outcome = interrupted(train(2, ["--epochs", "5000", "--output", "run"]), in: folder, run: "run", epochs: 2) {
        _ in
        for number in ranks(in: folder) { kill(number, SIGTERM) }
      }
      problems.expect(outcome.code == 128 + SIGTERM, "code \(outcome.code): \(outcome.text)")
      problems.expect(outcome.text.contains("steppe: interrupted after step "), outcome.text)
      problems.expect(outcome.text.components(separatedBy: "steppe: interrupted").count == 2, outcome.text)
      return problems.list
    }

    private func different() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let words = launcher.launch(1) + [command, "train"] + Self.data + ["--hidden", "8", "--output", "run"]
      let second = ["-n", "1", command, "train"] + Self.data + ["--hidden", "8", "--output", "run", "--seed", "5"]
      let outcome = launcher.run(words + [":"] + second, in: folder.path)
      problems.expect(outcome.code == 1 && outcome.seconds < 30, "code \(outcome.code) in \(outcome.seconds) s")
      problems.expect(outcome.text.contains("steppe: the ranks differ: "), outcome.text)
      problems.expect(outcome.text.contains("seed: 1 on rank 0, 5 on rank 1"), outcome.text)
      return problems.list
    }

    private func missingData() throws -> [String] {
      let (problems, folder) = (Problems(), try folder())
      let words = launcher.launch(1) + [command, "train"] + Self.data + ["--output", "run"]
      let files = ["--train-images", "none.npy", "--train-labels", "y.npy"]
      let outcome = launcher.run(
        words + [":", "-n", "1", command, "train"] + files + ["--output", "run"], in: folder.path)
      problems.expect(outcome.code == 1 && outcome.seconds < 30, "code \(outcome.code) in \(outcome.seconds) s")
      problems.expect(outcome.text.contains("steppe: rank 1: none.npy: "), outcome.text)
      problems.expect(!FileManager.default.fileExists(atPath: folder.path + "/run"), "a folder was made")
      return problems.list
    }

    private func images() throws -> [String] {
      let (problems, folder) = (Problems(), try folder(count: 90))
      let arguments =
        Self.data + ["--model", "resnet", "--depth", "8", "--width", "4", "--epochs", "2", "--batch-size", "16"]
      let one = launcher.run([command, "train"] + arguments + ["--output", "one"], in: folder.path)
      let two = launcher.run(
        launcher.launch(2) + [command, "train"] + arguments + ["--output", "two"], in: folder.path)
      problems.expect(one.code == 0 && two.code == 0, one.text + two.text)
      for (a, b) in zip(try numbers(folder, "two"), try numbers(folder, "one")) {
        problems.expect(abs(a.loss - b.loss) <= 1e-3 * b.loss, "epoch \(a.epoch): \(a.loss), expected \(b.loss)")
      }
      return problems.list
    }
  }
#endif
