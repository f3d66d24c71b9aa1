#!/usr/bin/env python3
"""Times `steppe normalize` on files larger than it may keep in memory against NumPy and pandas, in turns, and measures memory.

    swift build -c release --product steppe
    python3 Benchmarks/compare_features.py .build/release/steppe --folder /var/tmp

It makes the files itself, of normal numbers: an NPY file of 32-bit floats (4 GB) and a table of comma-separated values (1 GB, six digits
after the point), and removes them in the end. Steppe's time is that of the whole process, from the file; NumPy's is that of mean and
standard deviation alone, once the array is in memory. Tables go from the file to standardized 32-bit floats in an NPY file: two commands of
Steppe's, against pandas.read_csv and NumPy's save. All files are in the system's cache.

NumPy and pandas are found in $STEPPE_PEERS or ~/.cache/steppe-peers (`pip install numpy pandas` there); without them Steppe runs alone.
"""
import argparse
import array
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import time

PEERS = os.path.join(os.environ.get("STEPPE_PEERS", os.path.expanduser("~/.cache/steppe-peers")), "bin", "python")

MOMENTS = """
import json, sys, time, numpy
x = numpy.fromfile(sys.argv[1], numpy.float32, offset=128).reshape(-1, int(sys.argv[2]))
start = time.perf_counter()
mean, deviation = x.mean(axis=0), x.std(axis=0)
print(json.dumps([time.perf_counter() - start, mean.tolist(), deviation.tolist(), numpy.__version__]))
"""

TABLE = """
import json, sys, time, numpy, pandas
start = time.perf_counter()
x = pandas.read_csv(sys.argv[1]).to_numpy()
z = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(numpy.float32)
numpy.save(sys.argv[2], z)
print(json.dumps([time.perf_counter() - start, pandas.__version__]))
"""


def run(command):
    """Returns the seconds, the largest memory in MB and the output of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command[:3])} … ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1e3, output


def write_array(path, gigabytes, features):
    """Rows of normal numbers; a block of them again and again, for their values cost nothing."""
    generator = random.Random(1)
    block = array.array("f", (generator.gauss(c % 10, 1 + c % 3) for _ in range(20_000) for c in range(features)))
    blocks = max(1, round(gigabytes * 1e9 / (4 * len(block))))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({20_000 * blocks}, {features}), }}"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117).encode() + b"\n")
        for _ in range(blocks):
            file.write(block.tobytes())


def write_table(path, gigabytes, features):
    generator = random.Random(2)
    lines = "".join(
        ",".join(f"{generator.gauss(c % 10, 1 + c % 3):.6f}" for c in range(features)) + "\n" for _ in range(20_000)).encode()
    with open(path, "wb") as file:
        file.write((",".join(f"feature {c}" for c in range(features)) + "\n").encode())
        for _ in range(max(1, round(gigabytes * 1e9 / len(lines)))):
            file.write(lines)


def peers():
    return subprocess.run([PEERS, "-c", "import numpy, pandas"], capture_output=True).returncode == 0 if os.path.exists(PEERS) else False


def show(title, ours, theirs, memory, peer):
    line = f"{title}: Steppe {statistics.median(ours):.2f} s, at most {max(memory):.0f} MB"
    if theirs:
        ratios = [b / a for a, b in zip(ours, theirs)]
        line += f"; {peer} {statistics.median(theirs):.2f} s, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steppe", help="the built command")
    parser.add_argument("--folder", default=".", help="where there is room for the files")
    parser.add_argument("--array", type=float, default=4, help="gigabytes of the NPY file; 0 for none")
    parser.add_argument("--table", type=float, default=1, help="gigabytes of the table; 0 for none")
    parser.add_argument("--features", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    compares = peers()
    if not compares:
        print(f"no NumPy and pandas in {PEERS}: Steppe runs alone")
    name = os.path.join(options.folder, f"steppe-features-{os.getpid()}")
    files = [name + end for end in (".npy", ".csv", ".safetensors", "-report.csv", "-z.npy", "-peer.npy")]
    data, table, scaler, report, z, peer_z = files
    try:
        if options.array > 0:
            write_array(data, options.array, options.features)
            ours, theirs, memory, version = [], [], [], ""
            for _ in range(options.rounds):
                seconds, most, _ = run([options.steppe, "normalize", "fit", data, "--output", scaler, "--report", report, "--quiet"])
                ours.append(seconds)
                memory.append(most)
                if compares:
                    seconds, mean, deviation, version = json.loads(run([PEERS, "-c", MOMENTS, data, str(options.features)])[2])
                    theirs.append(seconds)
            show(f"fit on {os.path.getsize(data) / 1e9:.2f} GB of NPY", ours, theirs, memory, f"NumPy {version} in memory")
            if compares:
                with open(report) as file:
                    rows = list(csv.DictReader(file))
                far = max(max(abs(float(row["mean"]) - m), abs(float(row["deviation"]) - s) / s)
                          for row, m, s in zip(rows, mean, deviation))
                print(f"largest difference of a mean, or of a deviation relative to it: {far:.1e}")
            os.remove(data)
        if options.table > 0:
            write_table(table, options.table, options.features)
            ours, theirs, memory, version = [], [], [], ""
            for _ in range(options.rounds):
                fit, most, _ = run([options.steppe, "normalize", "fit", table, "--output", scaler, "--quiet"])
                apply, more, _ = run([options.steppe, "normalize", "apply", table, "--scaler", scaler, "--output", z, "--quiet"])
                ours.append(fit + apply)
                memory.append(max(most, more))
                if compares:
                    seconds, version = json.loads(run([PEERS, "-c", TABLE, table, peer_z])[2])
                    theirs.append(seconds)
            show(f"{os.path.getsize(table) / 1e9:.2f} GB of CSV to standardized NPY", ours, theirs, memory, f"pandas {version}")
    finally:
        for file in files:
            if os.path.exists(file):
                os.remove(file)


if __name__ == "__main__":
    main()
