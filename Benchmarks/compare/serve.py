"""What all peers in Python share: they answer requests as `steppe-bench --serve` does.

The first line that a peer prints describes it. Then each line `CASE MILLISECONDS` on its standard input makes it run that case for
about so long, and it prints a line of JSON with the time of one run. A case is prepared at its first request and kept until another
is asked for. A case that the peer doesn't know gives an error, and the end of the input ends it.
"""
import gc
import json
import statistics
import sys
import time


class Work:
    """One prepared case: `run` does the work once, and `finish` waits for all of it (where `run` only starts it)."""

    def __init__(self, run, finish=None, note=""):
        self.run, self.finish, self.note = run, finish or (lambda: None), note

    def seconds(self, runs):
        run = self.run
        start = time.perf_counter()
        for _ in range(runs):
            run()
        self.finish()
        return (time.perf_counter() - start) / runs

    def measure(self, seconds):
        """The seconds of one run, as a list with a number for each sample, and the runs in a sample."""
        end = time.perf_counter() + 0.1 * seconds
        estimate = self.seconds(1)
        while time.perf_counter() < end:
            estimate = min(estimate, self.seconds(1))
        runs = max(1, round(seconds / 40 / estimate))
        samples = []
        end = time.perf_counter() + 0.9 * seconds
        while len(samples) < 3 or time.perf_counter() < end:
            samples.append(self.seconds(runs))
        return samples, runs


def fastest(works, seconds=0.1):
    """The fastest of several ways to do the same work: a peer is measured at its best."""
    for work in works:
        work.seconds(3)
    return min(works, key=lambda work: statistics.median(work.measure(seconds)[0]))


def serve(description, prepare):
    """Answers requests until the input ends. `prepare(name)` returns a `Work`, or None where the name is unknown."""
    answer({"peer": description})
    gc.disable()
    known, work = None, None
    for line in sys.stdin:
        try:
            name, milliseconds = line.split()
            if name != known:
                known, work = None, None
                gc.collect()
                work = prepare(name)
                if work is None:
                    answer({"error": f"unknown case {name}"})
                    continue
                work.seconds(3)
                known = name
            samples, runs = work.measure(float(milliseconds) / 1000)
            low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
            answer({"name": name, "median_seconds": middle, "lower_quartile_seconds": low, "upper_quartile_seconds": high,
                    "samples": len(samples), "runs_per_sample": runs, "note": work.note})
        except Exception as problem:  # The other cases can still be measured.
            known, work = None, None
            answer({"error": f"{type(problem).__name__}: {problem}"})


def answer(content):
    print(json.dumps(content), flush=True)


def sizes(text):
    return tuple(int(part) for part in text.split("x"))
