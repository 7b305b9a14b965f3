"""The papers' models in torch.nn, from the papers' tables, with the names of our parameters.

Imported by tests that skip where PyTorch is missing. Images are [B, C, H, W]; `size` is their
(height, width).
"""

import itertools
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def chain(**modules):
    return nn.Sequential(OrderedDict(modules))


def after(size, *windows):
    """Returns the size after windows of (kernel, stride, padding on each side), rounded down."""
    for kernel, stride, padding in windows:
        size = tuple((n - kernel + 2 * padding) // stride + 1 for n in size)
    return size


class Flatten(nn.Module):
    """Flattens in the order [H, W, C], as before our dense layers."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Lrn(nn.Module):
    """Krizhevsky et al. 2012, Sec. 3.3, in each tower. PyTorch divides alpha by n."""

    def __init__(self, towers=1):
        super().__init__()
        self.towers = towers
        self.norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    def forward(self, x):
        return torch.cat([self.norm(tower) for tower in x.chunk(self.towers, 1)], 1)


def mlp(units, activation):
    """Returns dense layers of (pixels, *hidden units, classes); activation: a class of torch.nn."""
    layers, activation = {"flat": Flatten()}, getattr(nn, activation)
    for number, (before, after) in enumerate(itertools.pairwise(units)):
        layers |= {f"f{number}": activation()} if number else {}
        layers[f"Dense_{number}"] = nn.Linear(before, after)
    return chain(**layers)


# LeCun et al. 1998, Table I. A row per map of C3: the maps of S2 that it is connected to.
C3 = [[i % 6, (i + 1) % 6, (i + 2) % 6] for i in range(6)] + [
    [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 0], [4, 5, 0, 1], [5, 0, 1, 2],
    [0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5],
]  # fmt: skip


class C3Layer(nn.Module):
    """Sixty 5x5 kernels, one per connection, and a bias per map."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(60, 5, 5)), nn.Parameter(torch.empty(16))

    def forward(self, x):
        kernels = iter(self.weight[:, None, None])
        maps = [sum(F.conv2d(x[:, i : i + 1], next(kernels)) for i in seen) for seen in C3]
        return torch.cat(maps, 1) + self.bias[:, None, None]


class Subsampling(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(maps)), nn.Parameter(torch.empty(maps))

    def forward(self, x):
        four = x[..., 0::2, 0::2] + x[..., 0::2, 1::2] + x[..., 1::2, 0::2] + x[..., 1::2, 1::2]
        return four * self.weight[:, None, None] + self.bias[:, None, None]


class ScaledTanh(nn.Module):
    def forward(self, x):
        return 1.7159 * torch.tanh(2 * x / 3)


class Retina(nn.Module):
    """Centers a digit of 0 to 1 in 32x32 pixels of -0.1 (background) to 1.175 (ink)."""

    def forward(self, x):
        border = (32 - x.shape[-1]) // 2
        return F.pad(x, [border] * 4) * (1.175 + 0.1) - 0.1


class Rbf(nn.Module):
    """The negative squared Euclidean distances to the classes' bitmaps."""

    def __init__(self, bitmaps):
        super().__init__()
        self.bitmaps = torch.from_numpy(np.array(bitmaps))

    def forward(self, x):
        return -torch.stack([((x - code) ** 2).sum(1) for code in self.bitmaps], 1)


def lenet5(bitmaps):
    return chain(
        retina=Retina(),
        c1=nn.Conv2d(1, 6, 5), f1=ScaledTanh(), s2=Subsampling(6), f2=ScaledTanh(),
        c3=C3Layer(), f3=ScaledTanh(), s4=Subsampling(16), f4=ScaledTanh(),
        c5=nn.Conv2d(16, 120, 5), f5=ScaledTanh(), flat=Flatten(),
        f6=nn.Linear(120, 84), f7=ScaledTanh(),
        output=Rbf(bitmaps),
    )  # fmt: skip


def lenet5_modern(side, classes):
    """Returns the common later variant. 28 pixels are padded to 32."""
    last = after(
        after((32 if side == 28 else side,) * 2, (5, 1, 0), (2, 2, 0)), (5, 1, 0), (2, 2, 0)
    )[0]
    return chain(
        Conv_0=nn.Conv2d(1, 6, 5, padding=2 if side == 28 else 0), r0=nn.ReLU(), p0=nn.MaxPool2d(2),
        Conv_1=nn.Conv2d(6, 16, 5), r1=nn.ReLU(), p1=nn.MaxPool2d(2), flat=Flatten(),
        Dense_0=nn.Linear(16 * last * last, 120), r2=nn.ReLU(),
        Dense_1=nn.Linear(120, 84), r3=nn.ReLU(),
        Dense_2=nn.Linear(84, classes),
    )  # fmt: skip


def dense(inputs, classes):
    """Returns two dense layers of 4096 units and the classes, without dropout."""
    return {
        "flat": Flatten(), "fc6": nn.Linear(inputs, 4096), "relu6": nn.ReLU(),
        "fc7": nn.Linear(4096, 4096),
        "relu7": nn.ReLU(), "fc8": nn.Linear(4096, classes),
    }  # fmt: skip


def alexnet(size, classes, maps=(96, 256, 384, 384, 256), towers=2, padding=0, lrn=True):
    """Returns Krizhevsky et al. 2012, Fig. 2: conv2, conv4, conv5 see only their own tower."""
    a, b, c, d, e = maps
    norm = (lambda: Lrn(towers)) if lrn else nn.Identity
    # conv1 and pool1; the padding of conv2 to conv5 keeps the size.
    height, width = after(size, (11, 4, padding), (3, 2, 0), (3, 2, 0), (3, 2, 0))
    return chain(
        conv1=nn.Conv2d(3, a, 11, stride=4, padding=padding), relu1=nn.ReLU(), norm1=norm(),
        pool1=nn.MaxPool2d(3, 2),
        conv2=nn.Conv2d(a, b, 5, padding=2, groups=towers), relu2=nn.ReLU(), norm2=norm(),
        pool2=nn.MaxPool2d(3, 2),
        conv3=nn.Conv2d(b, c, 3, padding=1), relu3=nn.ReLU(),
        conv4=nn.Conv2d(c, d, 3, padding=1, groups=towers), relu4=nn.ReLU(),
        conv5=nn.Conv2d(d, e, 3, padding=1, groups=towers), relu5=nn.ReLU(),
        pool5=nn.MaxPool2d(3, 2),
        **dense(height * width * e, classes),
    )  # fmt: skip


def zfnet(size, classes):
    """Returns Zeiler, Fergus 2013, Fig. 3: 224 -> 110 -> 55 -> 26 -> 13 -> 6; pools round up."""

    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def up(n):
        return -(-(n - 3) // 2) + 1

    height, width = (up(up((up((n + 2 - 7) // 2 + 1) - 5) // 2 + 1)) for n in size)
    return chain(
        conv1=nn.Conv2d(3, 96, 7, stride=2, padding=1), relu1=nn.ReLU(), pool1=pool(), norm1=Lrn(),
        conv2=nn.Conv2d(96, 256, 5, stride=2), relu2=nn.ReLU(), pool2=pool(), norm2=Lrn(),
        conv3=nn.Conv2d(256, 384, 3, padding=1), relu3=nn.ReLU(),
        conv4=nn.Conv2d(384, 384, 3, padding=1), relu4=nn.ReLU(),
        conv5=nn.Conv2d(384, 256, 3, padding=1), relu5=nn.ReLU(), pool5=pool(),
        **dense(height * width * 256, classes),
    )  # fmt: skip


# Simonyan, Zisserman 2014, Table 1
VGG = {
    "A": "64 / 128 / 256 256 / 512 512 / 512 512",
    "A-LRN": "64 LRN / 128 / 256 256 / 512 512 / 512 512",
    "B": "64 64 / 128 128 / 256 256 / 512 512 / 512 512",
    "C": "64 64 / 128 128 / 256 256 1-256 / 512 512 1-512 / 512 512 1-512",
    "D": "64 64 / 128 128 / 256 256 256 / 512 512 512 / 512 512 512",
    "E": "64 64 / 128 128 / 256 256 256 256 / 512 512 512 512 / 512 512 512 512",
}


def vgg(size, classes, column, batch_norm=False):
    layers, before = {}, 3
    for block, row in enumerate(VGG[column].split(" / "), start=1):
        for number, entry in enumerate(row.split(), start=1):
            place = f"{block}_{number}"
            if entry == "LRN":
                layers[f"lrn{place}"] = Lrn()
                continue
            kernel, maps = (1, int(entry[2:])) if entry.startswith("1-") else (3, int(entry))
            layers[f"conv{place}"] = nn.Conv2d(before, maps, kernel, padding=kernel // 2)
            if batch_norm:
                layers[f"norm{place}"] = nn.BatchNorm2d(maps)
            layers[f"relu{place}"], before = nn.ReLU(), maps
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    return chain(**layers, **dense((size[0] // 32) * (size[1] // 32) * 512, classes))


class Residual(nn.Module):
    """He et al. 2015, Fig. 5: two 3x3 convolutions, or 1x1, 3x3 and 1x1 four times as wide."""

    def __init__(self, before, maps, stride, bottleneck, shortcut, stride_in, bias):
        super().__init__()
        first = stride_in == "1x1"
        plan = [(3, maps, stride), (3, maps, 1)]
        if bottleneck:
            plan = [
                (1, maps, stride if first else 1),
                (3, maps, 1 if first else stride),
                (1, 4 * maps, 1),
            ]
        self.stride, self.shortcut, self.after, self.steps = stride, shortcut, plan[-1][1], []
        inputs = before
        for number, (kernel, width, step) in enumerate(plan, start=1):
            conv = nn.Conv2d(inputs, width, kernel, step, kernel // 2, bias=bias)
            norm, inputs = nn.BatchNorm2d(width), width
            self.add_module(f"conv{number}", conv)
            self.add_module(f"norm{number}", norm)
            self.steps.append((conv, norm))
        changes = stride > 1 or before != self.after
        self.projects = shortcut == "C" or (shortcut == "B" and changes)
        if self.projects:
            self.projection = nn.Conv2d(before, self.after, 1, stride, bias=bias)
            self.projection_norm = nn.BatchNorm2d(self.after)

    def forward(self, x):
        y = x
        for number, (conv, norm) in enumerate(self.steps):
            y = norm(conv(y.relu_() if number else y))
        if self.projects:
            y = y + self.projection_norm(self.projection(x))
        elif self.shortcut != "plain":
            if x.shape != y.shape:
                x = F.pad(
                    x[:, :, :: self.stride, :: self.stride],
                    (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]),
                )
            y = y + x
        return y.relu_()


class GlobalAverage(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def resnet(classes, blocks, bottleneck=False, shortcut="B", stride_in="1x1", bias=False):
    """Returns a CIFAR model (Sec. 4.2, three stages) or an ImageNet model (Table 1, four)."""
    widths = (16, 32, 64) if len(blocks) == 3 else (64, 128, 256, 512)
    before = widths[0]
    if len(blocks) == 3:
        layers = {"stem": nn.Conv2d(3, 16, 3, padding=1, bias=bias)}
    else:
        layers = {"stem": nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=bias)}
    layers |= {"stem_norm": nn.BatchNorm2d(before), "relu": nn.ReLU()}
    if len(blocks) == 4:
        layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
    for stage, (count, maps) in enumerate(zip(blocks, widths, strict=True), start=1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            block = Residual(before, maps, stride, bottleneck, shortcut, stride_in, bias)
            layers[f"stage{stage}_block{number}"], before = block, block.after
    return chain(**layers, average=GlobalAverage(), head=nn.Linear(before, classes))
