#if MPI
  import Foundation
  import Reference
  import Steppe
  import SteppeMPI

  /// What the ranks of a case have in hand.
  final class RankContext {
    let ranks: Communicator
    /// What the launcher passed behind the case's name.
    let arguments: [String]
    private(set) var failures: [String] = []
    /// What is checked when MPI has ended.
    var afterFinish: (() -> Void)?

    init(_ ranks: Communicator, _ arguments: [String]) {
      self.ranks = ranks
      self.arguments = arguments
    }

    var rank: Int { ranks.rank }
    var size: Int { ranks.size }

    /// Random numbers that are the same on all ranks.
    func generator(_ salt: String = #function) -> TestGenerator {
      TestGenerator(fixed: salt, seed: UInt64(ProcessInfo.processInfo.environment["STEPPE_TEST_SEED"] ?? "") ?? 0)
    }

    func expect(_ holds: Bool, _ message: @autoclosure () -> String, line: Int = #line) {
      if !holds { failures.append("line \(line): \(message())") }
    }

    /// Whether `body` throws a ``RankError``, whose text must contain each of `texts`.
    func expectError(_ texts: String..., line: Int = #line, _ body: () throws -> Void) {
      do {
        try body()
        failures.append("line \(line): expected an error with \(texts), found none")
      } catch {
        let text = "\(error)"
        for expected in texts where !text.contains(expected) {
          failures.append("line \(line): expected an error with '\(expected)', found '\(text)'")
        }
      }
    }

    /// The greatest distance of two lists of numbers, in units of the greatest magnitude of the second, but no less than 1.
    func distance<Scalar: BinaryFloatingPoint>(_ a: [Scalar], _ b: [Scalar]) -> Double {
      guard a.count == b.count else { return .infinity }
      let unit = b.reduce(1.0) { max($0, abs(Double($1))) }
      return zip(a, b).reduce(0.0) { $1.0 == $1.1 ? $0 : max($0, abs(Double($1.0) - Double($1.1)) / unit) }
    }

    func expectNear<Scalar: BinaryFloatingPoint>(
      _ a: [Scalar], _ b: [Scalar], within tolerance: Double, _ what: @autoclosure () -> String, line: Int = #line
    ) {
      let distance = distance(a, b)
      expect(distance <= tolerance, "\(what()): \(distance) apart, \(tolerance) allowed", line: line)
    }

    /// Whether `values` are the same bits on all ranks.
    func expectSame<Scalar: TensorScalar>(_ values: [Scalar], _ what: String, line: Int = #line) throws {
      let bytes = values.withUnsafeBytes { Array($0) }
      let all = try ranks.allGather(bytes)
      expect(all.allSatisfy { $0 == all[0] }, "\(what) is not the same on all ranks", line: line)
    }

    /// The part of `count` rows that is this rank's, by shares of random size, of which some are empty.
    func unevenShare(of count: Int, using generator: inout TestGenerator) -> Range<Int> {
      var cuts = (1..<max(size, 1)).map { _ in generator.integer(0...count) }.sorted()
      cuts = [0] + cuts + [count]
      return cuts[rank]..<cuts[rank + 1]
    }
  }

  typealias RankCase = @Sendable (RankContext) throws -> Void

  /// Runs a case as one of its ranks and ends the process.
  func runRank(_ name: String, _ arguments: [String]) -> Never {
    // One thread each: the ranks share the processors.
    Parallel.threadCount = 1
    RankGuard.start()
    do {
      let context = RankContext(try Communicator.world(), arguments)
      guard let body = rankCases.first(where: { $0.name == name })?.body else { fatalError("no case '\(name)'") }
      try body(context)
      try context.ranks.finish()
      context.afterFinish?()
      for failure in context.failures { note("rank \(context.rank) of \(context.size): \(name): \(failure)") }
      exit(context.failures.isEmpty ? 0 : 1)
    } catch {
      note("\(name): \(error)")
      (try? Communicator.world())?.abort()
      exit(1)
    }
  }

  /// The case where ranks of one machine exchange gradients as those of several do.
  private func apart(_ body: @escaping RankCase) -> RankCase {
    { context in
      context.ranks.sharesMemory = false
      try body(context)
    }
  }

  func note(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }

  /// Every case that the launcher runs by itself, and on how many ranks at least.
  let rankCases: [(name: String, least: Int, body: RankCase)] =
    [
      ("collectives", 1, collectives),
      ("moments", 1, moments),
      ("batch-norm", 1, batchNorm),
      ("batch-norm-sizes", 1, batchNormSizes),
      ("gradients", 1, gradients),
      ("own-loop", 1, ownLoop),
      ("gradients, apart", 2, apart(gradients)),
      ("own-loop, apart", 2, apart(ownLoop)),
      ("frozen", 1, frozen),
      ("frozen, apart", 2, apart(frozen)),
      ("partial", 2, partial),
      ("partial, apart", 2, apart(partial)),
      ("overlap", 2, overlap),
      ("overlap, apart", 2, apart(overlap)),
      ("shared-gradients", 2, sharedGradients),
      ("shared-gradients, apart", 2, apart(sharedGradients)),
      ("training", 1, training),
      ("training, apart", 2, apart(training)),
      ("shares", 1, shares),
      ("resumption", 1, resumption),
      ("dropout", 2, dropout),
      ("features", 1, features),
      ("refusals", 2, refusals),
      ("nan", 2, notANumber),
      ("nan, apart", 2, apart(notANumber)),
      ("broken-element", 2, brokenElement),
      ("broken-element, apart", 2, apart(brokenElement)),
      ("standings", 2, standings),
      ("local-faults", 2, localFaults),
      ("errors", 2, errors),
      ("drift", 2, drift),
      ("busy", 2, busy),
    ]
    + faultCases
#endif
