"""The comparison as a table, as CSV and as a picture."""
import csv
import datetime
import math
import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field

# Okabe and Ito's colours, which the colour-blind tell apart.
COLOURS = {"batchnorm": "#0072b2", "training-step": "#d55e00", "inference": "#009e73", "matmul": "#cc79a7", "optimizer": "#e69f00"}


@dataclass
class Turns:
    theirs: list = field(default_factory=list)
    ours: list = field(default_factory=list)
    note: str = ""


class Measured:
    """A case's turns with each of its peers."""

    def __init__(self, name):
        self.name, self.peers = name, {}
        # The least time that the machine's limits allow, as steppe-bench has them: the bytes that must move, or the peak of its cores.
        self.least_seconds = None

    def add(self, label, theirs, ours, note):
        """A turn: the peer's seconds, and steppe-bench's line, {} where Steppe does not run."""
        turns = self.peers.setdefault(label, Turns(note=note))
        turns.theirs.append(theirs)
        if ours:
            turns.ours.append(ours["median_seconds"])
            self.least_seconds = ours["median_seconds"] * ours["share_of_limit"]

    def drop(self, label):
        self.peers.pop(label, None)

    @property
    def subject(self):
        return self.name.split("/")[0]

    def time(self, label):
        return statistics.median(self.peers[label].theirs)

    def own_time(self, label=None):
        """Our median over all turns, or over those that alternated with one peer."""
        turns = self.peers.values() if label is None else [self.peers[label]]
        own = [seconds for one in turns for seconds in one.ours]
        return statistics.median(own) if own else None

    def ratio(self, label):
        own = self.own_time(label)
        return self.time(label) / own if own else None

    def spread(self, label):
        """The smallest and the largest ratio of neighbouring turns."""
        turns = self.peers[label]
        ratios = [theirs / ours for theirs, ours in zip(turns.theirs, turns.ours)]
        return (min(ratios), max(ratios)) if ratios else None

    def fastest(self):
        """The peer that is the hardest to beat."""
        return min(self.peers, key=lambda label: self.ratio(label) or self.time(label))

    def line(self):
        own = self.own_time()
        parts = []
        for label in self.peers:
            text = f"{label} {microseconds(self.time(label))}"
            if own:
                low, high = self.spread(label)
                text += f" (×{self.ratio(label):.2f}, {low:.2f} … {high:.2f})"
            parts.append(text)
        return f"{self.name}: {'ours ' + microseconds(own) + ', ' if own else ''}{', '.join(parts) or 'no peer'}"


def microseconds(seconds):
    value = 1e6 * seconds
    return f"{value:.{0 if value >= 1000 else 1 if value >= 10 else 2}f} µs"


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=os.path.dirname(__file__)).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return ""


def machine_of(descriptions, options):
    """What stands beside the numbers: processor, memory, system, date, versions, and how it was measured."""
    processor, memory = platform.machine(), ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                processor = line.split(":")[1].strip()
                break
    with open("/proc/meminfo") as file:
        memory = f"{int(file.readline().split()[1]) / 2**20:.0f} GiB"
    versions, ours = [], {}
    for description in descriptions:
        if "machine" in description:
            ours = description["machine"]
        else:
            peer = description["peer"]
            kernel = peer.get("instruction set")
            text = f"{peer['name']} {peer['version']}" + (f" ({kernel})" if kernel else "")
            if text not in versions:
                versions.append(text)
    commit = first_line(["git", "describe", "--always", "--dirty", "--tags"])
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{processor}, {len(os.sched_getaffinity(0))} cores usable, {memory}, {platform.system()}",
        "threads": options.threads, "steppe": commit or "unknown", "peers": versions, "ours": ours,
        "method": f"{options.rounds} turns of {options.milliseconds:g} ms for each side and peer, alternating; medians"
        + ("; a quick run, not to be quoted" if options.quick else "")}


def summary(results, groups):
    """For each group that has results: the group, its ratios by case, and the geometric mean that the machine's limits would allow, or
    None where a case takes fewer operations than its definition, which the limit is by: convolutions do."""
    by_name = {one.name: one for one in results}
    for group in groups:
        ratios, limits = {}, []
        for name in group.names:
            one = by_name.get(name)
            if one and one.own_time():
                peer = one.fastest() if group.fastest else next(iter(one.peers))
                ratios[name] = one.ratio(peer)
                limits.append(one.time(peer) / one.least_seconds)
        if ratios:
            by_definition = all(not name.startswith(("conv/", "conv-bn-relu/", "resnet/")) for name in ratios)
            yield group, ratios, geometric_mean(limits) if by_definition else None


