// Views and rearrangements: everything here that can share memory does.
extension Tensor {
  /// The same elements in another shape; one size may be −1, which is then what is left. A view where the memory allows it.
  public func reshaped(_ newShape: [Int]) -> Tensor {
    let shape = resolved(newShape)
    if isContiguous {
      return Tensor(storage: storage, shape: shape, strides: rowMajorStrides(shape), offset: offset)
    }
    return copied().reshaped(shape)
  }

  /// The same elements in another shape; see ``reshaped(_:)-([Int])``.
  public func reshaped(_ sizes: Int...) -> Tensor { reshaped(sizes) }

  private func resolved(_ newShape: [Int]) -> [Int] {
    var result = newShape
    let open = newShape.indices.filter { newShape[$0] == -1 }
    require(open.count <= 1, "Tensor.reshaped: \(newShape) leaves more than one size open")
    if let axis = open.first {
      let rest = newShape.indices.reduce(1) { $1 == axis ? $0 : $0 * newShape[$1] }
      require(rest > 0 && count % rest == 0, "Tensor.reshaped: shape \(shape) does not fit \(newShape)")
      result[axis] = count / rest
    }
    require(
      checkedCount(result) == count,
      "Tensor.reshaped: shape \(shape) with \(count) elements does not fit \(newShape)")
    return result
  }

  /// The axes in another order: axis `i` of the result is axis `axes[i]` of this tensor; without arguments the reverse order. A view.
  public func transposed(_ axes: [Int]? = nil) -> Tensor {
    let axes = axes?.map { checkedAxis($0, "transposed") } ?? Array((0..<rank).reversed())
    require(
      axes.sorted() == Array(0..<rank), "Tensor.transposed: \(axes) does not name each axis of shape \(shape) once")
    return Tensor(
      storage: storage, shape: axes.map { shape[$0] }, strides: axes.map { strides[$0] }, offset: offset)
  }

  /// Two axes exchanged. A view.
  public func swappingAxes(_ first: Int, _ second: Int) -> Tensor {
    var axes = Array(0..<rank)
    axes.swapAt(checkedAxis(first, "swappingAxes"), checkedAxis(second, "swappingAxes"))
    return transposed(axes)
  }

  /// An axis of size 1 put in before `axis`. A view.
  public func expandingAxis(_ axis: Int) -> Tensor {
    let place = axis < 0 ? axis + rank + 1 : axis
    require((0...rank).contains(place), "Tensor.expandingAxis: axis \(axis) is outside shape \(shape)")
    var (shape, strides) = (shape, strides)
    strides.insert(place < rank ? strides[place] * shape[place] : 1, at: place)
    shape.insert(1, at: place)
    return Tensor(storage: storage, shape: shape, strides: strides, offset: offset)
  }

  /// Without its axes of size 1, or without `axis`, which must be one. A view.
  public func squeezed(axis: Int? = nil) -> Tensor {
    let dropped: [Int]
    if let axis {
      let place = checkedAxis(axis, "squeezed")
      require(shape[place] == 1, "Tensor.squeezed: axis \(axis) of shape \(shape) is not of size 1")
      dropped = [place]
    } else {
      dropped = shape.indices.filter { shape[$0] == 1 }
    }
    let kept = shape.indices.filter { !dropped.contains($0) }
    return Tensor(storage: storage, shape: kept.map { shape[$0] }, strides: kept.map { strides[$0] }, offset: offset)
  }

  /// Repeated along its axes of size 1, and along new leading axes, to `shape`. A view.
  public func broadcast(to newShape: [Int]) -> Tensor {
    let lead = newShape.count - rank
    let fits =
      lead >= 0 && shape.indices.allSatisfy { shape[$0] == newShape[lead + $0] || shape[$0] == 1 }
    require(fits, "Tensor.broadcast: shape \(shape) does not broadcast to \(newShape)")
    let strides = newShape.indices.map { axis in
      axis < lead || (shape[axis - lead] == 1 && newShape[axis] != 1) ? 0 : self.strides[axis - lead]
    }
    return Tensor(storage: storage, shape: newShape, strides: strides, offset: offset)
  }

  /// All elements along one axis.
  public func flattened() -> Tensor { reshaped([count]) }

  /// `axis` counted from the end where negative, checked.
  package func checkedAxis(_ axis: Int, _ operation: StaticString) -> Int {
    let place = axis < 0 ? axis + rank : axis
    require((0..<rank).contains(place), "Tensor.\(operation): axis \(axis) is outside shape \(shape)")
    return place
  }
}

/// The shape that two shapes broadcast to.
package func broadcastShape(_ first: [Int], _ second: [Int], _ operation: @autoclosure () -> String) -> [Int] {
  if first == second { return first }
  let rank = max(first.count, second.count)
  return (0..<rank).map { axis in
    let (a, b) = (axis - rank + first.count, axis - rank + second.count)
    let (x, y) = (a < 0 ? 1 : first[a], b < 0 ? 1 : second[b])
    require(x == y || x == 1 || y == 1, "\(operation()): shapes \(first) and \(second) do not fit")
    return x == 1 ? y : x
  }
}
