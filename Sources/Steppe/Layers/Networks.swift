// Networks that are known by name, made of the layers of this package.

extension Sequential {
  /// A residual network for small images, as the paper has it for CIFAR-10 (He et al. 2016, arXiv 1512.03385, §4.2), on `[N, channels, H, W]`
  /// of any size.
  ///
  /// A 3×3 convolution, then three stages of n blocks, n = (depth − 2) / 6, each of two 3×3 convolutions with batch norm and a shortcut; the
  /// second and the third stage halve the image and double the channels. At the end the mean of each channel and a dense layer. Where a
  /// block changes the shape, its shortcut is a 1×1 convolution with batch norm (the paper's option B).
  ///
  /// ```swift
  /// let model = Sequential<Float>.resNet(depth: 20, channels: 1, classes: 10, seed: 1)
  /// ```
  ///
  /// - Parameters:
  ///   - depth: The layers with weights along the branches: 8, 14, 20, 32, 44, 56, 110 or any other 6n + 2.
  ///   - channels: The images' channels.
  ///   - classes: The outputs.
  ///   - width: The channels of the first stage.
  ///   - layout: Where the channel axis stands.
  ///   - seed: Chooses the weights.
  public static func resNet(
    depth: Int = 20, channels: Int = 3, classes: Int = 10, width: Int = 16, layout: ChannelPlace = .channelsFirst,
    seed: UInt64? = nil
  ) -> Sequential {
    require(
      depth >= 8 && depth % 6 == 2, "Sequential.resNet: expected a depth of 6n + 2, such as 20, got \(depth)")
    return Sequential(seed: seed) {
      Conv2D(channels, width, kernel: 3, padding: 1, bias: false, layout: layout)
      BatchNorm(width, layout: layout)
      ReLU()
      for stage in 0..<3 {
        for block in 0..<(depth - 2) / 6 {
          let outputs = width << stage
          let isFirst = stage > 0 && block == 0
          residualBlock(isFirst ? outputs / 2 : outputs, outputs, stride: isFirst ? 2 : 1, layout)
        }
      }
      GlobalAveragePool(layout: layout)
      Flatten()
      Dense(4 * width, classes)
    }
  }

  /// Two 3×3 convolutions with batch norm beside the input itself or, where the shape changes, its projection.
  private static func residualBlock(
    _ inputs: Int, _ outputs: Int, stride: Int, _ layout: ChannelPlace
  ) -> Residual<Scalar> {
    @LayerBuilder<Scalar> func branch() -> [any Layer<Scalar>] {
      Conv2D(inputs, outputs, kernel: 3, stride: stride, padding: 1, bias: false, layout: layout)
      BatchNorm(outputs, layout: layout)
      ReLU()
      Conv2D(outputs, outputs, kernel: 3, padding: 1, bias: false, layout: layout)
      BatchNorm(outputs, layout: layout)
    }
    if stride == 1, inputs == outputs { return Residual(activation: .relu, branch) }
    return Residual(activation: .relu, branch) {
      Conv2D(inputs, outputs, kernel: 1, stride: stride, bias: false, layout: layout)
      BatchNorm(outputs, layout: layout)
    }
  }

  /// A network like VGG (Simonyan & Zisserman 2015, arXiv 1409.1556) with batch norm, on `[N, channels, H, W]`: in each stage 3×3
  /// convolutions with batch norm and ReLU, then the greatest of each 2×2 window, which halves the image; at the end the mean of each
  /// channel and a dense layer in the place of the paper's three.
  ///
  /// - Parameters:
  ///   - stages: For each stage the channels of its convolutions.
  ///   - channels: The images' channels.
  ///   - classes: The outputs.
  ///   - layout: Where the channel axis stands.
  ///   - seed: Chooses the weights.
  public static func vgg(
    stages: [[Int]] = [[32, 32], [64, 64], [128, 128]], channels: Int = 3, classes: Int = 10,
    layout: ChannelPlace = .channelsFirst, seed: UInt64? = nil
  ) -> Sequential {
    let sizes = stages.flatMap { $0 }
    require(
      !stages.isEmpty && stages.allSatisfy { !$0.isEmpty } && sizes.allSatisfy { $0 > 0 },
      "Sequential.vgg: expected stages of at least one convolution with a positive number of channels, got \(stages)")
    var inputs = channels
    return Sequential(seed: seed) {
      for stage in stages {
        for outputs in stage {
          convolution(&inputs, outputs, layout)
        }
        MaxPool2D(kernel: 2, layout: layout)
      }
      GlobalAveragePool(layout: layout)
      Flatten()
      Dense(inputs, classes)
    }
  }

  /// A 3×3 convolution of `inputs` channels with batch norm and ReLU; the next one has `outputs`.
  private static func convolution(_ inputs: inout Int, _ outputs: Int, _ layout: ChannelPlace) -> [any Layer<Scalar>] {
    defer { inputs = outputs }
    return [
      Conv2D<Scalar>(inputs, outputs, kernel: 3, padding: 1, bias: false, layout: layout),
      BatchNorm<Scalar>(outputs, layout: layout), ReLU<Scalar>(),
    ]
  }
}
