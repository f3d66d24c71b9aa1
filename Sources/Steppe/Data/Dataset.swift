import CSteppeKernels
import Glibc

/// Labelled examples in memory or in a mapped file, from which batches are assembled.
///
/// ```swift
/// let training = try Dataset<Float>.fashionMNIST(split: .training)
/// let (images, labels) = training.batch(rows: [3, 1, 4])       // [3, 784], scaled to 0 … 1
/// ```
///
/// Features that a file holds as bytes stay bytes, and become numbers batch by batch: a quarter or an eighth of the
/// memory. A copy shares the memory.
public struct Dataset<Scalar: TensorScalar>: DataSource, Sendable {
  /// The label of each example.
  public let labels: [Int]
  /// The number of classes: every label is in `0 ..< classes`.
  public let classes: Int
  /// The shape of one example's features.
  public private(set) var featureShape: [Int]
  /// What is subtracted from every stored feature when a batch is assembled: 0, or near the mean where features are ``standardized(mean:deviation:)``.
  public private(set) var shift: Scalar = 0
  /// What is then multiplied by.
  public var scale: Double
  /// What is then added.
  public var offset: Double
  private let contents: Contents
  /// Where the examples begin in `contents`.
  private let firstRow: Int

  private enum Contents: @unchecked Sendable {
    /// Bytes that `owner` keeps alive.
    case bytes(UnsafePointer<UInt8>, owner: AnyObject)
    /// Contiguous.
    case scalars(Tensor<Scalar>)
  }

  /// The number of examples.
  public var count: Int { labels.count }

  private var featureCount: Int { featureShape.reduce(1, *) }

  // MARK: - Making data sets

  /// Examples whose features are `features`, of shape `[N]` + the shape of one, and whose labels are `labels`.
  ///
  /// - Parameters:
  ///   - features: the features of all examples.
  ///   - labels: their labels.
  ///   - classes: by default one more than the largest label.
  ///   - scale: what every feature is multiplied by in a batch.
  ///   - offset: what is then added.
  ///   - source: what errors name instead of a file.
  /// - Throws: ``FileError`` of kind `mismatch` where the numbers of examples and labels differ, `outOfRange` for a
  ///   label outside `0 ..< classes`, `notFinite` for a feature that is NaN or infinite, named by its row and column.
  public init(
    features: Tensor<Scalar>, labels: [Int], classes: Int? = nil, scale: Double = 1, offset: Double = 0,
    source: String = "data set"
  ) throws(FileError) {
    let features = features.contiguous()
    try self.init(
      .scalars(features), shape: features.shape, labels: labels, classes: classes, scale: scale, offset: offset,
      featuresPath: source, labelsPath: source)
    try Self.checkFinite(features, path: source)
  }

  /// Reads features and labels from two files, each in IDX (plain or gzip) or NPY, told apart by their first bytes.
  ///
  /// - Parameters:
  ///   - featuresPath: the file of features, of shape `[N]` + the shape of one; numbers of any type.
  ///   - labelsPath: the file of labels, integers of shape `[N]`.
  ///   - classes: by default one more than the largest label.
  ///   - scale: what every feature is multiplied by in a batch; by default 1/255 for bytes and 1 for other types.
  ///   - offset: what is then added.
  /// - Throws: ``FileError``: what the formats' readers throw, and the errors of
  ///   ``init(features:labels:classes:scale:offset:source:)``.
  public init(
    features featuresPath: String, labels labelsPath: String, classes: Int? = nil, scale: Double? = nil,
    offset: Double = 0
  ) throws(FileError) {
    let features = try DataFile(featuresPath)
    let labels = try DataFile(labelsPath)
    guard labels.shape.count == 1 else {
      throw FileError(
        path: labelsPath, kind: .mismatch, expected: "labels with one axis", found: "shape \(labels.shape)")
    }
    try self.init(
      features, labels: try labels.integers(), classes: classes, scale: scale, offset: offset,
      featuresPath: featuresPath, labelsPath: labelsPath)
  }

  /// Reads features alone, such as those of images to classify: every label is 0.
  ///
  /// As ``init(features:labels:classes:scale:offset:)`` in all else.
  public init(unlabelledFeatures path: String, scale: Double? = nil, offset: Double = 0) throws(FileError) {
    let features = try DataFile(path)
    // Examples without features take no bytes: nothing but the header would limit their number.
    guard !features.shape.dropFirst().contains(0) else {
      throw FileError(
        path: path, kind: .mismatch, expected: "examples with at least one feature", found: "shape \(features.shape)")
    }
    try self.init(
      features, labels: Array(repeating: 0, count: features.shape.first ?? 0), classes: 1, scale: scale, offset: offset,
      featuresPath: path, labelsPath: path)
  }

