import CSteppeKernels

/// How the windows of a pooling lie over images.
public struct PoolingGeometry: Sendable, Equatable {
  /// A window's size.
  public var kernel: Extent2D
  /// The distance between windows.
  public var stride: Extent2D
  /// The places on each side of an image that windows may reach beyond it.
  public var padding: Extent2D
  /// The distance between the values of a window.
  public var dilation: Extent2D
  /// Where the channel axis stands: `[N, C, H, W]`, or `[N, H, W, C]` for `.channelsLast`.
  public var layout: ChannelPlace

  /// Windows side by side, without padding.
  public init(
    kernel: Extent2D, stride: Extent2D? = nil, padding: Extent2D = Extent2D(rows: 0, columns: 0),
    dilation: Extent2D = Extent2D(rows: 1, columns: 1), layout: ChannelPlace = .channelsFirst
  ) {
    (self.kernel, self.stride, self.padding) = (kernel, stride ?? kernel, padding)
    (self.dilation, self.layout) = (dilation, layout)
  }

  /// Stops where a size makes no sense.
  func check(_ title: String) {
    func smallest(_ extent: Extent2D) -> Int { min(extent.rows, extent.columns) }
    require(smallest(kernel) > 0, "\(title): expected a positive kernel, got \(kernel)")
    // The place of a window's greatest value is kept as a scalar, which Float has whole numbers for up to here.
    require(
      kernel.rows <= 1 << 12 && kernel.columns <= 1 << 12,
      "\(title): expected a kernel of at most 4096 rows and columns, got \(kernel)")
    require(smallest(stride) > 0, "\(title): expected a positive stride, got \(stride)")
    require(smallest(dilation) > 0, "\(title): expected a positive dilation, got \(dilation)")
    // Beyond half, a window would lie in the padding alone.
    require(
      smallest(padding) >= 0 && 2 * padding.rows <= kernel.rows && 2 * padding.columns <= kernel.columns,
      "\(title): expected a padding of 0 to half the kernel \(kernel), got \(padding)")
  }

  /// The shape of the output for images of shape `input`.
  ///
  /// - Throws: ``LayerError`` where that is no batch of images, or a window is larger than the padded image.
  func outputShape(for input: [Int], layer: String) throws(LayerError) -> [Int] {
    let isFirst = layout == .channelsFirst
    let axes = isFirst ? (2, 3) : (1, 2)
    guard input.count == 4, input[axes.0] > 0, input[axes.1] > 0 else {
      throw LayerError(
        layer: layer, expected: "images of shape \(isFirst ? "[N, C, H, W]" : "[N, H, W, C]")", found: "\(input)")
    }
    let span = Extent2D(
      rows: dilation.rows * (kernel.rows - 1) + 1, columns: dilation.columns * (kernel.columns - 1) + 1)
    let rest = Extent2D(
      rows: input[axes.0] + 2 * padding.rows - span.rows, columns: input[axes.1] + 2 * padding.columns - span.columns)
    guard rest.rows >= 0, rest.columns >= 0 else {
      throw LayerError(
        layer: layer,
        expected:
          "images of at least \(span.rows - 2 * padding.rows) × \(span.columns - 2 * padding.columns), which windows of "
          + "\(span.rows) × \(span.columns) fit with a padding of \(padding)", found: "\(input)")
    }
    var shape = input
    shape[axes.0] = rest.rows / stride.rows + 1
    shape[axes.1] = rest.columns / stride.columns + 1
    return shape
  }
}

/// The pooling of one tensor of images: how its windows lie, and how the work is shared out.
///
/// Channels-first data is a plane for each image and channel, and threads take planes. Channels-last data is an image at a time, all
/// channels side by side; where there are fewer images than threads these take ranges of the channels.
struct Pooling<Scalar: TensorScalar> {
  typealias Pointer = UnsafePointer<Scalar>
  typealias MutablePointer = UnsafeMutablePointer<Scalar>

