import Foundation
import FoundationXML
import Steppe
import SteppeExperiments
import Testing

@Suite struct ReportPageTests {
  private func finding(_ checks: [Bool]) -> Finding {
    let chart = Chart("curve", title: "A curve", x: .init("x"), y: .init("y"), series: [])
    return Finding(
      "some-finding", title: "Less < more & \"all\"", question: "Is 1 < 2?",
      pictures: [Picture(chart, alternative: "A \"curve\" & more")],
      table: FindingTable(header: ["method", "accuracy"], rows: [["BN", "90 %"], ["<none>", "80 %"]]),
      published: "In 10 000 steps.",
      checks: checks.enumerated().map { .init("Claim \($0)", "1 < 2", holds: $1) }, note: "Note.")
  }

  @Test func verdictsFollowFromTheChecks() {
    #expect(finding([true, true]).verdict == .reproduced)
    #expect(finding([true, false]).verdict == .inPart)
    #expect(finding([false, false]).verdict == .not)
  }

  private static let svg = """
    <?xml version="1.0" encoding="utf-8" standalone="no"?>
    <svg\u{20}
     width="720" height="500"
     viewBox="0 0 720 500"
     xmlns="http://www.w3.org/2000/svg"
     xmlns:xlink="http://www.w3.org/1999/xlink"
    >
    <title>Gnuplot</title>
    <g id="gnuplot_canvas"><circle id='gpDot' r='0.5'/><use xlink:href='#gpDot' id='gpPt6'/>
    <rect width="3" height="4" filter="url(#gpDot)"/></g></svg>
    """

  @Test func thePageIsWellFormedAndComplete() throws {
    let section = ReportPage.Section(
      title: "A section", command: "steppe some --output 'a & b'", seconds: 75, findings: [finding([true, false])])
    let page = ReportPage([section, section], command: "steppe report", facts: [("seed", "1")])
    let html = page.html { index, name in index == 0 && name == "curve" ? Self.svg : nil }
    let parser = XMLParser(data: Data(html.replacing("<!DOCTYPE html>", with: "").utf8))
    #expect(parser.parse(), "\(String(describing: parser.parserError)) in line \(parser.lineNumber)")
    for words in [
      "Less &lt; more &amp; &quot;all&quot;", "reproduced in part", "Is 1 &lt; 2?", "&lt;none&gt;", "a &amp; b",
      "In 10\u{A0}000 steps", "90\u{A0}%",
      "1 min 15 s", "2 min 30 s", "No picture was drawn", "✓ yes", "✗ no", "prefers-color-scheme: dark", "@media print",
      "role=\"img\"", "lang=\"en\"", "A &quot;curve&quot; &amp; more</title>",
    ] {
      #expect(html.contains(words), "\(words)")
    }
    #expect(!html.contains("http://") || html.replacing("http://www.w3.org/", with: "").contains("http://") == false)
  }

  @Test func picturesOnOnePageShareNoNames() {
    let inlined = ReportPage.inlined(Self.svg, id: "one", alternative: "What it shows")
    #expect(
      inlined.hasPrefix("<svg") && inlined.contains("id=\"one-gnuplot_canvas\"") && inlined.contains("id='one-gpDot'"))
    #expect(inlined.contains("href='#one-gpDot'") && inlined.contains("url(#one-gpDot)"))
    #expect(inlined.contains("<title id=\"one-title\">What it shows</title>"))
    #expect(inlined.contains("aria-labelledby=\"one-title\"") && inlined.contains("viewBox=\"0 0 720 500\""))
    // The picture is as wide as its place; what is within keeps its size.
    #expect(!inlined.contains("width=\"720\"") && inlined.contains("width=\"3\" height=\"4\""))
  }

  @Test func chartsAreTablesToo() {
    var first = ExperimentTable(columns: ["step", "accuracy"])
    first.append([10, 0.5])
    first.append([20, 0.75])
    var second = ExperimentTable(columns: ["step", "accuracy"])
    second.append([10, 0.25])
    second.append([20, Double.nan])
    let spread = [first, second].map { $0.numbers("accuracy").last! }
    #expect(spread[1].isNaN)
    let series = Chart.Series("a, b", .init(.blue), [first, second], x: "step", y: "accuracy", scale: 100)
    #expect(series.points == [.init(10, Spread(25, 37.5, 50)), .init(20, Spread(75, 75, 75))] && series.diverges)
    let chart = Chart("c", title: "", x: .init("x"), y: .init("y"), series: [series])
    #expect(chart.table.rows == [["a; b", "10.0", "37.5", "25.0", "50.0"], ["a; b", "20.0", "75.0", "75.0", "75.0"]])
  }

  @Test func workIsDoneOnceAndTimed() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("steppe-work-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    var table = ExperimentTable(columns: ["x"])
    table.append([1])
    var (made, shares): (Int, [Double]) = (0, [])
    for _ in 0..<2 {
      let folder = try ExperimentFolder(path, experiment: "some", parameters: [("seed", "1")])
      let work = ExperimentWork(in: folder, cost: 4) { _, share, _ in shares.append(share) }
      for (name, cost) in [("a", 1.0), ("b", 3.0)] {
        let found = try work.table(name, title: name, cost: cost) { progress in
          made += 1
          try progress(0.5)
          return table
        }
        #expect(found == table)
      }
      #expect(folder.seconds > 0)
    }
    #expect(made == 2 && shares == [0, 0.125, 0.25, 0.625])
    let refusal = try #require(throws: FileError.self) {
      _ = try ExperimentFolder(path, experiment: "other", parameters: [("seed", "2")])
    }
    #expect(refusal.expected == "experiment other, seed 2" && refusal.found == "experiment some, seed 1")
  }
}