  private init(
    _ features: DataFile, labels: [Int], classes: Int?, scale: Double?, offset: Double, featuresPath: String,
    labelsPath: String
  ) throws(FileError) {
    if let (bytes, owner) = features.rowMajorBytes {
      // A file without examples has no address; any serves, for nothing is read.
      let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? UnsafePointer(bitPattern: 1)!
      try self.init(
        .bytes(start, owner: owner), shape: features.shape, labels: labels, classes: classes, scale: scale ?? 1 / 255,
        offset: offset, featuresPath: featuresPath, labelsPath: labelsPath)
    } else {
      let tensor: Tensor<Scalar> = features.tensor().contiguous()
      try self.init(
        .scalars(tensor), shape: features.shape, labels: labels, classes: classes, scale: scale ?? 1, offset: offset,
        featuresPath: featuresPath, labelsPath: labelsPath)
      try Self.checkFinite(tensor, path: featuresPath)
    }
  }

  private init(
    _ contents: Contents, shape: [Int], labels: [Int], classes: Int?, scale: Double, offset: Double,
    featuresPath: String, labelsPath: String
  ) throws(FileError) {
    guard shape.count >= 2 else {
      throw FileError(
        path: featuresPath, kind: .mismatch, expected: "features with an axis of examples and at least one more",
        found: "shape \(shape)")
    }
    guard shape[0] == labels.count else {
      throw FileError(
        path: labelsPath, kind: .mismatch, expected: "\(shape[0]) labels, one for each example of \(featuresPath)",
        found: "\(labels.count) labels")
    }
    // A model makes room for every class: a broken label must not decide how much.
    let limit = classes ?? 1 << 20
    if let index = labels.firstIndex(where: { !(0..<limit).contains($0) }) {
      throw FileError(
        path: labelsPath, kind: .outOfRange, expected: "labels in 0 ..< \(limit)",
        found: "\(labels[index]) at index \(index)")
    }
    self.init(
      contents, firstRow: 0, labels: labels, classes: classes ?? (labels.max() ?? -1) + 1,
      featureShape: Array(shape.dropFirst()), scale: scale, offset: offset)
  }

  private init(
    _ contents: Contents, firstRow: Int, labels: [Int], classes: Int, featureShape: [Int], scale: Double, offset: Double
  ) {
    self.contents = contents
    self.firstRow = firstRow
    self.labels = labels
    self.classes = classes
    self.featureShape = featureShape
    self.scale = scale
    self.offset = offset
  }

  private static func checkFinite(_ features: Tensor<Scalar>, path: String) throws(FileError) {
    let broken = features.withUnsafeBufferPointer { scalars -> Int? in
      guard let base = scalars.baseAddress else { return nil }
      return Scalar.kernels.all_finite(base, scalars.count) ? nil : scalars.firstIndex { !$0.isFinite }
    }
    guard let broken else { return }
    let columns = features.count / features.shape[0]
    throw FileError(
      path: path, kind: .notFinite, expected: "finite features",
      found: "\(features.withUnsafeBufferPointer { $0[broken] }) at row \(broken / columns), column \(broken % columns)"
    )
  }

  // MARK: - Using them

  /// All features as they come in batches, of shape `[count] + featureShape`.
  public var features: Tensor<Scalar> { batch(rows: Array(0..<count)).features }

  /// The examples `rows`, in that order: features of shape `[rows.count] + featureShape`, and a label for each.
  public func batch(rows: [Int]) -> (features: Tensor<Scalar>, labels: [Int]) {
    for row in rows {
      require(0..<count ~= row, "Dataset.batch: row \(row) is not among the \(count) examples")
    }
    let width = featureCount
    let features = Tensor<Scalar>(uninitialized: [rows.count] + featureShape)
    let (shift, scale, offset) = (shift, scale, offset)
    let firstRow = firstRow
    Parallel.ranges(rows.count, grain: max(1, Parallel.elementGrain / max(width, 1))) { range in
      switch contents {
      case .bytes(let base, _):
        for index in range {
          let source = base + (firstRow + rows[index]) * width
          let target = features.address + index * width
          if shift == 0 {
            Scalar.kernels.convert_bytes(source, scale, offset, target, width)
          } else {
            Scalar.kernels.convert_bytes(source, 1, -Double(shift), target, width)
            Scalar.kernels.affine(target, scale, offset, target, width)
          }
        }
      case .scalars(let tensor):
        for index in range {
          let source = tensor.address + (firstRow + rows[index]) * width
          let target = features.address + index * width
          if shift != 0 {
            Scalar.kernels.run_normalize(
              STEPPE_IDENTITY, 0, source, target, width, 1, width, Double(shift), scale, offset, false, false)
          } else if scale != 1 || offset != 0 {
            Scalar.kernels.affine(source, scale, offset, target, width)
          } else {
            target.update(from: source, count: width)
          }
        }
      }
    }
    return (features, rows.map { labels[$0] })
  }

