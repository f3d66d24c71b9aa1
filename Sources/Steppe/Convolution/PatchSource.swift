import CSteppeKernels

/// What a convolution's product sees of the images: for each place of a grid the values at the kernel's taps.
///
/// The images are read through planes (see the kernels' `convolution.h`): for each channel one plane for each phase of the stride that a
/// tap falls on, with zeros where the padding is. The value at tap t for place (i, j) then stands at `taps[t] + i · columns + j`.
struct PatchSource<Scalar: TensorScalar> {
  /// The first channel that is seen, in the first image.
  let values: UnsafePointer<Scalar>
  let images: Int
  /// All channels of an image, of which `seen` are seen.
  let channels: Int
  let seen: Int
  let height: Int
  let width: Int
  let layout: ChannelPlace
  let stride: Extent2D
  /// The places in an image.
  let grid: Extent2D

  /// The phases of the stride that taps fall on.
  private let phases: [Extent2D]
  /// The place in a phase's rows and columns that its plane begins with.
  private let origin: Extent2D
  /// A plane's rows and columns.
  private let plane: Extent2D
  /// Each tap's distance from a place.
  let taps: [Int]

  /// - Parameter taps: For each tap the row and the column that it sees from place (0, 0).
  init(
    _ values: UnsafePointer<Scalar>, images: Int, channels: Int, seen: Int, height: Int, width: Int,
    layout: ChannelPlace, taps: [Extent2D], stride: Extent2D, grid: Extent2D
  ) {
    (self.values, self.images, self.channels, self.seen) = (values, images, channels, seen)
    (self.height, self.width, self.layout, self.stride, self.grid) = (height, width, layout, stride, grid)
    func split(_ place: Int, _ stride: Int) -> (steps: Int, phase: Int) {
      let phase = (place % stride + stride) % stride
      return ((place - phase) / stride, phase)
    }
    let rows = taps.map { split($0.rows, stride.rows) }
    let columns = taps.map { split($0.columns, stride.columns) }
    let (top, bottom) = (rows.map(\.steps).min()!, rows.map(\.steps).max()!)
    let (left, right) = (columns.map(\.steps).min()!, columns.map(\.steps).max()!)
    var phases: [Extent2D] = []
    let numbers = taps.indices.map { tap in
      let phase = Extent2D(rows: rows[tap].phase, columns: columns[tap].phase)
      if let known = phases.firstIndex(of: phase) { return known }
      phases.append(phase)
      return phases.count - 1
    }
    let plane = Extent2D(rows: grid.rows + bottom - top, columns: grid.columns + right - left)
    self.taps = taps.indices.map { tap in
      (numbers[tap] * plane.rows + rows[tap].steps - top) * plane.columns + columns[tap].steps - left
    }
    self.phases = phases
    self.plane = plane
    origin = Extent2D(rows: top, columns: left)
    isPlain =
      layout == .channelsFirst && taps == [Extent2D(rows: 0, columns: 0)]
      && stride == Extent2D(rows: 1, columns: 1) && grid == Extent2D(rows: height, columns: width)
  }

  /// The places of all images, which are a product's columns in the images' order.
  var places: Int { images * imagePlaces }
  /// The places of one image.
  var imagePlaces: Int { grid.rows * grid.columns }
  /// The distance between two channels' planes.
  var channelDistance: Int { phases.count * plane.rows * plane.columns }
  /// Whether places that follow each other in a row's end and the next one's begin lie side by side.
  private var rowsJoin: Bool { plane.columns == grid.columns }

  /// Whether a place sees one value of each channel, its own, and these lie side by side as in a plane.
  let isPlain: Bool

  /// Calls `body` for each stretch of `places` that lies side by side in a plane: the image, where the stretch begins in its plane, the
  /// first of its places, and their count.
  func forEachRun(
    of places: Range<Int>, _ body: (_ image: Int, _ offset: Int, _ first: Int, _ length: Int) -> Void
  ) {
    let longest = rowsJoin ? imagePlaces : grid.columns
    var place = places.lowerBound
    var (image, inside) = place.quotientAndRemainder(dividingBy: imagePlaces)
    while place < places.upperBound {
      let column = inside % longest
      let length = min(longest - column, places.upperBound - place)
      body(image, rowsJoin ? inside : inside / longest * plane.columns + column, place, length)
      place += length
      inside += length
      if inside == imagePlaces { (image, inside) = (image + 1, 0) }
    }
  }

