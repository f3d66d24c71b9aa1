import ArgumentParser
import Steppe

enum DataName: String, CaseIterable, ExpressibleByArgument {
  case fashionMNIST = "fashion-mnist"
}

/// Where examples come from: the Fashion-MNIST data set, or a person's own files.
struct DataSelection: Equatable {
  /// Fashion-MNIST's folder; nil for that of the system's package.
  var folder: String?
  /// Own files; Fashion-MNIST where both are nil.
  var training: Files?
  var test: Files?
  /// A person's own table.
  var table: TableSelection?

  struct Files: Equatable {
    var images: String
    var labels: String
  }

  /// Whether these are a person's own files.
  var isOwn: Bool { training != nil || test != nil || table != nil }

  /// The classes' names; none for own files.
  var classNames: [String] {
    isOwn
      ? []
      : [
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
      ]
  }

  /// The examples to train with, in the shape that their file has.
  func trainingExamples(classes: Int?) throws(FileError) -> Dataset<Float> {
    if let training { return try Self.read(training, classes: classes) }
    return try fashionMNIST(.training)
  }

  /// The examples to test with, likewise; nil where own files have none.
  func testExamples(classes: Int?) throws(FileError) -> Dataset<Float>? {
    if let test { return try Self.read(test, classes: classes) }
    return isOwn ? nil : try fashionMNIST(.test)
  }

  private func fashionMNIST(_ split: FashionMNISTSplit) throws(FileError) -> Dataset<Float> {
    let shape = [28, 28]
    if let folder { return try .fashionMNIST(folder: folder, split: split, featureShape: shape) }
    return try .fashionMNIST(split: split, featureShape: shape)
  }

  private static func read(_ files: Files, classes: Int?) throws(FileError) -> Dataset<Float> {
    let examples = try Dataset<Float>(features: files.images, labels: files.labels, classes: classes)
    guard examples.count > 0, !examples.featureShape.contains(0) else {
      throw FileError(
        path: files.images, kind: .mismatch, expected: "at least one example of at least one feature",
        found: "shape \([examples.count] + examples.featureShape)")
    }
    return examples
  }
}

extension Dataset {
  /// The same examples, each as one row of features.
  var asRows: Dataset { withFeatureShape([featureShape.reduce(1, *)]) }
}

/// A person's own files to train with.
struct OwnTrainingFiles: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Own images to train with, in IDX (also gzip) or NPY; bytes are divided by 255.", valueName: "file"))
  var trainImages: String?

  @Option(help: ArgumentHelp("The labels of the training images: integers from 0 in IDX or NPY.", valueName: "file"))
  var trainLabels: String?

  func validate() throws { try checkPair("train", trainImages, trainLabels) }

  /// Nil where none were chosen.
  var files: DataSelection.Files? { .init(images: trainImages, labels: trainLabels) }
}

/// The files to test with.
struct TestFiles: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The folder of Fashion-MNIST's four files. (default: /usr/share/datasets/fashion-mnist)", valueName: "folder"))
  var dataFolder: String?

  @Option(
    help: ArgumentHelp(
      "Own images to test with, in IDX (also gzip) or NPY; bytes are divided by 255.", valueName: "file"))
  var testImages: String?

  @Option(help: ArgumentHelp("The labels of the test images: integers from 0 in IDX or NPY.", valueName: "file"))
  var testLabels: String?

  func validate() throws { try checkPair("test", testImages, testLabels) }

  /// Nil where none were chosen.
  var files: DataSelection.Files? { .init(images: testImages, labels: testLabels) }

  /// Refuses own files to test with without those to train with.
  static func check(_ test: DataSelection.Files?, beside training: DataSelection.Files?) throws {
    if test != nil, training == nil {
      throw ValidationError("--test-images: expected --train-images and --train-labels beside it, found neither")
    }
  }
}

private func checkPair(_ name: String, _ images: String?, _ labels: String?) throws {
  if (images == nil) != (labels == nil) {
    throw ValidationError("--\(name)-images and --\(name)-labels go together: expected both, found one")
  }
}

extension DataSelection.Files {
  fileprivate init?(images: String?, labels: String?) {
    guard let images, let labels else { return nil }
    (self.images, self.labels) = (images, labels)
  }
}

struct DataOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A data set known by name, fashion-mnist, or a table of comma-separated values. (default: fashion-mnist, where no files are given)",
      valueName: "name or file"))
  var data: String?

  @OptionGroup var test: TestFiles

  /// The table that was chosen.
  var table: String? { data == DataName.fashionMNIST.rawValue ? nil : data }

  /// The chosen data beside `training`, a person's own training files.
  func selection(training: DataSelection.Files? = nil) throws -> DataSelection {
    if training != nil || test.files != nil, data != nil || test.dataFolder != nil {
      throw ValidationError(
        "--data and --data-folder choose Fashion-MNIST or a table: expected either these or own files, found both")
    }
    if table != nil, test.dataFolder != nil {
      throw ValidationError("--data-folder: expected Fashion-MNIST as --data, found a table")
    }
    return DataSelection(folder: test.dataFolder, training: training, test: test.files)
  }

  /// Whether anything was chosen.
  var isEmpty: Bool { data == nil && test.dataFolder == nil && test.files == nil }
}
