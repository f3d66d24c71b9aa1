import Steppe

/// A model as it was: weights, running statistics and generators, for measurements that shall leave no trace.
package struct ModelSnapshot<Scalar: TensorScalar> {
  private let model: any Layer<Scalar>
  private let state: [StateEntry<Scalar>]
  private let values: [StateEntry<Scalar>.Value]
  private let generators: [RandomGenerator]

  package init(_ model: any Layer<Scalar>) {
    self.model = model
    state = model.state
    values = state.map { $0.get() }
    generators = model.randomGenerators
  }

  /// Makes the model what it was, and its gradients zero.
  package func restore() {
    for (entry, value) in zip(state, values) { entry.set(value) }
    restoreGenerators()
    for parameter in model.parameters { parameter.clearGradient() }
  }

  /// Makes the next noise that which followed the snapshot.
  package func restoreGenerators() { model.randomGenerators = generators }
}
