/// All findings as one HTML page that needs nothing beside it: pictures stand in it as SVG.
public struct ReportPage: Sendable {
  /// An experiment of the report.
  public struct Section: Sendable {
    public let title: String
    /// What gives the same numbers again.
    public let command: String
    public let seconds: Double
    public let findings: [Finding]

    public init(title: String, command: String, seconds: Double, findings: [Finding]) {
      (self.title, self.command, self.seconds, self.findings) = (title, command, seconds, findings)
    }
  }

  public let sections: [Section]
  /// The whole command.
  public let command: String
  /// What a reader needs to repeat it, such as versions: names and values.
  public let facts: [(name: String, value: String)]

  public init(_ sections: [Section], command: String, facts: [(name: String, value: String)]) {
    (self.sections, self.command, self.facts) = (sections, command, facts)
  }

  /// The page.
  ///
  /// - Parameter svg: A picture's SVG by the section's place and the picture's name; nil where there is none.
  public func html(svg: (_ section: Int, _ picture: String) -> String?) -> String {
    let findings = sections.flatMap(\.findings)
    let counts = [Finding.Verdict.reproduced, .inPart, .not].map { verdict in
      (verdict, findings.filter { $0.verdict == verdict }.count)
    }
    let pictures = findings.flatMap(\.pictures).count
    let time = Self.duration(sections.reduce(0) { $0 + $1.seconds })
    let details = (facts + [("command", command), ("time", time)]).map { name, value in
      "<div><dt>\(Self.escaped(name))</dt><dd>\(Self.escaped(value))</dd></div>"
    }
    let contents = sections.enumerated().map { index, section in
      """
      <li>\(Self.link("section-\(index)", section.title))<ul>
      \(section.findings.map { "<li>\(Self.link($0.name, $0.title)) \(badge($0.verdict))</li>" }.joined(separator: "\n"))
      </ul></li>
      """
    }
    let body = sections.enumerated().map { index, section in
      """
      <section id="section-\(index)">
      <h2>\(Self.escaped(section.title))</h2>
      <p class="how"><code>\(Self.escaped(section.command))</code> <span>\(Self.duration(section.seconds))</span></p>
      \(section.findings.map { article($0) { svg(index, $0) } }.joined(separator: "\n"))
      </section>
      """
    }
    return """
      <!DOCTYPE html>
      <html lang="en">
      <head>
      <meta charset="utf-8"/>
      <meta name="viewport" content="width=device-width, initial-scale=1"/>
      <meta name="color-scheme" content="light dark"/>
      <title>What normalization does to the error surface</title>
      <style>\(Self.style)</style>
      </head>
      <body>
      <header>
      <h1>What normalization does to the error surface</h1>
      <p>Normalization is said to level the error surface, so that gradient steps go straight and may be long. Here are the claims, each with a
      measurement beside the published figure: \(findings.count) findings in \(pictures) pictures,
      \(counts.map { "\($0.1) \($0.0.rawValue)" }.joined(separator: ", ")). A verdict follows from the measured figures alone: every claim is
      listed with those that speak for or against it.</p>
      <dl>
      \(details.joined(separator: "\n"))
      </dl>
      <nav aria-label="Contents"><ol>
      \(contents.joined(separator: "\n"))
      </ol></nav>
      </header>
      <main>
      \(body.joined(separator: "\n"))
      </main>
      </body>
      </html>

      """
  }

  private static func link(_ name: String, _ title: String) -> String {
    "<a href=\"#\(name)\">\(escaped(title))</a>"
  }

  private func badge(_ verdict: Finding.Verdict) -> String {
    let (mark, kind) =
      switch verdict {
      case .reproduced: ("✓", "yes")
      case .inPart: ("◐", "part")
      case .not: ("✗", "no")
      }
    return #"<span class="verdict \#(kind)">\#(mark) \#(verdict.rawValue)</span>"#
  }

