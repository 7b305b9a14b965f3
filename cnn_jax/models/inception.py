"""BN-Inception, Inception v2 and Inception v3.

Ioffe, Szegedy 2015, "Batch Normalization ..." (arXiv:1502.03167); Szegedy et al. 2015,
"Rethinking the Inception Architecture for Computer Vision" (arXiv:1512.00567).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnn_jax.layers.conv import ConvUnit
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import Initializer
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from cnn_jax.models.base import BaseModel, Dropout, Epsilon, LossWeight, Norm
from cnn_jax.models.googlenet import HE, Inception
from cnn_jax.models.spec import Deviation, ModelSpec

Branches = tuple


def _double(reduce1: int, single: int, reduce2: int, first: int, second: int) -> Branches:
    return ((1, 1, reduce1), (3, 3, single)), ((1, 1, reduce2), (3, 3, first), (3, 3, second))


# Ioffe, Szegedy 2015, Fig. 5: channels of 1x1 (0: none, and stride 2); 3x3 reduce, 3x3; double 3x3
# reduce, 3x3, 3x3; pooling and its projection (0: none). The figure prints 576, 576 and 1024 as
# the output of 4c, 4d and 4e, but its widths add up to 608, 608 and 1056, as in public weights.
BN_TABLE = {
    "3a": (64, _double(64, 64, 64, 96, 96), "avg", 32),
    "3b": (64, _double(64, 96, 64, 96, 96), "avg", 64),
    "3c": (0, _double(128, 160, 64, 96, 96), "max", 0),
    "4a": (224, _double(64, 96, 96, 128, 128), "avg", 128),
    "4b": (192, _double(96, 128, 96, 128, 128), "avg", 128),
    "4c": (160, _double(128, 160, 128, 160, 160), "avg", 128),
    "4d": (96, _double(128, 192, 160, 192, 192), "avg", 128),
    "4e": (0, _double(128, 192, 192, 256, 256), "max", 0),
    "5a": (352, _double(192, 320, 160, 224, 224), "avg", 128),
    "5b": (352, _double(192, 320, 192, 224, 224), "max", 128),
}


def scale_branches(branches: Branches, scale: Callable[[int], int]) -> Branches:
    """Applies `scale` to the channels of each convolution in branches of `Inception`.

    Args:
      branches: Branches of `Inception`.
      scale: Maps the paper's number of channels to the model's.
    """
    if isinstance(branches[0], int):
        height, width, channels = branches
        return height, width, scale(channels)
    return tuple(scale_branches(part, scale) for part in branches)


class BnInception(BaseModel):
    """A stem and ten modules with batch norm and two 3x3 convolutions for each 5x5 (Fig. 5).

    As in the figure there are no auxiliary heads, and the first convolution is an ordinary one; in
    the paper's text it is separable with depth multiplier 8. Padding is SAME as in TensorFlow,
    which the paper does not state, so that images of any size work.
    """

    norm: Norm = "bn"
    bn_epsilon: Epsilon = 1e-3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        unit, scale = self.get_conv_unit(), self.scale_channels
        x = unit(scale(64), (7, 7), stride=2, name="conv1")(images, train)  # [B, 112, 112, 64]
        x = MaxPool(3, 2, "SAME", name="pool1")(x)  # [B, 56, 56, 64]
        x = unit(scale(64), (1, 1), name="conv2_reduce")(self.apply_lrn(x), train)
        x = unit(scale(192), (3, 3), name="conv2")(x, train)  # [B, 56, 56, 192]
        x = MaxPool(3, 2, "SAME", name="pool2")(x)
        x = self.capture("stem", x)  # [B, 28, 28, 192]; 14x14 after 3c, 7x7 after 4e
        for name, (one, double, kind, projection) in BN_TABLE.items():
            stride = 1 if one else 2
            pool = functools.partial(MaxPool if kind == "max" else AvgPool, 3, stride, "SAME")
            branches = scale_branches((((1, 1, one),), *double) if one else double, scale)
            projection = projection and scale(projection)
            layer = f"inception{name}"
            block = Inception(branches, pool, projection, unit, stride, name=layer)
            x = self.capture(layer, block(x, train))
        x = self.capture("pool", GlobalAvgPool(name="pool3")(x))  # of [B, 7, 7, 1024]
        x = self.apply_dropout(x, train)
        return Dense(self.num_classes, kernel_init=self.get_kernel_init(), name="head")(x)


def make_grid35(projection: int) -> tuple[Branches, int]:
    """Returns (branches, channels of the projection) of a module of the 35x35 grid."""
    double = (1, 1, 64), (3, 3, 96), (3, 3, 96)
    return (((1, 1, 64),), ((1, 1, 48), (5, 5, 64)), double), projection


def make_grid17(channels: int) -> tuple[Branches, int]:
    """Returns the same of a module of the 17x17 grid: 7x7 as 1x7 and 7x1 (Fig. 6, n = 7)."""
    one, row, column = (1, 1, channels), (1, 7, channels), (7, 1, channels)
    double = (one, column, row, column, (1, 7, 192))
    return (((1, 1, 192),), (one, row, (7, 1, 192)), double), 192


def make_grid8() -> tuple[Branches, int]:
    """Returns the same of a module of the 8x8 grid: 3x3 as parallel 1x3 and 3x1 (Fig. 7)."""
    fork = ((1, 3, 384), (3, 1, 384))
    return (((1, 1, 320),), ((1, 1, 384), fork), ((1, 1, 448), (3, 3, 384), fork)), 192


# Branches of the grid reductions.
REDUCE35 = (((3, 3, 384),), ((1, 1, 64), (3, 3, 96), (3, 3, 96)))
REDUCE17 = (((1, 1, 192), (3, 3, 320)), ((1, 1, 192), (1, 7, 192), (7, 1, 192), (3, 3, 192)))


def make_grid_reduction(
    branches: Branches, unit: Callable[..., ConvUnit], name: str | None = None
) -> Inception:
    """Makes a module that halves the grid (Fig. 10).

    Convolutions of stride 2 and max pooling run in parallel and are concatenated. Pooling first
    would be a bottleneck, and convolution first would be expensive (Fig. 9).

    Args:
      branches: Branches of `Inception`; the last convolution of each has stride 2.
      unit: Makes a ConvUnit from channels, kernel and name=...
      name: Name of the flax module.

    Returns:
      A module that maps [B, H, W, C] to [B, (H - 1) // 2, (W - 1) // 2, channels + C].
    """
    pool = functools.partial(MaxPool, 3, 2)
    return Inception(branches, pool, 0, unit, stride=2, padding="VALID", name=name)


# Modules in order: name, branches and projection, whether the grid is reduced. The channels inside
# the modules are those of Google's published weights, because the paper's Table 1 has only the
# channels between modules.
V3_TABLE = (
    ("mixed35a", make_grid35(32), False),  # [B, 35, 35, 256]
    ("mixed35b", make_grid35(64), False),  # [B, 35, 35, 288]
    ("mixed35c", make_grid35(64), False),
    ("reduce35", (REDUCE35, 0), True),  # [B, 17, 17, 768]
    ("mixed17a", make_grid17(128), False),
    ("mixed17b", make_grid17(160), False),
    ("mixed17c", make_grid17(160), False),
    ("mixed17d", make_grid17(192), False),
    ("reduce17", (REDUCE17, 0), True),  # [B, 8, 8, 1280]
    ("mixed8a", make_grid8(), False),  # [B, 8, 8, 2048]
    ("mixed8b", make_grid8(), False),
)
AUX = "mixed17d"  # the module whose output has the auxiliary head


class AuxiliaryHead(nn.Module):
    """Average pool 5x5/3, 1x1 convolution, fully connected layer, dense classes.

    The fully connected layer is a 5x5 convolution, which covers all of the 5x5 pixels that a 17x17
    grid leaves. On a smaller grid the kernel is smaller; on a larger grid the outputs are averaged.

    Attributes:
      num_classes: Number of logits.
      channels: Number of channels of the convolution and of the fully connected layer.
      unit: Makes the convolution from channels, kernel and name=...
      full_unit: Makes the fully connected layer from the same arguments.
      kernel_init: Initializer of the last layer.
    """

    num_classes: int
    channels: tuple[int, int]
    unit: Callable[..., ConvUnit]
    full_unit: Callable[..., ConvUnit]
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C], at least 5x5, to [B, num_classes] logits."""
        x = AvgPool(5, 3, name="pool")(x)  # [B, 5, 5, 768]
        x = self.unit(self.channels[0], (1, 1), name="conv")(x, train)
        kernel = (min(5, x.shape[1]), min(5, x.shape[2]))
        x = self.full_unit(self.channels[1], kernel, padding="VALID", name="full")(x, train)
        x = GlobalAvgPool(name="mean")(x)  # [B, 768]
        return Dense(self.num_classes, kernel_init=self.kernel_init, name="head")(x)


class InceptionV3(BaseModel):
    """A stem, eleven modules, a global average and a dense layer, on images of 299x299.

    The modules work on grids of 35x35, 17x17 and 8x8. With factorized_7x7 and aux_norm False, this
    is Inception v2. The other two steps of the ablation (Table 3) are optimizer=rmsprop and
    train.label_smoothing=0.1.

    Attributes:
      factorized_7x7: Whether the first layers are three 3x3 convolutions instead of one 7x7 of
        stride 2.
      aux_norm: Whether the auxiliary head's fully connected layer has batch norm ("BN-auxiliary").
      aux_heads: Whether the model has the auxiliary head.
      aux_weight: Weight of its loss, relative to the main loss. The paper does not state it;
        TensorFlow's training script has 0.4.
      dropout: Dropout before the last layer. The paper does not state it; TensorFlow's model has
        0.2.
      count_padding: Whether average pooling includes the zeros of the padding, as in torchvision.
    """

    norm: Norm = "bn"
    bn_epsilon: Epsilon = 1e-3
    dropout: Dropout = 0.2
    factorized_7x7: bool = True
    aux_norm: bool = True
    aux_heads: bool = True
    aux_weight: LossWeight = 0.4
    count_padding: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array | tuple[jax.Array, ...]:
        """Maps [B, H, W, C] images to [B, num_classes] logits.

        In training it returns a tuple of logits: those of the model, then those of the head.
        """
        heads = self.aux_heads and (train or self.is_initializing())
        first = [(3, 2, 0), (3, 1, 0)] if self.factorized_7x7 else [(7, 2, 0)]
        windows = [*first, (3, 2, 0), (3, 1, 0), (3, 2, 0), (3, 2, 0)]
        if heads:
            self.check_size(images, windows, 5)
        else:
            self.check_size(images, [*windows, (3, 2, 0)])

        unit, scale = self.get_conv_unit(), self.scale_channels
        valid = functools.partial(unit, padding="VALID")
        if self.factorized_7x7:
            # [B, 149, 149, 32]
            x = valid(scale(32), (3, 3), stride=2, name="conv1a")(images, train)
            x = valid(scale(32), (3, 3), name="conv1b")(x, train)  # [B, 147, 147, 32]
            x = unit(scale(64), (3, 3), name="conv1c")(x, train)  # [B, 147, 147, 64]
        else:
            x = valid(scale(64), (7, 7), stride=2, name="conv1")(images, train)
        x = self.apply_lrn(MaxPool(3, 2, name="pool1")(x))  # [B, 73, 73, 64]
        x = valid(scale(80), (1, 1), name="conv2")(x, train)
        x = valid(scale(192), (3, 3), name="conv3")(x, train)  # [B, 71, 71, 192]
        x = self.capture("stem", MaxPool(3, 2, name="pool2")(x))  # [B, 35, 35, 192]
        pool = functools.partial(AvgPool, 3, 1, "SAME", self.count_padding)
        auxiliary = []
        for name, (branches, projection), reduces in V3_TABLE:
            branches = scale_branches(branches, scale)
            if reduces:
                block = make_grid_reduction(branches, unit, name)
            else:
                block = Inception(branches, pool, scale(projection), unit, name=name)
            x = self.capture(name, block(x, train))
            if heads and name == AUX:
                full = unit if self.aux_norm else functools.partial(unit, norm=None)
                channels = (scale(128), scale(768))
                head = AuxiliaryHead(
                    self.num_classes, channels, unit, full, self.get_kernel_init(), name="aux"
                )
                auxiliary.append(head(x, train))
        x = self.capture("pool", GlobalAvgPool(name="pool3")(x))  # [B, 2048]
        x = self.apply_dropout(x, train)
        logits = Dense(self.num_classes, kernel_init=self.get_kernel_init(), name="head")(x)
        return (logits, *auxiliary) if auxiliary and train else logits


class InceptionV2(InceptionV3):
    """Inception v3 without two of the ablation's steps (Table 3).

    It has a 7x7 stem, and no batch norm in the auxiliary head's fully connected layer. The paper
    does not state the widths inside its modules; they are those of v3.
    """

    factorized_7x7: bool = False
    aux_norm: bool = False


_EPSILON = Deviation(
    "batch norm adds {bn_epsilon} to the variance (TensorFlow's models: 0.001); the paper does not"
    " state its epsilon",
    lambda model: model.norm == "bn",
)
_STEM = Deviation(
    "the convolutions before the modules, and the 35x35 modules with their 5x5, are those of"
    " Google's published model, not of the paper's Table 1 and Figure 5"
)
_TRAINING = Deviation(
    "dropout {dropout} and the auxiliary weight {aux_weight} (TensorFlow's: 0.2 and 0.4); the paper"
    " states neither"
)

MODELS = {
    "bn_inception": ModelSpec(
        BnInception,
        # Computed from Fig. 5. The weights ported from Caffe have 11,295,240, because their
        # convolutions have biases.
        parameters=11_285_224,
        deviations=(
            Deviation("the first convolution is an ordinary one; the paper's is separable"),
            Deviation("padding is SAME as in TensorFlow; the paper does not state its padding"),
            Deviation(
                "4c, 4d and 4e have 608, 608 and 1056 output channels, the sums of their widths;"
                " Figure 5 prints 576, 576 and 1024"
            ),
            _EPSILON,
            HE,
        ),
    ),
    "inception_v2": ModelSpec(
        InceptionV2,
        input_shape=(299, 299, 3),
        # Those of Inception v3, with a 7x7 convolution from 3 to 64 channels (9,536) instead of
        # three 3x3 (28,768), and a bias (768) instead of a scale and a shift (1,536).
        parameters=27_141_264,
        deviations=(
            Deviation(
                "widths inside the modules are v3's; the paper prints only those between modules"
            ),
            _STEM,
            _EPSILON,
            HE,
            _TRAINING,
        ),
    ),
    "inception_v3": ModelSpec(
        InceptionV3,
        input_shape=(299, 299, 3),
        # As in torchvision and Keras; 23,834,568 without the head.
        parameters=27_161_264,
        deviations=(_STEM, _EPSILON, HE, _TRAINING),
    ),
}
