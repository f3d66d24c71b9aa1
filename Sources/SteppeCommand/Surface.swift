import ArgumentParser
import Steppe
import SteppeExperiments

struct Surface: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows the error surface before and after normalization.",
    discussion: """
      First a linear model with a small and a large feature: the error surface is a ravine, and gradient descent needs \
      thousands of steps; with both features standardized it is a round bowl, and a few do. Five methods go down both, \
      each at the rate, of those tried, that takes the fewest steps. Then a network on Fashion-MNIST, without and with \
      batch norm: its loss along random directions, and along the way that training took. The output folder takes:

        linear.svg .png       both surfaces and the ways down
        linear-loss.svg .png  the loss by step
        network.svg .png      the networks' loss along two random directions, as map and in relief
        network-training.*    the same along the way that training took
        *.csv                 the numbers behind them

      An experiment that was stopped goes on by the same command: what is done is not done again.

      Examples:
        steppe surface --output surface
        steppe surface --preset full --seeds 20 --output surface-full
      """)

  @OptionGroup var options: ExperimentOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try options.run(SurfaceExperiment(options.preset), output) }
}
