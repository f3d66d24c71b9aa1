#!/usr/bin/env python3
"""Times an epoch of the default `steppe train` against the same recipe in PyTorch, in turns, and compares the accuracies.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install torch numpy
    swift build -c release --product steppe
    /tmp/peers/bin/python Benchmarks/compare_training.py .build/release/steppe --rounds 5 --seeds 1 2 3

PyTorch gets the same network, batches, optimizer, schedule and standardization, with all images as one tensor in memory, and its own
time without evaluation, as `steppe` reports it.
"""
import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import torch

FOLDER = "/usr/share/datasets/fashion-mnist/"


def load(name, header):
    with gzip.open(FOLDER + name) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=header)


def images(name):
    return torch.tensor(load(name, 16).reshape(-1, 784)).float() / 255


def labels(name):
    return torch.tensor(load(name, 8).astype(numpy.int64))


def train_torch(data, seed, epochs):
    """Returns the seconds of each epoch and the test accuracy at the end."""
    x, y, x_test, y_test = data
    torch.manual_seed(seed)
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(784, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(),
        nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10))
    weights = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0}], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // 128))
    loss = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(epochs):
        model.train()
        start = time.perf_counter()
        order = torch.randperm(len(x))
        for first in range(0, len(x), 128):
            rows = order[first:first + 128]
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
        seconds.append(time.perf_counter() - start)
    model.eval()
    with torch.no_grad():
        return seconds, (model(x_test).argmax(1) == y_test).float().mean().item()


def train_steppe(command, seed, epochs, threads):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [command, "train", "--epochs", str(epochs), "--seed", str(seed), "--threads", str(threads), "--output", folder,
             "--quiet"], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(folder, "metrics.jsonl")) as file:
            epochs = [json.loads(line) for line in file][1:]
    return [epoch["seconds"] for epoch in epochs], epochs[-1]["test_accuracy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steppe", help="the built command")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of epochs that are timed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="also compare the accuracy after ten epochs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, x_test = images("train-images-idx3-ubyte.gz"), images("t10k-images-idx3-ubyte.gz")
    mean, deviation = x.mean(), x.std()
    data = ((x - mean) / deviation, labels("train-labels-idx1-ubyte.gz"),
            (x_test - mean) / deviation, labels("t10k-labels-idx1-ubyte.gz"))
    ours, theirs = [], []
    for _ in range(options.rounds):
        theirs += train_torch(data, 1, 1)[0]
        ours += train_steppe(options.steppe, 1, 1, options.threads)[0]
        print(f"epoch: PyTorch {theirs[-1]:.2f} s, Steppe {ours[-1]:.2f} s, ratio {theirs[-1] / ours[-1]:.2f}", flush=True)
    ratios = [a / b for a, b in zip(theirs, ours)]
    print(f"median of {options.rounds}: PyTorch {torch.__version__} {statistics.median(theirs):.2f} s, "
          f"Steppe {statistics.median(ours):.2f} s, ratio {statistics.median(ratios):.2f}")
    for seed in options.seeds:
        peer = train_torch(data, seed, 10)[1]
        own = train_steppe(options.steppe, seed, 10, options.threads)[1]
        print(f"seed {seed}: test accuracy after 10 epochs: PyTorch {100 * peer:.2f} %, Steppe {100 * own:.2f} %", flush=True)


if __name__ == "__main__":
    sys.exit(main())
