"""PyTorch models that `tests/parity` lacks or has in a slower form, with our parameters' names.

Images are [B, C, H, W]; dense layers flatten them in the order [H, W, C], as ours do.
"""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from parity.torch_nets import Flatten
from torch import nn

# LeCun et al. 1998, Table I: the channels of S2 that each channel of C3 is connected to.
C3 = (
    *(tuple((start + step) % 6 for step in range(3)) for start in range(6)),
    *(tuple((start + step) % 6 for step in range(4)) for start in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3) (LeCun et al. 1998, App. A)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps a tensor to one of its shape."""
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """LeCun et al. 1998, Sec. II-B: four pixels' sum times a coefficient, plus a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, C, H / 2, W / 2]."""
        sums = F.avg_pool2d(x, 2, divisor_override=1)
        return sums * self.weight[:, None, None] + self.bias[:, None, None]


class TableConv(nn.Module):
    """LeCun et al. 1998, Table I: a kernel for each connection, scattered into a dense one."""

    def __init__(self) -> None:
        super().__init__()
        places = [(o, i) for o, row in enumerate(C3) for i in row]
        outputs, inputs = torch.tensor(places).T
        self.register_buffer("outputs", outputs, persistent=False)
        self.register_buffer("inputs", inputs, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(places), 5, 5))
        self.bias = nn.Parameter(torch.empty(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, 6, H, W] to [B, 16, H - 4, W - 4]."""
        dense = self.weight.new_zeros(16, 6, 5, 5)
        dense = dense.index_put((self.outputs, self.inputs), self.weight)
        return F.conv2d(x, dense, self.bias)


class Retina(nn.Module):
    """Centers a digit of 0 to 1 in 32x32 pixels, and maps it to -0.1 to 1.175 (Sec. II-B)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, 1, 28, 28] to [B, 1, 32, 32]."""
        return 1.275 * F.pad(x, (2, 2, 2, 2)) - 0.1


class Distances(nn.Module):
    """Negative squared distances to codes (Sec. II-B, the output layer)."""

    def __init__(self, codes: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, units] to [B, classes]."""
        return -((x[:, None].float() - self.codes) ** 2).sum(-1)


def lenet5(codes: np.ndarray) -> nn.Module:
    """Returns LeNet-5 on 28x28 pixels (LeCun et al. 1998, Sec. II-B).

    Args:
      codes: Of the output units, [classes, 84].
    """
    layers = {
        "retina": Retina(),
        "c1": nn.Conv2d(1, 6, 5),
        "c1_tanh": ScaledTanh(),
        "s2": Subsampling(6),
        "s2_tanh": ScaledTanh(),
        "c3": TableConv(),
        "c3_tanh": ScaledTanh(),
        "s4": Subsampling(16),
        "s4_tanh": ScaledTanh(),
        "c5": nn.Conv2d(16, 120, 5),
        "c5_tanh": ScaledTanh(),
        "flatten": Flatten(),
        "f6": nn.Linear(120, 84),
        "f6_tanh": ScaledTanh(),
        "output": Distances(codes),
    }
    return nn.Sequential(OrderedDict(layers))


def mlp(units: Sequence[int]) -> nn.Module:
    """Returns dense layers of (pixels, *hidden units, classes), with the scaled tanh between."""
    layers: dict[str, nn.Module] = {"flatten": Flatten()}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(units)):
        layers |= {f"tanh{number}": ScaledTanh()} if number else {}
        layers[f"Dense_{number}"] = nn.Linear(inputs, outputs)
    return nn.Sequential(OrderedDict(layers))


def small_cnn(side: int, classes: int) -> nn.Module:
    """Returns two 5x5 convolutions, each with 2x2 max pooling, and two dense layers."""
    layers = {
        "conv1_1": nn.Conv2d(1, 16, 5, padding=2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2_1": nn.Conv2d(16, 32, 5, padding=2),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": Flatten(),
        "dense1": nn.Linear((side // 4) ** 2 * 32, 64),
        "relu3": nn.ReLU(),
        "output": nn.Linear(64, classes),
    }
    return nn.Sequential(OrderedDict(layers))
