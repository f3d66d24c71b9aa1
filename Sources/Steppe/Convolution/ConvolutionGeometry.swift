/// A count for the rows of an image and one for its columns.
public struct Extent2D: Sendable, Equatable, CustomStringConvertible {
  /// Along the height.
  public var rows: Int
  /// Along the width.
  public var columns: Int

  /// `rows` along the height, `columns` along the width.
  public init(rows: Int, columns: Int) { (self.rows, self.columns) = (rows, columns) }

  public var description: String { rows == columns ? "\(rows)" : "(\(rows), \(columns))" }
}

/// How a convolution's kernel passes over images.
public struct ConvolutionGeometry: Sendable, Equatable {
  /// The kernel's size.
  public var kernel: Extent2D
  /// The distance between the places that the kernel is put to.
  public var stride: Extent2D
  /// The zeros that are put on each side of an image.
  public var padding: Extent2D
  /// The distance between the values that the kernel's weights take.
  public var dilation: Extent2D
  /// The parts into which input and output channels are split; each output channel sees its part's input channels alone.
  public var groups: Int
  /// Where the channel axis stands: `[N, C, H, W]`, or `[N, H, W, C]` for `.channelsLast`.
  public var layout: ChannelPlace

  /// A kernel that is put to every place of an image without padding.
  public init(
    kernel: Extent2D, stride: Extent2D = Extent2D(rows: 1, columns: 1),
    padding: Extent2D = Extent2D(rows: 0, columns: 0), dilation: Extent2D = Extent2D(rows: 1, columns: 1),
    groups: Int = 1, layout: ChannelPlace = .channelsFirst
  ) {
    (self.kernel, self.stride, self.padding, self.dilation) = (kernel, stride, padding, dilation)
    (self.groups, self.layout) = (groups, layout)
  }

  /// The rows and columns that the kernel covers.
  var span: Extent2D {
    Extent2D(rows: dilation.rows * (kernel.rows - 1) + 1, columns: dilation.columns * (kernel.columns - 1) + 1)
  }

  /// How often the kernel fits an image of `rows` × `columns`, or nil where it is larger than the padded image.
  func outputs(rows: Int, columns: Int) -> Extent2D? {
    let (height, width) = (rows + 2 * padding.rows - span.rows, columns + 2 * padding.columns - span.columns)
    guard height >= 0, width >= 0 else { return nil }
    return Extent2D(rows: height / stride.rows + 1, columns: width / stride.columns + 1)
  }

  /// Whether each output sees one place, its own, and all channels of it.
  var isPointwise: Bool {
    let one = Extent2D(rows: 1, columns: 1)
    return kernel == one && stride == one && !isPadded && groups == 1
  }

  /// Whether images get zeros on any side.
  var isPadded: Bool { padding.rows > 0 || padding.columns > 0 }

  /// Stops where a size makes no sense.
  func check(_ title: String) {
    func smallest(_ extent: Extent2D) -> Int { min(extent.rows, extent.columns) }
    require(smallest(kernel) > 0, "\(title): expected a positive kernel, got \(kernel)")
    require(smallest(stride) > 0, "\(title): expected a positive stride, got \(stride)")
    require(smallest(padding) >= 0, "\(title): expected a padding of at least 0, got \(padding)")
    require(smallest(dilation) > 0, "\(title): expected a positive dilation, got \(dilation)")
    require(groups > 0, "\(title): expected a positive number of groups, got \(groups)")
  }
}

extension Extent2D {
  init(_ pair: (Int, Int)) { self.init(rows: pair.0, columns: pair.1) }
}
