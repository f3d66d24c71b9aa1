#!/usr/bin/env python3
"""PyTorch as a peer: `peer_pytorch.py THREADS` serves (see serve.py), `peer_pytorch.py THREADS --accuracy` prints batch norm's errors."""
import json
import sys

import numpy
import torch
import torch.nn.functional as F

from serve import Work, fastest, serve, sizes

aten = torch.ops.aten


def batch_norm(direction, layout, shape):
    """Training's batch norm with γ, β and running statistics: forward as users call it, backward without autograd's own cost."""
    channels = shape[1]
    order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    x = torch.randn(shape).contiguous(memory_format=order)
    gamma, beta = torch.rand(channels) + 0.5, torch.randn(channels)
    mean, variance = torch.zeros(channels), torch.ones(channels)
    if direction == "forward":
        return Work(lambda: F.batch_norm(x, mean, variance, gamma, beta, True, 0.1, 1e-5))
    y, saved_mean, saved_scale = aten.native_batch_norm(x, gamma, beta, mean, variance, True, 0.1, 1e-5)
    dy = torch.randn(shape).contiguous(memory_format=order)
    wanted = [True, True, True]
    return Work(lambda: aten.native_batch_norm_backward(
        dy, x, gamma, mean, variance, saved_mean, saved_scale, True, 1e-5, wanted))


def convolution(direction, layout, text):
    """A convolution of 3x3 with a padding of 1: its output alone, or with the gradients of input, weight and bias."""
    shape, outputs = text.split("-")
    shape, outputs = sizes(shape), int(outputs)
    order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    layer = torch.nn.Conv2d(shape[1], outputs, 3, padding=1).to(memory_format=order)
    x = torch.randn(shape).contiguous(memory_format=order)
    if direction == "forward":
        return Work(lambda: layer(x))
    x.requires_grad_()
    dy = torch.randn(shape[0], outputs, *shape[2:]).contiguous(memory_format=order)

    def step():
        x.grad = None
        layer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            layer(x).backward(dy)

    return Work(step)


def convolution_block(layout, text):
    """A convolution of 3x3 with a padding of 1, batch norm and ReLU in training, with all gradients."""
    shape, outputs = text.split("-")
    shape, outputs = sizes(shape), int(outputs)
    order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    block = torch.nn.Sequential(
        torch.nn.Conv2d(shape[1], outputs, 3, padding=1, bias=False), torch.nn.BatchNorm2d(outputs), torch.nn.ReLU(inplace=True))
    block.to(memory_format=order)
    x = torch.randn(shape).contiguous(memory_format=order).requires_grad_()
    dy = torch.randn(shape[0], outputs, *shape[2:]).contiguous(memory_format=order)

    def step():
        x.grad = None
        block.zero_grad(set_to_none=True)
        with torch.enable_grad():
            block(x).backward(dy)

    return Work(step)


def row_norm(subject, direction, layout, shape):
    """Layer and RMS norm over the last axis, group norm in 32 groups, instance norm without γ and β: forward as users call it, backward
    by the operator where there is one, else by autograd."""
    x = torch.randn(shape)
    dy = torch.randn(shape)
    if layout == "nhwc":
        x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    size = shape[1] if len(shape) == 4 else shape[-1]
    gamma, beta = torch.rand(size) + 0.5, torch.randn(size)
    forward = {
        "layernorm": lambda: F.layer_norm(x, (size,), gamma, beta, 1e-5),
        "rmsnorm": lambda: F.rms_norm(x, (size,), gamma),
        "groupnorm": lambda: F.group_norm(x, 32, gamma, beta, 1e-5),
        "instancenorm": lambda: F.instance_norm(x),
    }[subject]
    if direction == "forward":
        return Work(forward)
    if subject == "layernorm":
        y, mean, rstd = aten.native_layer_norm(x, (size,), gamma, beta, 1e-5)
        return Work(lambda: aten.native_layer_norm_backward(dy, x, (size,), mean, rstd, gamma, beta, [True, True, True]))
    if subject == "groupnorm":
        n, c, positions = shape[0], shape[1], shape[2] * shape[3]
        y, mean, rstd = aten.native_group_norm(x, gamma, beta, n, c, positions, 32, 1e-5)
        return Work(lambda: aten.native_group_norm_backward(dy, x, mean, rstd, gamma, n, c, positions, 32, [True, True, True]))
    wanted = [x, gamma] if subject == "rmsnorm" else [x]
    for tensor in wanted:
        tensor.requires_grad_()
    with torch.enable_grad():
        y = forward()
    return Work(lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True))


