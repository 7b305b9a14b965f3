"""PyTorch at its best for the hardware: fused SGD, in-place ReLU.

On a GPU it is compiled, in bfloat16 by autocast.
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
from parity import torch_nets as nets

NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
NETS: dict[str, Callable[[Spec], nn.Module]] = {
    "resnet20": lambda spec: nets.resnet(spec.classes, (3, 3, 3), shortcut="A"),
    "resnet50": lambda spec: nets.resnet(spec.classes, (3, 4, 6, 3), bottleneck=True),
    "vgg_d": lambda spec: nets.vgg(spec.image[:2], spec.classes, "D"),
    "lenet5_modern": lambda spec: nets.lenet5_modern(spec.image[0], spec.classes),
}


def make(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """spec.variant: contiguous | channels_last, the layout of images and convolutions."""
    gpu = spec.platform == "gpu"
    if gpu and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no GPU, JAX does: install one that does")
    device = torch.device("cuda" if gpu else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = (
        False  # as JAX is told
    )
    layout = torch.channels_last if spec.variant == "channels_last" else torch.contiguous_format

    net = NETS[spec.net](spec)
    load(net, weights)
    net = net.to(device, memory_format=layout).train()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    images = (
        torch.from_numpy(weights["images"])
        .permute(0, 3, 1, 2)
        .to(device)
        .contiguous(memory_format=layout)
    )
    labels = torch.from_numpy(weights["labels"]).long().to(device)
    rule = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    sgd = torch.optim.SGD(net.parameters(), **rule, fused=True)
    run = torch.compile(net) if gpu else net
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


def load(net: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Our weights into the net's modules of the same names."""
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
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(
            f"weights without a place: {unexpected}; places without weights: {missing}"
        )
