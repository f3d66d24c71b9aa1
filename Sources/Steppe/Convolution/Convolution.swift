/// A convolution of images of one size (as deep learning has it: a cross-correlation), and its gradients.
///
/// `y[n, o, i, j] = b[o] + Σ W[o, c, u, v] · x[n, c, s·i + d·u − p, s·j + d·v − p]` over the channels c of o's group and the kernel's
/// places (u, v), for stride s, dilation d and padding p; values beyond the image are 0.
///
/// Each is a matrix product with the images' patches as one factor, which is made block by block:
/// - y of a group is W·patches, W `[outputs, channels · taps]` as it stands;
/// - dx is the product of Wᵀ with the patches of dy. With a stride, the places of dx fall into phases, each of which sees some of the taps;
/// - dW is dy·patchesᵀ, computed as its transpose, so that the patches need no turning.
///
/// Where few outputs see the same channels, as in depthwise convolutions, the patches are not packed: see ``PatchBundles``. Kernels of 3×3
/// with many channels take fewer products: see ``WinogradProduct``.
struct Convolution<Scalar: TensorScalar> {
  let geometry: ConvolutionGeometry
  let images: Int
  let inputs: Int
  let outputs: Int
  let height: Int
  let width: Int
  let result: Extent2D

  /// - Parameters:
  ///   - input: `[N, C, H, W]` or `[N, H, W, C]`, which the geometry fits.
  ///   - outputs: The output channels.
  init(_ geometry: ConvolutionGeometry, input: [Int], outputs: Int) {
    self.geometry = geometry
    self.outputs = outputs
    images = input[0]
    let first = geometry.layout == .channelsFirst
    inputs = first ? input[1] : input[3]
    (height, width) = first ? (input[2], input[3]) : (input[1], input[2])
    result = geometry.outputs(rows: height, columns: width)!
  }

  var outputShape: [Int] {
    geometry.layout == .channelsFirst
      ? [images, outputs, result.rows, result.columns] : [images, result.rows, result.columns, outputs]
  }

  var groupInputs: Int { inputs / geometry.groups }
  var groupOutputs: Int { outputs / geometry.groups }
  var taps: Int { geometry.kernel.rows * geometry.kernel.columns }
  var isFirst: Bool { geometry.layout == .channelsFirst }

  /// Whether it is a plain product of the matrix of all places and their channels.
  private var isProduct: Bool { geometry.isPointwise && !isFirst }

  /// The row and column that each tap sees from place (0, 0).
  var tapPlaces: [Extent2D] {
    (0..<geometry.kernel.rows).flatMap { row in
      (0..<geometry.kernel.columns).map { column in
        Extent2D(
          rows: row * geometry.dilation.rows - geometry.padding.rows,
          columns: column * geometry.dilation.columns - geometry.padding.columns)
      }
    }
  }

  /// The patches of x that a group sees, or those that all see.
  private func patches(_ x: UnsafePointer<Scalar>, group: Int?) -> PatchSource<Scalar> {
    let start = (group ?? 0) * groupInputs * (isFirst ? height * width : 1)
    return PatchSource(
      x + start, images: images, channels: inputs, seen: group == nil ? inputs : groupInputs, height: height,
      width: width,
      layout: geometry.layout, taps: tapPlaces, stride: geometry.stride, grid: result)
  }

  /// y = f(W∗x + b), everything contiguous; where it `measures`, the moments of y's channels too, taken while the cache holds what they
  /// are of. A plain product and one without packing take none.
  @discardableResult
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func forward(
    _ x: UnsafePointer<Scalar>, weight: UnsafePointer<Scalar>, bias: UnsafePointer<Scalar>?, activation: Activation,
    into y: UnsafeMutablePointer<Scalar>, measures: Bool = false
  ) -> ChannelMoments? {
    guard images > 0 else { return nil }
    if isProduct {
      gemm(
        transposeB: true, m: images * height * width, n: outputs, k: inputs, a: x, lda: inputs, b: weight, ldb: inputs,
        c: y, ldc: outputs, bias: bias, activation: activation)
      return nil
    }
    let depth = groupInputs * taps
    let size = result.rows * result.columns
    func lines(_ source: PatchSource<Scalar>) -> [Int] {
      (0..<depth).map { $0 / taps * source.channelDistance + source.taps[$0 % taps] }
    }
    func target(_ first: Int) -> PatchTarget<Scalar> {
      PatchTarget(
        values: y + first * (isFirst ? size : 1), image: outputs * size, channel: isFirst ? size : 1,
        row: result.columns * (isFirst ? 1 : outputs), column: isFirst ? 1 : outputs)
    }
    if PatchBundles<Scalar>.suits(images: images, bundles: geometry.groups, rows: groupOutputs) {
      let source = patches(x, group: nil)
      PatchBundles(
        source: source, channelsPerBundle: groupInputs, rowsPerBundle: groupOutputs, offsets: lines(source), a: weight,
        bias: bias, activation: activation, target: target(0)
      ).run()
      return nil
    }
    let moments = measures ? ChannelMoments(channels: outputs) : nil
    if filterForward(x, weight: weight, bias: bias, activation: activation, target: target, moments) { return moments }
    let products = (0..<geometry.groups).map { group in
      let source = patches(x, group: group)
      let first = group * groupOutputs
      return PatchProduct(
        source: source, offsets: lines(source), a: weight + first * depth, lda: depth, rows: groupOutputs,
        bias: bias.map { $0 + first }, activation: activation, target: target(first))
    }
    PatchProduct.run(products, moments)
    return moments
  }

