"""GoogLeNet and the later Inception models in torch.nn, from the papers' tables."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from parity.torch_nets import Flatten, GlobalAverage, Lrn, chain


def _same(x, kernel, stride, value=0.0):
    """Pads x like TensorFlow's SAME: an odd pixel goes below and to the right."""
    pads = []
    for n, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((math.ceil(n / s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class SameConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(_same(x, self.kernel_size, self.stride))


class SameMaxPool(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(_same(x, (self.kernel_size,) * 2, (self.stride,) * 2, -math.inf))


def unit(before, maps, kernel, stride=1, padding=None, norm=True, conv=nn.Conv2d):
    """Returns a convolution, batch norm or else a bias, and ReLU.

    The padding is the same on both sides; None keeps the size.
    """
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    if padding is None:
        padding = 0 if conv is SameConv else tuple(k // 2 for k in kernel)
    layers = {"conv": conv(before, maps, kernel, stride, padding, bias=not norm)}
    if norm:
        layers["norm"] = nn.BatchNorm2d(maps, eps=1e-3)
    return chain(**layers, relu=nn.ReLU())


class Branches(nn.Module):
    """Concatenates branches over one input. A tuple's layers are parallel."""

    def __init__(self, branches, pool, projection=None):
        super().__init__()
        self.branches, self.pool, self.projection = branches, pool, projection or nn.Identity()
        for b, branch in enumerate(branches, start=1):
            for i, step in enumerate(branch, start=1):
                if not isinstance(step, tuple):
                    self.add_module(f"branch{b}_{i}", step)
                    continue
                for fork in step:
                    self.add_module(f"branch{b}_{i}_{'{}x{}'.format(*fork.conv.kernel_size)}", fork)

    def forward(self, x):
        outputs = []
        for branch in self.branches:
            ends = [x]
            for step in branch:
                ends = [
                    module(ends[0]) for module in (step if isinstance(step, tuple) else (step,))
                ]
            outputs += ends
        return torch.cat([*outputs, self.projection(self.pool(x))], 1)


class Net(nn.Module):
    """Layers in order. In training it also returns the heads' logits, each after its layer."""

    def __init__(self, layers, heads=None):
        super().__init__()
        self.layers, self.heads = layers, heads or {}
        for name, module in layers.items():
            self.add_module(name, module)
        for name, (_, head) in self.heads.items():
            self.add_module(name, head)

    def forward(self, x):
        auxiliary = []
        for name, module in self.layers.items():
            x = module(x)
            auxiliary += [head(x) for on, head in self.heads.values() if on == name]
        return (x, *auxiliary) if self.training else x


# Szegedy et al. 2014, Table 1: module, channels in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool
# projection.
GOOGLENET = """
3a 192  64  96 128 16  32  32
3b 256 128 128 192 32  96  64
4a 480 192  96 208 16  48  64
4b 512 160 112 224 24  64  64
4c 512 128 128 256 24  64  64
4d 512 112 144 288 32  64  64
4e 528 256 160 320 32 128 128
5a 832 256 160 320 32 128 128
5b 832 384 192 384 48 128 128
"""


def googlenet(size, classes, norm=False, larger=5, last_pool=3, heads=True):
    """Returns the paper's GoogLeNet, or torchvision's: batch norm, no LRN, 3x3 for 5x5."""

    def pool(kernel=3):
        return nn.MaxPool2d(kernel, 2, ceil_mode=True)

    lrn = nn.Identity if norm else Lrn
    bn = {"norm": norm}
    layers = {
        "conv1": unit(3, 64, 7, 2, 3, **bn), "pool1": pool(), "lrn1": lrn(),
        "conv2_reduce": unit(64, 64, 1, **bn), "conv2": unit(64, 192, 3, **bn), "lrn2": lrn(),
        "pool2": pool(),
    }  # fmt: skip
    for row in GOOGLENET.split("\n")[1:-1]:
        name, *numbers = row.split()
        before, one, reduce3, three, reduce5, five, proj = map(int, numbers)
        if name == "4a":
            layers["pool3"] = pool()
        if name == "5a":
            layers["pool4"] = pool(last_pool)
        layers[f"inception{name}"] = Branches(
            [
                [unit(before, one, 1, **bn)],
                [unit(before, reduce3, 1, **bn), unit(reduce3, three, 3, **bn)],
                [unit(before, reduce5, 1, **bn), unit(reduce5, five, larger, **bn)],
            ],
            nn.MaxPool2d(3, 1, padding=1),
            unit(before, proj, 1, **bn),
        )
    layers |= {"average": GlobalAverage(), "head": nn.Linear(1024, classes)}
    if not heads:
        return Net(layers)

    def up(n, times):
        return n if not times else up(-(-(n - 3) // 2) + 1, times - 1)

    def head(before):
        return chain(
            average=nn.AvgPool2d(5, 3), conv=unit(before, 128, 1, **bn), flat=Flatten(),
            dense=nn.Linear(height * width * 128, 1024), relu=nn.ReLU(),
            head=nn.Linear(1024, classes),
        )  # fmt: skip

    height, width = ((up((n + 6 - 7) // 2 + 1, 3) - 5) // 3 + 1 for n in size)
    return Net(layers, {"aux4a": ("inception4a", head(512)), "aux4d": ("inception4d", head(528))})


# Ioffe, Szegedy 2015, Fig. 5: module, channels in, 1x1, 3x3 reduce, 3x3, double reduce, double
# 3x3, pool, its projection.
BN_INCEPTION = """
3a  192  64  64  64  64  96 avg 32
3b  256  64  64  96  64  96 avg 64
3c  320   0 128 160  64  96 max 0
4a  576 224  64  96  96 128 avg 128
4b  576 192  96 128  96 128 avg 128
4c  576 160 128 160 128 160 avg 128
4d  608  96 128 192 160 192 avg 128
4e  608   0 128 192 192 256 max 0
5a 1056 352 192 320 160 224 avg 128
5b 1024 352 192 320 192 224 max 128
"""


def bn_inception(classes):
    """Returns BN-Inception with TensorFlow's SAME padding, as ours; the paper does not state it."""

    def same(*args):
        return unit(*args, conv=SameConv)

    layers = {
        "conv1": same(3, 64, 7, 2), "pool1": SameMaxPool(3, 2), "conv2_reduce": same(64, 64, 1),
        "conv2": same(64, 192, 3), "pool2": SameMaxPool(3, 2),
    }  # fmt: skip
    for row in BN_INCEPTION.split("\n")[1:-1]:
        name, before, one, reduce, three, double_reduce, double, pool, proj = row.split()
        before, one, reduce, three, proj = map(int, (before, one, reduce, three, proj))
        double_reduce, double = int(double_reduce), int(double)
        stride = 1 if one else 2
        layers[f"inception{name}"] = Branches(
            [
                *([[same(before, one, 1)]] if one else []),
                [same(before, reduce, 1), same(reduce, three, 3, stride)],
                [
                    same(before, double_reduce, 1),
                    same(double_reduce, double, 3),
                    same(double, double, 3, stride),
                ],
            ],
            nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            if pool == "avg"
            else SameMaxPool(3, stride),
            same(before, proj, 1) if proj else None,
        )
    return Net(layers | {"average": GlobalAverage(), "head": nn.Linear(1024, classes)})


def inception_v3(size, classes, factorized=True, head_norm=True, heads=True, count_padding=False):
    """Returns Szegedy et al. 2015, with the widths of the published weights.

    v2 has a 7x7 and no batch norm in its head.
    """

    def average():
        return nn.AvgPool2d(3, 1, 1, count_include_pad=count_padding)

    def grid35(n, proj):
        return Branches(
            [
                [unit(n, 64, 1)],
                [unit(n, 48, 1), unit(48, 64, 5)],
                [unit(n, 64, 1), unit(64, 96, 3), unit(96, 96, 3)],
            ],
            average(),
            unit(n, proj, 1),
        )

    def grid17(c):
        wide, tall = (1, 7), (7, 1)
        double = [
            unit(768, c, 1),
            unit(c, c, tall),
            unit(c, c, wide),
            unit(c, c, tall),
            unit(c, 192, wide),
        ]
        single = [unit(768, c, 1), unit(c, c, wide), unit(c, 192, tall)]
        return Branches([[unit(768, 192, 1)], single, double], average(), unit(768, 192, 1))

    def grid8(n):
        def both():
            return unit(384, 384, (1, 3)), unit(384, 384, (3, 1))

        double = [unit(n, 448, 1), unit(448, 384, 3), both()]
        return Branches(
            [[unit(n, 320, 1)], [unit(n, 384, 1), both()], double], average(), unit(n, 192, 1)
        )

    def half(n, maps):
        return unit(n, maps, 3, 2, 0)

    to17 = [[half(288, 384)], [unit(288, 64, 1), unit(64, 96, 3), half(96, 96)]]
    sevens = [unit(768, 192, 1), unit(192, 192, (1, 7)), unit(192, 192, (7, 1)), half(192, 192)]
    to8 = [[unit(768, 192, 1), half(192, 320)], sevens]
    if factorized:
        stem = {"conv1a": half(3, 32), "conv1b": unit(32, 32, 3, 1, 0), "conv1c": unit(32, 64, 3)}
    else:
        stem = {"conv1": unit(3, 64, 7, 2, 0)}
    layers = stem | {
        "pool1": nn.MaxPool2d(3, 2), "conv2": unit(64, 80, 1), "conv3": unit(80, 192, 3, 1, 0),
        "pool2": nn.MaxPool2d(3, 2),
        "mixed35a": grid35(192, 32), "mixed35b": grid35(256, 64), "mixed35c": grid35(288, 64),
        "reduce35": Branches(to17, nn.MaxPool2d(3, 2)),
        "mixed17a": grid17(128), "mixed17b": grid17(160), "mixed17c": grid17(160),
        "mixed17d": grid17(192),
        "reduce17": Branches(to8, nn.MaxPool2d(3, 2)),
        "mixed8a": grid8(1280), "mixed8b": grid8(2048),
        "average": GlobalAverage(), "head": nn.Linear(2048, classes),
    }  # fmt: skip
    if not heads:
        return Net(layers)
    # With 299 pixels the head's full convolution covers 5x5 positions, with smaller images fewer.
    grid = (min(5, (_grid17(n) - 5) // 3 + 1) for n in size)
    head = chain(
        average=nn.AvgPool2d(5, 3), conv=unit(768, 128, 1),
        full=unit(128, 768, tuple(grid), 1, 0, norm=head_norm),
        mean=GlobalAverage(), head=nn.Linear(768, classes),
    )  # fmt: skip
    return Net(layers, {"aux": ("mixed17d", head)})


def _grid17(n):
    """Returns the side of the middle grid: 17 for 299."""
    n = (n - 7) // 2 + 1  # After 3x3/2, 3x3, and a padded 3x3.
    for shrink in (0, 2, 0):
        n = (n - shrink - 3) // 2 + 1
    return n
