import Glibc

/// Standard error, and what it is connected to.
enum Console {
  /// Whether standard error is a terminal that can rewrite a line.
  static let isTerminal: Bool =
    isatty(STDERR_FILENO) == 1 && getenv("TERM").map { String(cString: $0) } != "dumb"

  /// The terminal's width in characters.
  static var width: Int {
    var size = winsize()
    guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return Int(size.ws_col)
  }

  /// Writes `text` and a line's end.
  static func error(_ text: String) { write(text + "\n") }

  /// Writes `text` as it is; what standard error does not take is lost, for there is no other place to say so.
  static func write(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      var rest = bytes[...]
      while !rest.isEmpty {
        let written = Glibc.write(STDERR_FILENO, UnsafeRawPointer(rest.baseAddress!), rest.count)
        if written < 0, errno == EINTR { continue }
        guard written > 0 else { return }
        rest = rest.dropFirst(written)
      }
    }
  }
}

extension Slice<UnsafeBufferPointer<UInt8>> {
  fileprivate var baseAddress: UnsafePointer<UInt8>? { UnsafeBufferPointer(rebasing: self).baseAddress }
}

/// One line on the terminal that says how far a long task is, rewritten in place; nothing where standard error is no terminal.
struct ProgressLine {
  private var lastShown: ContinuousClock.Instant?
  private var isShown = false
  private let isQuiet: Bool

  init(quiet: Bool) { isQuiet = quiet }

  /// Shows `text()`, at most ten times a second; a text wider than the terminal is cut.
  mutating func show(_ text: () -> String) {
    guard !isQuiet, Console.isTerminal else { return }
    let now = ContinuousClock.now
    if let lastShown, now - lastShown < .milliseconds(100) { return }
    lastShown = now
    isShown = true
    Console.write("\r" + text().prefix(Console.width - 1) + "\u{1B}[K")
  }

  /// Writes `text` as a line of its own, above which nothing remains of what was shown.
  mutating func write(_ text: String) {
    clear()
    if !isQuiet { Console.error(text) }
  }

  /// Removes what was shown.
  mutating func clear() {
    if isShown { Console.write("\r\u{1B}[K") }
    isShown = false
  }
}
