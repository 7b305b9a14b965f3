"""PyTorch at its best for the hardware: fused SGD and in-place ReLU.

On a GPU the model is compiled by torch.compile. Autocast computes in bfloat16.
"""

import functools
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers import (
    AUXILIARY_WEIGHT,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    WORKLOADS,
    Peer,
    Spec,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from parity import torch_inceptions, torch_nets
from parity.torch_tensors import to_torch

from benchmarks.peers import torch_nets as more_nets

Weights = Mapping[str, np.ndarray]


def make_mlp(spec: Spec, _: Weights) -> nn.Module:
    """Returns the multi-layer perceptron of the workload."""
    hidden = WORKLOADS[spec.model].options["hidden"]
    return more_nets.mlp((math.prod(spec.image), *hidden, spec.classes))


MODELS: dict[str, Callable[[Spec, Weights], nn.Module]] = {
    "resnet20": lambda spec, _: torch_nets.resnet(spec.classes, (3, 3, 3), shortcut="A"),
    "resnet56": lambda spec, _: torch_nets.resnet(spec.classes, (9, 9, 9), shortcut="A"),
    "plain56": lambda spec, _: torch_nets.resnet(spec.classes, (9, 9, 9), shortcut="plain"),
    "resnet50": lambda spec, _: torch_nets.resnet(spec.classes, (3, 4, 6, 3), bottleneck=True),
    "vgg_d": lambda spec, _: torch_nets.vgg(spec.image[:2], spec.classes, "D"),
    "alexnet": lambda spec, _: torch_nets.alexnet(spec.image[:2], spec.classes),
    "googlenet": lambda spec, _: torch_inceptions.googlenet(
        spec.image[:2], spec.classes, heads=False
    ),
    "inception_v3": lambda spec, _: torch_inceptions.inception_v3(spec.image[:2], spec.classes),
    "small_cnn": lambda spec, _: more_nets.small_cnn(spec.image[0], spec.classes),
    "lenet5": lambda _, weights: more_nets.lenet5(weights["codes"]),
    "lenet5_modern": lambda spec, _: torch_nets.lenet5_modern(spec.image[0], spec.classes),
    "mlp_500_150": make_mlp,
}


def make_peer(spec: Spec, weights: Weights) -> Peer:
    """Returns the model with its step.

    Args:
      spec: Its variant is the layout of images and convolutions: contiguous or channels_last.
      weights: The arrays of `benchmarks.draw`.
    """
    device = choose_device(spec)
    gpu = device.type == "cuda"
    layout = torch.channels_last if spec.variant == "channels_last" else torch.contiguous_format

    model = MODELS[spec.model](spec, weights)
    load_weights(model, weights)
    model = model.to(device, memory_format=layout).train()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    images = (
        torch.from_numpy(weights["images"])
        .permute(0, 3, 1, 2)
        .to(device)
        .contiguous(memory_format=layout)
    )
    labels = torch.from_numpy(weights["labels"]).long().to(device)
    settings = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    sgd = torch.optim.SGD(model.parameters(), **settings, fused=True)
    run = torch.compile(model) if gpu else model
    autocast = functools.partial(
        torch.autocast, device.type, torch.bfloat16, spec.precision == "bfloat16"
    )
    loss = torch.zeros(())

    def step() -> None:
        nonlocal loss
        sgd.zero_grad(set_to_none=True)
        with autocast():
            outputs = run(images)
            logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
            loss = nn.functional.cross_entropy(logits, labels)
            for head in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * nn.functional.cross_entropy(head, labels)
        loss.backward()
        sgd.step()

    return Peer(
        step, lambda: loss.item(), lambda: torch.cuda.max_memory_allocated() if gpu else None
    )


def choose_device(spec: Spec) -> torch.device:
    """Returns the device, on which products are as precise as in JAX.

    Raises:
      RuntimeError: If JAX has a GPU and this PyTorch finds none.
    """
    gpu = spec.platform == "gpu"
    if gpu and not torch.cuda.is_available():
        raise RuntimeError(
            "JAX has a GPU but this PyTorch finds none: install PyTorch for this GPU"
        )
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if gpu else "cpu")


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copies our weights into the modules of the same names.

    Raises:
      ValueError: If some weights have no module, or a module gets no weights.
    """
    ours = {}
    for path, array in weights.items():
        root, _, rest = path.partition("/")
        if root in ("params", "stats"):
            ours[rest] = array
    tensors = {name: torch.from_numpy(array) for name, array in to_torch(ours).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(
            f"weights without a module: {unexpected}; modules without weights: {missing}"
        )
