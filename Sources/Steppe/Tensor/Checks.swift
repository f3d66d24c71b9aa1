/// Stops the program with `message` when `condition` is false, in release builds too: for a programmer's mistakes.
///
/// `precondition` drops its message in release builds, and a shape that does not fit needs both shapes to be found.
@inline(__always)
package func require(
  _ condition: Bool, _ message: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) {
  if !condition { stop(message(), file: file, line: line) }
}

@inline(never)
package func stop(_ message: String, file: StaticString = #fileID, line: UInt = #line) -> Never {
  fatalError(message, file: file, line: line)
}
