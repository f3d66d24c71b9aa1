/// Mean and Σ(x − mean)² of each row of a matrix whose columns come block by block, each taken while the cache holds it.
///
/// A block's sums are of x − shift, the shift what the row's mean was before, and join the blocks before it by Chan's formula
/// (Chan, Golub & LeVeque 1983). Where the shift turns out to lie so far from the block's mean that the rounding of its squares would count
/// against the variance, as it mostly does for the first block, the block is summed once more by the mean found.
final class BlockMoments<Scalar: TensorScalar> {
  let rows: Int
  /// The values of a row so far.
  private(set) var count = 0
  /// The mean as a scalar, and what is missing from it.
  private let mean: Storage<Scalar>
  private let remainder: Storage<Double>
  /// Σ(x − mean)².
  private let squares: Storage<Double>
  /// The shifts of a block, and its sums.
  private let shift: Storage<Scalar>
  private let sums: Storage<Double>

  init(rows: Int) {
    self.rows = rows
    mean = Storage(count: rows)
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
    if count == 0 { for row in 0..<rows { mean.pointer[row] = first(row) } }
    let (mean, shift, sums) = (mean.pointer, shift.pointer, sums.pointer)
    shift.update(from: mean, count: rows)
    let each = 1 / Double(added)
    for turn in 0..<2 {
      for place in 0..<2 * rows { sums[place] = 0 }
      sum(shift, sums)
      let isNear = (0..<rows).allSatisfy { row in
        // What is rounded is spread + distance·sum: as long as the second is no larger than the variance's own sum, that costs a bit.
        let distance = sums[row] * each
        let spread = sums[rows + row] - distance * sums[row]
        return !(distance * sums[row] > squares.pointer[row] + spread)
      }
      if isNear || turn == 1 { break }
      for row in 0..<rows { shift[row] = Scalar(Double(shift[row]) + sums[row] * each) }
    }
    join(added) { row in
      let distance = sums[row] * each
      let step = Double(shift[row]) - Double(mean[row])
      return (step + (distance - remainder.pointer[row]), max(0, sums[rows + row] - distance * sums[row]))
    }
  }

  /// Takes in what another part found of the same rows.
  func join(_ other: BlockMoments) {
    join(other.count) { row in
      let step = Double(other.mean.pointer[row]) - Double(mean.pointer[row])
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
      let (old, moved) = (Double(mean.pointer[row]), remainder.pointer[row] + distance * share)
      let new = Scalar(old + moved)
      (mean.pointer[row], remainder.pointer[row]) = (new, old - Double(new) + moved)
    }
    count += added
  }

  /// Writes what was found of the rows as channels from `first` on.
  func write(to moments: ChannelMoments, from first: Int) {
    for row in 0..<rows {
      let channel = first + row
      moments.mean[channel] = Double(mean.pointer[row]) + remainder.pointer[row]
      moments.remainder[channel] = remainder.pointer[row]
      moments.variance[channel] = squares.pointer[row] / Double(count)
    }
  }
}

/// Cuts convolutions' products, given by their rows, places and depth, into parts for the threads, and runs the parts at the same time.
///
/// - Parameters:
///   - moments: Become those of all products' rows, in their order.
///   - body: Runs a part of a product, and takes in what it writes where there are moments; whether its values hold.
/// - Returns: Whether all parts' values hold.
func runParts<Scalar: TensorScalar>(
  of products: [(rows: Int, places: Int, depth: Int)], _ moments: ChannelMoments?,
  _ body: (_ product: Int, _ rows: Range<Int>, _ places: Range<Int>, _ found: BlockMoments<Scalar>?) -> Bool
) -> Bool {
  let threads = (Parallel.threadCount + products.count - 1) / max(1, products.count)
  var first = 0
  var parts: [(product: Int, first: Int, rows: Range<Int>, places: Range<Int>, found: BlockMoments<Scalar>?)] = []
  for (number, product) in products.enumerated() {
    let cut = ProductCut(
      m: product.rows, n: product.places, k: product.depth, threads: threads,
      lane: Int(Scalar.kernels.tile_columns), isPacked: true)
    for part in 0..<cut.parts {
      let (rows, places, _) = cut.ranges(part)
      let found = moments.map { _ in BlockMoments<Scalar>(rows: rows.count) }
      parts.append((number, first + rows.lowerBound, rows, places, found))
    }
    first += product.rows
  }
  let holds = Storage<Double>(count: parts.count)
  Parallel.run(parts: parts.count) { number in
    let part = parts[number]
    holds.pointer[number] = body(part.product, part.rows, part.places, part.found) ? 1 : 0
  }
  moments?.take(parts.map { ($0.first, $0.found!) })
  return withExtendedLifetime(holds) { parts.indices.allSatisfy { holds.pointer[$0] == 1 } }
}

extension ChannelMoments {
  /// Makes these the moments of the channels of which parts of a product found some: each the first channel and what its blocks gave.
  fileprivate func take<Scalar: TensorScalar>(_ parts: [(first: Int, found: BlockMoments<Scalar>)]) {
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
