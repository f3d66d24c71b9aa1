import Glibc
import Steppe
import SteppeExperiments

/// Draws pictures by the program `gnuplot`.
enum Gnuplot {
  /// A picture in SVG and PNG.
  struct Picture {
    /// The files' path without its extension.
    let path: String
    /// In pixels.
    let width: Int
    let height: Int
    /// What draws, after the terminal and the output are set.
    let script: String
  }

  /// One for each thing in all pictures.
  enum Colors {
    static let training = Palette.blue.rawValue
    static let validation = Palette.green.rawValue
    static let test = Palette.vermilion.rawValue
  }

  /// Draws `picture` and returns the files made.
  ///
  /// - Throws: ``Failure`` where gnuplot is not installed or fails.
  static func draw(_ picture: Picture) throws(Failure) -> [String] {
    let (svg, png) = (picture.path + ".svg", picture.path + ".png")
    try run(
      """
      set encoding utf8
      set terminal svg size \(picture.width),\(picture.height) font 'DejaVu Sans,Helvetica,Arial,sans-serif,13' \
      background rgb 'white'
      set output \(quoted(svg))
      \(picture.script)
      unset output
      reset
      set terminal pngcairo size \(2 * picture.width),\(2 * picture.height) fontscale 2 linewidth 2 pointscale 2 \
      font 'DejaVu Sans,10' background rgb 'white'
      set output \(quoted(png))
      \(picture.script)
      unset output
      """)
    return [svg, png]
  }

  /// `text` as gnuplot's literal string.
  static func quoted(_ text: String) -> String {
    "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''") + "'"
  }

  /// Gives `script` to gnuplot.
  private static func run(_ script: String) throws(Failure) {
    // Files without a name, unlike pipes, take all of the script and all of what gnuplot says without a reader at the other end.
    guard let input = tmpfile(), let output = tmpfile() else {
      throw Failure("gnuplot: no temporary file: \(String(cString: strerror(errno)))")
    }
    defer {
      fclose(input)
      fclose(output)
    }
    guard fputs(script, input) >= 0, fflush(input) == 0 else {
      throw Failure("gnuplot: no room for its script: \(String(cString: strerror(errno)))")
    }
    rewind(input)

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, fileno(input), STDIN_FILENO)
    posix_spawn_file_actions_adddup2(&actions, fileno(output), STDOUT_FILENO)
    posix_spawn_file_actions_adddup2(&actions, fileno(output), STDERR_FILENO)
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("gnuplot"), nil]
    defer { free(arguments[0]) }
    var process = pid_t()
    let refusal = posix_spawnp(&process, "gnuplot", &actions, nil, &arguments, environ)
    guard refusal == 0 else {
      throw Failure(
        refusal == ENOENT
          ? "the program 'gnuplot' is not installed (Debian and Ubuntu: apt install gnuplot-nox)"
          : "gnuplot does not start: \(String(cString: strerror(refusal)))")
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    // It ends with 0 where its output has no room, and says so.
    let said = text(of: output)
    guard status == 0, !said.contains("annot") else {
      let reason = said.split(separator: "\n").first { !$0.allSatisfy(\.isWhitespace) }
      throw Failure("gnuplot failed: \(reason ?? "it gives no reason")")
    }
  }

  private static func text(of file: UnsafeMutablePointer<FILE>) -> String {
    rewind(file)
    var bytes = [UInt8](repeating: 0, count: 1 << 14)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }
}
