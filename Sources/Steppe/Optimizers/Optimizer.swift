/// Moves parameters along their gradients.
///
/// ```swift
/// let optimizer = SGD(model.parameters, learningRate: 0.1, momentum: 0.9)
/// for (images, labels) in batches {
///   let (logits, pullback) = model.forward(images)
///   pullback.accumulate(softmaxCrossEntropy(logits, labels).gradient)
///   optimizer.learningRate = schedule.rate(at: optimizer.stepCount)
///   optimizer.step()
/// }
/// ```
///
/// An optimizer is a reference without locks, for one task at a time, as the model is.
public protocol Optimizer<Scalar>: AnyObject {
  associatedtype Scalar: TensorScalar

  /// What ``step()`` moves.
  var parameters: [Parameter<Scalar>] { get }

  /// The rate of the next steps, at least 0; see ``LearningRateSchedule``.
  var learningRate: Double { get set }

  /// How many steps have been taken.
  var stepCount: Int { get }

  /// Applies the gathered gradients and clears them. Parameters that are not trainable, or have gathered nothing, stay as they are.
  func step()

  /// The settings beside the rate by their names: a resumed run must have the same.
  var hyperparameters: [String: Double] { get }

  /// What a checkpoint holds, so that a resumed run is bitwise the run that was not interrupted. The entries are the same before the
  /// first step as after it, so a fresh optimizer of the same parameters can load them. Settings such as the rate are not among them.
  var state: [StateEntry<Scalar>] { get }
}

extension Optimizer {
  /// None.
  public var hyperparameters: [String: Double] { [:] }
}
