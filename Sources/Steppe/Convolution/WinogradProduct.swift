import CSteppeKernels

/// A 3×3 convolution with stride 1 by Winograd's minimal filtering F(2×2, 3×3) (Lavin & Gray 2016, arXiv 1509.09308): each square of two by
/// two outputs takes 16 products in a channel instead of 36.
///
/// The transforms of a block of squares are packed, one matrix for each of the 16 places, into what the tiles of `multiply` read; their
/// products with the transformed weights stay in the second-level cache until they are transformed back. Rounding is relative to the largest
/// weights and values of a square, summed over the channels.
struct WinogradProduct<Scalar: TensorScalar> {
  /// Sees 4×4 values for each square: see ``squares(of:)``.
  let source: PatchSource<Scalar>
  /// The transformed weights, 16 matrices of `rows` rows, one for each output channel, with a value for each channel of the source.
  let weights: UnsafePointer<Scalar>
  let rows: Int
  /// A value for each row.
  let bias: UnsafePointer<Scalar>?
  let activation: Activation
  let target: PatchTarget<Scalar>
  /// The target's rows and columns.
  let result: Extent2D

  private var depth: Int { source.seen }

  /// Whether the fewer products outweigh the transforms, for images with `result` outputs a channel.
  ///
  /// The costs are in vector multiplications for one image. A tile of the patches' product packs each of its values for a few
  /// multiplications; a transform takes as many vectors as rows of squares need, however short they are.
  static func suits(_ geometry: ConvolutionGeometry, images: Int, inputs: Int, outputs: Int, result: Extent2D) -> Bool {
    let three = Extent2D(rows: 3, columns: 3)
    let one = Extent2D(rows: 1, columns: 1)
    guard geometry.kernel == three, geometry.stride == one, geometry.dilation == one else { return false }
    let lanes = Double(Int(Scalar.kernels.vector_bytes) / MemoryLayout<Scalar>.stride)
    let grid = squares(of: result)
    let (inputs, outputs) = (Double(inputs), Double(outputs))
    let (places, number) = (Double(result.rows * result.columns), Double(grid.rows * grid.columns))
    let transforms = Double(grid.rows) * (Double(grid.columns) / lanes).rounded(.up)
    let patches = places / lanes * 9 * inputs * (outputs + packing)
    let filtering =
      number / lanes * 16 * inputs * outputs * shallow(inputs) + transforms * transform * (inputs + outputs)
      + weightTransform * inputs * outputs / lanes / Double(images)
    return filtering < patches
  }

  /// In multiplications of vectors: packing one, either transform of a square's 16, and that of weights. Fitted to times of 4 to 256 channels
  /// on images of 4 to 56 rows with AVX-512, of which the faster way was chosen or one within a tenth of it.
  private static var packing: Double { 6 }
  private static var transform: Double { 110 }
  private static var weightTransform: Double { 80 }
  /// What a product of few steps costs beside a deep one: its tiles must be begun and ended.
  private static func shallow(_ depth: Double) -> Double { 1 + 8 / depth }

  /// The squares that cover an image.
  static func squares(of result: Extent2D) -> Extent2D {
    Extent2D(rows: (result.rows + 1) / 2, columns: (result.columns + 1) / 2)
  }

  /// The values that the first square sees, from the first output's view on.
  static func taps(from origin: Extent2D) -> [Extent2D] {
    (0..<4).flatMap { row in
      (0..<4).map { Extent2D(rows: origin.rows + row, columns: origin.columns + $0) }
    }
  }

