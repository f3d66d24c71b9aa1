import CSteppeKernels

/// Where a product's values go: to channel c of place (i, j) of image n, at
/// `values[n · image + c · channel + i · row + j · column]`.
struct PatchTarget<Scalar: TensorScalar> {
  let values: UnsafeMutablePointer<Scalar>
  let image: Int
  let channel: Int
  let row: Int
  let column: Int

  /// Whether the places of an image lie side by side.
  func isContiguous(_ grid: Extent2D) -> Bool { column == 1 && row == grid.columns }

  /// Takes the moments of `rows` channels at `places` that lie side by side in an image, or that are whole images.
  func measure(_ moments: BlockMoments<Scalar>, rows: Range<Int>, places: Range<Int>, size: Int) {
    let (image, inside) = places.lowerBound.quotientAndRemainder(dividingBy: size)
    let from = values + image * self.image + rows.lowerBound * channel + inside * column
    if column == 1 {
      let isWhole = places.count > size
      moments.takeRows(
        from, row: channel, runs: isWhole ? places.count / size : 1, stride: self.image,
        length: isWhole ? size : places.count)
    } else {
      moments.takeColumns(from, column: column, count: places.count)
    }
  }

  /// Moves `rows` channels of a block, whose columns are `places` of a grid in all images, to where they belong.
  func move(_ block: UnsafePointer<Scalar>, _ ldBlock: Int, rows: Range<Int>, places: Range<Int>, grid: Extent2D) {
    let kernels = Scalar.kernels
    let size = grid.rows * grid.columns
    let longest = row == grid.columns * column ? size : grid.columns
    var place = places.lowerBound
    while place < places.upperBound {
      let (image, inside) = place.quotientAndRemainder(dividingBy: size)
      let (i, j) = inside.quotientAndRemainder(dividingBy: grid.columns)
      let length = min(longest - inside % longest, places.upperBound - place)
      let from = block + (place - places.lowerBound)
      let to = values + image * self.image + rows.lowerBound * channel + i * row + j * column
      if channel == 1 {
        kernels.transpose(from, ldBlock, to, column, rows.count, length)
      } else {
        kernels.copy_planes(from, 0, ldBlock, 1, to, 0, channel, column, 1, rows.count, length)
      }
      place += length
    }
  }
}

/// C = f(A·patches + bias), with a column for each place of the source's images and a row for each output channel: an implicit im2col.
///
/// The patches of a block of places are packed, a slice of the depth at a time, into what the tiles of `multiply` read, and all rows of A
/// pass over them while they are in the second-level cache: the column matrix as a whole never exists.
struct PatchProduct<Scalar: TensorScalar> {
  let source: PatchSource<Scalar>
  /// Each line of the depth as its distance from a place.
  let offsets: [Int]
  /// A, `rows` rows of the depth's length, `lda` apart.
  let a: UnsafePointer<Scalar>
  let lda: Int
  let rows: Int
  /// A value for each row.
  let bias: UnsafePointer<Scalar>?
  let activation: Activation
  let target: PatchTarget<Scalar>

  private var depth: Int { offsets.count }