  /// The examples `rows`, such as those kept for validation; shares this one's memory.
  public func subset(_ rows: Range<Int>) -> Dataset {
    require(
      rows.lowerBound >= 0 && rows.upperBound <= count,
      "Dataset.subset: rows \(rows) are not among the \(count) examples")
    var result = Dataset(
      contents, firstRow: firstRow + rows.lowerBound, labels: Array(labels[rows]), classes: classes,
      featureShape: featureShape, scale: scale, offset: offset)
    result.shift = shift
    return result
  }

  /// The same examples with features of another shape and as many elements, such as `[1, 28, 28]` for a convolution.
  public func withFeatureShape(_ shape: [Int]) -> Dataset {
    require(
      checkedCount(shape) == featureCount,
      "Dataset.withFeatureShape: shape \(shape) does not have the \(featureCount) elements of \(featureShape)")
    var result = self
    result.featureShape = shape
    return result
  }

  /// The same examples with features less `mean`, divided by `deviation`, both in the units of this data set's batches.
  ///
  /// However large the mean is against the deviation, it costs no accuracy: a number near it, ``shift``, is subtracted from the features
  /// as they are stored, which is exact, before they are multiplied.
  public func standardized(mean: Double, deviation: Double) -> Dataset {
    require(deviation > 0, "Dataset.standardized: expected a positive deviation, got \(deviation)")
    var result = self
    result.scale = scale / deviation
    // The stored feature that becomes 0.
    let zero = Double(shift) + (mean - offset) / scale
    var near = Scalar(zero)
    if case .bytes = contents {
      // Bytes take a pass more, which a mean of a few deviations is not worth: it costs no more bits. Whole numbers less a whole number
      // are exact.
      near = abs(zero * result.scale) > 8 ? near.rounded() : shift
    }
    if near.isFinite { result.shift = near }
    result.offset = (Double(result.shift - shift) * scale + offset - mean) / deviation
    return result
  }
}

/// The parts into which Fashion-MNIST is divided.
public enum FashionMNISTSplit: String, Sendable, CaseIterable {
  /// 60 000 images.
  case training = "train"
  /// 10 000 images.
  case test = "t10k"
}

extension Dataset {
  /// Fashion-MNIST: grey images of 28 × 28 pixels from 0 to 1, in 10 classes.
  ///
  /// - Parameters:
  ///   - folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the `t10k` pair, each also with `.gz`;
  ///     by default that of Debian's package `dataset-fashion-mnist`.
  ///   - split: the training or the test images.
  ///   - featureShape: the shape of one image.
  /// - Throws: ``FileError``, where the files are missing with the package's name; and those of
  ///   ``init(features:labels:classes:scale:offset:)``.
  public static func fashionMNIST(
    folder: String = "/usr/share/datasets/fashion-mnist", split: FashionMNISTSplit, featureShape: [Int] = [784]
  ) throws(FileError) -> Dataset {
    func path(_ name: String) throws(FileError) -> String {
      let plain = "\(folder)/\(split.rawValue)-\(name)-ubyte"
      for path in [plain + ".gz", plain] where access(path, F_OK) == 0 { return path }
      throw FileError(
        path: plain + ".gz", kind: .missing,
        expected: "Fashion-MNIST (Debian's package dataset-fashion-mnist, or another folder)",
        found: FileError.reason(ENOENT))
    }
    let images = try path("images-idx3")
    let dataset = try Dataset(features: images, labels: path("labels-idx1"), classes: 10)
    guard dataset.featureShape == [28, 28] else {
      throw FileError(
        path: images, kind: .mismatch, expected: "images of shape [28, 28]", found: "\(dataset.featureShape)")
    }
    return dataset.withFeatureShape(featureShape)
  }
}

/// A file of numbers in a format that its first bytes tell.
private enum DataFile {
  case idx(IDXFile)
  case npy(NPYFile)

  init(_ path: String) throws(FileError) {
    let file = try MappedFile.nonEmpty(path, expected: "an IDX or NPY file")
    self = NPY.accepts(file.bytes) ? .npy(try NPYFile(file)) : .idx(try IDX.read(path))
  }

  var shape: [Int] {
    switch self {
    case .idx(let file): file.shape
    case .npy(let file): file.shape
    }
  }

  var rowMajorBytes: (bytes: UnsafeRawBufferPointer, owner: AnyObject)? {
    switch self {
    case .idx(let file): file.elementType == .uint8 ? (file.numbers.bytes, file.numbers.owner) : nil
    case .npy(let file): file.rowMajorBytes
    }
  }

  func tensor<Scalar: TensorScalar>() -> Tensor<Scalar> {
    switch self {
    case .idx(let file): file.tensor()
    case .npy(let file): file.tensor()
    }
  }

  func integers() throws(FileError) -> [Int] {
    switch self {
    case .idx(let file): try file.integers()
    case .npy(let file): try file.integers()
    }
  }
}
