#if !MPI
  import Testing

  /// `steppe train` on several processes, in a build without MPI; Tests/MPITests has those with it.
  @Suite struct DistributedTests {
    @Test(arguments: [(["--distributed"], [:]), ([], ["PMI_RANK": "0"]), ([], ["OMPI_COMM_WORLD_SIZE": "2"])])
    func aBuildWithoutMPISaysHowToBuildWithIt(arguments: [String], environment: [String: String]) throws {
      let folder = try Folder()
      let command = try Command(["train", "--output", "run"] + arguments, in: folder, environment: environment)
      let outcome = try command.outcome()
      #expect(outcome.code == 1)
      #expect(outcome.errors.contains("swift build -c release --traits MPI --product steppe"), "\(outcome.errors)")
      #expect(!folder.exists("run"))
    }
  }
#endif
