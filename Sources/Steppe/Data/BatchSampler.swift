/// The order in which training visits its examples: batches of rows, anew in each epoch.
///
/// ```swift
/// var sampler = BatchSampler(count: dataset.count, batchSize: 128, seed: 1)
/// while let rows = sampler.next() {          // one epoch; the next call begins the next one
///   let (features, labels) = dataset.batch(rows: rows)
/// }
/// ```
///
/// An epoch's order depends on the seed and the epoch's number alone, so ``position`` is all that a checkpoint needs to
/// keep.
public struct BatchSampler: Sendable {
  /// Where the sampler stands.
  public struct Position: Sendable, Hashable {
    /// The epoch, from 0.
    public var epoch: Int
    /// The batch of the epoch that comes next, from 0.
    public var batch: Int

    /// The start of batch `batch` of epoch `epoch`.
    public init(epoch: Int = 0, batch: Int = 0) {
      self.epoch = epoch
      self.batch = batch
    }
  }

  /// The number of examples.
  public let count: Int
  /// The number of rows in each batch; the last one may have fewer.
  public let batchSize: Int
  /// Whether each epoch has a random order of its own; else rows come in order.
  public let shuffles: Bool
  /// Whether an incomplete last batch is left out.
  public let dropsLast: Bool
  /// Chooses the orders.
  public let seed: UInt64
  /// Where the sampler stands; may be set, to go on from a checkpoint.
  public var position: Position {
    didSet {
      require(
        position.epoch >= 0 && 0...batchesPerEpoch ~= position.batch,
        "BatchSampler.position: expected an epoch from 0 and a batch in 0 … \(batchesPerEpoch), got \(position)")
      if position.epoch != oldValue.epoch { order = nil }
    }
  }
  /// The epoch's rows, made at its first batch.
  private var order: [Int]?

  /// A sampler of `count` examples that stands at the start.
  ///
  /// - Parameters:
  ///   - count: the number of examples.
  ///   - batchSize: the number of rows in each batch.
  ///   - shuffle: whether each epoch has a random order of its own.
  ///   - dropLast: leaves out an incomplete last batch. By default it is kept, so that every example is seen in every
  ///     epoch. Batch normalization cannot train on a batch of one row without spatial positions: drop it where
  ///     `count % batchSize` is 1.
  ///   - seed: chooses the orders; the same seed gives the same ones on every machine.
  public init(count: Int, batchSize: Int, shuffle: Bool = true, dropLast: Bool = false, seed: UInt64 = 0) {
    require(count >= 0 && batchSize >= 1, "BatchSampler: count \(count) and batch size \(batchSize)")
    self.count = count
    self.batchSize = batchSize
    shuffles = shuffle
    dropsLast = dropLast
    self.seed = seed
    position = Position()
  }

  /// The number of batches in an epoch.
  public var batchesPerEpoch: Int {
    dropsLast || count % batchSize == 0 ? count / batchSize : count / batchSize + 1
  }

  /// The rows of the next batch; nil at the end of an epoch, after which the next epoch begins.
  public mutating func next() -> [Int]? {
    guard position.batch < batchesPerEpoch else {
      position = Position(epoch: position.epoch + 1)
      return nil
    }
    let rows = position.batch * batchSize..<min(count, (position.batch + 1) * batchSize)
    position.batch += 1
    guard shuffles else { return Array(rows) }
    let order = order ?? shuffled()
    self.order = order
    return Array(order[rows])
  }

  private func shuffled() -> [Int] {
    var generator = RandomGenerator(seed: seed, stream: UInt64(position.epoch))
    return generator.permutation(count)
  }
}