  /// Writes the planes of some channels of one image; what is padding stays as it is.
  func load(_ image: Int, channels some: Range<Int>, into planes: UnsafeMutablePointer<Scalar>) {
    let kernels = Scalar.kernels
    for (number, phase) in phases.enumerated() {
      // The rows and columns of the plane that are within the image.
      func inside(_ origin: Int, _ phase: Int, _ stride: Int, _ size: Int, _ count: Int) -> Range<Int> {
        let low = max(0, -origin)
        let high = size > phase ? min(count, (size - 1 - phase) / stride + 1 - origin) : 0
        return low..<max(low, high)
      }
      let rows = inside(origin.rows, phase.rows, stride.rows, height, plane.rows)
      let columns = inside(origin.columns, phase.columns, stride.columns, width, plane.columns)
      guard !rows.isEmpty, !columns.isEmpty else { continue }
      let row = (rows.lowerBound + origin.rows) * stride.rows + phase.rows
      let column = (columns.lowerBound + origin.columns) * stride.columns + phase.columns
      let to = planes + (number * plane.rows + rows.lowerBound) * plane.columns + columns.lowerBound
      let image = values + image * channels * height * width
      if layout == .channelsFirst {
        kernels.copy_planes(
          image + (some.lowerBound * height + row) * width + column, height * width, stride.rows * width,
          stride.columns, to, channelDistance, plane.columns, 1, some.count, rows.count, columns.count)
      } else {
        for step in 0..<rows.count {
          kernels.transpose(
            image + ((row + step * stride.rows) * width + column) * channels + some.lowerBound,
            stride.columns * channels, to + step * plane.columns, channelDistance, columns.count, some.count)
        }
      }
    }
  }
}

/// The planes of the images that one thread works on, some of their channels; images come in order.
struct PlaneCache<Scalar: TensorScalar> {
  private let source: PatchSource<Scalar>
  private let channels: Range<Int>
  private let slots: Int
  private let slotSize: Int
  private let storage: Storage<Scalar>
  /// The first image that is not there yet.
  private var next = 0

  /// Room for the images that `places` places in a row may belong to.
  init(_ source: PatchSource<Scalar>, channels: Range<Int>, places: Int) {
    self.source = source
    self.channels = channels
    slots = min(source.images, (places + source.imagePlaces - 2) / source.imagePlaces + 1)
    slotSize = channels.count * source.channelDistance
    // Runs are read in whole vectors.
    storage = Storage(count: slots * slotSize + 64)
    // What is padding stays zero.
    Scalar.kernels.fill(0, storage.pointer, storage.count)
  }

  var planes: UnsafePointer<Scalar> { UnsafePointer(storage.pointer) }

  /// Where the planes of an image begin that has been loaded.
  func begin(of image: Int) -> Int { image % slots * slotSize }

  /// Loads the images of `places`, at most as many as there is room for.
  mutating func load(_ places: Range<Int>) {
    let (first, last) = (places.lowerBound / source.imagePlaces, (places.upperBound - 1) / source.imagePlaces)
    for image in max(first, next)..<max(last + 1, first, next) {
      source.load(image, channels: channels, into: storage.pointer + image % slots * slotSize)
    }
    next = max(next, last + 1)
  }

  /// The runs of `places`, for a line whose first column is the first of them, in `runs`.
  func collect(_ places: Range<Int>, into runs: inout [steppe_patch_run]) {
    runs.removeAll(keepingCapacity: true)
    source.forEachRun(of: places) { image, offset, first, length in
      runs.append(
        steppe_patch_run(from: begin(of: image) + offset, to: first - places.lowerBound, length: length))
    }
  }
}
