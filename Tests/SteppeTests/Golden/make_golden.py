"""Writes what PyTorch makes of small networks, for TorchTests.swift.

Run once, beside this file: pip install torch safetensors numpy && python make_golden.py

Each torch-<optimizer>-<type>.safetensors is one training step of Sequential(Linear(6, 8), BatchNorm1d(8), ReLU(), Linear(8, 4)):
  input, labels            the batch
  before.<name>            the state before, as are torch-state.safetensors' tensors under their plain names
  training, loss           the logits and the loss in train mode
  gradient.<name>          the parameters' gradients, and gradient.input
  after.<name>             the state after three steps on the same batch
  evaluation               the logits in eval mode after that

torch-convolutions.safetensors holds one Conv2d for each entry of CONVOLUTIONS, in float and double: <type>.<case>.
  input, output, weight, bias, and the gradients gradient.input, gradient.weight, gradient.bias for gradient.output
torch-convolution-state.safetensors is the state of Sequential(Conv2d(3, 4, 3, padding=1), BatchNorm2d(4)).
torch-norms-<type>.safetensors is one pass through each of a few normalizations, under its name and a dot:
  before.<name>            the state before
  input, upstream          the batch and the output's gradient
  training                 the output in train mode
  gradient.<name>          the parameters' gradients, and gradient.input
  after.<name>, evaluation the state and the output in eval mode after that
torch-norms-state.safetensors is the state of a Sequential of normalizations, whose input and output in eval mode are sequential.input and
sequential.evaluation in torch-norms-float.safetensors.
"""

import copy
import torch
from safetensors.torch import save_file


def build(dtype):
    torch.manual_seed(7)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
    ).to(dtype)
    with torch.no_grad():
        norm = model[1]
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.5, 0.5)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.num_batches_tracked.fill_(3)
    return model


