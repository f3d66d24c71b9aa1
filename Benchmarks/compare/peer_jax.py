#!/usr/bin/env python3
"""JAX as a peer, compiled for the CPU: `peer_jax.py THREADS` serves (see serve.py)."""
import os
import sys

threads = int(sys.argv[1])
# XLA starts as many threads as the process may use cores.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
with open("/proc/cpuinfo") as file:
    if "avx512f" in file.read():
        # Half the registers' width is XLA's habit; whole ones are faster where they exist.
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy

from serve import Work, serve, sizes


def batch_norm_forward(x, gamma, beta, mean, variance):
    """Over all axes but the last, with one pass over x for both moments, which is JAX's fastest way.

    Returns y, the new running mean and variance, and what the backward pass needs.
    """
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    batch_mean = x.mean(axes)
    batch_variance = jnp.maximum((x * x).mean(axes) - batch_mean * batch_mean, 0)
    scale = jax.lax.rsqrt(batch_variance + 1e-5)
    y = (x - batch_mean) * (scale * gamma) + beta
    return y, 0.9 * mean + 0.1 * batch_mean, 0.9 * variance + (0.1 * count / (count - 1)) * batch_variance, batch_mean, scale


def batch_norm_backward(dy, x, gamma, batch_mean, scale):
    """Returns dx, dγ and dβ."""
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    normalized = (x - batch_mean) * scale
    d_beta, d_gamma = dy.sum(axes), (dy * normalized).sum(axes)
    return (gamma * scale) * (dy - d_beta / count - normalized * (d_gamma / count)), d_gamma, d_beta


def batch_norm(direction, shape):
    """Channels last, the only layout in which XLA is fast here."""
    random = numpy.random.default_rng(1)
    shape = (shape[0], *shape[2:], shape[1])
    x, dy = (jnp.asarray(random.standard_normal(shape, dtype=numpy.float32)) for _ in range(2))
    ones, zeros = jnp.ones(shape[-1]), jnp.zeros(shape[-1])
    forward = jax.jit(batch_norm_forward)
    result = [forward(x, ones, zeros, zeros, ones)]
    if direction == "forward":
        def run():
            result[0] = forward(x, ones, zeros, zeros, ones)
    else:
        saved, backward = result[0][3:], jax.jit(batch_norm_backward)

        def run():
            result[0] = backward(dy, x, ones, *saved)

    return Work(run, finish=lambda: jax.block_until_ready(result[0]))


def training_step(widths, batch):
    random = numpy.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(random.standard_normal(shape, dtype=numpy.float32) / numpy.sqrt(shape[0]))

    hidden = list(zip(widths[:-2], widths[1:-1]))
    parameters = {
        "hidden": [{"weight": normal(i, o), "gamma": jnp.ones(o), "beta": jnp.zeros(o)} for i, o in hidden],
        "weight": normal(widths[-2], widths[-1]), "bias": jnp.zeros(widths[-1])}
    statistics = [(jnp.zeros(o), jnp.ones(o)) for _, o in hidden]
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    x = jnp.asarray(random.standard_normal((batch, widths[0]), dtype=numpy.float32))
    labels = jnp.asarray(random.integers(0, widths[-1], batch))

    def loss(parameters, statistics, x, labels):
        updated = []
        for layer, (mean, variance) in zip(parameters["hidden"], statistics):
            x, mean, variance, *_ = batch_norm_forward(x @ layer["weight"], layer["gamma"], layer["beta"], mean, variance)
            x = jax.nn.relu(x)
            updated.append((mean, variance))
        scores = jax.nn.log_softmax(x @ parameters["weight"] + parameters["bias"])
        return -jnp.take_along_axis(scores, labels[:, None], 1).mean(), updated

    def step(parameters, velocity, statistics, x, labels):
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, statistics, x, labels)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        # As in peer_pytorch.py, too small a step to learn the batch by heart.
        parameters = jax.tree.map(lambda p, v: p - 1e-6 * v, parameters, velocity)
        return parameters, velocity, statistics, value

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    state = [(parameters, velocity, statistics, None)]

    def run():
        parameters, velocity, statistics, _ = state[0]
        state[0] = compiled(parameters, velocity, statistics, x, labels)

    return Work(run, finish=lambda: jax.block_until_ready(state[0]))


def matmul(m, k, n):
    random = numpy.random.default_rng(1)
    a = jnp.asarray(random.standard_normal((m, k), dtype=numpy.float32))
    b = jnp.asarray(random.standard_normal((k, n), dtype=numpy.float32))
    compiled = jax.jit(jnp.matmul)
    result = [None]

    def run():
        result[0] = compiled(a, b)

    return Work(run, finish=lambda: jax.block_until_ready(result[0]))


def prepare(name):
    match name.split("/"):
        case ["batchnorm", direction, shape] if len(sizes(shape)) == 2:
            return batch_norm(direction, sizes(shape))
        case ["batchnorm", direction, "nhwc", shape]:
            return batch_norm(direction, sizes(shape))
        case ["matmul", shape]:
            return matmul(*sizes(shape))
        case ["training-step", widths, batch]:
            return training_step([int(w) for w in widths.split("-")], int(batch.removeprefix("batch-")))
    return None


if __name__ == "__main__":
    serve({"name": "JAX", "version": jax.__version__}, prepare)
