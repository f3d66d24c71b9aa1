import CSteppeKernels

/// What Steppe's optimizers share: a step is one pass over the memory of all parameters, their gradients and their state, cut over
/// the threads as one long range.
///
/// **Weight decay goes only to parameters whose ``Parameter/decays`` is true: the weights. γ, β and biases are excluded by default**, as
/// it does not regularize them (a layer before a normalization has the same output at any scale of its weights; γ and β set that
/// output). Set `parameter.decays` to decide otherwise.
///
/// A parameter that is listed twice counts once. Each parameter counts its own steps, as in PyTorch: one that begins later (a layer
/// thawed in mid-training) begins with a fresh momentum and bias correction.
///
/// The keys of ``state`` are `"step"`, and for each parameter `"<name>.step"` and the names of the optimizer's tensors, as in
/// `"0.weight.momentum"`. Where names are missing or not unique, the parameter's place in ``parameters`` stands for each.
public class FusedOptimizer<Scalar: TensorScalar>: Optimizer {
  /// What ``step()`` moves, each once.
  public let parameters: [Parameter<Scalar>]

  /// The rate of the next steps, at least 0.
  public var learningRate: Double {
    didSet { check("learningRate", learningRate, learningRate >= 0, "at least 0") }
  }

  /// λ: how strongly weights are pulled to 0; see this class for what it does not touch.
  public let weightDecay: Double

  /// The greatest norm that the gradients of a step may have together; nil, as at the start, allows any.
  ///
  /// The norm is as in ``clipGradientNorm(_:maximum:)``, over the parameters that the step moves. Here longer gradients are scaled down within
  /// the step's own pass, so that clipping costs one more reading of the gradients and no writing.
  public var maximumGradientNorm: Double? {
    didSet {
      if let maximumGradientNorm {
        check("maximumGradientNorm", maximumGradientNorm, maximumGradientNorm > 0, "above 0")
      }
    }
  }

  /// The norm that the last step's gradients had before clipping; nil where ``maximumGradientNorm`` was.
  public private(set) var gradientNorm: Double?

  /// How many steps have been taken.
  public private(set) var stepCount = 0

  /// One kind of state: a tensor for each parameter, of its shape.
  struct Slot {
    let name: String
    var tensors: [Tensor<Scalar>]
  }

  private var slots: [Slot]
  /// The steps that each parameter has taken.
  private var counts: [Int]
  /// The memory of a step's plan, kept from step to step; empty between them.
  private var pieces: [Piece] = []

  /// - Parameter state: The names of at most two tensors that each parameter needs, and what they hold at the start.
  init(
    _ parameters: [Parameter<Scalar>], learningRate: Double, weightDecay: Double, state: [(name: String, start: Double)]
  ) {
    self.parameters = distinct(parameters)
    self.learningRate = learningRate
    self.weightDecay = weightDecay
    counts = Array(repeating: 0, count: self.parameters.count)
    slots = []
    check("learningRate", learningRate, learningRate >= 0, "at least 0")
    check("weightDecay", weightDecay, weightDecay >= 0, "at least 0")
    for (name, start) in state {
      slots.append(
        Slot(name: name, tensors: self.parameters.map { Tensor(repeating: Scalar(start), shape: $0.value.shape) }))
    }
  }

  /// Fills in what is the optimizer's own, for the `step`-th step of a parameter, counted from 1.
  func configure(_ settings: inout steppe_optimizer_step, step: Int) {}

  /// Runs the optimizer's kernel on a range of one parameter. `first` and `second` are its state tensors, nil where it has fewer.
  func apply(
    _ settings: UnsafePointer<steppe_optimizer_step>, value: UnsafeMutablePointer<Scalar>,
    gradient: UnsafeMutablePointer<Scalar>, first: UnsafeMutablePointer<Scalar>?, second: UnsafeMutablePointer<Scalar>?,
    count: Int
  ) {
    stop("\(Self.self): apply is not implemented")
  }

  /// Applies the gathered gradients and clears them. Parameters that are not trainable, or have gathered nothing, stay as they are.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  public func step() {
    // Steppe's own products write over what a gradient's memory holds at no cost, so it need not be cleared; OpenBLAS's would clear it in
    // a pass of its own before they add.
    let clears = !MatrixProduct<Scalar>.usesKernels
    var scale = 1.0
    gradientNorm = nil
    if let maximumGradientNorm {
      let norm = Steppe.gradientNorm(parameters.filter { $0.isTrainable && $0.hasGradient })
      gradientNorm = norm
      scale = clippingScale(norm, maximum: maximumGradientNorm)
    }