  /// Runs products of which none writes where another does, and takes the moments of what they write: all products' rows, in their
  /// order, are the channels.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  static func run(_ products: [PatchProduct], _ moments: ChannelMoments? = nil) {
    _ = runParts(of: products.map { ($0.rows, $0.source.places, $0.depth) }, moments) { product, rows, places, found in
      products[product].run(rows: rows, places: places, found)
      return true
    }
  }

  /// Whether a block's rows can be written where they belong: places side by side, and not so few in an image that the last tile of each,
  /// which is not full, costs more than to write to a block first and then to move the runs to their places.
  private var isDirect: Bool {
    let lanes = Int(Scalar.kernels.vector_bytes) / MemoryLayout<Scalar>.stride
    let idle = (source.imagePlaces + lanes - 1) / lanes * lanes - source.imagePlaces
    return target.isContiguous(source.grid) && idle * depth <= 16 * source.imagePlaces
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func run(rows: Range<Int>, places: Range<Int>, _ moments: BlockMoments<Scalar>?) {
    guard !rows.isEmpty, !places.isEmpty else { return }
    let kernels = Scalar.kernels
    let (tile, lanes) = (Int(kernels.tile_columns), Int(kernels.vector_bytes) / MemoryLayout<Scalar>.stride)
    let blocks = ProductBlocks<Scalar>(rows: rows.count, columns: places.count, depth: depth)
    let longest = blockPlaces(blocks, rows: rows.count, tile: tile)
    let isDirect = isDirect
    // A plain product packs an image's channels as they are.
    let isPlain = isDirect && source.isPlain
    var cache = isPlain ? nil : PlaneCache(source, channels: 0..<source.seen, places: longest)
    let ldBlock = longest + lanes
    // One vector beyond the last line.
    let packed = Storage<Scalar>(count: blocks.depth * longest + lanes)
    let block = isDirect ? nil : Storage<Scalar>(count: rows.count * ldBlock)
    var runs: [[steppe_patch_run]] = Array(repeating: [], count: (longest + tile - 1) / tile)

    forEachBlock(of: places, longest: longest, withinImages: isDirect) { somePlaces in
      let strips = (somePlaces.count + tile - 1) / tile
      if cache != nil {
        cache!.load(somePlaces)
        for strip in 0..<strips {
          let first = somePlaces.lowerBound + strip * tile
          cache!.collect(first..<min(first + tile, somePlaces.upperBound), into: &runs[strip])
        }
      }
      let (c, ldc) = destination(rows, somePlaces, block?.pointer, ldBlock)
      for slice in ProductBlocks<Scalar>.slices(0..<depth, longest: blocks.depth) {
        if let cache {
          offsets.withUnsafeBufferPointer { offsets in
            for strip in 0..<strips {
              let used = min(tile, somePlaces.count - strip * tile)
              kernels.pack_patches(
                cache.planes, offsets.baseAddress! + slice.lowerBound, slice.count, runs[strip], runs[strip].count,
                packed.pointer + strip * tile * slice.count, (used + lanes - 1) / lanes * lanes)
            }
          }
        } else {
          let (image, inside) = somePlaces.lowerBound.quotientAndRemainder(dividingBy: source.imagePlaces)
          kernels.pack_columns(
            source.values + (image * source.channels + slice.lowerBound) * source.imagePlaces + inside,
            source.imagePlaces, false, slice.count, somePlaces.count, packed.pointer)
        }
        let isLast = slice.upperBound == depth
        for someRows in ProductBlocks<Scalar>.slices(rows, longest: blocks.rows) {
          var finish = steppe_product_finish(
            alpha: 1, beta: slice.lowerBound == 0 ? 0 : 1,
            bias: isLast ? bias.map { UnsafeRawPointer($0 + someRows.lowerBound) } : nil,
            kind: isLast ? activation.kernel : STEPPE_IDENTITY, parameter: activation.parameter, bias_by_rows: true)
          kernels.multiply(
            a + someRows.lowerBound * lda + slice.lowerBound, lda, packed.pointer, someRows.count, somePlaces.count,
            slice.count, &finish, c + (someRows.lowerBound - rows.lowerBound) * ldc, ldc)
        }
      }
      moments?.takeRows(c, row: ldc, length: somePlaces.count)
      if let block { target.move(block.pointer, ldBlock, rows: rows, places: somePlaces, grid: source.grid) }
    }
    withExtendedLifetime((packed, block, cache)) {}
  }

  /// The places of a block: what a product of this size takes, but where several slices of the depth add to the same sums, no more than
  /// leave the sums in the second-level cache beside the patches.
  private func blockPlaces(_ blocks: ProductBlocks<Scalar>, rows: Int, tile: Int) -> Int {
    if depth <= blocks.depth { return blocks.columns }
    let room = CacheSizes.level2 / 4 / (rows * MemoryLayout<Scalar>.stride)
    return min(blocks.columns, max(4, room / tile) * tile)
  }

  /// Where a block's first row begins, and the distance between its rows.
  private func destination(
    _ rows: Range<Int>, _ places: Range<Int>, _ block: UnsafeMutablePointer<Scalar>?, _ ldBlock: Int
  ) -> (UnsafeMutablePointer<Scalar>, Int) {
    if let block { return (block, ldBlock) }
    let (image, inside) = places.lowerBound.quotientAndRemainder(dividingBy: source.imagePlaces)
    return (target.values + image * target.image + rows.lowerBound * target.channel + inside, target.channel)
  }

  private func forEachBlock(of places: Range<Int>, longest: Int, withinImages: Bool, _ body: (Range<Int>) -> Void) {
    var place = places.lowerBound
    while place < places.upperBound {
      var end = min(place + longest, places.upperBound)
      if withinImages { end = min(end, (place / source.imagePlaces + 1) * source.imagePlaces) }
      body(place..<end)
      place = end
    }
  }
}

/// C = patches·dyᵀ, [depth, outputs]: the transpose of the gradient of a group's weights, the sum over all places.
struct PatchGradient<Scalar: TensorScalar> {
  let source: PatchSource<Scalar>
  /// Each line of the depth of the forward product, which is a row here, as its channel and its tap's number.
  let lines: [(channel: Int, tap: Int)]
  /// The group's first output channel of dy.
  let dy: UnsafePointer<Scalar>
  /// All output channels, of which `outputs` are the group's.
  let channels: Int
  let outputs: Int
  /// Contiguous.
  let c: UnsafeMutablePointer<Scalar>

