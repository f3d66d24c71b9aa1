#!/usr/bin/env python3
"""Measures steppe-bench's cases in turns with PyTorch, JAX, ONNX Runtime, OpenBLAS and LIBXSMM-DNN, and writes the comparison.

Every case is measured peer, ours, peer, ours: what the machine does meanwhile meets both. A time is the median of the turns' medians,
a ratio the peer's time over ours. Ways to run it: `script/compare`, which first installs and builds what is missing.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

from cases import all_cases, all_groups
from partners import FOLDER, Partner, build_libxsmm
from report import Measured, machine_of, print_groups, write_report


class Parser(argparse.ArgumentParser):
    """Exits with 64 where it is called wrongly, as our commands do."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def regex(text):
    try:
        return re.compile(text)
    except re.error as problem:
        raise argparse.ArgumentTypeError(f"no regular expression: {problem}") from problem


def parse_arguments():
    parser = Parser(prog="script/compare", description=__doc__.split("\n")[0])
    parser.add_argument("--filter", type=regex, default=regex(""), metavar="REGEX", help="only the cases whose names contain it")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each side for each peer (7; 3 with --quick)")
    parser.add_argument("--milliseconds", type=float, metavar="MS", help="length of a turn (200; 50 with --quick)")
    parser.add_argument("--quick", action="store_true", help="short turns: to try it, not to quote it")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="for all sides (2)")
    parser.add_argument("--libxsmm", metavar="PATH", help="a built LIBXSMM-DNN, whose batch norm is then measured too")
    parser.add_argument("--kept-memory", action="store_true",
                        help="also PyTorch with an allocator told to keep freed memory, whose large results then cost no page faults")
    parser.add_argument("--peers-only", action="store_true", help="the peers' times alone")
    parser.add_argument("--accuracy", action="store_true", help="also the errors of PyTorch's batch norm against Float64")
    parser.add_argument("--output", default="comparison", metavar="FOLDER", help="for comparison.md, .csv, .svg and .png (comparison/)")
    parser.add_argument("--list", action="store_true", help="name the cases and their peers, and measure nothing")
    parser.add_argument("--bench", metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rounds = max(1, options.rounds or (3 if options.quick else 7))
    options.milliseconds = options.milliseconds or (50 if options.quick else 200)
    if options.threads < 1:
        parser.error("--threads must be at least 1")
    return options


def start_partners(options, workspace):
    threads = str(options.threads)

    def python(name):
        return [sys.executable, os.path.join(FOLDER, f"peer_{name}.py"), threads]

    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    # glibc gives large blocks back to the system when they are freed, and the next result faults its pages in again.
    keeping = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
    partners = {name: Partner(name, python(name), environment) for name in ("pytorch", "jax", "onnxruntime", "numpy")}
    if options.kept_memory:
        partners["pytorch-keeping"] = Partner("pytorch", python("pytorch"), {**environment, **keeping})
    if options.libxsmm:
        binary = os.path.join(workspace, "libxsmm_batchnorm")
        build_libxsmm(os.path.abspath(options.libxsmm), binary)
        partners["libxsmm"] = Partner("libxsmm", [binary], environment)
    if not options.peers_only:
        partners["ours"] = Partner("steppe-bench", [options.bench, "--serve", "--threads", threads])
    return partners


def peers_of(case, partners):
    """The case's peers that there are; PyTorch with kept memory beside PyTorch."""
    for peer in case.peers:
        if peer.process in partners:
            yield peer.label, partners[peer.process], peer.case
        if peer.process == "pytorch" and "pytorch-keeping" in partners and case.subject == "batchnorm":
            yield f"{peer.label}, memory kept", partners["pytorch-keeping"], peer.case


def measure(case, partners, options):
    """Measures a case with each of its peers in turns, and returns it, or None where nothing came of it."""
    ours = partners.get("ours")
    measured = Measured(case.name)
    if ours:
        first = ours.turn(case.name, 1)
        if "error" in first:
            print(f"{case.name}: not compared, for steppe-bench says: {first['error']}", flush=True)
            return None
    for label, partner, name in peers_of(case, partners):
        problem = partner.turn(name, 1).get("error")
        for _ in range(options.rounds):
            if problem:
                break
            theirs = partner.turn(name, options.milliseconds)
            own = ours.turn(case.name, options.milliseconds) if ours else {}
            problem = theirs.get("error") or own.get("error")
            if not problem:
                measured.add(label, theirs["median_seconds"], own, theirs.get("note", ""))
        if problem:
            print(f"{case.name}: {label}: {problem}", flush=True)
            measured.drop(label)
    print(measured.line(), flush=True)
    return measured if measured.peers else None


def accuracy(options):
    command = [sys.executable, os.path.join(FOLDER, "peer_pytorch.py"), str(options.threads), "--accuracy"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def main():
    options = parse_arguments()
    cases = [case for case in all_cases() if options.filter.search(case.name)]
    if options.list:
        for case in cases:
            print(f"{case.name:48} {', '.join(peer.label for peer in case.peers)}")
        return 0
    if not cases:
        print("compare: no case's name contains that; --list names them", file=sys.stderr)
        return 64
    if not options.peers_only and not options.bench:
        print("compare: needs --bench or --peers-only; script/compare builds steppe-bench and gives it", file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory() as workspace:
        try:
            partners = start_partners(options, workspace)
        except (FileNotFoundError, subprocess.CalledProcessError) as problem:
            print(f"compare: {problem}", file=sys.stderr)
            return 1
        results = []
        subject = None
        try:
            for case in cases:
                if case.subject != subject:
                    # Each subject begins with fresh processes: none keeps memory, caches or threads of another.
                    for partner in partners.values():
                        partner.end()
                    subject = case.subject
                measured = measure(case, partners, options)
                if measured:
                    results.append(measured)
        finally:
            for partner in partners.values():
                partner.end()
    if not results:
        print("compare: nothing was measured", file=sys.stderr)
        return 1
    errors = accuracy(options) if options.accuracy else []
    descriptions = [partner.description for partner in partners.values() if partner.description]
    machine = machine_of(descriptions, options)
    print_groups(results, all_groups())
    written = write_report(options.output, results, all_groups(), machine, errors)
    print(f"\nwritten: {', '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
