import Glibc
import Synchronization

/// The wish of the person at the terminal, or of the system, that the program ends.
enum Interruption {
  /// The signal that came, or 0.
  private static let arrived = Atomic<Int32>(0)

  /// The signal that came; nil as long as none has.
  static var signal: Int32? {
    let number = arrived.load(ordering: .relaxed)
    return number == 0 ? nil : number
  }

  /// From now on the first SIGINT or SIGTERM is noted alone, and the second ends the process at once.
  static func watch() {
    // A handler must not be the first to touch what is made at its first use.
    arrived.store(0, ordering: .relaxed)
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGINT, SIGTERM] {
      sigaddset(&signals, number)
      _ = Glibc.signal(number) { number in
        if Interruption.arrived.exchange(number, ordering: .relaxed) != 0 { _exit(128 + number) }
      }
    }
    // Whoever started the program may have left them blocked.
    pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  }
}
