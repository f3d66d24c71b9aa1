// Tests of SteppeMPI. `steppe-mpi-tests` starts itself under mpirun for each case and number of ranks; `steppe-mpi-tests rank CASE` is one
// of those processes. See script/mpi.
import Foundation

#if MPI
  let arguments = Array(CommandLine.arguments.dropFirst())
  switch arguments.first {
  case "rank" where arguments.count >= 2: runRank(arguments[1], Array(arguments.dropFirst(2)))
  case "measure": runMeasurement(Array(arguments.dropFirst()))
  default: exit(Launcher(arguments).run() ? 0 : 1)
  }
#else
  FileHandle.standardError.write(Data("steppe-mpi-tests: built without MPI; script/mpi builds it with\n".utf8))
  exit(64)
#endif
