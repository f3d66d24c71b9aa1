import Foundation
import Steppe
import Testing

@Suite struct ResumeTests {
  private static let recipe = [
    "--hidden", "256,256", "--epochs", "25", "--batch-size", "16", "--threads", "2", "--seed", "3",
  ]

  private func start(_ output: String, in folder: Folder) throws -> Command {
    try Command(["train"] + Folder.dataArguments + Self.recipe + ["--output", output], in: folder)
  }

  /// Starts a run and sends `signal` when at least two epochs are done.
  private func interrupted(_ output: String, by signal: Int32, in folder: Folder) throws -> Outcome {
    let command = try start(output, in: folder)
    let deadline = Date(timeIntervalSinceNow: 20)
    while Date() < deadline, command.process.isRunning {
      if folder.exists(output + "/metrics.jsonl"), try folder.metrics(output).count >= 3 { break }
      usleep(2000)
    }
    kill(command.process.processIdentifier, signal)
    return try command.outcome()
  }

  @Test func aStoppedRunGoesOnToTheSameModel() throws {
    let folder = try Folder.withData()
    #expect(try start("whole", in: folder).outcome().code == 0)
    let model = try folder.bytes("whole/model.safetensors")
    #expect(try folder.metrics("whole").count == 26)

    for (signal, name) in [(SIGINT, "int"), (SIGTERM, "term"), (SIGKILL, "kill")] {
      let stopped = try interrupted(name, by: signal, in: folder)
      #expect(!folder.exists(name + "/model.safetensors"), "the run by \(name) was over before the signal")
      if signal != SIGKILL {
        #expect(stopped.code == 128 + signal)
        #expect(stopped.errors.contains("steppe train --output \(name) --resume"), "\(stopped.errors)")
      }
      let resumed = try folder.run("train", "--output", name, "--resume")
      #expect(resumed.code == 0, "\(resumed.errors)")
      #expect(try folder.bytes(name + "/model.safetensors") == model, "after \(name)")
      #expect(try folder.metrics(name).dropFirst().map { $0["epoch"] as? Int } == Array(1...25))
      let losses = try folder.metrics(name).dropFirst().map { $0["test_loss"] as? Double }
      #expect(losses == (try folder.metrics("whole").dropFirst().map { $0["test_loss"] as? Double }))
    }

    // A run that is over stays as it is.
    #expect(try folder.run("train", "--output", "whole", "--resume").code == 0)
    #expect(try folder.bytes("whole/model.safetensors") == model)
  }

  @Test func aRunThatIsGoingOnIsSafe() throws {
    let folder = try Folder.withData()
    let arguments = ["--hidden", "64", "--batch-size", "16", "--epochs", "100000", "--quiet", "--output", "run"]
    let command = try Command(["train"] + Folder.dataArguments + arguments, in: folder)
    defer { command.process.terminate() }
    let deadline = Date(timeIntervalSinceNow: 20)
    while Date() < deadline {
      if folder.exists("run/metrics.jsonl"), try folder.metrics("run").count >= 3 { break }
      usleep(2000)
    }
    let epochs = try folder.metrics("run").count
    for more in [["--overwrite"], ["--resume"]] {
      let refused = try Command(
        ["train", "--output", "run"] + more + (more == ["--resume"] ? [] : Folder.dataArguments), in: folder
      )
      .outcome()
      #expect(refused.code == 1)
      #expect(refused.errors.contains("run: another training is writing to this folder"), "\(refused.errors)")
    }
    #expect(command.process.isRunning)
    #expect(try folder.metrics("run").count >= epochs)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path("run/checkpoints")).count >= 2)
    kill(command.process.processIdentifier, SIGINT)
    #expect(try command.outcome().code == 128 + SIGINT)
  }

  /// What `steppe train` did not write stays, and nothing is cleared that another program trains in.
  @Test func overwritingRemovesOnlyWhatARunWrote() throws {
    let folder = try Folder.withData()
    func train(_ more: String...) throws -> Outcome {
      try Command(
        ["train"] + Folder.dataArguments + ["--hidden", "8", "--epochs", "1", "--output", "run"] + more, in: folder
      ).outcome()
    }
    #expect(try train().code == 0)
    let own = ["notes.txt", "checkpoints/notes.txt", "checkpoints/checkpoint-007.safetensors"]
    for name in own { try folder.write(Data("mine".utf8), to: "run/" + name) }
    try folder.write(Data(), to: "run/checkpoints/checkpoint-99999.safetensors")
    try folder.write(Data(), to: "run/checkpoints/.steppe-1a.tmp")
    do {
      let lock = try FolderLock(folder.path("run/checkpoints"))
      let refused = try train("--overwrite")
      #expect(refused.code == 1 && refused.errors.contains("another training is writing"), "\(refused.errors)")
      #expect(folder.exists("run/model.safetensors") && folder.exists("run/checkpoints/checkpoint-99999.safetensors"))
      withExtendedLifetime(lock) {}
    }
    #expect(try train("--overwrite").code == 0)
    for name in own { #expect(try folder.text("run/" + name) == "mine") }
    #expect(!folder.exists("run/checkpoints/checkpoint-99999.safetensors"))
    #expect(!folder.exists("run/checkpoints/.steppe-1a.tmp"))
  }

  @Test func foldersOfOtherRunsAreSafe() throws {
    let folder = try Folder.withData()
    let arguments = ["--hidden", "8", "--epochs", "1", "--output", "run"]
    func train(_ more: String...) throws -> Outcome {
      try Command(["train"] + Folder.dataArguments + arguments + more, in: folder).outcome()
    }
    #expect(try train().code == 0)
    let model = try folder.bytes("run/model.safetensors")
    let refused = try train()
    #expect(refused.code == 1)
    #expect(refused.errors.contains("run: holds another run; --resume goes on with it, --overwrite replaces it"))
    #expect(try folder.bytes("run/model.safetensors") == model)

    let other = try folder.run("train", "--output", "run", "--resume", "--batch-size", "64")
    #expect(other.code == 64)
    #expect(other.errors.contains("batch_size 128, found 64"), "\(other.errors)")
    #expect(try folder.run("train", "--output", "none", "--resume").code == 1)

    // Bad input must not cost the old run.
    let broken = try folder.run(
      "train", "--train-images", "none.idx", "--train-labels", "train-labels.idx", "--output", "run", "--overwrite")
    #expect(broken.code == 1)
    #expect(try folder.bytes("run/model.safetensors") == model)
    #expect(try train("--overwrite", "--seed", "9").code == 0)
    #expect(try folder.bytes("run/model.safetensors") != model)
  }
}
