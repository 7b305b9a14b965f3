"""GoogLeNet. Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842), and its batch-normalised port."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers.conv import ConvUnit, Dense
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from cnn_jax.models.base import Init, Net

Kernel = tuple[int, int, int]  # height, width, maps
Fork = tuple[Kernel, ...]  # convolutions of one input, side by side; only at the end of a branch


class Widths(NamedTuple):
    """A row of Table 1: maps of each convolution of a module."""

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pool: int


TABLE = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}
AUX = ("4a", "4d")  # modules whose output has an auxiliary head


class Inception(nn.Module):
    """Branches of convolutions and one of pooling over the same input, concatenated (Fig. 2b).

    Attributes:
      branches: of each, its convolutions in order; the last may be a fork.
      pool: [B, H, W, C] -> [B, H', W', C], a layer but for its name.
      projection: maps of the 1x1 convolution of what was pooled; 0: none.
      unit: a ConvUnit but for its maps and kernel.
      stride: of the last convolution of each branch.
      padding: of the convolutions that have this stride, if it is not 1.
    """

    branches: tuple[tuple[Kernel | Fork, ...], ...]
    pool: Callable[..., nn.Module]
    projection: int
    unit: Callable[..., ConvUnit]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H', W', maps of all branches]."""
        outputs = []
        for b, (*steps, last) in enumerate(self.branches, start=1):
            y = x
            for i, (height, width, maps) in enumerate(steps, start=1):
                y = self.unit(maps, (height, width), name=f"branch{b}_{i}")(y, train)
            strided = {"stride": self.stride, "padding": self.padding if self.stride > 1 else "SAME"}
            fork = last if isinstance(last[0], tuple) else (last,)
            for height, width, maps in fork:
                name = f"branch{b}_{len(steps) + 1}" + (f"_{height}x{width}" if len(fork) > 1 else "")
                outputs.append(self.unit(maps, (height, width), **strided, name=name)(y, train))
        y = self.pool(name="pool")(x)
        outputs.append(self.unit(self.projection, (1, 1), name="projection")(y, train) if self.projection else y)
        return jnp.concatenate(outputs, -1)


class AuxiliaryHead(nn.Module):
    """Average pool 5x5/3, 1x1 convolution of `maps`, dense `units`, dropout 0.7, dense classes (Sec. 5)."""

    num_classes: int
    maps: int
    units: int
    unit: Callable[..., ConvUnit]
    kernel_init: Init

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C], at least 5x5, to [B, num_classes] logits."""
        x = AvgPool(5, 3, name="pool")(x)  # [B, 4, 4, C] from 14x14
        x = self.unit(self.maps, (1, 1), name="conv")(x, train).reshape(len(x), -1)
        x = nn.relu(Dense(self.units, kernel_init=self.kernel_init, name="dense")(x))
        x = nn.Dropout(0.7, deterministic=not train)(x)
        return Dense(self.num_classes, kernel_init=self.kernel_init, name="head")(x)


class GoogLeNet(Net):
    """A stem, nine modules, a global average and a dense layer (Table 1), with two auxiliary heads in training.

    The paper gives neither the initial weights nor LRN's constants: He's, and AlexNet's.

    Attributes:
      aux_heads: whether there are any.
      aux_weight: of each auxiliary loss against the main one (Sec. 5).
      norm: lrn (in the stem, as the paper) | bn (after each convolution, in place of its bias) | none.
      dropout: rate before the last layer; the auxiliary heads' is 0.7.
    """

    aux_heads: bool = True
    aux_weight: float = 0.3
    dropout: float = 0.4
    norm: str = "lrn"
    bn_epsilon: float = 1e-3
    wide = 5  # the larger kernel of the modules
    last_pool = 3  # window of the pooling before 5a

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array | tuple[jax.Array, ...]:
        """[B, H, W, C] images to [B, num_classes] logits; in training a tuple of them: the net's, then the heads'."""
        heads = self.aux_heads and (train or self.is_initializing())
        grid14 = [(7, 2, 6)] + [(3, 2, 1)] * 3
        if heads:
            self.check_size(images, grid14, 5)
        else:
            self.check_size(images, [*grid14, (self.last_pool, 2, 1)])

        unit, maps = self.unit(), self.maps
        x = unit(maps(64), (7, 7), stride=2, padding=((3, 3), (3, 3)), name="conv1")(images, train)
        x = MaxPool(3, 2, "CEIL", name="pool1")(self.keep("conv1", x))  # [B, 56, 56, 64]
        x = unit(maps(64), (1, 1), name="conv2_reduce")(self.lrn(x, "lrn1"), train)
        x = self.keep("conv2", unit(maps(192), (3, 3), name="conv2")(x, train))
        x = MaxPool(3, 2, "CEIL", name="pool2")(self.lrn(x, "lrn2"))  # [B, 28, 28, 192]
        auxiliary = []
        for name, widths in TABLE.items():
            if name == "4a":
                x = MaxPool(3, 2, "CEIL", name="pool3")(x)  # [B, 14, 14, 480]
            if name == "5a":
                x = MaxPool(self.last_pool, 2, "CEIL", name="pool4")(x)  # [B, 7, 7, 832]
            block = module(Widths(*map(maps, widths)), self.wide, unit, f"inception{name}")
            x = self.keep(f"inception{name}", block(x, train))
            if heads and name in AUX:
                head = AuxiliaryHead(self.num_classes, maps(128), maps(1024), unit, self.weights(), name=f"aux{name}")
                auxiliary.append(head(x, train))
        x = self.dropped(self.keep("pool", GlobalAvgPool(name="pool5")(x)), train)  # [B, 1024]
        logits = Dense(self.num_classes, kernel_init=self.weights(), name="head")(x)
        return (logits, *auxiliary) if auxiliary and train else logits


class Port(GoogLeNet):
    """The net of torchvision's googlenet weights, which were ported from TensorFlow: batch norm and no LRN.

    Differs from the paper: 3x3 kernels where the paper has 5x5 (pytorch/vision issue 906), 2x2 in the last
    pooling, dropout 0.2. The heads here are the paper's, on any grid; torchvision's, which are not trained in those
    weights, average a 4x4 grid of windows that fit any size.
    """

    dropout: float = 0.2
    norm: str = "bn"
    wide = 3
    last_pool = 2


def module(widths: Widths, wide: int, unit: Callable[..., ConvUnit], name: str) -> Inception:
    """The module of a row of the table, `wide` being its larger kernel: 5 in the paper."""
    branches = (
        ((1, 1, widths.one),),
        ((1, 1, widths.reduce3), (3, 3, widths.three)),
        ((1, 1, widths.reduce5), (wide, wide, widths.five)),
    )
    pool = functools.partial(MaxPool, 3, 1, "SAME")
    return Inception(branches, pool, widths.pool, unit, name=name)
