/// Mean and Σ(x − mean)² of each row of a matrix whose columns come block by block, each taken while the cache holds it.
///
/// A block's sums are of x − shift, the shift what the row's mean was before, and join the blocks before it by Chan's formula
/// (Chan, Golub & LeVeque 1983): what lies between a block's mean and its shift is part of the variance, so that its rounding stays small
/// against it. The first block is summed twice, since it has to find its shift.
final class BlockMoments<Scalar: TensorScalar> {
  let rows: Int
  /// The values of a row so far.
  private(set) var count = 0
  /// The mean as a scalar, which is the next block's shift, and what is missing from it.
  private let shift: Storage<Scalar>
  private let remainder: Storage<Double>
  /// Σ(x − mean)².
  private let squares: Storage<Double>
  /// The sums of a block.
  private let sums: Storage<Double>

  init(rows: Int) {
    self.rows = rows
    shift = Storage(count: rows)
    remainder = Storage(count: rows)
    squares = Storage(count: rows)
    sums = Storage(count: 2 * rows)
    for row in 0..<rows { (remainder.pointer[row], squares.pointer[row]) = (0, 0) }
  }

  /// Takes in a block whose rows stand `row` apart, each as `runs` stretches of `length` values `stride` apart.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func takeRows(_ x: UnsafePointer<Scalar>, row: Int, runs: Int = 1, stride: Int = 0, length: Int) {
    take(runs * length, first: { x[$0 * row] }) { shift, sums in
      for number in 0..<rows {
        Scalar.kernels.run_moments(
          x + number * row, stride, runs, length, Double(shift[number]), sums + number, sums + rows + number)
      }
    }
  }

  /// Takes in a block of `count` columns, each of values side by side, `column` apart.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func takeColumns(_ x: UnsafePointer<Scalar>, column: Int, count: Int) {
    take(count, first: { x[$0] }) { shift, sums in
      Scalar.kernels.column_moments(x, column, count, rows, shift, sums, sums + rows)
    }
  }

  private func take(
    _ added: Int, first: (_ row: Int) -> Scalar,
    _ sum: (_ shift: UnsafePointer<Scalar>, _ sums: UnsafeMutablePointer<Double>) -> Void
  ) {
    guard added > 0 else { return }
    if count == 0 {
      for row in 0..<rows { (shift.pointer[row], remainder.pointer[row]) = (first(row), 0) }
      add(added, sum)
      // Only the mean was wanted.
      count = 0
      for row in 0..<rows { (remainder.pointer[row], squares.pointer[row]) = (0, 0) }
    }
    add(added, sum)
  }

  private func add(
    _ added: Int, _ sum: (_ shift: UnsafePointer<Scalar>, _ sums: UnsafeMutablePointer<Double>) -> Void
  ) {
    let sums = sums.pointer
    for place in 0..<2 * rows { sums[place] = 0 }
    sum(shift.pointer, sums)
    let each = 1 / Double(added)
    join(added) { row in
      let distance = sums[row] * each
      return (distance - remainder.pointer[row], max(0, sums[rows + row] - distance * sums[row]))
    }
  }

  /// Takes in what another part found of the same rows.
  func join(_ other: BlockMoments) {
    join(other.count) { row in
      let step = Double(other.shift.pointer[row]) - Double(shift.pointer[row])
      return (step + (other.remainder.pointer[row] - remainder.pointer[row]), other.squares.pointer[row])
    }
  }

  /// Joins `added` values of each row, of which `moments` tells how far their mean lies from that of the row, and their Σ(x − mean)².
  private func join(_ added: Int, _ moments: (_ row: Int) -> (distance: Double, squares: Double)) {
    let all = Double(count + added)
    let (share, weight) = (Double(added) / all, Double(added) / all * Double(count))
    for row in 0..<rows {
      let (distance, added) = moments(row)
      squares.pointer[row] += added + distance * distance * weight
      let (old, moved) = (Double(shift.pointer[row]), remainder.pointer[row] + distance * share)
      let mean = Scalar(old + moved)
      (shift.pointer[row], remainder.pointer[row]) = (mean, old - Double(mean) + moved)
    }
    count += added
  }

  /// Writes what was found of the rows as channels from `first` on.
  func write(to moments: ChannelMoments, from first: Int) {
    for row in 0..<rows {
      let channel = first + row
      moments.mean[channel] = Double(shift.pointer[row]) + remainder.pointer[row]
      moments.remainder[channel] = remainder.pointer[row]
      moments.variance[channel] = squares.pointer[row] / Double(count)
    }
  }
}

extension BlockMoments {
  /// One for each part of products of `rows` rows each, with the part's first row among the rows of all products.
  static func forParts(
    _ parts: [(product: Int, part: Int)], of cuts: [ProductCut], rows: Int
  ) -> [(first: Int, found: BlockMoments)] {
    parts.map { product, part in
      let own = cuts[product].ranges(part).rows
      return (product * rows + own.lowerBound, BlockMoments(rows: own.count))
    }
  }
}

extension ChannelMoments {
  /// Makes these the moments of the channels of which parts of a product found some: each the first channel and what its blocks gave.
  func take<Scalar: TensorScalar>(_ parts: [(first: Int, found: BlockMoments<Scalar>)]) {
    var rest = parts.filter { $0.found.count > 0 }[...]
    while let (first, found) = rest.popFirst() {
      while let next = rest.first, next.first == first {
        found.join(next.found)
        rest.removeFirst()
      }
      found.write(to: self, from: first)
    }
  }
}
