// What every test suite needs: reproducible random numbers, and errors in units that mean something.
import Glibc

/// The seed of all random test data: the environment variable `STEPPE_TEST_SEED`, or a new one at each run. Printed once, so that a
/// failure can be repeated.
public let testSeed: UInt64 = {
  let seed = getenv("STEPPE_TEST_SEED").flatMap { UInt64(String(cString: $0)) } ?? UInt64.random(in: 0..<1 << 32)
  print("STEPPE_TEST_SEED=\(seed)")
  return seed
}()

/// Random test data (SplitMix64): its own generator, so that a fault in the product's cannot hide one elsewhere.
public struct TestGenerator: RandomNumberGenerator {
  private var state: UInt64

  /// The sequence of `testSeed` for one test, told apart by `salt`.
  public init(_ salt: String = #function) { self.init(fixed: salt, seed: testSeed) }

  /// The sequence that `salt` alone chooses, as for a test in a process of its own, which is told the seed.
  public init(fixed salt: String, seed: UInt64 = 0) {
    // FNV-1a
    state = salt.utf8.reduce(seed ^ 0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  /// The next 64 random bits.
  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  /// An integer of `range`.
  public mutating func integer(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }

  /// A number of `range`.
  public mutating func uniform(_ range: ClosedRange<Double> = 0...1) -> Double {
    Double.random(in: range, using: &self)
  }

  /// A standard normal number (Box & Muller).
  public mutating func normal() -> Double {
    (-2 * log(1 - Double.random(in: 0..<1, using: &self))).squareRoot() * cos(2 * .pi * uniform())
  }

  /// Normal numbers, each exactly a `Scalar`, so that a reference in Double starts from the same values.
  public mutating func normals<Scalar: BinaryFloatingPoint>(
    _ count: Int, mean: Double = 0, deviation: Double = 1, as type: Scalar.Type = Scalar.self
  ) -> [Scalar] {
    (0..<count).map { _ in Scalar(mean + deviation * normal()) }
  }
}

/// The worst difference between a result and its reference.
public struct WorstError: CustomStringConvertible {
  /// The error in units in the last place of the result's type, at the size of the reference.
  public var ulps = 0.0
  /// Where it is.
  public var index = 0
  /// What was computed there.
  public var actual = 0.0
  /// What the reference says there.
  public var expected = 0.0

  /// Size, place and both values.
  public var description: String { "\(ulps) ulps at \(index): got \(actual), expected \(expected)" }
}

/// The error of `actual` in units in the last place of its type at the size of `expected`, or of `magnitude` where that is greater
/// (the size of the terms that a sum is made of). NaN for NaN and an overflow to the same infinity are no error.
public func ulps<Scalar: BinaryFloatingPoint>(_ actual: Scalar, _ expected: Double, magnitude: Double = 0) -> Double {
  let rounded = Scalar(expected)
  if actual == rounded || actual.isNaN && expected.isNaN { return 0 }
  guard actual.isFinite, rounded.isFinite else { return .infinity }
  let unit = max(Double(rounded.ulp), Double(Scalar(min(magnitude, Double(Scalar.greatestFiniteMagnitude))).ulp))
  return abs(Double(actual) - expected) / unit
}

/// The worst of `ulps` over all elements.
public func worstError<Scalar: BinaryFloatingPoint>(
  _ actual: [Scalar], _ expected: [Double], magnitude: [Double]? = nil
) -> WorstError {
  guard actual.count == expected.count else {
    return WorstError(ulps: .infinity, index: min(actual.count, expected.count), actual: .nan, expected: .nan)
  }
  var worst = WorstError()
  for index in actual.indices {
    let error = ulps(actual[index], expected[index], magnitude: magnitude?[index] ?? 0)
    if error > worst.ulps {
      worst = WorstError(ulps: error, index: index, actual: Double(actual[index]), expected: expected[index])
    }
  }
  return worst
}

/// Ulps that a result may be off which goes by a sum of `count` terms: a few, and in Double, where a sum has nothing wider to go on
/// in, what their roundings come to at random.
public func sumTolerance<Scalar: BinaryFloatingPoint>(_ count: Int, _ type: Scalar.Type) -> Double {
  type == Double.self ? 8 + Double(count).squareRoot() / 3 : 4
}

/// Central differences of `function` at `point`, with steps of about the cube root of Double's epsilon: good to about 1e-9 relative
/// where the function is smooth.
public func centralDifferences(at point: [Double], _ function: ([Double]) -> Double) -> [Double] {
  point.indices.map { index in
    let step = 6e-6 * max(1, abs(point[index]))
    var (low, high) = (point, point)
    low[index] -= step
    high[index] += step
    return (function(high) - function(low)) / (high[index] - low[index])
  }
}

/// ‖a − b‖ / max(‖b‖, least): how far a gradient is from its reference.
public func relativeDistance(_ a: [Double], _ b: [Double], least: Double = 1e-12) -> Double {
  guard a.count == b.count else { return .infinity }
  let distance = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
  let size = b.reduce(0) { $0 + $1 * $1 }.squareRoot()
  return distance / max(size, least)
}
