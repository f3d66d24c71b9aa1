"""Writes what PyTorch makes of small networks, for TorchTests.swift.

Run once, beside this file: pip install torch safetensors numpy && python make_golden.py

Each torch-<optimizer>-<type>.safetensors is one training step of Sequential(Linear(6, 8), BatchNorm1d(8), ReLU(), Linear(8, 4)):
  input, labels            the batch
  before.<name>            the state before, as are torch-state.safetensors' tensors under their plain names
  training, loss           the logits and the loss in train mode
  gradient.<name>          the parameters' gradients, and gradient.input
  after.<name>             the state after three steps on the same batch
  evaluation               the logits in eval mode after that
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


for name in ["sgd", "adamw"]:
    case(name, torch.float32, "float")
    case(name, torch.float64, "double")
