/// A layer that is linear in a weight, whose first axis counts the outputs: what ``WeightNorm`` and ``SpectralNorm`` take.
public protocol WeightedLayer<Scalar>: Layer {
  /// W, `[outputs, …]`.
  var weight: Parameter<Scalar> { get }
  /// b, `[outputs]`, or nil.
  var bias: Parameter<Scalar>? { get }
  /// Where the outputs stand in what the layer gives.
  var outputPlace: ChannelPlace { get }
  /// This layer with another weight of the same shape, and with the same bias.
  func withWeight(_ weight: Parameter<Scalar>) -> Self
}

extension WeightedLayer {
  /// This layer, under its name, with a weight of its own.
  func withWeight(_ weight: Tensor<Scalar>, isTrainable: Bool) -> Self {
    let parameter = Parameter(weight, name: "weight", decays: true)
    parameter.isTrainable = isTrainable
    let result = withWeight(parameter)
    result.name = name
    return result
  }
}

/// The names under which PyTorch's state holds a normalized weight. Files with either are read; this chooses what is written.
public enum NormalizedWeightKeys: Sendable, Equatable {
  /// Those of `torch.nn.utils.parametrizations`: `parametrizations.weight.original0` and so on.
  case parametrizations
  /// Those of the older `torch.nn.utils.weight_norm` and `spectral_norm`: `weight_g`, `weight_v`; `weight_orig`, `weight_u`, `weight_v`.
  case hooks

  /// The chosen name and the other one.
  func names(_ parametrization: String, _ hook: String) -> (key: String, aliases: [String]) {
    self == .parametrizations ? (parametrization, [hook]) : (hook, [parametrization])
  }
}

/// A weight as a matrix with a row for each output, and the passes over it that normalize its rows.
struct WeightRows<Scalar: TensorScalar> {
  let rows: Int
  let columns: Int

  init(_ shape: [Int]) {
    rows = shape[0]
    columns = shape[1...].reduce(1, *)
  }

  private var grain: Int { max(1, Parallel.elementGrain / max(1, columns)) }

  /// ⟨x, y⟩ of each row; both are contiguous.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func dots(_ x: Tensor<Scalar>, _ y: Tensor<Scalar>) -> [Double] {
    [Double](unsafeUninitializedCapacity: rows) { buffer, count in
      let (result, columns) = (buffer.baseAddress!, columns)
      Parallel.ranges(rows, grain: grain) { range in
        let start = range.lowerBound * columns
        Scalar.kernels.dot_rows(
          x.address + start, columns, y.address + start, columns, range.count, columns, result + range.lowerBound)
      }
      withExtendedLifetime((x, y)) {}
      count = rows
    }
  }

  /// `z[r] = a[r]·x[r] + b[r]·y[r]`, added to what is there where `adding`; y has a row for each of x's or one for all.
  @_specialize(where Scalar == Float)
  @_specialize(where Scalar == Double)
  func combine(
    _ x: Tensor<Scalar>, _ a: [Double], _ y: Tensor<Scalar>? = nil, _ b: [Double] = [],
    into z: UnsafeMutablePointer<Scalar>, adding: Bool = false
  ) {
    let step = y.map { $0.count == columns && rows > 1 ? 0 : columns } ?? 0
    a.withUnsafeBufferPointer { a in
      b.withUnsafeBufferPointer { b in
        Parallel.ranges(rows, grain: grain) { range in
          let first = range.lowerBound
          Scalar.kernels.combine_rows(
            x.address + first * columns, columns, a.baseAddress! + first, y.map { $0.address + first * step }, step,
            y == nil ? nil : b.baseAddress! + first, z + first * columns, columns, range.count, columns, adding)
        }
      }
    }
    withExtendedLifetime((x, y)) {}
  }
}

/// The elements in Double.
@_specialize(where Scalar == Float)
@_specialize(where Scalar == Double)
func doubles<Scalar: TensorScalar>(_ x: Tensor<Scalar>) -> [Double] { x.scalars.map { Double($0) } }