  private func article(_ finding: Finding, svg: (String) -> String?) -> String {
    let figures = finding.pictures.map { picture in
      let file = svg(picture.name)
      let drawing =
        file.map {
          Self.inlined($0, id: "\(finding.name)-\(picture.name)", alternative: picture.alternative)
        }
        ?? #"<p class="missing">No picture was drawn; \#(Self.escaped(picture.alternative))</p>"#
      return """
        <figure\(file.map(Self.isWide) == true ? " class=\"wide\"" : "")><div class="picture">\(drawing)</div>
        <figcaption>\(Self.escaped(picture.alternative))</figcaption></figure>
        """
    }
    let rows = finding.table.rows.map { row in
      "<tr>"
        + row.enumerated().map { index, field in
          index == 0 ? #"<th scope="row">\#(Self.escaped(field))</th>"# : "<td>\(Self.escaped(field))</td>"
        }.joined() + "</tr>"
    }
    let checks = finding.checks.map { check in
      let (kind, word) = check.holds ? ("yes", "✓ yes") : ("no", "✗ no")
      return #"<li class="\#(kind)"><b>\#(word)</b> \#(Self.escaped("\(check.claim): \(check.figures)."))</li>"#
    }
    return """
      <article id="\(finding.name)">
      <h3>\(Self.escaped(finding.title)) \(badge(finding.verdict))</h3>
      <p class="question">\(Self.escaped(finding.question))</p>
      <div class="figures">
      \(figures.joined(separator: "\n"))
      </div>
      <div class="beside">
      <div class="scroll" tabindex="0" role="region" aria-label="\(Self.escaped("Table: " + finding.title))"><table>
      <thead><tr>\(finding.table.header.map { #"<th scope="col">\#(Self.escaped($0))</th>"# }.joined())</tr></thead>
      <tbody>
      \(rows.joined(separator: "\n"))
      </tbody></table></div>
      <aside><h4>Published</h4><p>\(Self.escaped(finding.published))</p></aside>
      </div>
      <ul class="checks">
      \(checks.joined(separator: "\n"))
      </ul>
      <p class="note">\(Self.escaped(finding.note))</p>
      </article>
      """
  }

