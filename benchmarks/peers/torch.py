"""PyTorch at its best for the hardware: fused SGD and in-place ReLU.

On a GPU the model is compiled by torch.compile. Autocast computes in bfloat16.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Peer, Spec

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from parity import torch_nets

NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
MODELS: dict[str, Callable[[Spec], nn.Module]] = {
    "resnet20": lambda spec: torch_nets.resnet(spec.classes, (3, 3, 3), shortcut="A"),
    "resnet50": lambda spec: torch_nets.resnet(spec.classes, (3, 4, 6, 3), bottleneck=True),
    "vgg_d": lambda spec: torch_nets.vgg(spec.image[:2], spec.classes, "D"),
    "lenet5_modern": lambda spec: torch_nets.lenet5_modern(spec.image[0], spec.classes),
}


def make_peer(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """Returns the model with its step.

    Args:
        spec: Its variant is the layout of images and convolutions: contiguous or channels_last.
        weights: The arrays of `benchmarks.draw`.
    """
    gpu = spec.platform == "gpu"
    if gpu and not torch.cuda.is_available():
        raise RuntimeError(
            "JAX has a GPU but this PyTorch finds none: install PyTorch for this GPU"
        )
    device = torch.device("cuda" if gpu else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # As in JAX.
    layout = torch.channels_last if spec.variant == "channels_last" else torch.contiguous_format

    model = MODELS[spec.model](spec)
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
            loss = nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        sgd.step()

    return Peer(
        step, lambda: loss.item(), lambda: torch.cuda.max_memory_allocated() if gpu else None
    )


def load_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copies our weights into the modules of the same names.

    Raises:
        ValueError: If some weights have no module, or a module gets no weights.
    """
    tensors = {}
    for path, array in weights.items():
        root, *layers = path.split("/")
        if root not in ("params", "stats"):
            continue
        *layers, name = layers
        if name == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        tensors[".".join([*layers, NAMES.get(name, name)])] = torch.from_numpy(
            np.ascontiguousarray(array)
        )
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(
            f"weights without a module: {unexpected}; modules without weights: {missing}"
        )
