"""GoogLeNet. Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842).

`GoogLeNetBN` is the variant with batch norm for which torchvision has weights.
"""

import functools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import ConvUnit
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import Initializer
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from cnn_jax.models.base import BaseModel, Dropout, Epsilon, LossWeight, Norm
from cnn_jax.models.spec import Deviation, ModelSpec

Kernel = tuple[int, int, int]  # height, width, channels
Fork = tuple[Kernel, ...]  # parallel convolutions of the same input, at the end of a branch


class Widths(NamedTuple):
    """The channels of each convolution of a module, a row of Table 1."""

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
    """Concatenates branches of convolutions and one branch of pooling (Fig. 2b).

    Attributes:
      branches: The convolutions of each branch, in order; the last may be a fork.
      pool: Makes the pooling layer [B, H, W, C] -> [B, H', W', C] from name=...
      projection: Channels of the 1x1 convolution after the pooling; 0: none.
      unit: Makes a ConvUnit from channels, kernel and name=...
      stride: Stride of the last convolution of each branch, in pixels.
      padding: Padding of these last convolutions if the stride is not 1.
    """

    branches: tuple[tuple[Kernel | Fork, ...], ...]
    pool: Callable[..., nn.Module]
    projection: int
    unit: Callable[..., ConvUnit]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', channels of all branches]."""
        strided = {"stride": self.stride, "padding": self.padding if self.stride > 1 else "SAME"}
        outputs = []
        for b, (*steps, last) in enumerate(self.branches, start=1):
            y = x
            for i, (height, width, channels) in enumerate(steps, start=1):
                y = self.unit(channels, (height, width), name=f"branch{b}_{i}")(y, train)
            fork = last if isinstance(last[0], tuple) else (last,)
            for height, width, channels in fork:
                name = f"branch{b}_{len(steps) + 1}"
                name += f"_{height}x{width}" if len(fork) > 1 else ""
                unit = self.unit(channels, (height, width), **strided, name=name)
                outputs.append(unit(y, train))
        y = self.pool(name="pool")(x)
        if self.projection:
            y = self.unit(self.projection, (1, 1), name="projection")(y, train)
        return jnp.concatenate([*outputs, y], -1)


