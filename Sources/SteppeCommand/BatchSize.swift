import ArgumentParser
import Steppe
import SteppeExperiments

struct BatchSize: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: BatchSizeExperiment.name,
    abstract: "Measures accuracy against batch size, and running averages against the true statistics.",
    discussion: """
      Batch norm, batch renorm, group norm, layer norm and none at batches of 2 to 256; batch norm evaluated by running \
      averages, by re-estimated statistics and by the test batch's own; the distance of running averages from the truth \
      over momentum.

      Curves, tables and findings go to the output folder and to standard output. An experiment that was stopped goes on \
      by the same command: what is done is not done again.

      Examples:
        steppe batchsize --output batchsize
        steppe batchsize --methods group,none --seeds 5 --output some
      """)

  @OptionGroup var methods: MethodOptions<BatchSizeExperiment>
  @OptionGroup var options: ExperimentOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try methods.run(options, output) }
}