def optimizer(name, model):
    # Steppe's weight decay leaves out biases, gamma and beta.
    groups = [
        {"params": [model[0].weight, model[3].weight]},
        {"params": [model[0].bias, model[1].weight, model[1].bias, model[3].bias], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)


def case(name, dtype, type_name):
    model = build(dtype)
    x = torch.randn(12, 6, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 4, (12,))
    result = {"input": x.detach().clone(), "labels": labels}
    before = copy.deepcopy(model.state_dict())
    result |= {f"before.{key}": value for key, value in before.items()}
    step = optimizer(name, model)
    for index in range(3):
        step.zero_grad()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        if index == 0:
            result["training"] = logits.detach().clone()
            result["loss"] = loss.detach().clone()
            result["gradient.input"] = x.grad.clone()
            result |= {f"gradient.{key}": value.grad.clone() for key, value in model.named_parameters()}
        step.step()
    result |= {f"after.{key}": value.clone() for key, value in model.state_dict().items()}
    model.eval()
    result["evaluation"] = model(x).detach().clone()
    save_file(result, f"torch-{name}-{type_name}.safetensors")
    if name == "sgd" and type_name == "float":
        save_file(before, "torch-state.safetensors")


def norm_cases():
    """Layers by name, each with its input's shape; their parameters are drawn."""
    return {
        "layer": (torch.nn.LayerNorm([5, 7]), (3, 2, 5, 7)),
        "layer-without-bias": (torch.nn.LayerNorm(11, eps=1e-3, bias=False), (4, 11)),
        "rms": (torch.nn.RMSNorm([9]), (3, 4, 9)),
        "group": (torch.nn.GroupNorm(4, 8), (3, 8, 5, 4)),
        "group-of-all": (torch.nn.GroupNorm(1, 6, eps=1e-3), (2, 6, 9)),
        "instance": (torch.nn.InstanceNorm2d(8), (3, 8, 5, 4)),
        "instance-tracking": (torch.nn.InstanceNorm2d(6, affine=True, track_running_stats=True, momentum=0.3), (3, 6, 5, 4)),
    }


def randomize(model):
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else tensor.uniform_(-1, 1)


def norms(dtype, type_name):
    torch.manual_seed(11)
    result = {}
    for name, (layer, shape) in norm_cases().items():
        layer = layer.to(dtype)
        randomize(layer)
        x = (torch.randn(shape, dtype=dtype) * 2 + 3).requires_grad_()
        upstream = torch.randn(shape, dtype=dtype)
        case = {"input": x.detach().clone(), "upstream": upstream}
        case |= {f"before.{key}": value.clone() for key, value in layer.state_dict().items()}
        y = layer(x)
        y.backward(upstream)
        case |= {"training": y.detach(), "gradient.input": x.grad}
        case |= {f"gradient.{key}": value.grad for key, value in layer.named_parameters()}
        case |= {f"after.{key}": value.clone() for key, value in layer.state_dict().items()}
        case["evaluation"] = layer.eval()(x).detach()
        result |= {f"{name}.{key}": value.contiguous() for key, value in case.items()}
    if type_name == "float":
        result |= sequential_norms()
    save_file(result, f"torch-norms-{type_name}.safetensors")


def sequential_norms():
    torch.manual_seed(13)
    model = torch.nn.Sequential(
        torch.nn.GroupNorm(4, 8), torch.nn.InstanceNorm2d(8), torch.nn.LayerNorm([5, 4]), torch.nn.RMSNorm([4]),
        torch.nn.InstanceNorm2d(8, affine=True, track_running_stats=True), torch.nn.LayerNorm([8, 5, 4], bias=False),
    )
    randomize(model)
    x = torch.randn(2, 8, 5, 4)
    save_file(model.state_dict(), "torch-norms-state.safetensors")
    return {"sequential.input": x, "sequential.evaluation": model.eval()(x).detach()}


for dtype, type_name in [(torch.float32, "float"), (torch.float64, "double")]:
    norms(dtype, type_name)
for name in ["sgd", "adamw"]:
    case(name, torch.float32, "float")
    case(name, torch.float64, "double")


# Keyword arguments of Conv2d, and the input's shape.
CONVOLUTIONS = {
    "plain": (dict(in_channels=3, out_channels=5, kernel_size=3), (2, 3, 6, 7)),
    "padding": (dict(in_channels=4, out_channels=3, kernel_size=3, padding=1), (2, 4, 5, 5)),
    "stride": (dict(in_channels=3, out_channels=4, kernel_size=3, stride=2, padding=1), (2, 3, 8, 7)),
    "dilation": (dict(in_channels=2, out_channels=3, kernel_size=3, dilation=2, padding=2), (2, 2, 7, 6)),
    "groups": (dict(in_channels=4, out_channels=6, kernel_size=(3, 2), stride=(1, 2), padding=(1, 0), groups=2), (2, 4, 5, 6)),
    "depthwise": (dict(in_channels=4, out_channels=8, kernel_size=3, padding=1, groups=4), (2, 4, 6, 5)),
    "pointwise": (dict(in_channels=5, out_channels=4, kernel_size=1), (2, 5, 4, 3)),
    "nhwc": (dict(in_channels=3, out_channels=4, kernel_size=3, stride=2, padding=1), (2, 3, 6, 5)),
}


def convolutions():
    result = {}
    for dtype, type_name in (torch.float32, "float"), (torch.float64, "double"):
        for name, (arguments, shape) in CONVOLUTIONS.items():
            torch.manual_seed(3)
            layer = torch.nn.Conv2d(**arguments).to(dtype)
            x = torch.randn(shape, dtype=dtype, requires_grad=True)
            y = layer(x)
            dy = torch.randn_like(y)
            y.backward(dy)
            # Steppe's channels-last tensors have their channels last in the shape as well.
            order = (lambda t: t.permute(0, 2, 3, 1).contiguous()) if name == "nhwc" else (lambda t: t.contiguous())
            tensors = {
                "input": order(x.detach()), "output": order(y.detach()), "gradient.output": order(dy), "gradient.input": order(x.grad),
                "weight": layer.weight.detach(), "bias": layer.bias.detach(),
                "gradient.weight": layer.weight.grad, "gradient.bias": layer.bias.grad,
            }
            result |= {f"{type_name}.{name}.{key}": value.clone() for key, value in tensors.items()}
    save_file(result, "torch-convolutions.safetensors")
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4))
    save_file(model.state_dict(), "torch-convolution-state.safetensors")


convolutions()


