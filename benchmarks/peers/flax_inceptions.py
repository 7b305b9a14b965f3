"""GoogLeNet and Inception v3 in plain Flax, from the papers' tables.

Szegedy et al. 2014 (arXiv:1409.4842), Table 1; Szegedy et al. 2015 (arXiv:1512.00567), with the
widths of the published weights.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.peers.flax_nets import local_response_norm

Kernel = tuple[int, ...]  # height, width, channels
AVERAGE, MAXIMUM = "average", "maximum"


class Unit(nn.Module):
    """A convolution and ReLU, with batch norm between them or a bias."""

    features: int
    kernel: tuple[int, int]
    train: bool
    batch_norm: bool
    dtype: Any
    stride: int = 1
    padding: Any = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        settings = {"padding": self.padding, "use_bias": not self.batch_norm, "dtype": self.dtype}
        x = nn.Conv(self.features, self.kernel, self.stride, **settings, name="conv")(x)
        if self.batch_norm:
            x = nn.BatchNorm(
                not self.train, momentum=0.9, epsilon=1e-3, dtype=self.dtype, name="norm"
            )(x)
        return nn.relu(x)


class Branches(nn.Module):
    """Branches of units over one input, and a pooling with a 1x1 unit, concatenated.

    Attributes:
      branches: The kernels of each; several in place of the last are a fork.
      pool: AVERAGE or MAXIMUM, 3x3.
      projection: Channels of the 1x1 unit after the pooling; 0: there is none.
      unit: Settings of every unit.
      halve: Whether the last unit of each branch and the pooling have stride 2 and no padding.
    """

    branches: Sequence[Sequence[Any]]
    pool: str
    projection: int
    unit: dict[str, Any]
    halve: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', channels of all branches]."""
        outputs = []
        strides, padding = ((2, 2), "VALID") if self.halve else ((1, 1), "SAME")
        for b, (*steps, last) in enumerate(self.branches, start=1):
            y = x
            for i, (*kernel, features) in enumerate(steps, start=1):
                y = Unit(features, tuple(kernel), **self.unit, name=f"branch{b}_{i}")(y)
            fork = last if isinstance(last[0], tuple) else (last,)
            for *kernel, features in fork:
                name = f"branch{b}_{len(steps) + 1}"
                name += "_{}x{}".format(*kernel) if len(fork) > 1 else ""
                settings = {**self.unit, "stride": strides[0], "padding": padding, "name": name}
                outputs.append(Unit(features, tuple(kernel), **settings)(y))
        if self.pool == AVERAGE:
            y = nn.avg_pool(x, (3, 3), strides, padding, count_include_pad=False)
        else:
            y = nn.max_pool(x, (3, 3), strides, padding)
        if self.projection:
            y = Unit(self.projection, (1, 1), **self.unit, name="projection")(y)
        return jnp.concatenate([*outputs, y], axis=-1)


# Module: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
GOOGLENET = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
    """A stem with LRN and nine modules, without auxiliary heads."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 3] to logits [B, classes]."""
        unit = {"train": train, "batch_norm": False, "dtype": self.dtype}
        x = Unit(64, (7, 7), **unit, stride=2, padding=3, name="conv1")(x)
        x = local_response_norm(max_pool_up(x))
        x = Unit(64, (1, 1), **unit, name="conv2_reduce")(x)
        x = local_response_norm(Unit(192, (3, 3), **unit, name="conv2")(x))
        x = max_pool_up(x)
        for name, (one, reduce3, three, reduce5, five, projection) in GOOGLENET.items():
            if name in ("4a", "5a"):
                x = max_pool_up(x)
            branches = (
                [(1, 1, one)],
                [(1, 1, reduce3), (3, 3, three)],
                [(1, 1, reduce5), (5, 5, five)],
            )
            x = Branches(branches, MAXIMUM, projection, unit, name=f"inception{name}")(x)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(jnp.mean(x, axis=(1, 2)))


