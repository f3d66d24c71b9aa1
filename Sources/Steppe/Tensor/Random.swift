import Glibc

/// Steppe's random numbers: a counter-based generator, Philox4x32-10 (Salmon et al., SC 2011), the same stream on every machine.
///
/// The generator is a value: a copy continues with the same numbers. `seed` and `stream` choose the sequence (the key is the seed, the
/// upper half of the counter the stream), `position` is how many 64-bit numbers have been drawn, so the three are the whole state.
/// Each block of the cipher gives two 64-bit numbers, the words in order, the lower first. Uniform and normal numbers are made from
/// them by IEEE 754 operations alone, so that they too are the same everywhere.
public struct RandomGenerator: RandomNumberGenerator, Sendable, Equatable {
  /// Chooses the sequence.
  public let seed: UInt64
  /// Chooses one of the seed's independent sequences.
  public let stream: UInt64
  /// How many 64-bit numbers have been drawn; may be set, to go on from a saved state.
  public var position: UInt64 {
    didSet {
      if position / 2 != oldValue / 2 { block = Self.philox(counter: position / 2, stream: stream, seed: seed) }
    }
  }
  private var block: (UInt64, UInt64)

  /// The sequence of `seed` and `stream` from `position` on.
  public init(seed: UInt64, stream: UInt64 = 0, position: UInt64 = 0) {
    self.seed = seed
    self.stream = stream
    self.position = position
    block = Self.philox(counter: position / 2, stream: stream, seed: seed)
  }

  /// A sequence that the system's random numbers choose.
  public static func unseeded() -> RandomGenerator {
    var system = SystemRandomNumberGenerator()
    return RandomGenerator(seed: system.next())
  }

  public static func == (a: RandomGenerator, b: RandomGenerator) -> Bool {
    a.seed == b.seed && a.stream == b.stream && a.position == b.position
  }

  /// The next 64 random bits.
  public mutating func next() -> UInt64 {
    let number = position & 1 == 0 ? block.0 : block.1
    position &+= 1
    return number
  }

  /// A generator whose sequence this one chooses and that is independent of what this one draws later.
  public mutating func split() -> RandomGenerator { RandomGenerator(seed: next(), stream: next()) }

  /// This generator after `count` more draws of 64 bits.
  func advanced(by count: Int) -> RandomGenerator {
    RandomGenerator(seed: seed, stream: stream, position: position &+ UInt64(count))
  }

  /// A number in 0 ..< 1, a multiple of 2⁻⁵³.
  public mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

  /// An index in `0 ..< count`, each as likely (Lemire's method).
  public mutating func index(below count: Int) -> Int {
    require(count > 0, "RandomGenerator.index: expected a positive count, got \(count)")
    let bound = UInt64(count)
    var product = next().multipliedFullWidth(by: bound)
    if product.low < bound {
      let threshold = (0 &- bound) % bound
      while product.low < threshold { product = next().multipliedFullWidth(by: bound) }
    }
    return Int(product.high)
  }

  /// The numbers `0 ..< count` in random order, each order as likely (Fisher and Yates).
  public mutating func permutation(_ count: Int) -> [Int] {
    var result = Array(0..<count)
    for last in stride(from: count - 1, to: 0, by: -1) { result.swapAt(last, index(below: last + 1)) }
    return result
  }

  package static func philox(counter: UInt64, stream: UInt64, seed: UInt64) -> (UInt64, UInt64) {
    var (c0, c1) = (UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32))
    var (c2, c3) = (UInt32(truncatingIfNeeded: stream), UInt32(truncatingIfNeeded: stream >> 32))
    var (k0, k1) = (UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
    for _ in 0..<10 {
      let a = UInt64(c0) &* 0xD251_1F53
      let b = UInt64(c2) &* 0xCD9E_8D57
      (c0, c1, c2, c3) = (
        UInt32(truncatingIfNeeded: b >> 32) ^ c1 ^ k0, UInt32(truncatingIfNeeded: b),
        UInt32(truncatingIfNeeded: a >> 32) ^ c3 ^ k1, UInt32(truncatingIfNeeded: a)
      )
      k0 &+= 0x9E37_79B9
      k1 &+= 0xBB67_AE85
    }
    return (UInt64(c0) | UInt64(c1) << 32, UInt64(c2) | UInt64(c3) << 32)
  }
}

