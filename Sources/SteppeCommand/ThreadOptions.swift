import ArgumentParser
import Steppe

struct ThreadOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Threads to compute with. (default: one for each processor)",
      discussion: "More than the processors is allowed, and slower.", valueName: "count"))
  var threads: Int?

  func validate() throws {
    let allowed = 1...Parallel.maximumThreadCount
    if let threads, !allowed.contains(threads) {
      throw ValidationError("--threads: expected \(allowed.lowerBound) … \(allowed.upperBound), found \(threads)")
    }
  }

  /// Puts the number in use, and says where it is more than there are processors.
  func apply(quiet: Bool = false) {
    guard let threads else { return }
    Parallel.threadCount = threads
    if threads > Parallel.availableProcessors, !quiet {
      Console.error(
        "steppe: note: \(threads) threads on \(Parallel.availableProcessors) processors are slower than "
          + "\(Parallel.availableProcessors)")
    }
  }
}
