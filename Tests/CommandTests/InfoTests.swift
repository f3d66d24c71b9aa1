import Foundation
import Steppe
import Testing

@Suite struct InfoTests {
  @Test func showsTheMachineAndTheLibraries() throws {
    let outcome = try Folder().run("info")
    #expect(outcome.code == 0)
    for text in [SteppeVersion.current, "OpenBLAS \(OpenBLAS.version)", OpenBLAS.kernelName, InstructionSet.current] {
      #expect(outcome.output.contains(text))
    }
  }

  @Test func printsJSON() throws {
    let outcome = try Folder().run("info", "--json", "--threads", "1")
    let json = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    #expect((json["steppe"] as? [String: Any])?["version"] as? String == SteppeVersion.current)
    let machine = try #require(json["machine"] as? [String: Any])
    #expect(machine["threads used"] as? Int == 1)
    #expect(machine["processors available"] as? Int == Parallel.availableProcessors)
  }

  @Test func helpAndVersion() throws {
    let folder = try Folder()
    #expect(try folder.run("--version").output == SteppeVersion.current + "\n")
    for command in ["train", "evaluate", "predict", "info"] {
      let help = try folder.run(command, "--help")
      #expect(help.code == 0)
      #expect(help.output.contains("steppe \(command)"), "no example in the help of \(command)")
      #expect(help.errors.isEmpty)
    }
  }
}