def max_pool_up(x: jax.Array) -> jax.Array:
    """Pools 3x3 windows with stride 2, of which the last may reach over the edge."""
    over = [(0, -(side - 3) % 2) for side in x.shape[1:3]]
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=over)


def list_modules35(projection: int) -> tuple[Any, ...]:
    """Returns branches, pooling and projection of a module of the 35x35 grid."""
    branches = (
        [(1, 1, 64)],
        [(1, 1, 48), (5, 5, 64)],
        [(1, 1, 64), (3, 3, 96), (3, 3, 96)],
    )
    return branches, AVERAGE, projection


def list_modules17(c: int) -> tuple[Any, ...]:
    """Returns the same of the 17x17 grid, where 7x7 is 1x7 and 7x1 (Fig. 6)."""
    branches = (
        [(1, 1, 192)],
        [(1, 1, c), (1, 7, c), (7, 1, 192)],
        [(1, 1, c), (7, 1, c), (1, 7, c), (7, 1, c), (1, 7, 192)],
    )
    return branches, AVERAGE, 192


def list_modules8() -> tuple[Any, ...]:
    """Returns the same of the 8x8 grid, where 1x3 is beside 3x1 (Fig. 7)."""
    fork = ((1, 3, 384), (3, 1, 384))
    branches = [(1, 1, 320)], [(1, 1, 384), fork], [(1, 1, 448), (3, 3, 384), fork]
    return branches, AVERAGE, 192


INCEPTION_V3 = {
    "mixed35a": list_modules35(32),
    "mixed35b": list_modules35(64),
    "mixed35c": list_modules35(64),
    "reduce35": (([(3, 3, 384)], [(1, 1, 64), (3, 3, 96), (3, 3, 96)]), MAXIMUM, 0),
    "mixed17a": list_modules17(128),
    "mixed17b": list_modules17(160),
    "mixed17c": list_modules17(160),
    "mixed17d": list_modules17(192),
    "reduce17": (
        ([(1, 1, 192), (3, 3, 320)], [(1, 1, 192), (1, 7, 192), (7, 1, 192), (3, 3, 192)]),
        MAXIMUM,
        0,
    ),
    "mixed8a": list_modules8(),
    "mixed8b": list_modules8(),
}


class InceptionV3(nn.Module):
    """A stem and eleven modules. It returns its logits and those of the auxiliary head."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> tuple[jax.Array, jax.Array]:
        """Maps images [B, H, W, 3] to two logits [B, classes]."""
        unit = {"train": train, "batch_norm": True, "dtype": self.dtype}
        valid = {**unit, "padding": "VALID"}
        x = Unit(32, (3, 3), **valid, stride=2, name="conv1a")(x)
        x = Unit(32, (3, 3), **valid, name="conv1b")(x)
        x = Unit(64, (3, 3), **unit, name="conv1c")(x)
        x = nn.max_pool(x, (3, 3), strides=(2, 2))
        x = Unit(80, (1, 1), **unit, name="conv2")(x)
        x = Unit(192, (3, 3), **valid, name="conv3")(x)
        x = nn.max_pool(x, (3, 3), strides=(2, 2))
        for name, module in INCEPTION_V3.items():
            x = Branches(*module, unit, halve=name.startswith("reduce"), name=name)(x)
            if name == "mixed17d":
                auxiliary = Head(self.classes, valid, name="aux")(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x), auxiliary


class Head(nn.Module):
    """Inception v3's auxiliary head on a grid of 17x17."""

    classes: int
    unit: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to logits [B, classes]."""
        x = nn.avg_pool(x, (5, 5), strides=(3, 3))
        x = Unit(128, (1, 1), **self.unit, name="conv")(x)
        kernel = min(5, x.shape[1]), min(5, x.shape[2])
        x = Unit(768, kernel, **self.unit, name="full")(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, dtype=self.unit["dtype"], name="head")(x)
