"""BN-Inception (Ioffe, Szegedy 2015, arXiv:1502.03167), Inception v2 and v3 (Szegedy et al. 2015, arXiv:1512.00567)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnn_jax.layers.conv import ConvUnit, Dense
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from cnn_jax.models.base import Init, Net
from cnn_jax.models.googlenet import Inception

Branches = tuple


def _double(reduce1: int, single: int, reduce2: int, first: int, second: int) -> Branches:
    return ((1, 1, reduce1), (3, 3, single)), ((1, 1, reduce2), (3, 3, first), (3, 3, second))


# Ioffe, Szegedy 2015, Fig. 5: maps of 1x1 (0: none, and stride 2); 3x3 reduce, 3x3; double 3x3 reduce, 3x3, 3x3;
# pooling and its projection (0: none). The figure prints 576, 576 and 1024 as the output of 4c, 4d and 4e; the
# widths in the same figure add up to 608, 608 and 1056, which public weights have too.
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


def narrowed(branches: Branches, maps: Callable[[int], int]) -> Branches:
    """Branches of `Inception` with another number of maps in each convolution."""
    if isinstance(branches[0], int):
        height, width, count = branches
        return height, width, maps(count)
    return tuple(narrowed(part, maps) for part in branches)


class BnInception(Net):
    """A stem, ten modules with two 3x3 for each 5x5, batch norm after every convolution (Fig. 5).

    Differs: the first convolution is an ordinary one, as in the figure; the paper's text has a separable one of
    depth multiplier 8. No auxiliary heads: the figure has none. Edges are padded as TensorFlow's SAME does,
    which the paper does not say; so any size of image works.
    """

    norm: str = "bn"
    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        unit, maps = self.unit(), self.maps
        x = unit(maps(64), (7, 7), stride=2, name="conv1")(images, train)  # [B, 112, 112, 64]
        x = MaxPool(3, 2, "SAME", name="pool1")(x)  # [B, 56, 56, 64]
        x = unit(maps(64), (1, 1), name="conv2_reduce")(self.lrn(x), train)
        x = unit(maps(192), (3, 3), name="conv2")(x, train)  # [B, 56, 56, 192]
        x = self.keep(
            "stem", MaxPool(3, 2, "SAME", name="pool2")(x)
        )  # [B, 28, 28, 192]; 14 pixels after 3c, 7 after 4e
        for name, (one, double, kind, projection) in BN_TABLE.items():
            stride = 1 if one else 2
            pool = functools.partial(MaxPool if kind == "max" else AvgPool, 3, stride, "SAME")
            branches = narrowed((((1, 1, one),), *double) if one else double, maps)
            block = Inception(branches, pool, projection and maps(projection), unit, stride, name=f"inception{name}")
            x = self.keep(f"inception{name}", block(x, train))
        x = self.dropped(self.keep("pool", GlobalAvgPool(name="pool3")(x)), train)  # of [B, 7, 7, 1024]
        return Dense(self.num_classes, kernel_init=self.weights(), name="head")(x)


def grid35(projection: int) -> tuple[Branches, int]:
    """The modules of the 35x35 grid: branches, and maps of the pooling's projection."""
    return (((1, 1, 64),), ((1, 1, 48), (5, 5, 64)), ((1, 1, 64), (3, 3, 96), (3, 3, 96))), projection


def grid17(maps: int) -> tuple[Branches, int]:
    """The modules of the 17x17 grid, 7x7 as 1x7 and 7x1 (Fig. 6, n = 7)."""
    one, row, column = (1, 1, maps), (1, 7, maps), (7, 1, maps)
    double = (one, column, row, column, (1, 7, 192))
    return (((1, 1, 192),), (one, row, (7, 1, 192)), double), 192


def grid8() -> tuple[Branches, int]:
    """The modules of the 8x8 grid, 3x3 as 1x3 beside 3x1: the expanded filter bank (Fig. 7)."""
    fork = ((1, 3, 384), (3, 1, 384))
    return (((1, 1, 320),), ((1, 1, 384), fork), ((1, 1, 448), (3, 3, 384), fork)), 192


# Branches of the grid reductions.
REDUCE35 = (((3, 3, 384),), ((1, 1, 64), (3, 3, 96), (3, 3, 96)))
REDUCE17 = (((1, 1, 192), (3, 3, 320)), ((1, 1, 192), (1, 7, 192), (7, 1, 192), (3, 3, 192)))


def grid_reduction(branches: Branches, unit: Callable[..., ConvUnit], name: str | None = None) -> Inception:
    """Halves the grid by stride-2 convolutions and max pooling side by side, concatenated (Fig. 10).

    Pooling first would be a bottleneck, and convolving first costly (Fig. 9). branches: as `Inception` has them;
    the last convolution of each has stride 2. [B, H, W, C] becomes [B, (H - 1) // 2, (W - 1) // 2, maps + C].
    """
    return Inception(branches, functools.partial(MaxPool, 3, 2), 0, unit, stride=2, padding="VALID", name=name)