  /// Runs products of which none writes where another does, and takes the moments of what they write: all products' rows, in their
  /// order, are the channels. False where an output is not finite: another value that is not, or none, may belong there.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  static func run(_ products: [WinogradProduct], _ moments: ChannelMoments? = nil) -> Bool {
    runParts(of: products.map { ($0.rows, $0.source.places, 16 * $0.depth) }, moments) { product, rows, places, found in
      products[product].run(rows: rows, places: places, found)
    }
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func run(rows: Range<Int>, places: Range<Int>, _ moments: BlockMoments<Scalar>?) -> Bool {
    guard !rows.isEmpty, !places.isEmpty else { return true }
    let kernels = Scalar.kernels
    let (tile, lanes) = (Int(kernels.tile_columns), Int(kernels.vector_bytes) / MemoryLayout<Scalar>.stride)
    let someRows = min(rows.count, 4 * Int(kernels.tile_rows))
    let longest = blockPlaces(rows: someRows, tile: tile, of: places.count)
    var cache = PlaneCache(source, channels: 0..<depth, places: longest)
    // A vector may be written beyond the last line, and read beyond the last sum.
    let plane = depth * longest + lanes
    let (transformed, sums) = (
      Storage<Scalar>(count: 16 * plane), Storage<Scalar>(count: 16 * someRows * longest + lanes)
    )
    let block = target.column == 1 ? nil : Storage<Scalar>(count: someRows * 4 * source.grid.columns)
    var runs: [steppe_patch_run] = []
    var product = steppe_product_finish(
      alpha: 1, beta: 0, bias: nil, kind: STEPPE_IDENTITY, parameter: 0, bias_by_rows: false)
    // The squares before this one have been taken into the moments.
    var measured = places.lowerBound
    for somePlaces in ProductBlocks<Scalar>.slices(places, longest: longest) {
      cache.load(somePlaces)
      for strip in ProductBlocks<Scalar>.slices(somePlaces, longest: tile) {
        cache.collect(strip, into: &runs)
        source.taps.withUnsafeBufferPointer { taps in
          kernels.winograd_input(
            cache.planes, source.channelDistance, taps.baseAddress!, depth, runs, runs.count,
            transformed.pointer + (strip.lowerBound - somePlaces.lowerBound) * depth, plane,
            (strip.count + lanes - 1) / lanes * lanes)
        }
      }
      for channels in ProductBlocks<Scalar>.slices(rows, longest: someRows) {
        for place in 0..<16 {
          kernels.multiply(
            weights + (place * self.rows + channels.lowerBound) * depth, depth, transformed.pointer + place * plane,
            channels.count, somePlaces.count, depth, &product, sums.pointer + place * someRows * longest, longest)
        }
        var finish = steppe_product_finish(
          alpha: 1, beta: 0, bias: bias.map { UnsafeRawPointer($0 + channels.lowerBound) }, kind: activation.kernel,
          parameter: activation.parameter, bias_by_rows: true)
        var isFinite = true
        source.forEachRun(of: somePlaces) { image, _, first, length in
          let isRight = write(
            sums.pointer + (first - somePlaces.lowerBound), someRows * longest, longest, channels, &finish,
            image: image,
            first % source.imagePlaces, length, block?.pointer)
          isFinite = isFinite && isRight
        }
        guard isFinite else { return false }
      }
      // Whole rows of squares, as many as stay in the cache: few stretches are long ones.
      if let moments {
        let isLast = somePlaces.upperBound == places.upperBound
        let end = isLast ? places.upperBound : somePlaces.upperBound / source.grid.columns * source.grid.columns
        if isLast || (end - measured) * 4 * rows.count * MemoryLayout<Scalar>.stride > CacheSizes.level2 / 4 {
          measure(measured..<end, rows: rows, moments)
          measured = end
        }
      }
    }
    withExtendedLifetime((transformed, sums, block, cache)) {}
    return true
  }

  /// The squares of a block: as many as leave transforms and sums in the second-level cache beside a part of the weights.
  private func blockPlaces(rows: Int, tile: Int, of count: Int) -> Int {
    let room = CacheSizes.level2 * 3 / 4 / (16 * (depth + rows) * MemoryLayout<Scalar>.stride)
    return min((count + tile - 1) / tile, max(1, room / tile)) * tile
  }

  /// Takes the moments of the outputs that some squares cover: of as many whole images as follow each other, of whole rows of an image, or
  /// of parts of rows.
  private func measure(_ squares: Range<Int>, rows: Range<Int>, _ moments: BlockMoments<Scalar>) {
    let (size, columns) = (result.rows * result.columns, source.grid.columns)
    func take(_ places: Range<Int>) { target.measure(moments, rows: rows, places: places, size: size) }
    var square = squares.lowerBound
    while square < squares.upperBound {
      let (image, inside) = square.quotientAndRemainder(dividingBy: source.imagePlaces)
      let (row, column) = inside.quotientAndRemainder(dividingBy: columns)
      let (first, left) = (image * size, squares.upperBound - square)
      if inside == 0, left >= source.imagePlaces {
        let images = left / source.imagePlaces
        take(first..<first + images * size)
        square += images * source.imagePlaces
      } else if column == 0, left >= columns {
        let end = row + min(left, source.imagePlaces - inside) / columns
        take(first + 2 * row * result.columns..<first + min(2 * end, result.rows) * result.columns)
        square += (end - row) * columns
      } else {
        let end = column + min(left, columns - column)
        for line in 2 * row..<min(2 * row + 2, result.rows) {
          let start = first + line * result.columns
          take(start + 2 * column..<start + min(2 * end, result.columns))
        }
        square += end - column
      }
    }
  }

  /// Transforms `length` squares of a row back, from `place` of an image on, and writes them where they belong. Whether all are finite.
  private func write(
    _ sums: UnsafePointer<Scalar>, _ plane: Int, _ ldSums: Int, _ rows: Range<Int>,
    _ finish: inout steppe_product_finish,
    image: Int, _ place: Int, _ length: Int, _ block: UnsafeMutablePointer<Scalar>?
  ) -> Bool {
    let kernels = Scalar.kernels
    let (row, column) = (place / source.grid.columns * 2, place % source.grid.columns * 2)
    let (height, width) = (min(2, result.rows - row), min(2 * length, result.columns - column))
    let to =
      target.values + image * target.image + rows.lowerBound * target.channel + row * target.row
      + column * target.column
    guard let block else {
      return kernels.winograd_output(
        sums, plane, ldSums, rows.count, height, width, &finish, to, target.channel, target.row)
    }
    let isFinite = kernels.winograd_output(
      sums, plane, ldSums, rows.count, height, width, &finish, block, 2 * width, width)
    for line in 0..<height {
      kernels.transpose(
        block + line * width, 2 * width, to + line * target.row, target.column, rows.count, width)
    }
    return isFinite
  }
}