class AuxiliaryHead(nn.Module):
    """Average pool 5x5/3, 1x1 convolution, dense layer, dropout 0.7, dense classes (Sec. 5).

    Attributes:
      num_classes: Number of logits.
      channels: Number of channels of the convolution.
      units: Number of units of the first dense layer.
      unit: Makes a ConvUnit from channels, kernel and name=...
      kernel_init: Initializer of the dense layers.
    """

    num_classes: int
    channels: int
    units: int
    unit: Callable[..., ConvUnit]
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C], at least 5x5, to [B, num_classes] logits."""
        x = AvgPool(5, 3, name="pool")(x)  # [B, 4, 4, C] from 14x14
        x = self.unit(self.channels, (1, 1), name="conv")(x, train).reshape(x.shape[0], -1)
        x = relu(Dense(self.units, kernel_init=self.kernel_init, name="dense")(x))
        x = nn.Dropout(0.7, deterministic=not train)(x)
        return Dense(self.num_classes, kernel_init=self.kernel_init, name="head")(x)


class GoogLeNet(BaseModel):
    """A stem, nine modules, a global average and a dense layer (Table 1).

    In training there are two auxiliary heads. Initial weights are He's and LRN's constants are
    AlexNet's, because the paper states neither.

    Attributes:
      aux_heads: Whether the model has the auxiliary heads.
      aux_weight: Weight of each auxiliary loss, relative to the main loss (Sec. 5).
      norm: lrn (in the stem, as in the paper) | bn (after each convolution, instead of its bias)
        | none.
      dropout: Dropout before the last layer. That of the auxiliary heads is always 0.7.
    """

    large_kernel: ClassVar[int] = 5  # size of the larger kernel of the modules, in pixels
    last_pool: ClassVar[int] = 3  # window of the pooling before 5a, in pixels

    aux_heads: bool = True
    aux_weight: LossWeight = 0.3
    dropout: Dropout = 0.4
    norm: Norm = "lrn"
    bn_epsilon: Epsilon = 1e-3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array | tuple[jax.Array, ...]:
        """Maps [B, H, W, C] images to [B, num_classes] logits.

        In training it returns a tuple of logits: those of the model, then those of the heads.
        """
        heads = self.aux_heads and (train or self.is_initializing())
        grid14 = [(7, 2, 6)] + [(3, 2, 1)] * 3
        if heads:
            self.check_size(images, grid14, 5)
        else:
            self.check_size(images, [*grid14, (self.last_pool, 2, 1)])

        unit, scale = self.get_conv_unit(), self.scale_channels
        padding = ((3, 3), (3, 3))
        x = unit(scale(64), (7, 7), stride=2, padding=padding, name="conv1")(images, train)
        x = MaxPool(3, 2, "CEIL", name="pool1")(self.capture("conv1", x))  # [B, 56, 56, 64]
        x = unit(scale(64), (1, 1), name="conv2_reduce")(self.apply_lrn(x, "lrn1"), train)
        x = self.capture("conv2", unit(scale(192), (3, 3), name="conv2")(x, train))
        x = MaxPool(3, 2, "CEIL", name="pool2")(self.apply_lrn(x, "lrn2"))  # [B, 28, 28, 192]
        auxiliary = []
        for name, widths in TABLE.items():
            if name == "4a":
                x = MaxPool(3, 2, "CEIL", name="pool3")(x)  # [B, 14, 14, 480]
            if name == "5a":
                x = MaxPool(self.last_pool, 2, "CEIL", name="pool4")(x)  # [B, 7, 7, 832]
            scaled = Widths(*map(scale, widths))
            block = make_module(scaled, self.large_kernel, unit, f"inception{name}")
            x = self.capture(f"inception{name}", block(x, train))
            if heads and name in AUX:
                head = AuxiliaryHead(
                    self.num_classes,
                    scale(128),
                    scale(1024),
                    unit,
                    self.get_kernel_init(),
                    name=f"aux{name}",
                )
                auxiliary.append(head(x, train))
        x = self.capture("pool", GlobalAvgPool(name="pool5")(x))  # [B, 1024]
        x = self.apply_dropout(x, train)
        logits = Dense(self.num_classes, kernel_init=self.get_kernel_init(), name="head")(x)
        return (logits, *auxiliary) if auxiliary and train else logits


class GoogLeNetBN(GoogLeNet):
    """The model of torchvision's googlenet weights: with batch norm, without LRN.

    Those weights were ported from TensorFlow. Differs from the paper: 3x3 kernels instead of 5x5
    (pytorch/vision issue 906), 2x2 in the last pooling, dropout 0.2. The auxiliary heads are the
    paper's. Torchvision's heads, which its weights do not train, pool adaptively to 4x4.
    """

    large_kernel: ClassVar[int] = 3
    last_pool: ClassVar[int] = 2

    dropout: Dropout = 0.2
    norm: Norm = "bn"


def make_module(
    widths: Widths, large_kernel: int, unit: Callable[..., ConvUnit], name: str
) -> Inception:
    """Makes the module of a row of the table.

    Args:
      widths: Channels of its convolutions.
      large_kernel: Size of its larger kernel, in pixels; 5 in the paper.
      unit: Makes a ConvUnit from channels, kernel and name=...
      name: Name of the flax module.
    """
    branches = (
        ((1, 1, widths.one),),
        ((1, 1, widths.reduce3), (3, 3, widths.three)),
        ((1, 1, widths.reduce5), (large_kernel, large_kernel, widths.five)),
    )
    pool = functools.partial(MaxPool, 3, 1, "SAME")
    return Inception(branches, pool, widths.pool, unit, name=name)


HE = Deviation(
    "initial weights are He's; the paper does not state its own",
    lambda model: model.initializer in ("paper", "he"),
)

MODELS = {
    "googlenet": ModelSpec(
        GoogLeNet,
        parameters=13_378_280,  # computed from Table 1; 6,998,552 without the heads
        deviations=(
            HE,
            Deviation(
                "LRN's constants are AlexNet's; the paper does not state its own",
                lambda model: model.norm == "lrn",
            ),
        ),
    ),
    "googlenet_bn": ModelSpec(
        GoogLeNetBN,
        parameters=13_004_888,  # torchvision's googlenet, with its heads
        deviations=(
            Deviation(
                "torchvision's model: batch norm, no LRN, 3x3 for 5x5, last pooling 2x2, dropout"
                " {dropout}"
            ),
            HE,
        ),
    ),
}