  /// dx from dy, everything contiguous.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func inputGradient(
    _ dy: UnsafePointer<Scalar>, weight: UnsafePointer<Scalar>, into dx: UnsafeMutablePointer<Scalar>
  ) {
    guard images > 0 else { return }
    if isProduct {
      return gemm(
        m: images * height * width, n: inputs, k: outputs, a: dy, lda: outputs, b: weight, ldb: inputs, c: dx,
        ldc: inputs)
    }
    let depth = groupOutputs * taps
    // Wᵀ of each group: [channels, taps, outputs].
    let turned = Storage<Scalar>(count: outputs * groupInputs * taps)
    let perGroup = groupOutputs * groupInputs * taps
    let lines = groupInputs * taps
    Parallel.ranges(
      geometry.groups * lines, grain: max(1, Parallel.elementGrain / groupOutputs), multiple: lines > 16 ? 16 : 1
    ) { range in
      var line = range.lowerBound
      while line < range.upperBound {
        let (group, first) = line.quotientAndRemainder(dividingBy: lines)
        let count = min(lines - first, range.upperBound - line)
        Scalar.kernels.transpose(
          weight + group * perGroup + first, lines, turned.pointer + group * perGroup + first * groupOutputs,
          groupOutputs, groupOutputs, count)
        line += count
      }
    }
    let (size, step, outSize) = (height * width, isFirst ? 1 : inputs, result.rows * result.columns)
    let isBundled = PatchBundles<Scalar>.suits(images: images, bundles: geometry.groups, rows: groupInputs)
    if !isBundled, filterInputGradient(dy, turned: UnsafePointer(turned.pointer), into: dx) {
      return withExtendedLifetime(turned) {}
    }
    let (rowPhases, columnPhases) = (min(geometry.stride.rows, height), min(geometry.stride.columns, width))
    // What no tap sees has no gradient.
    let isCovered = (0..<rowPhases).allSatisfy { row in
      (0..<columnPhases).allSatisfy { !phase(row: row, column: $0).taps.isEmpty }
    }
    if !isCovered { Scalar.kernels.fill(0, dx, images * inputs * size) }
    var products: [PatchProduct<Scalar>] = []
    var selections: [Storage<Scalar>] = []
    for row in 0..<rowPhases {
      for column in 0..<columnPhases {
        let grid = Extent2D(
          rows: (height - row - 1) / geometry.stride.rows + 1,
          columns: (width - column - 1) / geometry.stride.columns + 1)
        let (seen, places) = phase(row: row, column: column)
        guard !seen.isEmpty else { continue }
        let count = places.count * groupOutputs
        var a = turned.pointer
        if seen.count < taps {
          // The weights of the taps that this phase sees.
          let selection = Storage<Scalar>(count: inputs * count)
          for (number, tap) in seen.enumerated() {
            Scalar.kernels.copy_planes(
              turned.pointer + tap * groupOutputs, 0, depth, 1, selection.pointer + number * groupOutputs, 0, count, 1,
              1, inputs, groupOutputs)
          }
          a = selection.pointer
          selections.append(selection)
        }
        func slopes(_ group: Int?) -> PatchSource<Scalar> {
          PatchSource(
            dy + (group ?? 0) * groupOutputs * (isFirst ? outSize : 1), images: images, channels: outputs,
            seen: group == nil ? outputs : groupOutputs, height: result.rows, width: result.columns,
            layout: geometry.layout, taps: places, stride: Extent2D(rows: 1, columns: 1), grid: grid)
        }
        func offsets(_ source: PatchSource<Scalar>) -> [Int] {
          (0..<count).map { $0 % groupOutputs * source.channelDistance + source.taps[$0 / groupOutputs] }
        }
        func target(_ group: Int) -> PatchTarget<Scalar> {
          PatchTarget(
            values: dx + group * groupInputs * (isFirst ? size : 1) + (row * width + column) * step,
            image: inputs * size, channel: isFirst ? size : 1, row: geometry.stride.rows * width * step,
            column: geometry.stride.columns * step)
        }
        if isBundled {
          let source = slopes(nil)
          PatchBundles(
            source: source, channelsPerBundle: groupOutputs, rowsPerBundle: groupInputs, offsets: offsets(source), a: a,
            bias: nil, activation: .identity, target: target(0)
          ).run()
          continue
        }
        for group in 0..<geometry.groups {
          let source = slopes(group)
          products.append(
            PatchProduct(
              source: source, offsets: offsets(source), a: a + group * groupInputs * count, lda: count,
              rows: groupInputs, bias: nil, activation: .identity, target: target(group)))
        }
      }
    }
    PatchProduct.run(products)
    withExtendedLifetime((turned, selections)) {}
  }

  /// The taps whose products reach rows and columns of x that leave the remainders `row` and `column` when divided by the stride, and the
  /// row and column of dy that each of them sees from place (0, 0).
  private func phase(row: Int, column: Int) -> (taps: [Int], places: [Extent2D]) {
    var (seen, places): ([Int], [Extent2D]) = ([], [])
    for (tap, place) in tapPlaces.enumerated() {
      let (down, right) = (row - place.rows, column - place.columns)
      guard down % geometry.stride.rows == 0, right % geometry.stride.columns == 0 else { continue }
      seen.append(tap)
      places.append(Extent2D(rows: down / geometry.stride.rows, columns: right / geometry.stride.columns))
    }
    return (seen, places)
  }

  /// dW, or what is added to it where `adding`; everything contiguous.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func weightGradient(
    _ dy: UnsafePointer<Scalar>, _ x: UnsafePointer<Scalar>, into dw: UnsafeMutablePointer<Scalar>, adding: Bool
  ) {
    let depth = groupInputs * taps
    let perGroup = groupOutputs * depth
    guard images > 0 else {
      if !adding { Scalar.kernels.fill(0, dw, geometry.groups * perGroup) }
      return
    }
    if isProduct {
      return gemm(
        transposeA: true, m: outputs, n: inputs, k: images * height * width, a: dy, lda: outputs, b: x, ldb: inputs,
        beta: adding ? 1 : 0, c: dw, ldc: inputs)
    }
    if PatchBundles<Scalar>.suits(images: 1, bundles: geometry.groups, rows: groupOutputs) {
      let source = patches(x, group: nil)
      let slopes = PatchSource(
        dy, images: images, channels: outputs, seen: outputs, height: result.rows, width: result.columns,
        layout: geometry.layout, taps: [Extent2D(rows: 0, columns: 0)], stride: Extent2D(rows: 1, columns: 1),
        grid: result)
      return PatchBundles.gradient(
        source, channelsPerBundle: groupInputs,
        offsets: (0..<depth).map { $0 / taps * source.channelDistance + source.taps[$0 % taps] }, dy: slopes, into: dw,
        adding: adding)
    }
    let turned = Storage<Scalar>(count: geometry.groups * perGroup)
    let gradients = (0..<geometry.groups).map { group in
      PatchGradient(
        source: patches(x, group: group), lines: (0..<depth).map { ($0 / taps, $0 % taps) },
        dy: dy + group * groupOutputs * (isFirst ? result.rows * result.columns : 1), channels: outputs,
        outputs: groupOutputs, c: turned.pointer + group * perGroup)
    }
    PatchGradient.run(gradients)
    // [depth, outputs] to [outputs, depth], a range of outputs in each part.
    Parallel.ranges(outputs, grain: max(1, Parallel.elementGrain / depth)) { range in
      let sums = adding ? Storage<Scalar>(count: range.count * depth) : nil
      let to = sums?.pointer ?? dw + range.lowerBound * depth
      var output = range.lowerBound
      while output < range.upperBound {
        let (group, first) = output.quotientAndRemainder(dividingBy: groupOutputs)
        let count = min(groupOutputs - first, range.upperBound - output)
        Scalar.kernels.transpose(
          turned.pointer + group * perGroup + first, groupOutputs, to + (output - range.lowerBound) * depth, depth,
          depth, count)
        output += count
      }
      if let sums {
        Scalar.kernels.add_scaled(sums.pointer, 1, dw + range.lowerBound * depth, range.count * depth)
      }
    }
    withExtendedLifetime(turned) {}
  }
}