# Modules in order: name, branches and projection, whether the grid is reduced. Maps inside the modules are those of
# the weights that Google published (the paper's Table 1 has only what goes from module to module).
V3_TABLE = (
    ("mixed35a", grid35(32), False),  # [B, 35, 35, 256]
    ("mixed35b", grid35(64), False),  # [B, 35, 35, 288]
    ("mixed35c", grid35(64), False),
    ("reduce35", (REDUCE35, 0), True),  # [B, 17, 17, 768]
    ("mixed17a", grid17(128), False),
    ("mixed17b", grid17(160), False),
    ("mixed17c", grid17(160), False),
    ("mixed17d", grid17(192), False),
    ("reduce17", (REDUCE17, 0), True),  # [B, 8, 8, 1280]
    ("mixed8a", grid8(), False),  # [B, 8, 8, 2048]
    ("mixed8b", grid8(), False),
)
AUX = "mixed17d"  # the module whose output has the auxiliary head


class AuxiliaryHead(nn.Module):
    """Average pool 5x5/3, 1x1 convolution of `maps[0]`, fully connected layer of `maps[1]`, dense classes.

    The fully connected layer is a convolution of the whole 5x5 that a 17x17 grid leaves (on a smaller grid of
    what there is, on a larger one averaged over its places). unit, full_unit: of the two convolutions.
    """

    num_classes: int
    maps: tuple[int, int]
    unit: Callable[..., ConvUnit]
    full_unit: Callable[..., ConvUnit]
    kernel_init: Init

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C], at least 5x5, to [B, num_classes] logits."""
        x = AvgPool(5, 3, name="pool")(x)  # [B, 5, 5, 768]
        x = self.unit(self.maps[0], (1, 1), name="conv")(x, train)
        kernel = (min(5, x.shape[1]), min(5, x.shape[2]))
        x = self.full_unit(self.maps[1], kernel, padding="VALID", name="full")(x, train)
        x = GlobalAvgPool(name="mean")(x)  # [B, 768]
        return Dense(self.num_classes, kernel_init=self.kernel_init, name="head")(x)


class InceptionV3(Net):
    """A stem, eleven modules on grids of 35, 17 and 8 pixels, a global average and a dense layer; images of 299x299.

    With both options of the ablation (Table 3) False, this is Inception v2. Its other two
    steps are optimizer=rmsprop and train.label_smoothing=0.1.

    Attributes:
      factorised_7x7: three 3x3 convolutions as the first layers, for one 7x7 of stride 2.
      aux_norm: batch norm in the auxiliary head's fully connected layer too ("BN-auxiliary").
      aux_heads: whether there is the auxiliary head.
      aux_weight: of its loss against the main one; the paper does not say: TensorFlow's training script has 0.4.
      dropout: rate before the last layer; the paper does not say: TensorFlow's net has 0.2.
      count_padding: average pooling counts the zeros outside the map, as the torchvision net does.
    """

    norm: str = "bn"
    bn_epsilon: float = 1e-3
    dropout: float = 0.2
    factorised_7x7: bool = True
    aux_norm: bool = True
    aux_heads: bool = True
    aux_weight: float = 0.4
    count_padding: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array | tuple[jax.Array, ...]:
        """[B, H, W, C] images to [B, num_classes] logits; in training a tuple of them: the net's, then the head's."""
        heads = self.aux_heads and (train or self.is_initializing())
        first = [(3, 2, 0), (3, 1, 0)] if self.factorised_7x7 else [(7, 2, 0)]
        windows = [*first, (3, 2, 0), (3, 1, 0), (3, 2, 0), (3, 2, 0)]
        if heads:
            self.check_size(images, windows, 5)
        else:
            self.check_size(images, [*windows, (3, 2, 0)])

        unit, maps = self.unit(), self.maps
        valid = functools.partial(unit, padding="VALID")
        if self.factorised_7x7:
            x = valid(maps(32), (3, 3), stride=2, name="conv1a")(images, train)  # [B, 149, 149, 32]
            x = valid(maps(32), (3, 3), name="conv1b")(x, train)  # [B, 147, 147, 32]
            x = unit(maps(64), (3, 3), name="conv1c")(x, train)  # [B, 147, 147, 64]
        else:
            x = valid(maps(64), (7, 7), stride=2, name="conv1")(images, train)  # [B, 147, 147, 64]
        x = self.lrn(MaxPool(3, 2, name="pool1")(x))  # [B, 73, 73, 64]
        x = valid(maps(80), (1, 1), name="conv2")(x, train)
        x = valid(maps(192), (3, 3), name="conv3")(x, train)  # [B, 71, 71, 192]
        x = self.keep("stem", MaxPool(3, 2, name="pool2")(x))  # [B, 35, 35, 192]
        pool = functools.partial(AvgPool, 3, 1, "SAME", self.count_padding)
        auxiliary = []
        for name, (branches, projection), reduces in V3_TABLE:
            branches = narrowed(branches, maps)
            if reduces:
                block = grid_reduction(branches, unit, name)
            else:
                block = Inception(branches, pool, maps(projection), unit, name=name)
            x = self.keep(name, block(x, train))
            if heads and name == AUX:
                full = unit if self.aux_norm else functools.partial(unit, norm=None)
                head = AuxiliaryHead(self.num_classes, (maps(128), maps(768)), unit, full, self.weights(), name="aux")
                auxiliary.append(head(x, train))
        x = self.dropped(self.keep("pool", GlobalAvgPool(name="pool3")(x)), train)  # [B, 2048]
        logits = Dense(self.num_classes, kernel_init=self.weights(), name="head")(x)
        return (logits, *auxiliary) if auxiliary and train else logits


class InceptionV2(InceptionV3):
    """Inception v3 before the ablation's net options: a 7x7 stem, and no batch norm in the head's full layer.

    The paper names no widths for it inside the modules: v3's.
    """

    factorised_7x7: bool = False
    aux_norm: bool = False
