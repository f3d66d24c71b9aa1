import ArgumentParser
import Steppe
import SteppeExperiments

struct Landscape: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures how the loss and the gradient change along steps, with and without normalization.",
    discussion: """
      Along the training of a convolutional network and of a deep linear one (Santurkar et al. 2018): the range of the \
      loss along the gradient, the change of the gradient, the effective smoothness, and each layer's internal covariate \
      shift, for none, batch norm, noisy batch norm and norms by ℓ₁ and ℓ∞ in the deviation's place.

      Curves, tables and findings go to the output folder and to standard output. An experiment that was stopped goes on \
      by the same command: what is done is not done again.

      Examples:
        steppe landscape --output landscape
        steppe landscape --methods noisy-batch --seeds 3 --output noisy
      """)

  @OptionGroup var methods: MethodOptions<LandscapeExperiment>
  @OptionGroup var options: ExperimentOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try methods.run(options, output) }
}