  /// `svg` as part of a page: without what belongs to a file of its own, with names that no other picture has, and with a text for those
  /// who do not see it.
  package static func inlined(_ svg: String, id: String, alternative: String) -> String {
    guard let start = svg.range(of: "<svg"), let end = svg[start.upperBound...].firstIndex(of: ">") else { return "" }
    var head = String(svg[start.lowerBound..<end])
    var rest = String(svg[end...])
    for size in ["width", "height"] { head = head.removing(attribute: size) }
    head += #" role="img" aria-labelledby="\#(id)-title""#
    rest = rest.replacing("<title>Gnuplot</title>", with: #"<title id="\#(id)-title">\#(escaped(alternative))</title>"#)
    for mark in [" id=\"", " id='", "href='#", "href=\"#", "url(#"] {
      rest = rest.replacing(mark, with: mark + id + "-")
    }
    // The title's own name was made unique already.
    return (head + rest).replacing("id=\"\(id)-\(id)-title\"", with: "id=\"\(id)-title\"")
  }

  /// Whether a picture has several panels beside each other, and needs the page's whole width.
  private static func isWide(_ svg: String) -> Bool {
    guard let box = svg.firstRange(of: "viewBox=\"") else { return false }
    let numbers = svg[box.upperBound...].prefix { $0 != "\"" }.split(separator: " ").compactMap { Double($0) }
    return numbers.count == 4 && numbers[2] > 800
  }

  /// Whether a space between two characters is part of a number.
  private static func belongs(_ before: Character, _ after: Character) -> Bool {
    before.isNumber && (after.isNumber || after == "%") || before == "×" && after.isNumber
  }

  /// `text` as HTML, in which a number stays together with its thousands and its per cent.
  package static func escaped(_ text: String) -> String {
    var result = ""
    let characters = Array(text)
    for (index, character) in characters.enumerated() {
      switch character {
      case " "
      where index > 0 && index + 1 < characters.count && Self.belongs(characters[index - 1], characters[index + 1]):
        result += "\u{A0}"
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      default: result.append(character)
      }
    }
    return result
  }

  /// `75 s` or `12 min 5 s`
  private static func duration(_ seconds: Double) -> String {
    if seconds < 10 { return fixed(seconds, 1) + " s" }
    let whole = Int(seconds.rounded())
    return whole < 60 ? "\(whole) s" : "\(whole / 60) min \(whole % 60) s"
  }

  private static let style = """

    :root { --paper: #ffffff; --ink: #1d2129; --soft: #5b6472; --line: #d9dde3; --card: #f5f7f9; --link: #00588a;
      --yes: #00694c; --part: #8a5a00; --no: #a83e00; }
    @media (prefers-color-scheme: dark) {
      :root { --paper: #14171c; --ink: #e6e9ee; --soft: #a3acba; --line: #333a45; --card: #1d222a; --link: #7cc4ee;
        --yes: #4fd1a5; --part: #f0b94a; --no: #ff9a62; } }
    * { box-sizing: border-box; }
    html { -webkit-text-size-adjust: 100%; }
    body { margin: 0 auto; padding: 1rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 80rem; background: var(--paper); color: var(--ink);
      font: 1rem/1.55 system-ui, "DejaVu Sans", sans-serif; }
    h1 { font-size: clamp(1.5rem, 4vw, 2.3rem); line-height: 1.2; margin: 1rem 0; }
    h2 { font-size: 1.5rem; margin: 3rem 0 .5rem; border-top: 2px solid var(--line); padding-top: 1rem; }
    h3 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
    h4 { margin: 0 0 .25rem; font-size: 1rem; }
    p { max-width: 48rem; margin: .5rem 0; }
    a { color: var(--link); }
    code { font: .85em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; background: var(--card); padding: .15em .35em;
      border-radius: .25em; }
    dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: .25rem 2rem; margin: 1rem 0; font-size: .9rem; }
    dl div { display: flex; gap: .75rem; } dt { color: var(--soft); min-width: 7.5rem; } dd { margin: 0; overflow-wrap: anywhere; }
    nav ol { padding-left: 1.2rem; } nav ul { list-style: none; padding-left: 0; } nav li { margin: .2rem 0; }
    .how, .note, figcaption { color: var(--soft); font-size: .9rem; } .how span { white-space: nowrap; }
    .note { max-width: 60rem; }
    .question { font-style: italic; font-size: 1.05rem; }
    .verdict { display: inline-block; font-size: .8rem; font-weight: 600; border: 1px solid currentColor; border-radius: 1em; padding: 0 .6em;
      white-space: nowrap; vertical-align: middle; }
    .yes { color: var(--yes); } .part { color: var(--part); } .no { color: var(--no); }
    .checks { list-style: none; padding: 0; max-width: 60rem; }
    .checks li { color: var(--ink); margin: .3rem 0; padding-left: 4.2rem; text-indent: -4.2rem; }
    .checks b { display: inline-block; min-width: 4.2rem; text-indent: 0; } .checks .yes b { color: var(--yes); } .checks .no b { color: var(--no); }
    .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; align-items: start; }
    figure { margin: .5rem 0; max-width: 62rem; }
    .picture { background: #ffffff; border: 1px solid var(--line); border-radius: .5rem; padding: .25rem; overflow-x: auto; }
    .picture svg { display: block; width: 100%; min-width: 26rem; height: auto; }
    .wide { grid-column: 1 / -1; } .wide svg { min-width: 44rem; }
    .missing { padding: 1rem; color: #5b6472; }
    .beside { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: start; margin: 1rem 0; }
    aside { flex: 1 1 16rem; border-left: 3px solid var(--line); padding-left: 1rem; font-size: .9rem; } aside p { margin: 0; }
    .scroll { flex: 0 1 auto; max-width: 100%; overflow-x: auto; }
    table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
    th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
    td { white-space: nowrap; } th:first-child { text-align: left; } thead th { vertical-align: bottom; color: var(--soft); font-weight: 600; }
    tbody th { font-weight: 500; white-space: nowrap; }
    @media (max-width: 50rem) { dl div { flex-wrap: wrap; gap: 0 .75rem; } }
    @media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --card: #fff; --link: #000;
      --yes: #00513b; --part: #6b4600; --no: #7d2e00; }
      body { max-width: none; padding: 0; font-size: 9.5pt; } .scroll, .picture { overflow: visible; } .picture svg, .wide svg { min-width: 0; }
      .beside { display: block; } aside { margin-top: .5rem; } table { font-size: 8pt; }
      .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); } .question { break-after: avoid; }
      th, td { padding: .15rem .35rem; } tbody th, td { white-space: normal; }
      figure, table, .question, aside, .checks li { break-inside: avoid; } h2, h3 { break-after: avoid; } nav { display: none; } a { text-decoration: none; } }

    """
}

extension String {
  fileprivate func range(of text: String) -> Range<Index>? { firstRange(of: text) }

  /// Without ` name="…"`.
  fileprivate func removing(attribute name: String) -> String {
    guard let start = firstRange(of: " \(name)=\""), let end = self[start.upperBound...].firstIndex(of: "\"") else {
      return self
    }
    return String(self[..<start.lowerBound] + self[index(after: end)...])
  }
}
