// Mathematics §15: a convolution of images by its definition, and its gradients as what the definition's terms add up to.

/// The sizes of a convolution; images are [n, c, height, width], or [n, height, width, c] with channels last.
public struct NaiveConvolution: Sendable {
  public var n = 1
  public var inputs = 1
  public var outputs = 1
  public var groups = 1
  public var height = 1
  public var width = 1
  public var kernelRows = 1
  public var kernelColumns = 1
  public var strideRows = 1
  public var strideColumns = 1
  public var paddingRows = 0
  public var paddingColumns = 0
  public var dilationRows = 1
  public var dilationColumns = 1
  public var channelsLast = false

  public init() {}

  /// The output's height and width: how often the kernel fits the padded image.
  public var outHeight: Int {
    var count = 0
    while count * strideRows + (kernelRows - 1) * dilationRows < height + 2 * paddingRows { count += 1 }
    return count
  }
  public var outWidth: Int {
    var count = 0
    while count * strideColumns + (kernelColumns - 1) * dilationColumns < width + 2 * paddingColumns { count += 1 }
    return count
  }

  public var weightCount: Int { outputs * (inputs / groups) * kernelRows * kernelColumns }

  func inputPlace(_ image: Int, _ channel: Int, _ row: Int, _ column: Int) -> Int {
    channelsLast
      ? ((image * height + row) * width + column) * inputs + channel
      : ((image * inputs + channel) * height + row) * width + column
  }

  func outputPlace(_ image: Int, _ channel: Int, _ row: Int, _ column: Int) -> Int {
    channelsLast
      ? ((image * outHeight + row) * outWidth + column) * outputs + channel
      : ((image * outputs + channel) * outHeight + row) * outWidth + column
  }

  /// Calls `body` with the places of y, w and x of each product that the definition adds.
  func forEachTerm(_ body: (_ y: Int, _ w: Int, _ x: Int) -> Void) {
    let (perGroup, outsPerGroup) = (inputs / groups, outputs / groups)
    for image in 0..<n {
      for o in 0..<outputs {
        for i in 0..<outHeight {
          for j in 0..<outWidth {
            let y = outputPlace(image, o, i, j)
            for c in 0..<perGroup {
              for u in 0..<kernelRows {
                for v in 0..<kernelColumns {
                  let row = i * strideRows + u * dilationRows - paddingRows
                  let column = j * strideColumns + v * dilationColumns - paddingColumns
                  guard row >= 0, row < height, column >= 0, column < width else { continue }
                  let w = ((o * perGroup + c) * kernelRows + u) * kernelColumns + v
                  body(y, w, inputPlace(image, o / outsPerGroup * perGroup + c, row, column))
                }
              }
            }
          }
        }
      }
    }
  }

  /// y = W∗x + b, with the sizes of what was added.
  public func forward(_ x: [Double], _ w: [Double], bias: [Double]?) -> (y: [Double], sizes: [Double]) {
    var y = [Double](repeating: 0, count: n * outputs * outHeight * outWidth)
    for image in 0..<n {
      for o in 0..<outputs {
        for i in 0..<outHeight { for j in 0..<outWidth { y[outputPlace(image, o, i, j)] = bias?[o] ?? 0 } }
      }
    }
    var sizes = y.map { abs($0) }
    forEachTerm { at, weight, input in
      y[at] += w[weight] * x[input]
      sizes[at] += abs(w[weight] * x[input])
    }
    return (y, sizes)
  }

  /// dx, dW and db for the gradient dy of the output.
  public func backward(_ x: [Double], _ w: [Double], dy: [Double]) -> (dx: [Double], dw: [Double], db: [Double]) {
    var dx = [Double](repeating: 0, count: x.count)
    var dw = [Double](repeating: 0, count: w.count)
    var db = [Double](repeating: 0, count: outputs)
    forEachTerm { at, weight, input in
      dx[input] += w[weight] * dy[at]
      dw[weight] += x[input] * dy[at]
    }
    for image in 0..<n {
      for o in 0..<outputs {
        for i in 0..<outHeight { for j in 0..<outWidth { db[o] += dy[outputPlace(image, o, i, j)] } }
      }
    }
    return (dx, dw, db)
  }

  /// The sizes of what dx and dW add up.
  public func gradientSizes(_ x: [Double], _ w: [Double], dy: [Double]) -> (dx: [Double], dw: [Double], db: [Double]) {
    backward(x.map { abs($0) }, w.map { abs($0) }, dy: dy.map { abs($0) })
  }
}
