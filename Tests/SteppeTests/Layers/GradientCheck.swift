import Reference
import Steppe
import Testing

/// Holds a layer's pullback to central differences in Double: the input's gradient and every parameter's, of the loss ⟨output, w⟩ with
/// random w. `prepare` puts a layer with a state of its own (a generator) back before each forward pass.
func checkGradients<L: Layer>(
  _ layer: L, inputShape: [Int], _ generator: inout TestGenerator, prepare: () -> Void = {},
  sourceLocation: SourceLocation = #_sourceLocation
) where L.Scalar == Double {
  let x: [Double] = generator.normals(inputShape.reduce(1, *))
  prepare()
  let (output, pullback) = layer.forward(Tensor(shape: inputShape, scalars: x))
  let weights: [Double] = generator.normals(output.count)
  for parameter in layer.parameters { parameter.clearGradient() }
  let dx = pullback(Tensor(shape: output.shape, scalars: weights))
  let gradients = layer.parameters.map(\.gradient)
  // The cheaper pullback gathers the same gradients on top.
  pullback.accumulate(Tensor(shape: output.shape, scalars: weights))
  for (parameter, gradient) in zip(layer.parameters, gradients) {
    #expect((parameter.gradient - gradient * 2).absolute().max() < 1e-9, sourceLocation: sourceLocation)
  }
  func loss(_ input: [Double]) -> Double {
    prepare()
    let y = layer.forward(Tensor(shape: inputShape, scalars: input)).output
    return zip(y.scalars, weights).reduce(0) { $0 + $1.0 * $1.1 }
  }
  let numeric = centralDifferences(at: x, loss)
  #expect(
    relativeDistance(dx.scalars, numeric, least: 1e-3) < 1e-7, "\(L.self) \(inputShape): dx",
    sourceLocation: sourceLocation)
  // What a normalization takes out again, such as a bias before it, has the gradient 0, of which differences find the loss's rounding:
  // that is held against the size of the gradients that are not.
  let size = max(1e-3, numeric.reduce(0) { $0 + $1 * $1 }.squareRoot())
  for (parameter, gradient) in zip(layer.parameters, gradients) {
    let start = parameter.value
    let slope = centralDifferences(at: start.scalars) { point in
      parameter.value = Tensor(shape: start.shape, scalars: point)
      return loss(x)
    }
    parameter.value = start
    #expect(
      relativeDistance(gradient.scalars, slope, least: size) < 1e-7,
      "\(L.self) \(inputShape): \(parameter.name)",
      sourceLocation: sourceLocation)
  }
}