def print_groups(results, groups):
    rows = list(summary(results, groups))
    if not rows:
        return
    print(f"\n{'ratio: peer’s time / ours':68} {'cases':>7} {'geo. mean':>9} {'at limit':>8} {'least':>6}")
    for group, ratios, limit in rows:
        least = min(ratios, key=ratios.get)
        print(f"{group.title:68} {len(ratios):>3}/{len(group.names):<3} {geometric_mean(ratios.values()):>9.2f} "
              f"{f'{limit:.2f}' if limit else '':>8} {ratios[least]:>6.2f}  {least}")


def write_report(folder, results, groups, machine, errors):
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, "comparison")
    write_csv(f"{base}.csv", results, machine)
    pictures = draw(base, results, machine)
    write_markdown(f"{base}.md", results, groups, machine, errors, pictures)
    return [f"{base}.md", f"{base}.csv", *pictures]


def write_csv(path, results, machine):
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", "peer", "peer_seconds", "steppe_seconds", "ratio", "least_ratio", "largest_ratio", "turns", "threads",
                        "note", "date"])
        for one in results:
            for label, turns in one.peers.items():
                numbers = ["", "", "", ""]
                if turns.ours:
                    numbers = [f"{one.own_time(label):.6g}", f"{one.ratio(label):.4f}", *(f"{value:.4f}" for value in one.spread(label))]
                table.writerow([one.name, label, f"{one.time(label):.6g}", *numbers, len(turns.theirs), machine["threads"], turns.note,
                                machine["date"]])


