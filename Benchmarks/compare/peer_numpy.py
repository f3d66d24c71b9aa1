#!/usr/bin/env python3
"""OpenBLAS as a peer, called by NumPy: `peer_numpy.py THREADS` serves (see serve.py)."""
import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[1]
# Where these are set they choose kernels for another processor than this one.
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)

import numpy

from serve import Work, fastest, serve, sizes


def matmul(m, k, n):
    random = numpy.random.default_rng(1)
    a = random.standard_normal((m, k), dtype=numpy.float32)
    b = random.standard_normal((k, n), dtype=numpy.float32)
    c = numpy.empty((m, n), numpy.float32)
    if m > 1:
        return Work(lambda: numpy.matmul(a, b, out=c))
    row, result, transposed = a[0], c[0], numpy.ascontiguousarray(b.T)
    return fastest([Work(lambda: numpy.dot(row, b, out=result), note="x·A"),
                    Work(lambda: numpy.dot(transposed, row, out=result), note="A·x, matrix transposed before")])


def prepare(name):
    match name.split("/"):
        case ["matmul", shape]:
            return matmul(*sizes(shape))
    return None


if __name__ == "__main__":
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    serve({"name": "OpenBLAS by NumPy", "version": f"{blas['version']} in NumPy {numpy.__version__}"}, prepare)
