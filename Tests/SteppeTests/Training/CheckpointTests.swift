import Foundation
import Testing

import Steppe

extension TrainingTests {
  /// `model.save` and `model.load`.
  @Suite struct CheckpointTests {
    let folder = TemporaryFolder()

    /// The differences that loading `path` into `model` is refused for.
    private func differences<Scalar: TensorScalar>(
      _ path: String, _ model: some Layer<Scalar>, sourceLocation: SourceLocation = #_sourceLocation
    ) -> [CheckpointDifference] {
      let before = model.state.map { $0.get() }
      do throws(CheckpointError) {
        try model.load(from: path)
        return []
      } catch {
        #expect(model.state.map { $0.get() } == before, "the model has changed", sourceLocation: sourceLocation)
        guard case .mismatch(path, let differences) = error else {
          Issue.record("\(error)", sourceLocation: sourceLocation)
          return []
        }
        return differences
      }
    }

    @Test func aModelComesBack() throws {
      let (model, other) = (network(seed: 1), network(seed: 2))
      _ = model.forward(twoClasses(9, as: Float.self).features)
      try model.save(to: folder("model"), metadata: ["note": "first", "steppe.format": "9"])
      #expect(model.state.map { $0.get() } != other.state.map { $0.get() })
      try other.load(from: folder("model"))
      #expect(model.state.map { $0.get() } == other.state.map { $0.get() })
      let file = try SafetensorsFile(folder("model"))
      #expect(file.names.starts(with: ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"]))
      #expect(file.metadata["note"] == "first" && file.metadata["steppe.format"] == "1")
      // The model has memory of its own.
      try model.load(from: folder("model"))
      truncate(folder("model"), 0)
      #expect(model.parameters[0].value.isAllFinite())
    }

    @Test func everyDifferenceIsListed() throws {
      let saved = Sequential<Float>(seed: 1) {
        Dense(6, 8)
        BatchNorm(8)
        Dense(8, 3, bias: false)
      }
      let model = Sequential<Float>(seed: 2) {
        Dense(6, 9)
        BatchNorm(8, affine: false)
        Dense(8, 3)
      }
      try saved.save(to: folder("saved"))
      #expect(
        differences(folder("saved"), model) == [
          .shape(name: "0.weight", expected: [9, 6], found: [8, 6]),
          .shape(name: "0.bias", expected: [9], found: [8]),
          .missing(name: "2.bias", shape: [3]),
          .unexpected(name: "1.weight", shape: [8]),
          .unexpected(name: "1.bias", shape: [8]),
        ])
      let error = #expect(throws: CheckpointError.self) { try model.load(from: self.folder("saved")) }
      #expect(
        "\(error!)" == folder("saved")
          + ": not a checkpoint of this model: '0.weight' is expected as [9, 6] and found as "
          + "[8, 6]; '0.bias' is expected as [9] and found as [8]; '2.bias' [3] is missing; '1.weight' [8] is not in the "
          + "model; '1.bias' [8] is not in the model")
    }

    @Test func typesAreConvertedWhereTheyCanBe() throws {
      let (single, double) = (network(), Sequential<Double>(seed: 4) { Dense(6, 2) })
      try double.save(to: folder("double"))
      let model = Sequential<Float>(seed: 5) { Dense(6, 2) }
      try model.load(from: folder("double"))
      #expect(model.parameters[0].value.scalars == double.parameters[0].value.scalars.map { Float($0) })

      var writer = SafetensorsWriter()
      writer.add([Int64](repeating: 1, count: 12), shape: [2, 6], named: "0.weight")
      writer.add(Tensor<Float>([0.5, 1]), named: "0.bias")
      try writer.write(to: folder("integers"))
      #expect(
        differences(folder("integers"), model) == [
          .type(name: "0.weight", expected: "floating-point numbers", found: .int64)
        ])

      writer = SafetensorsWriter()
      for entry in single.state {
        switch entry.get() {
        case .tensor(let tensor): writer.add(tensor, named: entry.key)
        case .integer: writer.add([-1], shape: [], named: entry.key)
        }
      }
      try writer.write(to: folder("negative"))
      #expect(
        differences(folder("negative"), single) == [
          .value(name: "1.num_batches_tracked", expected: "a count from 0", found: -1)
        ])
    }

    @Test func otherVersionsAndDamagedFiles() throws {
      let model = network()
      var writer = SafetensorsWriter(metadata: ["steppe.format": "2"])
      writer.add(model.state)
      try writer.write(to: folder("newer"))
      let newer = CheckpointError.newerVersion(path: folder("newer"), found: "2", supported: 1)
      #expect(throws: newer) { try model.load(from: self.folder("newer")) }
      writer.metadata["steppe.format"] = "new"
      try writer.write(to: folder("strange"))
      #expect(throws: CheckpointError.self) { try model.load(from: self.folder("strange")) }

      try model.save(to: folder("model"))
      var content = bytes(of: folder("model"))
      content[content.count - 3] ^= 4
      _ = folder.file("corrupted", content)
      _ = folder.file("truncated", content.dropLast(5))
      for (name, kind) in [("corrupted", FileError.Kind.corrupted), ("truncated", .truncated), ("none", .missing)] {
        let error = #expect(throws: CheckpointError.self) { try model.load(from: self.folder(name)) }
        guard case .file(let cause) = error else {
          Issue.record("\(name): \(error!)")
          continue
        }
        #expect(cause.kind == kind && cause.path == folder(name))
      }
    }

    @Test func whatCannotBeWritten() {
      for path in ["/dev/full", folder("no/such/model"), "/proc/model"] {
        let error = #expect(throws: FileError.self) { try network().save(to: path) }
        #expect(error?.kind == .cannotWrite && error?.path == path)
      }
    }
  }
}
