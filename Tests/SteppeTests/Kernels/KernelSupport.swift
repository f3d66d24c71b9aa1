import CSteppeKernels
import Reference
import Steppe
import Testing

/// The kernels of one instruction set for one scalar type, under test.
struct KernelSet<Scalar: TensorScalar> {
  let name: String
  let kernels: steppe_kernel_table

  /// Every instruction set that this machine runs.
  static var all: [KernelSet] {
    InstructionSet.available.map { name in
      KernelSet(
        name: "\(name) \(Scalar.self)",
        kernels: steppe_kernels_named(name, Int32(MemoryLayout<Scalar>.size))!.pointee)
    }
  }

  /// Sizes at which loops and their ends differ: each small one, and some of thousands.
  static func sizes(_ generator: inout TestGenerator) -> [Int] {
    Array(0...70) + [1000, 4096] + (0..<3).map { _ in generator.integer(71...5000) }
  }
}

/// Memory for a kernel, at an address that suits the scalar and nothing more, between guards that show writes out of range.
final class Guarded<Scalar: TensorScalar> {
  private static var margin: Int { 67 }
  private static var guardValue: Scalar { -987_654 }
  private let base: UnsafeMutablePointer<Scalar>
  private let capacity: Int
  private let start: Int
  let count: Int

  /// `scalars` at an address that is `shift` scalars past alignment.
  init(_ scalars: [Scalar], shift: Int) {
    count = scalars.count
    start = Self.margin + shift
    capacity = start + count + Self.margin
    let raw = UnsafeMutableRawPointer.allocate(byteCount: capacity * MemoryLayout<Scalar>.stride, alignment: 64)
    base = raw.bindMemory(to: Scalar.self, capacity: capacity)
    base.initialize(repeating: Self.guardValue, count: capacity)
    (base + start).update(from: scalars, count: count)
  }

  /// Room for a result, full of NaN so that what is not written shows.
  convenience init(room count: Int, shift: Int) { self.init(Array(repeating: .nan, count: count), shift: shift) }

  deinit { UnsafeMutableRawPointer(base).deallocate() }

  var pointer: UnsafeMutablePointer<Scalar> { base + start }

  var scalars: [Scalar] { Array(UnsafeBufferPointer(start: pointer, count: count)) }

  /// Whether nothing was written beside the range.
  var isIntact: Bool {
    (0..<start).allSatisfy { base[$0] == Self.guardValue }
      && (start + count..<capacity).allSatisfy { base[$0] == Self.guardValue }
  }
}

extension Array where Element: TensorScalar {
  /// The same numbers in Double.
  var doubles: [Double] { map { Double($0) } }
}

/// Numbers at which functions go wrong: signed zeros and infinities, NaN, the ends of the scalar's range, denormals.
func specialNumbers<Scalar: TensorScalar>(_ type: Scalar.Type = Scalar.self) -> [Scalar] {
  let sizes: [Scalar] = [
    0, 1, 0.5, 2.5, .pi, .infinity, .greatestFiniteMagnitude, .leastNormalMagnitude, .leastNonzeroMagnitude,
    .leastNormalMagnitude / 3, .ulpOfOne, 88.5, 89, 104, 709.5, 710, 746, 1e-5, 30, 1e6,
  ]
  return sizes + sizes.map { -$0 } + [.nan]
}
