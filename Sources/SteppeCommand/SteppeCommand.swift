import ArgumentParser
import Glibc
import Steppe

@main
struct RootCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "steppe",
    abstract: "Trains, measures and uses neural networks on the processor.",
    discussion: """
      A first run, on Fashion-MNIST:

        steppe train --output run
        steppe evaluate run/model.safetensors
        steppe predict run/model.safetensors --input images.npy --output classes.csv

      Results go to standard output, progress and messages to standard error. The exit code is 0, or 1 for a failure \
      and 64 for wrong usage; a run that a signal ended has 128 and the signal's number.
      """,
    version: SteppeVersion.current,
    subcommands: [
      Train.self, Evaluate.self, Predict.self, Normalize.self, Surface.self, Compare.self, Landscape.self,
      BatchSize.self, Report.self,
      Info.self,
    ])

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
      // What was printed may still wait in a buffer, with no room left where it shall go.
      if fflush(nil) != 0 { throw Failure("standard output: cannot write: \(String(cString: strerror(errno)))") }
    } catch {
      end(with: error)
    }
  }

  /// Says what `error` is and ends the process with its exit code.
  private static func end(with error: any Error) -> Never {
    let code = exitCode(for: error)
    // Help and versions are errors to the parser.
    if code.isSuccess { exit(withError: error) }
    let message = message(for: error)
    if !message.isEmpty { Console.error("steppe: \(message)") }
    if code == .validationFailure {
      let usage = fullMessage(for: error).split(separator: "\n").drop { !$0.hasPrefix("Usage:") }
      if !usage.isEmpty { Console.error(usage.joined(separator: "\n")) }
    }
    Glibc.exit(code.rawValue)
  }
}

/// What went wrong, in words for the person at the terminal; exit code 1.
struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
