import CSteppeKernels

/// A convolution's product in which few outputs see the same channels: bundles of channels, each with up to four outputs of its own.
///
/// Packing patches would cost more than the few products that each of their values takes part in, so they are read from the planes as they
/// stand: for depthwise convolutions, and for the gradient of images with few channels.
struct PatchBundles<Scalar: TensorScalar> {
  /// Sees the channels of all bundles.
  let source: PatchSource<Scalar>
  let channelsPerBundle: Int
  let rowsPerBundle: Int
  /// Each line of a bundle's depth as its distance from a place of the bundle's first channel.
  let offsets: [Int]
  /// A, [bundles, rows, depth].
  let a: UnsafePointer<Scalar>
  /// A value for each row of each bundle.
  let bias: UnsafePointer<Scalar>?
  let activation: Activation
  let target: PatchTarget<Scalar>

  /// The outputs that the kernel takes at a time.
  static var mostRows: Int { 4 }
  /// Channels whose planes one thread holds at a time: a cache line of them, where channels stand last.
  private static var channelsAtOnce: Int { 64 / MemoryLayout<Scalar>.stride }

  private var bundles: Int { source.seen / channelsPerBundle }
  private var bundlesAtOnce: Int { min(bundles, max(1, Self.channelsAtOnce / channelsPerBundle)) }

  /// Whether there are pieces enough for the threads.
  static func suits(images: Int, bundles: Int, rows: Int) -> Bool {
    rows <= mostRows && 2 * images * bundles >= 3 * Parallel.threadCount
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func run() {
    let (chunk, places, kernels) = (bundlesAtOnce, source.imagePlaces, Scalar.kernels)
    let chunks = (bundles + chunk - 1) / chunk
    let cost = max(1, places * chunk * rowsPerBundle * offsets.count)
    let depth = offsets.count
    var runs: [steppe_patch_run] = []
    source.forEachRun(of: 0..<places) { _, offset, first, length in
      runs.append(steppe_patch_run(from: offset, to: first, length: length))
    }
    let isDirect = target.isContiguous(source.grid)
    Parallel.ranges(source.images * chunks, grain: max(1, ProductCut.forkAndJoin / cost)) { units in
      // Runs are read in whole vectors; what is padding stays zero.
      let planes = Storage<Scalar>(count: chunk * channelsPerBundle * source.channelDistance + 64)
      kernels.fill(0, planes.pointer, planes.count)
      let block = isDirect ? nil : Storage<Scalar>(count: chunk * rowsPerBundle * places)
      for unit in units {
        let (image, number) = unit.quotientAndRemainder(dividingBy: chunks)
        let some = number * chunk..<min(number * chunk + chunk, bundles)
        source.load(
          image, channels: some.lowerBound * channelsPerBundle..<some.upperBound * channelsPerBundle,
          into: planes.pointer)
        for bundle in some {
          let row = bundle * rowsPerBundle
          var finish = steppe_product_finish(
            alpha: 1, beta: 0, bias: bias.map { UnsafeRawPointer($0 + row) }, kind: activation.kernel,
            parameter: activation.parameter, bias_by_rows: true)
          let to =
            block.map { $0.pointer + (bundle - some.lowerBound) * rowsPerBundle * places }
            ?? target.values + image * target.image + row * target.channel
          kernels.multiply_patches(
            a + row * depth, depth,
            planes.pointer + (bundle - some.lowerBound) * channelsPerBundle * source.channelDistance, offsets,
            rowsPerBundle, depth, runs, runs.count, &finish, to, isDirect ? target.channel : places)
        }
        if let block {
          target.move(
            block.pointer, places, rows: some.lowerBound * rowsPerBundle..<some.upperBound * rowsPerBundle,
            places: image * places..<(image + 1) * places, grid: source.grid)
        }
      }
      withExtendedLifetime((planes, block)) {}
    }
  }

  /// The gradient of A: for each row of each bundle the products of `dy` with the bundle's patches, in `da`, or added where `adding`. `dy`
  /// sees the rows of all bundles in one plane each.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  static func gradient(
    _ source: PatchSource<Scalar>, channelsPerBundle: Int, offsets: [Int], dy: PatchSource<Scalar>,
    into da: UnsafeMutablePointer<Scalar>, adding: Bool
  ) {
    let (places, kernels, depth) = (source.imagePlaces, Scalar.kernels, offsets.count)
    let bundles = source.seen / channelsPerBundle
    let rows = dy.seen / bundles
    let chunk = min(bundles, max(1, channelsAtOnce / channelsPerBundle))
    if !adding { kernels.fill(0, da, dy.seen * depth) }
    var runs: [steppe_patch_run] = []
    source.forEachRun(of: 0..<places) { _, offset, first, length in
      runs.append(steppe_patch_run(from: offset, to: first, length: length))
    }
    let cost = max(1, source.images * places * depth * rows)
    Parallel.ranges(bundles, grain: max(1, ProductCut.forkAndJoin / cost)) { own in
      let planes = Storage<Scalar>(count: chunk * channelsPerBundle * source.channelDistance + 64)
      kernels.fill(0, planes.pointer, planes.count)
      let slopes = Storage<Scalar>(count: chunk * rows * places)
      for image in 0..<source.images {
        for some in ProductBlocks<Scalar>.slices(own, longest: chunk) {
          source.load(
            image, channels: some.lowerBound * channelsPerBundle..<some.upperBound * channelsPerBundle,
            into: planes.pointer)
          dy.load(image, channels: some.lowerBound * rows..<some.upperBound * rows, into: slopes.pointer)
          for bundle in some {
            let from = planes.pointer + (bundle - some.lowerBound) * channelsPerBundle * source.channelDistance
            for row in 0..<rows {
              kernels.patch_dots(
                from, offsets, depth, runs, runs.count,
                slopes.pointer + ((bundle - some.lowerBound) * rows + row) * places, da + (bundle * rows + row) * depth)
            }
          }
        }
      }
      withExtendedLifetime((planes, slopes)) {}
    }
  }
}
