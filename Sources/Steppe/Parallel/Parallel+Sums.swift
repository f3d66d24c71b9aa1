extension Parallel {
  /// `body(0) + … + body(blocks − 1)`, added in that order: the same result with any number of threads, as far as the blocks do not
  /// depend on it.
  package static func sum(blocks: Int, _ body: (Int) -> Double) -> Double {
    withUnsafeTemporaryAllocation(of: Double.self, capacity: max(blocks, 1)) { partial in
      // The address, so that the parts write side by side without a conflict that the compiler could see.
      let base = partial.baseAddress!
      ranges(blocks) { range in
        for block in range { (base + block).initialize(to: body(block)) }
      }
      return partial[..<blocks].reduce(0, +)
    }
  }
}
