import Reference
import Steppe
import Testing

@Suite struct RandomTests {
  static let pinned: [UInt64] = [
    0x3feca141d79c7d00, 0x3fe6c2b544f2be44, 0x3feb0dc06bb20cba,
    0x3fd693b938b1efbb, 0x3fbb588af283d33c, 0x3fe981808a2ea02e,
  ]

  /// The cipher's published known answers (Salmon et al.'s Random123): zeros, ones, and the digits of π.
  @Test func philoxKnownAnswers() {
    func answer(_ counter: UInt64, _ stream: UInt64, _ seed: UInt64) -> [UInt64] {
      let block = RandomGenerator.philox(counter: counter, stream: stream, seed: seed)
      return [block.0, block.1]
    }
    #expect(answer(0, 0, 0) == [0xe169_c58d_6627_e8d5, 0x9b00_dbd8_bc57_ac4c])
    #expect(answer(.max, .max, .max) == [0x41c8_3b0e_408f_276d, 0x6d54_51fd_a20b_c7c6])
    #expect(
      answer(0x85a3_08d3_243f_6a88, 0x0370_7344_1319_8a2e, 0x299f_31d0_a409_3822)
        == [0x94fd_cceb_d16c_fe09, 0x2412_6ea1_5001_e420])
    var generator = RandomGenerator(seed: 0)
    #expect([generator.next(), generator.next()] == answer(0, 0, 0) && generator.position == 2)
  }

  /// The first numbers of one seed: they may never change, on any machine, since experiments are named by their seeds.
  @Test func theStreamIsPinned() {
    var generator = RandomGenerator(seed: 1)
    let uniform = Tensor<Double>.randomUniform(shape: [2], using: &generator).scalars
    let normal = Tensor<Double>.randomNormal(shape: [4], using: &generator).scalars
    #expect((uniform + normal).map(\.bitPattern) == Self.pinned)
  }

  @Test func positionIsTheWholeState() {
    var a = RandomGenerator(seed: 12, stream: 3)
    let first = (0..<37).map { _ in a.next() }
    for start in [0, 1, 2, 17, 36] {
      var b = RandomGenerator(seed: 12, stream: 3, position: UInt64(start))
      #expect((start..<37).map { _ in b.next() } == Array(first[start...]))
    }
    var c = RandomGenerator(seed: 12, stream: 3)
    c.position = 5
    #expect(c.next() == first[5])
  }

  @Test func threadsDrawTheSameNumbers() {
    for (count, threads) in [0, 1, 2047, 50_001].flatMap({ count in (1...3).map { (count, $0) } }) {
      var (drawn, single) = (RandomGenerator(seed: 3, position: 7), RandomGenerator(seed: 3, position: 7))
      Parallel.withThreadCount(threads) {
        let uniform = Tensor<Float>.randomUniform(shape: [count], in: -1..<3, using: &drawn).scalars
        #expect(uniform == (0..<count).map { _ in Float(-1 + 4 * single.uniform()) })
        let bernoulli = Tensor<Float>.randomBernoulli(shape: [count], probability: 0.3, using: &drawn).scalars
        #expect(bernoulli == (0..<count).map { _ in single.uniform() < 0.3 ? 1 : 0 })
        #expect(drawn == single)
        let x = Tensor<Double>.ones(shape: [count, 2])
        func noise() -> Tensor<Double> { ActivationNoise<Double>(seed: 5).forward(x).output }
        #expect(noise() == Parallel.withThreadCount(1, noise))
      }
    }
  }

  @Test func streamsAndSeedsDiffer() {
    var draws = Set<UInt64>()
    for seed in 0..<20 {
      for stream in 0..<20 {
        var generator = RandomGenerator(seed: UInt64(seed), stream: UInt64(stream))
        for _ in 0..<5 { draws.insert(generator.next()) }
      }
    }
    #expect(draws.count == 2000)
  }

  @Test func uniformMoments() {
    var generator = RandomGenerator(seed: 5)
    let x = Tensor<Double>.randomUniform(shape: [200_000], in: -1..<3, using: &generator)
    #expect(x.min() >= -1 && x.max() < 3)
    #expect(abs(x.mean() - 1) < 0.012 && abs(x.variance() - 16.0 / 12) < 0.015)
    // Every tenth of the range gets its share: χ² with 9 degrees of freedom stays below 33.7 but for one in 10,000.
    var bins = [Int](repeating: 0, count: 10)
    for value in x.scalars { bins[Int((value + 1) / 0.4)] += 1 }
    #expect(bins.reduce(0.0) { $0 + Double(($1 - 20_000) * ($1 - 20_000)) / 20_000 } < 33.7)
  }

  @Test func normalMoments() {
    var generator = RandomGenerator(seed: 6)
    let x = Tensor<Double>.randomNormal(shape: [400_000], mean: 2, standardDeviation: 3, using: &generator)
    let z = (x - 2) / 3
    #expect(abs(z.mean()) < 0.007 && abs(z.variance() - 1) < 0.01)
    #expect(abs(z.power(3).mean()) < 0.02 && abs(z.power(4).mean() - 3) < 0.06)
    #expect(abs((z.absolute() .> 1.959964).mean() - 0.05) < 0.0015)
  }

  @Test func permutationsAreOnesAndEvenly() {
    var generator = RandomGenerator(seed: 9)
    var counts: [[Int]: Int] = [:]
    for _ in 0..<6000 { counts[generator.permutation(3), default: 0] += 1 }
    #expect(counts.count == 6 && counts.values.allSatisfy { abs($0 - 1000) < 150 })
    #expect(generator.permutation(1000).sorted() == Array(0..<1000))
    for bound in [1, 2, 3, 1000, Int.max] {
      #expect((0..<50).allSatisfy { _ in (0..<bound).contains(generator.index(below: bound)) })
    }
  }

  @Test func bernoulliShare() {
    var generator = RandomGenerator(seed: 10)
    let x = Tensor<Float>.randomBernoulli(shape: [100_000], probability: 0.3, using: &generator)
    #expect(abs(x.mean() - 0.3) < 0.006 && Set(x.scalars) == [0, 1])
  }
}
