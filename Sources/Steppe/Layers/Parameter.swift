/// Follows how a parameter's gradient is gathered, as processes that train together do.
package protocol GradientObserver: AnyObject {
  /// Comes before something is added to the gradient, or takes its place.
  func gradientWillChange()
  /// Comes after it.
  func gradientDidChange()
  /// Memory for a gradient that begins, of this process alone while it grows; nil where the parameter's own serves.
  func memoryForGradient() -> (address: UnsafeMutableRawPointer, lender: AnyObject)?
}

/// A tensor that training changes, and its gradient.
///
/// A reference: the layer that computes with it and the optimizer that moves it hold the same one.
public final class Parameter<Scalar: TensorScalar> {
  /// The layer's path and the parameter's name in it, such as `"1.gamma"`.
  public internal(set) var name: String
  /// Whether optimizers apply weight decay: true for weights, false for γ, β and biases.
  public var decays: Bool
  /// Whether gradients are taken and optimizers move it.
  public var isTrainable = true

  /// The values.
  public var value: Tensor<Scalar> {
    get { stored }
    set {
      require(
        newValue.shape == stored.shape,
        "Parameter '\(name)': expected a value of shape \(stored.shape), got \(newValue.shape)")
      stored = newValue
      version += 1
    }
  }

  /// How often the value has changed: a pullback that needs it holds this and not the value, since a second reference to it would make
  /// the optimizer copy it.
  package private(set) var version = 0

  /// `value` without an observer, which would hold a second reference and so make every change in place a copy.
  private var stored: Tensor<Scalar>

  /// The gradient gathered since it was last cleared, of the value's shape.
  public var gradient: Tensor<Scalar> {
    get {
      keepGradient()
      return hasGradient ? gathered! : Tensor.zeros(shape: value.shape)
    }
    set {
      willChangeGradient()
      defer { observer?.gradientDidChange() }
      require(
        newValue.shape == value.shape,
        "Parameter '\(name)': expected a gradient of shape \(value.shape), got \(newValue.shape)")
      gathered = newValue
      lent = nil
      hasGradient = true
      isZeroed = false
    }
  }

  /// Who follows how the gradient is gathered.
  package weak var observer: (any GradientObserver)?

  /// Whether anything was gathered since the gradient was last cleared.
  public private(set) var hasGradient = false

  /// Whether what was gathered is the sum over the processes that train together, which all of them hold, and nothing was added to it since.
  package private(set) var isGradientSum = false

  /// The gradient's memory, kept from step to step; what it holds counts only where `hasGradient`.
  private var gathered: Tensor<Scalar>?
  /// Whether the memory holds zeros, which may be added to at once: a product that begins by clearing its result takes a pass more.
  private var isZeroed = false
  /// Where the gradient stands in place of `gathered`, in memory of `lender`.
  private var lent: (address: UnsafeMutablePointer<Scalar>, lender: AnyObject)?

  /// A parameter that begins at `value`.
  public init(_ value: Tensor<Scalar>, name: String, decays: Bool) {
    stored = value
    self.name = name
    self.decays = decays
  }

  /// Makes the gradient zero.
  public func clearGradient() {
    isZeroed = isZeroed && !hasGradient
    hasGradient = false
    isGradientSum = false
    lent = nil
  }

  /// Notes that the gradient, if there is one, has become the sum over the processes.
  package func markGradientAsSum() { isGradientSum = hasGradient }

  /// Makes the sum over the processes at `address` the gradient. The memory is the lender's, which all processes read: nothing writes to it
  /// here, and the lender changes it only where this parameter has no gradient or one that stands elsewhere.
  package func hold(sumAt address: UnsafeMutablePointer<Scalar>, of lender: AnyObject) {
    lent = (address, lender)
    hasGradient = true
    isGradientSum = true
    isZeroed = false
  }

  /// Whether the gradient stands at that address.
  package func holdsGradient(at address: UnsafeMutablePointer<Scalar>) -> Bool { lent?.address == address }

  /// Where the gradient stands, to be read; good while `holder` lives and the parameter is not used otherwise.
  package func gradientPlace() -> (address: UnsafePointer<Scalar>, holder: Any) {
    if let lent { return (UnsafePointer(lent.address), lent.lender) }
    let tensor = gradient.contiguous()
    return (UnsafePointer(tensor.address), tensor)
  }

  /// Moves a gradient that stands in another's memory to the parameter's own, where it may be changed and outlive the lender's.
  private func keepGradient() {
    guard let lent else { return }
    var memory = gathered ?? Tensor(uninitialized: value.shape)
    gathered = nil
    if !memory.isUniquelyWritable() { memory = Tensor(uninitialized: value.shape) }
    memory.address.update(from: lent.address, count: memory.count)
    gathered = consume memory
    self.lent = nil
  }

  private func willChangeGradient() {
    observer?.gradientWillChange()
    isGradientSum = false
  }

  /// The gradient's memory, for an optimizer that applies it; afterwards the gradient is zero. `leavingZeros` says that the optimizer
  /// writes zeros to the memory too.
  package func takeGradient(leavingZeros: Bool) -> UnsafeMutablePointer<Scalar> {
    // What others read too is not cleared.
    let address = leavingZeros ? writableGradient() : lent?.address ?? writableGradient()
    clearGradient()
    isZeroed = leavingZeros
    return address
  }

  /// Adds to the gradient: `body` gets its memory and whether what stands there counts (else it is to be
  /// written over).
  package func accumulate(_ body: (_ gradient: UnsafeMutablePointer<Scalar>, _ adding: Bool) -> Void) {
    let isSum = isGradientSum
    willChangeGradient()
    // A sum is not written to where others read it.
    if isSum { keepGradient() }
    if !hasGradient, let (address, lender) = observer?.memoryForGradient() {
      lent = (address.assumingMemoryBound(to: Scalar.self), lender)
    }
    if let lent {
      body(lent.address, hasGradient)
      hasGradient = true
      isZeroed = false
      observer?.gradientDidChange()
      return
    }
    var memory = gathered ?? Tensor(uninitialized: value.shape)
    gathered = nil
    if hasGradient {
      memory.makeWritable()
    } else if !memory.isUniquelyWritable() {
      memory = Tensor(uninitialized: value.shape)
      isZeroed = false
    }
    body(memory.address, hasGradient || isZeroed)
    // No second reference may be left while the observer looks at it, or what it changes would be a copy.
    gathered = consume memory
    hasGradient = true
    isZeroed = false
    observer?.gradientDidChange()
  }

  /// Where the gathered gradient stands, to be changed in place; good until the parameter is next used.
  package func writableGradient() -> UnsafeMutablePointer<Scalar> {
    require(hasGradient, "Parameter '\(name)': there is no gradient to change")
    keepGradient()
    var memory = gathered!
    gathered = nil
    memory.makeWritable()
    gathered = memory
    return memory.address
  }

  /// Adds `change` to the gradient.
  package func accumulate(_ change: Tensor<Scalar>) {
    willChangeGradient()
    keepGradient()
    guard hasGradient, var sum = gathered else {
      gradient = change
      return
    }
    // The only reference while it grows, so that it grows in place.
    gathered = nil
    sum += change
    gathered = consume sum
    observer?.gradientDidChange()
  }

  /// Where an optimizer changes the value in place; good until the parameter is next used.
  package func writableAddress() -> UnsafeMutablePointer<Scalar> {
    stored.makeWritable()
    version += 1
    return stored.address
  }
}
