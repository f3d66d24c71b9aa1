import Steppe

/// Something to be timed.
public struct BenchmarkCase: Sendable {
  /// What one run has to do at the least, which turns its time into a rate that can be held against the machine's limit.
  public enum Work: Sendable {
    /// Floating-point operations.
    case operations(Double)
    /// Bytes read and written, each once.
    case bytes(Double)
  }

  /// The name, by parts from the general to the particular: `batchnorm/forward/256x512x7x7`.
  public let name: String
  /// What one run does.
  public let work: Work
  /// Makes the data and returns what is timed. What this returns belongs to the caller's thread.
  public let prepare: @Sendable () -> () -> Void

  /// A case by its parts.
  public init(_ name: String, _ work: Work, prepare: @escaping @Sendable () -> () -> Void) {
    self.name = name
    self.work = work
    self.prepare = prepare
  }
}

/// Every case, in the table's order.
public let allCases: [BenchmarkCase] = normalizationCases + linearAlgebraCases + reductionCases + trainingCases

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