/// `f(W∗x + b)` for images x that fit the geometry, W `[outputs, channels / groups, rows, columns]`, b `[outputs]`.
func convolved<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, weight: Tensor<Scalar>, bias: Tensor<Scalar>?, _ geometry: ConvolutionGeometry,
  activation: Activation = .identity
) -> Tensor<Scalar> {
  convolved(input, weight: weight, bias: bias, geometry, activation, measures: false).output
}

/// The same, and where it `measures` the moments of its channels, as ``Convolution`` takes them.
func convolved<Scalar: TensorScalar>(
  _ input: Tensor<Scalar>, weight: Tensor<Scalar>, bias: Tensor<Scalar>?, _ geometry: ConvolutionGeometry,
  _ activation: Activation, measures: Bool
) -> (output: Tensor<Scalar>, moments: ChannelMoments?) {
  let work = Convolution<Scalar>(geometry, input: input.shape, outputs: weight.shape[0])
  let (x, w, b) = (input.contiguous(), weight.contiguous(), bias?.contiguous())
  let output = Tensor<Scalar>(uninitialized: work.outputShape)
  let moments = work.forward(
    x.address, weight: w.address, bias: b?.address, activation: activation, into: output.address, measures: measures)
  withExtendedLifetime((x, w, b)) {}
  return (output, moments)
}