# torch-pooling-<type>.safetensors: what poolings make of images with equal values and one NaN each, and the gradients of their inputs for
# random gradients of their outputs: images, nan, and for each pooling <name>.output, <name>.gradient (of the output), <name>.input (the
# gradient of the input), and <name>.nan and <name>.nan.input for the images with NaN.
def pooling(dtype, type_name):
    torch.manual_seed(11)
    images = (torch.randn(2, 3, 7, 9, dtype=dtype) * 2).round()
    broken = images.clone()
    broken[0, 1, 3, 4] = broken[1, 2, 0, 0] = broken[1, 2, 1, 1] = torch.nan
    result = {"images": images, "nan": broken}
    layers = {
        "max": torch.nn.MaxPool2d(3, stride=2, padding=1),
        "max-dilated": torch.nn.MaxPool2d((2, 3), stride=1, dilation=2),
        "mean": torch.nn.AvgPool2d(3, stride=2, padding=1),
        "mean-inside": torch.nn.AvgPool2d((3, 2), stride=(1, 3), padding=1, count_include_pad=False),
        "global": torch.nn.AdaptiveAvgPool2d(1),
    }
    for name, layer in layers.items():
        x = images.clone().requires_grad_()
        y = layer(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        result |= {f"{name}.output": y.detach().clone(), f"{name}.gradient": dy, f"{name}.input": x.grad.clone()}
        x = broken.clone().requires_grad_()
        y = layer(x)
        y.backward(dy)
        result |= {f"{name}.nan": y.detach().clone(), f"{name}.nan.input": x.grad.clone()}
    save_file(result, f"torch-pooling-{type_name}.safetensors")


pooling(torch.float32, "float")
pooling(torch.float64, "double")


# torch-resnet-<type>.safetensors: three training steps by SGD of a small residual network, as torch-sgd-<type>.safetensors has them.
class Block(torch.nn.Sequential):
    """relu(shortcut(x) + layers(x)), the layers' keys those of a Sequential and the shortcut's under its name."""

    def __init__(self, inputs, outputs, stride):
        super().__init__(
            torch.nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), torch.nn.BatchNorm2d(outputs),
            torch.nn.ReLU(), torch.nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), torch.nn.BatchNorm2d(outputs),
        )
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = torch.nn.Sequential(
                torch.nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), torch.nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = x
        for layer in list(self)[:5]:
            y = layer(y)
        return torch.relu(y + (self.shortcut(x) if self.projects else x))


def residual(dtype, type_name):
    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), Block(4, 4, 1),
        Block(4, 6, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 5),
    ).to(dtype)
    x = torch.randn(6, 2, 9, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 5, (6,))
    result = {"input": x.detach().clone(), "labels": labels}
    result |= {f"before.{key}": value for key, value in copy.deepcopy(model.state_dict()).items()}
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    step = torch.optim.SGD(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}], lr=0.05, momentum=0.9, weight_decay=0.01)
    for index in range(3):
        step.zero_grad()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        if index == 0:
            result |= {"training": logits.detach().clone(), "loss": loss.detach().clone(), "gradient.input": x.grad.clone()}
            result |= {f"gradient.{key}": value.grad.clone() for key, value in model.named_parameters()}
        step.step()
    result |= {f"after.{key}": value.clone() for key, value in model.state_dict().items()}
    model.eval()
    result["evaluation"] = model(x).detach().clone()
    save_file(result, f"torch-resnet-{type_name}.safetensors")


residual(torch.float32, "float")
residual(torch.float64, "double")


# torch-weights-<type>.safetensors: layers whose weight is normalized, each case's tensors behind its name and a dot:
#   input, output, output_gradient    one call in train mode, and the gradient that goes back
#   before.<name>, hooks.<name>       the state before, under the names of parametrizations and of the older functions
#   gradient.<name>, gradient.input   the gradients
#   after.<name>                      the state after, in which a power iteration has moved u and v
#   evaluation                        the output in eval mode after that
def weights(dtype, type_name):
    result = {}
    for case, (weight, spectral, layer, shape) in {
        "weight-dense": (True, False, lambda: torch.nn.Linear(6, 4), (5, 6)),
        "weight-convolution": (True, False, lambda: torch.nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
        "spectral-dense": (False, True, lambda: torch.nn.Linear(6, 4), (5, 6)),
        "spectral-convolution": (False, True, lambda: torch.nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    }.items():
        torch.manual_seed(11)
        layer = layer().to(dtype)
        p = torch.nn.utils.parametrizations
        model = p.weight_norm(layer) if weight else p.spectral_norm(layer)
        with torch.no_grad():
            if weight:
                model.parametrizations.weight.original0.uniform_(0.5, 2)
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        before = copy.deepcopy(model.state_dict())
        hooks = {
            "parametrizations.weight.original0": "weight_g",
            "parametrizations.weight.original1": "weight_v",
            "parametrizations.weight.original": "weight_orig",
            "parametrizations.weight.0._u": "weight_u",
            "parametrizations.weight.0._v": "weight_v",
        }
        y = model(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors = {"input": x.detach(), "output": y.detach(), "output_gradient": dy, "gradient.input": x.grad}
        tensors |= {f"before.{key}": value for key, value in before.items()}
        tensors |= {f"hooks.{hooks.get(key, key)}": value for key, value in before.items()}
        tensors |= {f"gradient.{key}": value.grad for key, value in model.named_parameters()}
        tensors |= {f"after.{key}": value for key, value in model.state_dict().items()}
        model.eval()
        tensors["evaluation"] = model(x).detach()
        result |= {f"{case}.{key}": value.clone().contiguous() for key, value in tensors.items()}
    save_file(result, f"torch-weights-{type_name}.safetensors")


weights(torch.float32, "float")
weights(torch.float64, "double")
