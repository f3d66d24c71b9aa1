// Training on several processes: mpirun -n 4 Distributed
//
// Every process makes the same model and goes through the same batches, of which each takes its part. Rank 0 reports.
import Foundation
import Steppe
import SteppeMPI

RankGuard.start()
let ranks = try Communicator.world()

do {
  // Three clusters of points in the plane.
  var generator = RandomGenerator(seed: 1)
  let noise = Tensor<Float>.randomNormal(shape: [900, 2], using: &generator)
  let labels = (0..<900).map { $0 % 3 }
  let centers = Tensor<Float>([[0, 2], [2, -1], [-2, -1]])
  let features = Tensor(labels.map { [centers[$0, 0], centers[$0, 1]] }) + noise * 0.6
  let data = try Dataset(features: features, labels: labels)

  let model = Sequential<Float>(seed: 1) {
    Dense(2, 32, bias: false)
    BatchNorm(32)
    ReLU()
    Dense(32, 3)
  }.synchronized(over: ranks)
  let trainer = Trainer(model: model, optimizer: SGD(model.parameters, learningRate: 0.1, momentum: 0.9))
  trainer.configuration.epochs = 5
  trainer.configuration.batchSize = 90
  trainer.distribute(over: ranks)
  let report = try trainer.fit(training: data)

  if ranks.rank == 0 {
    let accuracy = try evaluate(model, on: data).accuracy
    print("\(ranks.size) ranks, \(report.step) steps: \(Int(100 * accuracy)) % of the points are in their cluster")
  }
  try ranks.finish()
} catch {
  // Rank 0 speaks for all where all know of it; a rank that is alone with an error says so itself, and ends the others too.
  let isKnownToAll = (error as? RankError)?.isKnownToAll ?? false
  if ranks.rank == 0 || !isKnownToAll {
    FileHandle.standardError.write(Data("rank \(ranks.rank): \(error)\n".utf8))
  }
  ranks.abort()
}
