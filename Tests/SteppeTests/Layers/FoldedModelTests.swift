import Reference
import Steppe
import Testing

/// Folded models whose weights are laid out for an instruction set.
@Suite struct FoldedModelTests {
  /// The team of threads serves one caller at a time; the others run their parts themselves.
  @Test(arguments: [1, 2, 8]) func callersAtOnceGetTheBitsOfOneAlone(threads: Int) async {
    let model = Sequential<Float>(seed: 1) {
      Dense(300, 500, bias: false)
      BatchNorm(500)
      ReLU()
      Dense(500, 70)
      GELU()
      Dense(70, 10)
    }
    var generator = RandomGenerator(seed: 2)
    let inputs = [1, 2, 17, 64].map { Tensor<Float>.randomNormal(shape: [$0, 300], using: &generator) }
    _ = model.forward(inputs[3])
    let folded = model.folded()
    let expected = Parallel.withThreadCount(threads) { inputs.map { folded($0) } }
    let wrong = await withTaskGroup(of: Int.self) { group in
      for caller in 0..<8 {
        group.addTask {
          Parallel.withThreadCount(threads) {
            (0..<40).count { folded(inputs[($0 + caller) % 4]) != expected[($0 + caller) % 4] }
          }
        }
      }
      return await group.reduce(0, +)
    }
    #expect(wrong == 0)
  }

  /// Two dense layers in Float64, with the sizes of the output's terms.
  private static func reference(
    _ x: [Float], _ w1: [Float], _ b1: [Float], _ w2: [Float], rows: Int, inputs: Int, hidden: Int, outputs: Int
  ) -> (values: [Double], scales: [Double]) {
    var first = NaiveLinearAlgebra.product(
      transposeA: false, transposeB: true, m: rows, n: hidden, k: inputs, alpha: 1, a: x.doubles, lda: inputs,
      b: w1.doubles, ldb: inputs, beta: 0, c: [Double](repeating: 0, count: rows * hidden), ldc: hidden)
    for place in first.values.indices {
      let bias = Double(b1[place % hidden])
      first.values[place] = max(first.values[place] + bias, 0)
      first.scales[place] += abs(bias)
    }
    let zeros = [Double](repeating: 0, count: rows * outputs)
    func second(_ left: [Double], _ right: [Double]) -> (values: [Double], scales: [Double]) {
      NaiveLinearAlgebra.product(
        transposeA: false, transposeB: true, m: rows, n: outputs, k: hidden, alpha: 1, a: left, lda: hidden, b: right,
        ldb: hidden, beta: 0, c: zeros, ldc: outputs)
    }
    return (second(first.values, w2.doubles).values, second(first.scales, w2.doubles).scales)
  }

  @Test
  func isRightWhateverIsSelectedLater() async throws {
    for name in InstructionSet.available {
      try ExitTestArguments.pass(name, "selected later \(name) \(testSeed)", to: "isRightWhateverIsSelectedLater")
      await #expect(processExitsWith: .success) {
        let arguments = try ExitTestArguments.received(by: "isRightWhateverIsSelectedLater")
        let (name, salt) = (arguments[0], arguments[1])
        try InstructionSet.select(name)
        var generator = TestGenerator(fixed: salt)
        let (inputs, hidden, outputs) = (90, 131, 37)
        let (w1, b1): ([Float], [Float]) = (generator.normals(hidden * inputs), generator.normals(hidden))
        let w2: [Float] = generator.normals(outputs * hidden)
        let folded = Sequential<Float>([
          Dense(weight: Tensor(shape: [hidden, inputs], scalars: w1), bias: Tensor(b1)), ReLU(),
          Dense(weight: Tensor(shape: [outputs, hidden], scalars: w2)),
        ]).folded()
        for later in InstructionSet.available + [name] {
          try InstructionSet.select(later)
          for rows in [1, 5, 80] {
            for threads in [1, 3] {
              let x: [Float] = generator.normals(rows * inputs)
              let wanted = Self.reference(x, w1, b1, w2, rows: rows, inputs: inputs, hidden: hidden, outputs: outputs)
              let got = Parallel.withThreadCount(threads) { folded(Tensor(shape: [rows, inputs], scalars: x)) }.scalars
              let wrong = got.indices.first { !(abs(Double(got[$0]) - wanted.values[$0]) <= 4e-6 * wanted.scales[$0]) }
              #expect(
                got.count == rows * outputs && wrong == nil,
                "made on \(name), used on \(later), \(rows) rows, \(threads)"
              )
            }
          }
        }
      }
    }
  }
}
