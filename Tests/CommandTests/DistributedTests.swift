#if !MPI
  import Testing

  /// `steppe train` on several processes, in a build without MPI; Tests/MPITests has those with it.
  @Suite struct DistributedTests {
    @Test(arguments: [
      (["--distributed"], [:]), ([], ["PMI_RANK": "0", "PMI_SIZE": "2"]), ([], ["OMPI_COMM_WORLD_SIZE": "2"]),
      ([], ["PMIX_RANK": "1"]), ([], ["PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "4"]),
    ])
    func aBuildWithoutMPISaysHowToBuildWithIt(arguments: [String], environment: [String: String]) throws {
      let folder = try Folder()
      let command = try Command(["train", "--output", "run"] + arguments, in: folder, environment: environment)
      let outcome = try command.outcome()
      #expect(outcome.code == 1)
      #expect(outcome.errors.contains("swift build -c release --traits MPI --product steppe"), "\(outcome.errors)")
      #expect(!folder.exists("run"))
    }

    /// What a shell of a batch system leaves to a process that is alone.
    @Test(arguments: [
      ["PMI_RANK": "0"], ["PMI_RANK": "0", "PMI_SIZE": "1"], ["OMPI_COMM_WORLD_SIZE": "1"], ["PMIX_RANK": "0"],
      ["PMI_SIZE": "many"],
    ])
    func oneProcessNeedsNoMPI(environment: [String: String]) throws {
      let folder = try Folder()
      let command = try Command(
        ["train", "--output", "run", "--train-images", "none.npy", "--train-labels", "none.npy"], in: folder,
        environment: environment)
      let outcome = try command.outcome()
      #expect(outcome.code == 1)
      #expect(outcome.errors.contains("none.npy"), "\(outcome.errors)")
    }
  }
#endif
