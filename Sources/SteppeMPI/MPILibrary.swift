#if MPI
  import CMPI
  import Steppe

  /// The process's MPI, started at the first use. MPI allows that once in a process, and so there is one of these.
  final class MPILibrary: @unchecked Sendable {
    /// Held during every call into MPI, which is started for one thread at a time.
    let lock = Lock()
    /// Types and operations of our own.
    let registry: UnsafeMutablePointer<steppe_mpi_registry>

    static let shared: Result<MPILibrary, RankError> = {
      do throws(RankError) { return .success(try MPILibrary()) } catch { return .failure(error) }
    }()

    private init() throws(RankError) {
      var flag: Int32 = 0
      try Self.check("MPI_Initialized", steppe_mpi_is_started(&flag))
      guard flag == 0 else {
        throw .mpi(
          call: "MPI_Init_thread", text: "expected to start MPI, found it started by another part of the program")
      }
      try Self.check("MPI_Init_thread", steppe_mpi_start(&flag))
      guard flag != 0 else {
        throw .mpi(
          call: "MPI_Init_thread", text: "expected MPI_THREAD_SERIALIZED, found a library that serves one thread only")
      }
      registry = .allocate(capacity: 1)
      registry.initialize(to: steppe_mpi_registry())
      try Self.check("MPI_Op_create", steppe_mpi_register(registry))
    }

    /// Throws MPI's text for a code that is not success.
    static func check(_ call: String, _ code: Int32) throws(RankError) {
      if code == 0 { return }
      throw .mpi(call: call, text: text { steppe_mpi_error_text(code, $0) })
    }

    /// What MPI writes into a buffer.
    static func text(_ body: (UnsafeMutablePointer<CChar>) -> Int32) -> String {
      withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(STEPPE_MPI_TEXT) + 1) { buffer in
        _ = body(buffer.baseAddress!)
        return String(cString: buffer.baseAddress!).split(separator: "\n").joined(separator: " ")
      }
    }
  }
#endif