  private let windows: steppe_windows
  private let images: Int
  private let imageParts: Int
  private let channelParts: Int

  /// - Parameters:
  ///   - input: The input's shape.
  ///   - output: The output's, which `geometry` makes of it.
  ///   - countsPadding: Whether a mean divides by the places in the padding too.
  init(_ geometry: PoolingGeometry, input: [Int], output: [Int], countsPadding: Bool = false) {
    let isFirst = geometry.layout == .channelsFirst
    let (rows, columns) = isFirst ? (2, 3) : (1, 2)
    images = isFirst ? input[0] * input[1] : input[0]
    let channels = isFirst ? 1 : input[3]
    windows = steppe_windows(
      height: input[rows], width: input[columns], channels: channels, ld: channels, out_height: output[rows],
      out_width: output[columns], kernel_height: geometry.kernel.rows, kernel_width: geometry.kernel.columns,
      stride_height: geometry.stride.rows, stride_width: geometry.stride.columns,
      dilation_height: geometry.dilation.rows, dilation_width: geometry.dilation.columns,
      pad_height: geometry.padding.rows, pad_width: geometry.padding.columns, counts_padding: countsPadding)
    // What a thread has to do is to read the input, or each window's values where they overlap.
    let reads = output.reduce(geometry.kernel.rows * geometry.kernel.columns, *)
    let parts = Parallel.partCount(max(reads, input.reduce(1, *)), grain: Parallel.elementGrain)
    imageParts = max(1, min(parts, images))
    channelParts = min(parts / imageParts, (channels + Self.channelUnit - 1) / Self.channelUnit)
  }

  /// Ranges of channels are multiples of a cache line.
  private static var channelUnit: Int { 64 / MemoryLayout<Scalar>.stride }

  /// Calls `body` for each part: its windows, how many images they are, and the first scalar of its input and of its output.
  private func forEachPart(
    _ body: (_ windows: steppe_windows, _ images: Int, _ input: Int, _ output: Int) -> Void
  ) {
    guard images > 0, windows.ld > 0 else { return }
    Parallel.run(parts: imageParts * channelParts) { part in
      let own = Parallel.range(part / channelParts, of: imageParts, count: images)
      let channels = Parallel.range(
        part % channelParts, of: channelParts, count: windows.ld, multiple: channelParts > 1 ? Self.channelUnit : 1)
      guard !own.isEmpty, !channels.isEmpty else { return }
      var windows = windows
      windows.channels = channels.count
      body(
        windows, own.count, own.lowerBound * windows.height * windows.width * windows.ld + channels.lowerBound,
        own.lowerBound * windows.out_height * windows.out_width * windows.ld + channels.lowerBound)
    }
  }

  /// y = each window's greatest value, and in `places` its place in the window where the gradient will be wanted.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func greatest(_ x: Pointer, into y: MutablePointer, places: MutablePointer?) {
    forEachPart { windows, images, input, output in
      withUnsafePointer(to: windows) {
        Scalar.kernels.max_pool($0, x + input, y + output, places.map { $0 + output }, images)
      }
    }
  }

  /// dx from dy and the places of the greatest values.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func greatestGradient(_ dy: Pointer, places: Pointer, into dx: MutablePointer) {
    forEachPart { windows, images, input, output in
      withUnsafePointer(to: windows) {
        Scalar.kernels.max_pool_backward($0, places + output, dy + output, dx + input, images)
      }
    }
  }

  /// y = each window's mean.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func mean(_ x: Pointer, into y: MutablePointer) {
    forEachPart { windows, images, input, output in
      withUnsafePointer(to: windows) { Scalar.kernels.average_pool($0, x + input, y + output, images) }
    }
  }

  /// dx from dy.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func meanGradient(_ dy: Pointer, into dx: MutablePointer) {
    forEachPart { windows, images, input, output in
      withUnsafePointer(to: windows) { Scalar.kernels.average_pool_backward($0, dy + output, dx + input, images) }
    }
  }
}