def training_step(widths, batch, compiled):
    """Forward, loss, backward and the update by SGD with momentum.

    The step length is too small to learn anything: a batch learnt by heart has gradients of zero, soon denormal, and slow for that.
    """
    layers = []
    for inputs, outputs in zip(widths[:-2], widths[1:-1]):
        layers += [torch.nn.Linear(inputs, outputs, bias=False), torch.nn.BatchNorm1d(outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-2], widths[-1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, fused=True)
    x, labels = torch.randn(batch, widths[0]), torch.randint(0, widths[-1], (batch,))

    def loss(x, labels):
        return F.cross_entropy(model(x), labels)

    if compiled:
        torch._dynamo.reset()
        loss = torch.compile(loss, fullgraph=True, dynamic=False)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss(x, labels).backward()
        optimizer.step()

    return Work(step)


class Block(torch.nn.Module):
    """Two 3×3 convolutions with batch norm beside the input or its projection."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = torch.nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = torch.nn.BatchNorm2d(outputs)
        self.second = torch.nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = torch.nn.BatchNorm2d(outputs)
        self.shortcut = torch.nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = torch.nn.Sequential(
                torch.nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), torch.nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.first_norm(self.first(x)), inplace=True)
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x), inplace=True)


def resnet_step(layers, size, batch, layout):
    """A residual network's training step, with the optimizer of `training_step`."""
    parts = [torch.nn.Conv2d(1, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU(inplace=True)]
    channels = 16
    for stage in range(3):
        for block in range((layers - 2) // 6):
            outputs = 16 << stage
            parts.append(Block(channels, outputs, 2 if stage and not block else 1))
            channels = outputs
    parts += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(channels, 10)]
    order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    model = torch.nn.Sequential(*parts).to(memory_format=order)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, fused=True)
    x, labels = torch.rand(batch, 1, *size).contiguous(memory_format=order), torch.arange(batch) % 10

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return Work(step)


def matmul(m, k, n):
    a, b, c = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    works = [Work(lambda: torch.mm(a, b, out=c), note="mm")]
    if m == 1:
        row, result = a[0], torch.empty(n)
        packed = b.t().contiguous()
        works += [Work(lambda: torch.mv(b.t(), row, out=result), note="mv"),
                  Work(lambda: torch.mv(packed, row, out=result), note="mv, matrix transposed before"),
                  Work(lambda: F.linear(a, packed), note="linear")]
    return fastest(works) if len(works) > 1 else works[0]


def optimizer(kind, count):
    """The optimizer's step alone: clearing the gradient is not counted."""
    weights = torch.randn(count).requires_grad_()
    weights.grad = torch.randn(count)
    if kind == "adam":
        return Work(torch.optim.Adam([weights], lr=1e-6, fused=True).step)
    return Work(torch.optim.SGD([weights], lr=1e-6, momentum=0.9, fused=True).step)


def prepare(name):
    torch.manual_seed(1)
    match name.split("/"):
        case ["batchnorm", direction, shape]:
            return batch_norm(direction, "nchw", sizes(shape))
        case ["batchnorm", direction, "nhwc", shape]:
            return batch_norm(direction, "nhwc", sizes(shape))
        case ["conv", direction, text]:
            return convolution(direction, "nchw", text)
        case ["conv", direction, "nhwc", text]:
            return convolution(direction, "nhwc", text)
        case ["conv-bn-relu", "training", text]:
            return convolution_block("nchw", text)
        case ["conv-bn-relu", "training", "nhwc", text]:
            return convolution_block("nhwc", text)
        case ["layernorm" | "rmsnorm" | "groupnorm" | "instancenorm" as subject, direction, *layout, shape]:
            return row_norm(subject, direction, layout[0] if layout else "nchw", sizes(shape))
        case ["training-step", widths, batch, *compiled]:
            return training_step([int(w) for w in widths.split("-")], int(batch.removeprefix("batch-")), compiled == ["compiled"])
        case ["resnet", "training-step", layers, size, batch, *layout]:
            return resnet_step(int(layers.removesuffix("-layers")), sizes(size), int(batch.removeprefix("batch-")), *layout or ["nchw"])
        case ["matmul", shape]:
            return matmul(*sizes(shape))
        case ["optimizer", kind, count]:
            return optimizer(kind, int(count))
    return None


def print_accuracy():
    """The largest error of batch norm's output against Float64 on the same Float32 input, as lines of JSON."""
    generator = numpy.random.default_rng(1)
    for shape in (4096, 64), (32, 64, 28, 28):
        for mean, deviation in (1e4, 1), (1e6, 1), (1, 1e-3):
            x = generator.normal(mean, deviation, shape).astype(numpy.float32)
            axes = tuple(axis for axis in range(len(shape)) if axis != 1)
            exact = x.astype(numpy.float64)
            exact -= exact.mean(axes, keepdims=True)
            exact /= numpy.sqrt((exact * exact).mean(axes, keepdims=True) + 1e-5)
            for layout in ("nchw", "nhwc") if len(shape) == 4 else ("nchw",):
                order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
                y = F.batch_norm(torch.from_numpy(x).contiguous(memory_format=order), None, None, training=True)
                print(json.dumps({"shape": "x".join(map(str, shape)), "layout": layout if len(shape) == 4 else "", "mean": mean,
                                  "deviation": deviation, "error": float(abs(y.numpy() - exact).max())}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    if sys.argv[2:] == ["--accuracy"]:
        print_accuracy()
    else:
        with torch.no_grad():
            serve({"name": "PyTorch", "version": torch.__version__, "instruction set": torch.backends.cpu.get_cpu_capability()}, prepare)