/// Standard normal numbers by Marsaglia's polar method.
package struct NormalSource {
  private var spare: Double?

  package init() {}

  package mutating func next(using generator: inout some RandomNumberGenerator) -> Double {
    if let number = spare {
      spare = nil
      return number
    }
    while true {
      let u = Double(generator.next() >> 11) * 0x1p-52 - 1
      let v = Double(generator.next() >> 11) * 0x1p-52 - 1
      let s = u * u + v * v
      if s >= 1 || s == 0 { continue }
      let scale = (-2 * Self.logarithm(s) / s).squareRoot()
      spare = v * scale
      return u * scale
    }
  }

  /// log x for 0 < x < ∞ by IEEE operations alone, since libraries' logarithms differ in the last place from machine to machine:
  /// x = 2ᵉ·m with m in √½ … √2, log m = 2·artanh((m − 1)/(m + 1)) by its power series.
  static func logarithm(_ x: Double) -> Double {
    var exponent = Double(x.exponent)
    var m = x.significand
    if m > 1.4142135623730951 {
      m *= 0.5
      exponent += 1
    }
    let z = (m - 1) / (m + 1)
    let w = z * z
    var sum = 0.0
    for k in stride(from: 23, through: 3, by: -2) { sum = (sum + 1 / Double(k)) * w }
    return exponent * 0.6931471805599453 + 2 * z * (1 + sum)
  }
}

extension Tensor {
  /// Numbers drawn uniformly from `range`, one 64-bit number of the generator each.
  @_specialize(where Scalar == Float, Generator == RandomGenerator)
  @_specialize(where Scalar == Double, Generator == RandomGenerator)
  public static func randomUniform<Generator: RandomNumberGenerator>(
    shape: [Int], in range: Range<Scalar> = 0..<1, using generator: inout Generator
  ) -> Tensor {
    let (low, width) = (Double(range.lowerBound), Double(range.upperBound) - Double(range.lowerBound))
    return random(shape, &generator) { bits in
      let number = Scalar(low + width * (Double(bits >> 11) * 0x1p-53))
      // Rounding to the scalar type must not reach the upper bound, which the range excludes.
      return number < range.upperBound ? number : range.upperBound.nextDown
    }
  }

  /// Numbers drawn from the normal distribution of `mean` and `standardDeviation` (Marsaglia's polar method).
  @_specialize(where Scalar == Float, Generator == RandomGenerator)
  @_specialize(where Scalar == Double, Generator == RandomGenerator)
  public static func randomNormal<Generator: RandomNumberGenerator>(
    shape: [Int], mean: Scalar = 0, standardDeviation: Scalar = 1, using generator: inout Generator
  ) -> Tensor {
    var source = NormalSource()
    return Tensor(unsafeUninitializedShape: shape) { buffer in
      for index in buffer.indices {
        let number = Double(mean) + Double(standardDeviation) * source.next(using: &generator)
        buffer.initializeElement(at: index, to: Scalar(number))
      }
    }
  }

  /// 1 with the given probability, else 0.
  @_specialize(where Scalar == Float, Generator == RandomGenerator)
  @_specialize(where Scalar == Double, Generator == RandomGenerator)
  public static func randomBernoulli<Generator: RandomNumberGenerator>(
    shape: [Int], probability: Double, using generator: inout Generator
  ) -> Tensor {
    require((0...1).contains(probability), "Tensor.randomBernoulli: probability \(probability) is outside 0 … 1")
    return random(shape, &generator) { Double($0 >> 11) * 0x1p-53 < probability ? 1 : 0 }
  }

  /// Each element made by `number` of one draw of the generator, in order. Where that is Steppe's own, which can begin anywhere in its
  /// sequence, threads share the work.
  @inline(__always)
  private static func random<Generator: RandomNumberGenerator>(
    _ shape: [Int], _ generator: inout Generator, _ number: (UInt64) -> Scalar
  ) -> Tensor {
    Tensor(unsafeUninitializedShape: shape) { buffer in
      guard let start = generator as? RandomGenerator else {
        for index in buffer.indices { buffer.initializeElement(at: index, to: number(generator.next())) }
        return
      }
      Parallel.ranges(buffer.count, grain: Parallel.elementGrain / 4, multiple: 2) { range in
        var own = start.advanced(by: range.lowerBound)
        for index in range { buffer.initializeElement(at: index, to: number(own.next())) }
      }
      generator = start.advanced(by: buffer.count) as! Generator
    }
  }

  /// Normal numbers of mean 0 in runs of a fixed length, each by a sequence of its own that one draw of `generator` chooses: unlike
  /// ``randomNormal(shape:mean:standardDeviation:using:)``, whose draws depend on those before, threads can share the work, and the numbers
  /// do not depend on how many do.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  static func randomNormalRuns(
    shape: [Int], standardDeviation: Double, using generator: inout RandomGenerator
  ) -> Tensor {
    let (key, length) = (generator.next(), 2048)
    return Tensor(unsafeUninitializedShape: shape) { buffer in
      Parallel.ranges((buffer.count + length - 1) / length) { runs in
        for run in runs {
          var (source, own) = (NormalSource(), RandomGenerator(seed: key, stream: UInt64(run)))
          for index in run * length..<Swift.min(buffer.count, (run + 1) * length) {
            buffer.initializeElement(at: index, to: Scalar(standardDeviation * source.next(using: &own)))
          }
        }
      }
    }
  }
}