    // Taken out while it is filled and read, so that no other reference makes it a copy.
    var pieces = self.pieces
    self.pieces = []
    var total = 0
    for index in parameters.indices {
      let parameter = parameters[index]
      guard parameter.isTrainable && parameter.hasGradient else { continue }
      counts[index] += 1
      var settings = steppe_optimizer_step()
      settings.learning_rate = learningRate
      settings.gradient_scale = scale
      settings.weight_decay = parameter.decays ? weightDecay : 0
      settings.clear_gradient = clears
      configure(&settings, step: counts[index])
      for slot in slots.indices { slots[slot].tensors[index].makeWritable() }
      let count = parameter.value.count
      pieces.append(
        Piece(
          settings: settings, count: count, gradient: parameter.takeGradient(leavingZeros: clears),
          value: parameter.writableAddress(), first: slots.first?.tensors[index].address,
          second: slots.count > 1 ? slots[1].tensors[index].address : nil))
      total += count
    }
    pieces.withUnsafeBufferPointer { pieces in
      let parts = Parallel.partCount(total, grain: Parallel.elementGrain)
      Parallel.run(parts: parts) { run(pieces, $0, of: parts) }
    }
    pieces.removeAll(keepingCapacity: true)
    self.pieces = pieces
    for parameter in parameters { parameter.clearGradient() }
    stepCount += 1
  }

  /// One parameter in a step.
  private struct Piece {
    let settings: steppe_optimizer_step
    let count: Int
    let gradient: UnsafeMutablePointer<Scalar>
    let value: UnsafeMutablePointer<Scalar>
    let first: UnsafeMutablePointer<Scalar>?
    let second: UnsafeMutablePointer<Scalar>?
  }

  /// One thread's part: a range of every parameter, the same share of each, so that it is much the same rows of a weight that a thread
  /// multiplies by, takes the gradient of and moves, and they stay in its cache.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func run(_ pieces: UnsafeBufferPointer<Piece>, _ part: Int, of parts: Int) {
    for piece in pieces {
      let range = Parallel.range(part, of: parts, count: piece.count, multiple: 16)
      if range.isEmpty { continue }
      let offset = range.lowerBound
      withUnsafePointer(to: piece.settings) { settings in
        apply(
          settings, value: piece.value + offset, gradient: piece.gradient + offset,
          first: piece.first.map { $0 + offset }, second: piece.second.map { $0 + offset }, count: range.count)
      }
    }
  }

  /// Weight decay and clipping, and what the optimizer adds; see ``Optimizer/hyperparameters``.
  public var hyperparameters: [String: Double] {
    var result = ["weightDecay": weightDecay]
    result["maximumGradientNorm"] = maximumGradientNorm
    return result
  }

  /// What a checkpoint holds; see ``Optimizer/state``.
  public var state: [StateEntry<Scalar>] {
    let names = parameters.map(\.name)
    let named = Set(names).count == names.count && !names.contains("")
    var entries = [integerEntry("step", \.stepCount)]
    for index in parameters.indices {
      let key = named ? names[index] : "\(index)"
      entries.append(integerEntry("\(key).step", \.counts[index]))
      for slot in slots.indices {
        entries.append(tensorEntry("\(key).\(slots[slot].name)", \.slots[slot].tensors[index]))
      }
    }
    return entries
  }

  private func integerEntry(
    _ key: String, _ path: ReferenceWritableKeyPath<FusedOptimizer, Int>
  ) -> StateEntry<Scalar> {
    StateEntry(
      key: key, get: { .integer(self[keyPath: path]) },
      set: { value in
        guard case .integer(let count) = value, count >= 0 else {
          stop("StateEntry '\(key)': expected a whole number from 0 on, got \(value)")
        }
        self[keyPath: path] = count
      })
  }

  private func tensorEntry(
    _ key: String, _ path: ReferenceWritableKeyPath<FusedOptimizer, Tensor<Scalar>>
  ) -> StateEntry<Scalar> {
    StateEntry(
      key: key, get: { .tensor(self[keyPath: path]) },
      set: { value in
        guard case .tensor(let tensor) = value else { stop("StateEntry '\(key)': expected a tensor, got \(value)") }
        let shape = self[keyPath: path].shape
        require(tensor.shape == shape, "StateEntry '\(key)': expected a tensor of shape \(shape), got \(tensor.shape)")
        self[keyPath: path] = tensor
      })
  }

  /// Stops where a setting makes no sense.
  func check(_ name: String, _ value: Double, _ holds: Bool, _ expected: String) {
    require(holds && value.isFinite, "\(Self.self): expected \(name) \(expected), got \(value)")
  }

  /// Stops where a setting that averages over steps is outside 0 ..< 1.
  func checkFraction(_ name: String, _ value: Double) { check(name, value, (0..<1).contains(value), "in 0 ..< 1") }
}