def write_markdown(path, results, groups, machine, errors, pictures):
    lines = ["# Steppe and its peers", ""]
    ours = machine["ours"]
    ours = f" ({ours['instruction_set']}, {ours['blas']})" if {"instruction_set", "blas"} <= ours.keys() else ""
    lines += [f"Measured on {machine['date']}: {machine['processor']}; {machine['threads']} threads on every side. "
              f"Steppe {machine['steppe']}{ours}; {', '.join(machine['peers'])}. {machine['method'].capitalize()}.", "",
              "A ratio is the peer's time over Steppe's: above 1, Steppe is faster.", ""]
    rows = list(summary(results, groups))
    if rows:
        lines += ["‘At the limit’ is what the geometric mean would be if Steppe took the least time that the machine's own limits allow, its peak "
                  "rate and the rate of copying (or reading) of the level that holds the data, with each byte moved once.", "",
                  "| Group | Cases | Geometric mean | At the limit | Least |", "|---|--:|--:|--:|---|"]
        for group, ratios, limit in rows:
            least = min(ratios, key=ratios.get)
            count = str(len(ratios)) if len(ratios) == len(group.names) else f"{len(ratios)} of {len(group.names)}"
            lines.append(f"| {group.title} | {count} | {geometric_mean(ratios.values()):.2f} | {f'{limit:.2f}' if limit else '–'} "
                         f"| {ratios[least]:.2f} (`{least}`) |")
        lines.append("")
    if pictures:
        lines += ["![Ratios by case](comparison.svg)", ""]
    lines += ["| Case | Steppe | Peer | Its time | Ratio | Over the turns |", "|---|--:|---|--:|--:|--:|"]
    for one in results:
        hardest = one.fastest()
        for label, turns in one.peers.items():
            own = one.own_time(label)
            ratio, spread = "–", "–"
            if own:
                ratio = f"{one.ratio(label):.2f}"
                ratio = f"**{ratio}**" if label == hardest and len(one.peers) > 1 else ratio
                spread = "{:.2f} … {:.2f}".format(*one.spread(label))
            note = f" ({turns.note})" if turns.note else ""
            lines.append(f"| `{one.name}` | {microseconds(own) if own else '–'} | {label}{note} | {microseconds(one.time(label))} "
                         f"| {ratio} | {spread} |")
    if errors:
        lines += ["", "The largest error of PyTorch's batch norm (γ = 1, β = 0) against Float64 on the same Float32 input; Steppe's stays "
                  "below 4e-6 in its tests:", "", "| Shape | Layout | Mean | Deviation | Error |", "|---|---|--:|--:|--:|"]
        for error in errors:
            lines.append(f"| {error['shape']} | {error['layout'].upper() or '–'} | {error['mean']:g} | {error['deviation']:g} "
                         f"| {error['error']:.1e} |")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def draw(base, results, machine):
    """Bars of the ratio against the fastest peer of each case, circles for the others. Returns the files written."""
    results = [one for one in results if one.own_time()]
    if not results:
        return []
    gap, rows, position, last = 0.6, [], 0.0, None
    for one in results:
        key = (one.subject, one.name.split("/")[1] if one.subject == "batchnorm" else "")
        position += 1 + (gap if last not in (None, key) else 0)
        last = key
        rows.append((position, one))
    ratios = [one.ratio(label) for one in results for label in one.peers]
    low, high = min(0.5, min(ratios) / 1.25), max(2.0, max(ratios) * 1.25)
    width, height = 1000, int(130 + 19 * (position + 1))
    data, labels, ticks = {}, [], []
    for y, one in rows:
        hardest = one.fastest()
        ratio = one.ratio(hardest)
        data.setdefault(one.subject, []).append(f"{ratio:.5g} {y:.2f} {min(1, ratio):.5g} {max(1, ratio):.5g} {y - 0.38:.2f} {y + 0.38:.2f}")
        labels.append(f"set label {quote(f'{ratio:.2f}')} at graph 1.08, first {y:.2f} right font ',10'")
        labels.append(f"set label {quote(hardest)} at graph 1.095, first {y:.2f} left font ',10'")
        ticks.append(f"{quote(one.name)} {y:.2f}")
    others = [f"{one.ratio(label):.5g} {y:.2f}" for y, one in rows for label in one.peers if label != one.fastest()]
    blocks, plots = [], []
    for subject, points in data.items():
        blocks.append(f"$d{len(blocks)} << EOD\n" + "\n".join(points) + "\nEOD")
        plots.append(f"$d{len(blocks) - 1} using 1:2:3:4:5:6 with boxxyerror fillstyle solid 0.85 noborder "
                     f"linecolor rgb '{COLOURS.get(subject, '#666666')}'")
    if others:
        blocks.append("$others << EOD\n" + "\n".join(others) + "\nEOD")
        plots.append("$others using 1:2 with points pointtype 6 pointsize 0.7 linecolor rgb '#444444'")
    marks = [value for value in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= value <= high]
    script = "\n".join([
        *blocks, "set lmargin at screen 0.36; set rmargin at screen 0.76",
        f"set tmargin at screen {1 - 62 / height:.4f}; set bmargin at screen {62 / height:.4f}",
        f"set label {quote('Time of the fastest peer / time of Steppe')} at screen 0.02, screen {1 - 22 / height:.4f} left font ',15'",
        f"set label {quote('To the right of the line Steppe is faster. Circles: the other peers of the case.')} "
        f"at screen 0.02, screen {1 - 44 / height:.4f} left font ',11'",
        f"set label {quote(machine['processor'] + ', ' + str(machine['threads']) + ' threads, ' + machine['date'][:10])} "
        f"at screen 0.02, screen {14 / height:.4f} left font ',10'",
        f"set logscale x; set xrange [{low:.4g}:{high:.4g}]; set yrange [{position + 1:.2f}:0]",
        "set xtics (" + ", ".join(f"'{value:g}' {value:g}" for value in marks) + ") nomirror out",
        "set ytics (" + ", ".join(ticks) + ") scale 0 font ',10'",
        "set border 1; set grid xtics linetype 1 linecolor rgb '#cccccc' linewidth 1",
        "unset key",
        f"set arrow from 1,0 to 1,{position + 1:.2f} nohead front linecolor rgb '#000000' linewidth 1.5", *labels,
        "plot " + ", ".join(plots)])
    written = []
    for kind, terminal in (("svg", f"svg size {width},{height} font 'DejaVu Sans,Helvetica,Arial,sans-serif,12' background rgb 'white'"),
                           ("png", f"pngcairo size {2 * width},{2 * height} fontscale 2 linewidth 2 pointscale 2 font 'DejaVu Sans,12'")):
        path = f"{base}.{kind}"
        try:
            done = subprocess.run(["gnuplot"], input=f"set terminal {terminal} noenhanced\nset output {quote(path)}\n{script}\n",
                                  capture_output=True, text=True)
        except OSError:
            print("compare: no picture, for gnuplot is not installed")
            return written
        if done.returncode != 0:
            print(f"compare: no {path}: {done.stderr.strip()}")
        else:
            written.append(path)
    return written


def quote(text):
    return "'" + str(text).replace("'", "''") + "'"
