import Steppe
import Testing

@Suite struct DescriptionTests {
  @Test func printsAsNumPy() {
    #expect(Tensor<Float>([1, 2, 3]).description == "[1. 2. 3.]")
    #expect(Tensor<Float>([[1, 2.5], [-3, 4]]).description == "[[ 1.   2.5]\n [-3.   4. ]]")
    #expect(Tensor<Float>([0.1, 20]).description == "[ 0.1 20. ]")
    #expect(Tensor<Double>([.nan, .infinity, -1]).description == "[nan inf -1.]")
    #expect(Tensor<Double>([1e10, 1]).description == "[1.e+10 1.e+00]")
    #expect(Tensor<Double>([1.5e-7, 1]).description == "[1.5e-07 1.0e+00]")
    #expect(Tensor<Float>(3).description == "3." && Tensor<Float>([Float]()).description == "[]")
    #expect(Tensor<Float>([[[1]], [[2]]]).description == "[[[1.]]\n\n [[2.]]]")
  }

  @Test func shortensLargeTensors() {
    let text = Tensor<Float>.range(to: 2000).description
    #expect(text == "[   0.    1.    2. ... 1997. 1998. 1999.]")
    let lines = Tensor<Float>.zeros(shape: [100, 100]).description.split(separator: "\n")
    #expect(lines.count == 7 && lines[3] == " ...")
  }
}
