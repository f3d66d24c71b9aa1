import CSteppeKernels

/// The processor's vector instructions that Steppe's kernels use.
///
/// The best that the machine offers is chosen at the first use; the environment variable `STEPPE_INSTRUCTION_SET` or ``select(_:)``
/// overrides it.
public enum InstructionSet {
  /// The name of the one in use: `baseline`, `avx2`, `avx512` or `neon`.
  public static var current: String { String(cString: steppe_kernels_float().pointee.instruction_set) }

  /// Those that this machine can run, best last.
  public static var available: [String] {
    var names = [UnsafePointer<CChar>?](repeating: nil, count: 8)
    let count = steppe_available_instruction_sets(&names, names.count)
    return names.prefix(count).map { String(cString: $0!) }
  }

  /// Puts `name` in use for the whole process; `nil` the best.
  ///
  /// - Throws: ``InstructionSetError`` where the machine does not offer it.
  public static func select(_ name: String?) throws(InstructionSetError) {
    if !steppe_select_instruction_set(name) {
      throw InstructionSetError(name: name ?? "", available: available)
    }
  }
}

/// An instruction set that this machine does not offer.
public struct InstructionSetError: Error, Equatable, CustomStringConvertible {
  /// What was asked for.
  public let name: String
  /// What there is.
  public let available: [String]

  public var description: String {
    "instruction set '\(name)': this machine offers \(available.joined(separator: ", "))"
  }
}