extension Convolution {
  /// y = f(W∗x + b), and its moments, by minimal filtering, where that suits and all values are finite: whether y is written.
  func filterForward(
    _ x: UnsafePointer<Scalar>, weight: UnsafePointer<Scalar>, bias: UnsafePointer<Scalar>?, activation: Activation,
    target: (_ first: Int) -> PatchTarget<Scalar>, _ moments: ChannelMoments?
  ) -> Bool {
    guard
      WinogradProduct<Scalar>.suits(
        geometry, images: images, inputs: groupInputs, outputs: groupOutputs, result: result)
    else { return false }
    let transform = transformedWeights(weight, rows: groupOutputs, depth: groupInputs, areTurned: false)
    defer { withExtendedLifetime(transform) {} }
    let products = (0..<geometry.groups).map { group in
      let first = group * groupOutputs
      return WinogradProduct(
        source: squares(
          x + group * groupInputs * (isFirst ? height * width : 1), channels: inputs, seen: groupInputs,
          Extent2D(rows: height, columns: width), from: tapPlaces[0], result: result),
        weights: transform.pointer + 16 * first * groupInputs, rows: groupOutputs, bias: bias.map { $0 + first },
        activation: activation, target: target(first), result: result)
    }
    return WinogradProduct.run(products, moments)
  }

  /// dx likewise: the filtering of dy by the turned kernels, whose weights are given as [groups, inputs, taps, outputs].
  func filterInputGradient(
    _ dy: UnsafePointer<Scalar>, turned: UnsafePointer<Scalar>, into dx: UnsafeMutablePointer<Scalar>
  ) -> Bool {
    let extent = Extent2D(rows: height, columns: width)
    guard
      WinogradProduct<Scalar>.suits(
        geometry, images: images, inputs: groupOutputs, outputs: groupInputs, result: extent)
    else { return false }
    let transform = transformedWeights(turned, rows: groupInputs, depth: groupOutputs, areTurned: true)
    defer { withExtendedLifetime(transform) {} }
    let origin = Extent2D(rows: -2 - tapPlaces[0].rows, columns: -2 - tapPlaces[0].columns)
    let (size, step) = (height * width, isFirst ? 1 : inputs)
    let products = (0..<geometry.groups).map { group in
      let first = group * groupInputs
      return WinogradProduct(
        source: squares(
          dy + group * groupOutputs * (isFirst ? result.rows * result.columns : 1), channels: outputs,
          seen: groupOutputs, result, from: origin, result: extent),
        weights: transform.pointer + 16 * first * groupOutputs, rows: groupInputs, bias: nil, activation: .identity,
        target: PatchTarget(
          values: dx + first * (isFirst ? size : 1), image: inputs * size, channel: isFirst ? size : 1,
          row: width * step, column: step),
        result: extent)
    }
    return WinogradProduct.run(products)
  }

  /// What the squares over an image of `result` outputs see of one of `extent`, the first one from `origin` on.
  private func squares(
    _ values: UnsafePointer<Scalar>, channels: Int, seen: Int, _ extent: Extent2D, from origin: Extent2D,
    result: Extent2D
  ) -> PatchSource<Scalar> {
    PatchSource(
      values, images: images, channels: channels, seen: seen, height: extent.rows, width: extent.columns,
      layout: geometry.layout, taps: WinogradProduct<Scalar>.taps(from: origin), stride: Extent2D(rows: 2, columns: 2),
      grid: WinogradProduct<Scalar>.squares(of: result))
  }

  /// The transforms of the weights of each group, [groups, 16, rows, depth].
  ///
  /// - Parameters:
  ///   - weight: [groups, rows, depth, taps], or where the kernels `areTurned`, as the gradient of x needs them, [groups, rows, taps, depth].
  private func transformedWeights(
    _ weight: UnsafePointer<Scalar>, rows: Int, depth: Int, areTurned: Bool
  ) -> Storage<Scalar> {
    let transform = Storage<Scalar>(count: geometry.groups * 16 * rows * depth)
    Parallel.ranges(geometry.groups * rows, grain: max(1, Parallel.elementGrain / (16 * depth))) { range in
      let byTaps = areTurned ? nil : Storage<Scalar>(count: taps * depth)
      for number in range {
        let (group, row) = number.quotientAndRemainder(dividingBy: rows)
        var own = weight + number * taps * depth
        if let byTaps {
          Scalar.kernels.transpose(own, taps, byTaps.pointer, depth, depth, taps)
          own = UnsafePointer(byTaps.pointer)
        }
        Scalar.kernels.winograd_weights(
          own, depth, depth, areTurned, transform.pointer + (group * 16 * rows + row) * depth, rows * depth)
      }
      withExtendedLifetime(byTaps) {}
    }
    return transform
  }
}
