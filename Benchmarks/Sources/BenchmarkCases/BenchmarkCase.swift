import Steppe

/// Something to be timed.
public struct BenchmarkCase: Sendable {
  /// What preparation makes of a case.
  public enum Prepared {
    /// One run, to be repeated by one thread; it belongs to the thread that prepared it.
    case run(() -> Void)
    /// One run, to be repeated by so many threads at once, each of which times its own.
    case concurrent(callers: Int, @Sendable () -> Void)
  }

  /// The name, by parts from the general to the particular: `batchnorm/forward/256x512x7x7`.
  public let name: String
  /// What one run does.
  public let work: Work
  /// How many threads run the case at once, so that a run's latency is a number of its own; nil for runs that follow one another.
  public let callers: Int?
  /// Makes the data and returns what is timed.
  public let prepare: @Sendable () -> Prepared

  /// A case whose runs follow one another.
  public init(_ name: String, _ work: Work, prepare: @escaping @Sendable () -> () -> Void) {
    self.name = name
    self.work = work
    callers = nil
    self.prepare = { .run(prepare()) }
  }

  /// A case that `callers` threads run at once.
  public init(_ name: String, _ work: Work, callers: Int, prepare: @escaping @Sendable () -> @Sendable () -> Void) {
    self.name = name
    self.work = work
    self.callers = callers
    self.prepare = { .concurrent(callers: callers, prepare()) }
  }
}

/// Every case, in the table's order.
public let allCases: [BenchmarkCase] =
  normalizationCases + convolutionCases + trainingCases + imageTrainingCases + inferenceCases + linearAlgebraCases
  + optimizerCases + reductionCases + elementwiseCases

/// Takes a result, so that computing it is not left out.
@inline(never)
public func keep<Value>(_ value: Value) {}

/// Normal numbers: 65,537 of them drawn, which large tensors repeat, since drawing takes longer than what is timed.
func normalData(_ shape: [Int], mean: Float = 0, seed: UInt64 = 1) -> Tensor<Float> {
  var generator = RandomGenerator(seed: seed)
  let drawn = Tensor<Float>.randomNormal(shape: [65_537], mean: mean, using: &generator).scalars
  return Tensor(unsafeUninitializedShape: shape) { buffer in
    for index in buffer.indices { buffer.initializeElement(at: index, to: drawn[index % drawn.count]) }
  }
}

/// `[256, 512, 7, 7]` as `256x512x7x7`.
func text(_ shape: [Int]) -> String { shape.map(String.init).joined(separator: "x") }
