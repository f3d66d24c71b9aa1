// Pooling in Float64, as its definition says: a loop over images, channels, windows and the window's places.

/// Images [N, C, H, W], or channels last [N, H, W, C], and the windows over them.
public struct PoolingShape: Sendable, CustomStringConvertible {
  public var n = 1, c = 1, h = 1, w = 1
  public var kernel = (1, 1), stride = (1, 1), padding = (0, 0), dilation = (1, 1)
  public var channelsLast = false

  public init() {}

  /// Windows along each axis.
  public var outputs: (rows: Int, columns: Int) {
    (
      (h + 2 * padding.0 - dilation.0 * (kernel.0 - 1) - 1) / stride.0 + 1,
      (w + 2 * padding.1 - dilation.1 * (kernel.1 - 1) - 1) / stride.1 + 1
    )
  }

  public var input: [Int] { channelsLast ? [n, h, w, c] : [n, c, h, w] }
  public var output: [Int] {
    channelsLast ? [n, outputs.rows, outputs.columns, c] : [n, c, outputs.rows, outputs.columns]
  }

  func place(_ i: Int, _ channel: Int, _ row: Int, _ column: Int, _ height: Int, _ width: Int) -> Int {
    channelsLast
      ? ((i * height + row) * width + column) * c + channel : ((i * c + channel) * height + row) * width + column
  }

  public var description: String {
    "\(input) kernel \(kernel) stride \(stride) padding \(padding) dilation \(dilation) \(channelsLast ? "last" : "first")"
  }

  /// Calls `body` for each window with its place in the output and the places in the input that it holds, by its rows; nil for those
  /// in the padding.
  func forEachWindow(_ body: (_ output: Int, _ held: [Int?]) -> Void) {
    for i in 0..<n {
      for channel in 0..<c {
        for row in 0..<outputs.rows {
          for column in 0..<outputs.columns {
            var held: [Int?] = []
            for u in 0..<kernel.0 {
              for v in 0..<kernel.1 {
                let y = row * stride.0 - padding.0 + u * dilation.0
                let x = column * stride.1 - padding.1 + v * dilation.1
                let inside = (0..<h).contains(y) && (0..<w).contains(x)
                held.append(inside ? place(i, channel, y, x, h, w) : nil)
              }
            }
            body(place(i, channel, row, column, outputs.rows, outputs.columns), held)
          }
        }
      }
    }
  }
}

/// y = max over each window's places within the image, and dx for dy: to the first greatest value's place, or the last NaN's.
public func maxPool(_ x: [Double], dy: [Double], _ shape: PoolingShape) -> (y: [Double], dx: [Double]) {
  var y = [Double](repeating: .nan, count: shape.output.reduce(1, *))
  var dx = [Double](repeating: 0, count: x.count)
  shape.forEachWindow { output, held in
    let inside = held.compactMap { $0 }
    var best = inside.first
    for place in inside where x[place].isNaN || x[place] > x[best!] { best = place }
    y[output] = best.map { x[$0] } ?? -.infinity
    if let best { dx[best] += dy[output] }
  }
  return (y, dx)
}

/// y = Σ/count over each window's places, with the sums of |x|/count, and dx for dy with the sums of |dy|/count.
public func averagePool(
  _ x: [Double], dy: [Double], countsPadding: Bool, _ shape: PoolingShape
) -> (y: [Double], ySize: [Double], dx: [Double], dxSize: [Double]) {
  let zeros = [Double](repeating: 0, count: shape.output.reduce(1, *))
  var (y, ySize) = (zeros, zeros)
  var (dx, dxSize) = ([Double](repeating: 0, count: x.count), [Double](repeating: 0, count: x.count))
  shape.forEachWindow { output, held in
    let inside = held.compactMap { $0 }
    let count = Double(countsPadding ? held.count : inside.count)
    y[output] = NaiveKernels.sum(inside.map { x[$0] }) / count
    for place in inside {
      ySize[output] += abs(x[place]) / count
      dx[place] += dy[output] / count
      dxSize[place] += abs(dy[output]) / count
    }
  }
  return (y, ySize, dx, dxSize)
}
