// What the benchmark package needs to know, and no user of the library does: `@_spi(Benchmarks) import Steppe`.

extension Parallel {
  /// The sizes in bytes of a core's first and second caches and of the last one, as the schedules take them.
  @_spi(Benchmarks)
  public static var cacheSizes: (level1: Int, level2: Int, last: Int) {
    (CacheSizes.level1, CacheSizes.level2, CacheSizes.last)
  }
}

extension Parameter {
  /// Lets what the gradient's memory holds count as gathered, as if a pullback had just written it.
  ///
  /// A step makes the gradient zero; with this the next step can be timed without writing a new one, which would take
  /// about as long as the step.
  @_spi(Benchmarks)
  public func countGradientAsGathered() { accumulate { _, _ in } }
}
