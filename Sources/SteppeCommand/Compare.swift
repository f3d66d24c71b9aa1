import ArgumentParser
import Steppe
import SteppeExperiments

struct Compare: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compares training with and without batch norm: rates, places, adaptive methods, depth.",
    discussion: """
      sigmoid     the network of Ioffe & Szegedy 2015, §4.1: accuracy, and the inputs of its last hidden layer
      rates       a convolutional network at the baseline's tuned rate, and with batch norm at 1, 5 and 30 times that
      place       batch norm before and after the activation
      optimizers  SGD, momentum, Adagrad, RMSProp and Adam without and with batch norm, each at its best rate
      depth       6, 12 and 24 convolutions

      Each part's curves, tables and findings go to the output folder and to standard output. An experiment that was \
      stopped goes on by the same command: what is done is not done again.

      Examples:
        steppe compare --output compare
        steppe compare --parts sigmoid,rates --seeds 5 --output some
        steppe compare --preset full --output compare-full
      """)

  @Option(
    help: ArgumentHelp(
      "What is compared: \(Choices<CompareExperiment.Part>.names). (default: all)", valueName: "parts"))
  var parts: Choices<CompareExperiment.Part>?

  @Option(
    help: ArgumentHelp(
      "The rates among which those of the networks without batch norm are chosen, for 'rates', 'place' and 'depth'. (default: 0.003,0.01,0.03,0.1)",
      valueName: "rates"))
  var rates: Rates?

  @OptionGroup var options: ExperimentOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    var experiment = CompareExperiment(options.preset)
    experiment.parts = parts?.values ?? experiment.parts
    experiment.convolutionRates = rates?.values ?? experiment.convolutionRates
    let chosen = (parts.map { ["--parts", $0.text] } ?? []) + (rates.map { ["--rates", $0.text] } ?? [])
    try options.run(experiment, output, arguments: chosen)
  }
}

/// Learning rates with commas between.
struct Rates: ExpressibleByArgument {
  let values: [Double]

  init?(argument: String) {
    let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Double($0) ?? .nan }
    guard numbers.allSatisfy({ $0 > 0 && $0.isFinite }) else { return nil }
    values = Set(numbers).sorted()
  }

  var text: String { values.map { "\($0)" }.joined(separator: ",") }
}
