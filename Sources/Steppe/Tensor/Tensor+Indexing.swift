/// What may stand at one axis in a tensor's subscript: an index, which drops the axis, or a range, which keeps it.
public protocol TensorIndex: Sendable {
  /// The range that this names on an axis of `size` elements.
  func tensorRange(_ size: Int) -> Range<Int>
  /// Whether the axis is dropped.
  var dropsAxis: Bool { get }
}

extension TensorIndex {
  public var dropsAxis: Bool { false }
}

extension Int: TensorIndex {
  public func tensorRange(_ size: Int) -> Range<Int> {
    let index = self < 0 ? self + size : self
    return index..<index + 1
  }
  public var dropsAxis: Bool { true }
}

extension Range<Int>: TensorIndex {
  public func tensorRange(_ size: Int) -> Range<Int> { self }
}

extension ClosedRange<Int>: TensorIndex {
  public func tensorRange(_ size: Int) -> Range<Int> { lowerBound..<upperBound + 1 }
}

extension PartialRangeFrom<Int>: TensorIndex {
  public func tensorRange(_ size: Int) -> Range<Int> { lowerBound..<Swift.max(size, lowerBound) }
}

extension PartialRangeUpTo<Int>: TensorIndex {
  public func tensorRange(_ size: Int) -> Range<Int> { 0..<upperBound }
}

extension PartialRangeThrough<Int>: TensorIndex {
  public func tensorRange(_ size: Int) -> Range<Int> { 0..<upperBound + 1 }
}

extension Tensor {
  /// One element, by an index for each axis; negative ones count from the end.
  public subscript(indices: Int...) -> Scalar {
    get { storage.pointer[elementOffset(indices)] }
    set {
      makeWritable()
      storage.pointer[elementOffset(indices)] = newValue
    }
  }

  private func elementOffset(_ indices: [Int]) -> Int {
    require(
      indices.count == rank,
      "Tensor subscript: \(indices.count) indices for shape \(shape); a part of a tensor is x[i, 0...] or x.row(i)")
    var result = offset
    for axis in indices.indices {
      let index = indices[axis] < 0 ? indices[axis] + shape[axis] : indices[axis]
      require((0..<shape[axis]).contains(index), "Tensor subscript: index \(indices) is outside shape \(shape)")
      result += index * strides[axis]
    }
    return result
  }

  /// A part, by indices and ranges from the first axis on: `x[0..<3]`, `x[1, 2...]`. Reading gives a view; writing broadcasts.
  public subscript(ranges: any TensorIndex...) -> Tensor {
    get { part(ranges) }
    set {
      makeWritable()
      let target = part(ranges)
      let source = newValue.broadcast(to: target.shape)
      copyStrided(
        shape: target.shape, from: source.storage.pointer + source.offset, strides: source.strides,
        to: target.storage.pointer + target.offset, strides: target.strides)
      withExtendedLifetime((source, target)) {}
    }
  }

  private func part(_ ranges: [any TensorIndex]) -> Tensor {
    require(ranges.count <= rank, "Tensor subscript: \(ranges.count) ranges for shape \(shape)")
    var (newShape, newStrides, newOffset) = ([Int](), [Int](), offset)
    for axis in shape.indices {
      let size = shape[axis]
      let range = axis < ranges.count ? ranges[axis].tensorRange(size) : 0..<size
      require(
        range.lowerBound >= 0 && range.upperBound <= size,
        "Tensor subscript: \(range) is outside axis \(axis) of shape \(shape)")
      newOffset += range.lowerBound * strides[axis]
      if axis < ranges.count, ranges[axis].dropsAxis { continue }
      newShape.append(range.count)
      newStrides.append(strides[axis])
    }
    return Tensor(storage: storage, shape: newShape, strides: newStrides, offset: newOffset)
  }

  /// The `index`-th part along the first axis. A view.
  public func row(_ index: Int) -> Tensor {
    require(rank > 0, "Tensor.row: a scalar has no rows")
    return part([index])
  }

  /// The parts along the first axis at `indices`, in their order: `[indices.count, …]`.
  public func gathering(rows indices: [Int]) -> Tensor { gathering(indices, axis: 0) }

  /// The parts along `axis` at `indices`, in their order; negative ones count from the end.
  public func gathering(_ indices: [Int], axis: Int) -> Tensor {
    let axis = checkedAxis(axis, "gathering")
    let source = contiguous()
    let size = shape[axis]
    let outer = shape[..<axis].reduce(1, *)
    let inner = shape[(axis + 1)...].reduce(1, *)
    for index in indices {
      require(
        index >= -size && index < size, "Tensor.gathering: index \(index) is outside axis \(axis) of shape \(shape)")
    }
    var newShape = shape
    newShape[axis] = indices.count
    let result = Tensor(uninitialized: newShape)
    let (from, to) = (source.address, result.address)
    Parallel.ranges(outer * indices.count, grain: Swift.max(1, Parallel.elementGrain / Swift.max(inner, 1))) { range in
      for row in range {
        let index = indices[row % indices.count]
        let sourceRow = row / indices.count * size + (index < 0 ? index + size : index)
        (to + row * inner).update(from: from + sourceRow * inner, count: inner)
      }
    }
    withExtendedLifetime(source) {}
    return result
  }

  /// Tensors joined along `axis`; the other axes must agree.
  public static func concatenated(_ tensors: [Tensor], axis: Int = 0) -> Tensor {
    require(!tensors.isEmpty, "Tensor.concatenated: no tensors")
    let axis = tensors[0].checkedAxis(axis, "concatenated")
    var shape = tensors[0].shape
    for tensor in tensors.dropFirst() {
      let fits =
        tensor.rank == shape.count && shape.indices.allSatisfy { $0 == axis || tensor.shape[$0] == shape[$0] }
      require(
        fits, "Tensor.concatenated: shapes \(tensors[0].shape) and \(tensor.shape) differ off axis \(axis)")
      shape[axis] += tensor.shape[axis]
    }
    let result = Tensor(uninitialized: shape)
    var place = 0
    for tensor in tensors {
      copyStrided(
        shape: tensor.shape, from: tensor.storage.pointer + tensor.offset, strides: tensor.strides,
        to: result.address + place * result.strides[axis], strides: result.strides)
      place += tensor.shape[axis]
    }
    return result
  }

  /// Tensors of one shape along a new axis.
  public static func stacked(_ tensors: [Tensor], axis: Int = 0) -> Tensor {
    for tensor in tensors.dropFirst() {
      require(
        tensor.shape == tensors[0].shape, "Tensor.stacked: shapes \(tensors[0].shape) and \(tensor.shape) differ")
    }
    return concatenated(tensors.map { $0.expandingAxis(axis) }, axis: axis)
  }
}