  /// Runs gradients of one size.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  static func run(_ gradients: [PatchGradient]) {
    guard let first = gradients.first else { return }
    let threads = (Parallel.threadCount + gradients.count - 1) / gradients.count
    let (rows, columns) = (first.lines.count, first.outputs)
    let cut = ProductCut(
      m: rows, n: columns, k: first.source.places, threads: threads, lane: 64 / MemoryLayout<Scalar>.stride)
    // The first slice of the places goes to C itself, the others to scratch that is then added in their order.
    let size = rows * columns
    let scratch = Storage<Scalar>(count: max(1, gradients.count * (cut.depth - 1) * size))
    let partials = scratch.pointer
    Parallel.run(parts: gradients.count * cut.parts) { part in
      let (number, own) = part.quotientAndRemainder(dividingBy: cut.parts)
      let (someRows, someColumns, places) = cut.ranges(own)
      let slice = cut.depthIndex(own)
      let gradient = gradients[number]
      let sums = slice == 0 ? gradient.c : partials + (number * (cut.depth - 1) + slice - 1) * size
      gradient.run(rows: someRows, columns: someColumns, places: places, into: sums)
    }
    if cut.depth > 1 {
      Parallel.ranges(size, grain: Parallel.elementGrain) { range in
        for (number, gradient) in gradients.enumerated() {
          for slice in 0..<cut.depth - 1 {
            let from = partials + (number * (cut.depth - 1) + slice) * size + range.lowerBound
            Scalar.kernels.add_scaled(from, 1, gradient.c + range.lowerBound, range.count)
          }
        }
      }
    }
    withExtendedLifetime(scratch) {}
  }

  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  private func run(rows: Range<Int>, columns: Range<Int>, places: Range<Int>, into c: UnsafeMutablePointer<Scalar>) {
    guard !rows.isEmpty, !columns.isEmpty else { return }
    let kernels = Scalar.kernels
    let lanes = Int(kernels.vector_bytes) / MemoryLayout<Scalar>.stride
    let blocks = ProductBlocks<Scalar>(rows: rows.count, columns: columns.count, depth: places.count)
    let channels = lines[rows.lowerBound].channel..<lines[rows.upperBound - 1].channel + 1
    var cache = PlaneCache(source, channels: channels, places: blocks.depth)
    let offsets = lines[rows].map { ($0.channel - channels.lowerBound) * source.channelDistance + source.taps[$0.tap] }
    let packed = Storage<Scalar>(count: blocks.depth * (blocks.columns + blocks.rows) + lanes)
    let (packedB, packedA) = (packed.pointer, packed.pointer + blocks.depth * blocks.columns)
    var runs: [steppe_patch_run] = []
    for slice in ProductBlocks<Scalar>.slices(places, longest: blocks.depth) {
      cache.load(slice)
      cache.collect(slice, into: &runs)
      var finish = steppe_product_finish(
        alpha: 1, beta: slice.lowerBound == places.lowerBound ? 0 : 1, bias: nil, kind: STEPPE_IDENTITY, parameter: 0,
        bias_by_rows: false)
      for someColumns in ProductBlocks<Scalar>.slices(columns, longest: blocks.columns) {
        pack(slice, someColumns, packedB)
        for someRows in ProductBlocks<Scalar>.slices(rows, longest: blocks.rows) {
          offsets.withUnsafeBufferPointer { offsets in
            kernels.pack_patches(
              cache.planes, offsets.baseAddress! + (someRows.lowerBound - rows.lowerBound), someRows.count, runs,
              runs.count, packedA, slice.count)
          }
          kernels.multiply(
            packedA, slice.count, packedB, someRows.count, someColumns.count, slice.count, &finish,
            c + someRows.lowerBound * outputs + someColumns.lowerBound, outputs)
        }
      }
    }
    withExtendedLifetime((packed, cache)) {}
  }

  /// dy at `places` as strips of output channels.
  private func pack(_ places: Range<Int>, _ columns: Range<Int>, _ to: UnsafeMutablePointer<Scalar>) {
    let kernels = Scalar.kernels
    if source.layout == .channelsLast {
      kernels.pack_columns(
        dy + places.lowerBound * channels + columns.lowerBound, channels, false, places.count, columns.count, to)
      return
    }
    let (tile, lanes) = (Int(kernels.tile_columns), Int(kernels.vector_bytes) / MemoryLayout<Scalar>.stride)
    let size = source.imagePlaces
    var strip = to
    for some in ProductBlocks<Scalar>.slices(columns, longest: tile) {
      let width = (some.count + lanes - 1) / lanes * lanes
      var place = places.lowerBound
      while place < places.upperBound {
        let (image, inside) = place.quotientAndRemainder(dividingBy: size)
        let length = min(size - inside, places.upperBound - place)
        kernels.pack_columns(
          dy + (image * channels + some.lowerBound) * size + inside, size, true, length, some.count,
          strip + (place - places.lowerBound) * width)
        place += length
      }
      strip += width * places.count
    }
  }
}
