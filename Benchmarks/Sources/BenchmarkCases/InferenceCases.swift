import Steppe

/// The folded classifier: one row, a batch, and one row for each of several callers at once.
let inferenceCases: [BenchmarkCase] =
  [100, 128, 512, 1024].flatMap { hidden in [1, 64].map { inference(hidden: hidden, rows: $0) } }
  + [128, 512].flatMap { hidden in [1, 2, 8].map { inference(hidden: hidden, callers: $0) } }

private func inference(hidden: Int, rows: Int) -> BenchmarkCase {
  BenchmarkCase(inferenceName(hidden, rows), inferenceWork(hidden, rows)) {
    let (model, x) = foldedClassifier(hidden, rows)
    return { keep(model(x)) }
  }
}

private func inference(hidden: Int, callers: Int) -> BenchmarkCase {
  BenchmarkCase("\(inferenceName(hidden, 1))/callers-\(callers)", inferenceWork(hidden, 1), callers: callers) {
    let (model, x) = foldedClassifier(hidden, 1)
    return { keep(model(x)) }
  }
}

private func inferenceName(_ hidden: Int, _ rows: Int) -> String { "inference/784-\(hidden)-\(hidden)-10/rows-\(rows)" }

private func inferenceWork(_ hidden: Int, _ rows: Int) -> Work {
  let products = Classifier.products(hidden).reduce(0, +)
  return .operations(2 * Double(rows) * products, read: 4 * products + bytes(rows * 784), written: bytes(rows * 10))
}

/// After some steps of training, so that the running averages and weights are those of a network in use.
private func foldedClassifier(_ hidden: Int, _ rows: Int) -> (FoldedModel<Float>, Tensor<Float>) {
  let classifier = Classifier(hidden: hidden, batch: 32)
  for _ in 0..<5 { classifier.step() }
  var generator = RandomGenerator(seed: 2)
  return (classifier.model.folded(), .randomUniform(shape: [rows, 784], using: &generator))
}
