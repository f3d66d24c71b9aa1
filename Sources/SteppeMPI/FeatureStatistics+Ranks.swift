#if MPI
  import Steppe

  extension FeatureStatistics {
    /// The statistics of the rows of all ranks together, merged in the order of ranks: the same on each (Mathematics §2, §14). A collective.
    ///
    /// A rank without rows brings statistics of none, of as many features.
    ///
    /// - Throws: ``RankError``, where the ranks' features differ with the difference.
    public func merged(over ranks: Communicator) throws -> FeatureStatistics {
      let all = try ranks.allGather(Array(json.serialized().utf8)).map { try JSONValue(parsing: $0) }
      var result: FeatureStatistics?
      for (rank, json) in all.enumerated() {
        let part = try Self.reading(json)
        if let first = result {
          if part.count != first.count || part.names != first.names {
            throw RankError.different([
              RankDifference(name: "features", first: first.listed, rank: rank, other: part.listed)
            ])
          }
          result!.merge(part)
        } else {
          result = part
        }
      }
      return result!
    }

    private var listed: String { "\(count)" + (names.isEmpty ? "" : " (\(names.joined(separator: ", ")))") }

    private var json: JSONValue {
      .object([
        .init("names", .array(names.map { .string($0) })), .init("rows", .integer(rows)),
        // As bits, which infinities have too.
        .init(
          "moments",
          .array(
            moments.map { moment in
              let numbers = [
                moment.count, moment.mean.high, moment.mean.low, moment.squares.high, moment.squares.low,
                moment.minimum,
                moment.maximum,
              ]
              return .array(numbers.map { .string(String($0.bitPattern)) })
            })),
      ])
    }

    private static func reading(_ json: JSONValue) throws -> FeatureStatistics {
      guard case .array(let names)? = json["names"], case .integer(let rows)? = json["rows"],
        case .array(let features)? = json["moments"]
      else { throw RankError.mpi(call: "MPI_Iallgather", text: "expected statistics of features, got something else") }
      let moments = features.map { feature in
        var moment = FeatureMoment()
        guard case .array(let texts) = feature else { return moment }
        let numbers = texts.compactMap { text -> Double? in
          guard case .string(let bits) = text else { return nil }
          return UInt64(bits).map { Double(bitPattern: $0) }
        }
        guard numbers.count == 7 else { return moment }
        moment.count = numbers[0]
        moment.mean = DoubleDouble(high: numbers[1], low: numbers[2])
        moment.squares = DoubleDouble(high: numbers[3], low: numbers[4])
        (moment.minimum, moment.maximum) = (numbers[5], numbers[6])
        return moment
      }
      return FeatureStatistics(
        names: names.compactMap { if case .string(let name) = $0 { name } else { nil } }, rows: rows, moments: moments)
    }
  }

  extension FeatureStandardizer {
    /// The standardization by the rows of all ranks' files, each rank's its own; the same on all ranks. A collective.
    ///
    /// - Parameter files: This rank's files, with the same features; at least one.
    /// - Throws: ``RankError``: of the rank whose file can't be read, or where the ranks' features differ.
    public static func fit(_ files: [FeatureFile], over ranks: Communicator) throws -> FeatureStandardizer {
      let own = try ranks.agree {
        try ranks.busy {
          var own: FeatureStatistics?
          for file in files {
            let statistics = try file.statistics()
            if own == nil { own = statistics } else { own!.merge(statistics) }
          }
          guard let own else {
            throw FileError(path: "files", kind: .empty, expected: "at least one file on each rank", found: "none")
          }
          return own
        }
      }
      return try FeatureStandardizer(own.merged(over: ranks), source: "the ranks' files")
    }
  }
#endif
