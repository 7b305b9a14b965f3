"""Residual nets and their plain twins. He, Zhang, Ren, Sun 2015, "Deep Residual Learning" (arXiv:1512.03385)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import mesh
from cnn_jax.errors import UserError
from cnn_jax.layers.conv import BatchNorm, Conv, Dense, widened
from cnn_jax.layers.pooling import GlobalAvgPool, MaxPool
from cnn_jax.models.base import Net

SHORTCUTS = ("A", "B", "C")  # Sec. 4.1, "Identity vs. Projection Shortcuts"
PLAIN = "plain"  # none
STRIDES = ("1x1", "3x3")


class Layers(NamedTuple):
    """What a block's convolutions have in common."""

    init: Callable[..., jax.Array]
    norm: Callable[..., BatchNorm] | None  # batch norm but for its name
    bias: bool  # of the convolutions

    def conv(self, x: jax.Array, maps: int, kernel: int, stride: int = 1, *, name: str) -> jax.Array:
        """[B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), maps]."""
        # The paper's symmetric padding; XLA's SAME would pad a strided convolution on one side only.
        padding = [(kernel // 2, kernel // 2)] * 2
        conv = functools.partial(Conv, use_bias=self.bias or not self.norm, kernel_init=self.init, name=name)
        return conv(maps, (kernel, kernel), stride, padding)(x)

    def normalised(self, x: jax.Array, train: bool, *, name: str) -> jax.Array:
        """x after batch norm, if there is any."""
        return self.norm(name=name)(x, train) if self.norm else x


class Basic(nn.Module):
    """Two 3x3 convolutions and the shortcut around them (Fig. 5, left)."""

    maps: int
    stride: int
    shortcut: str
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, maps]."""
        conv, normalised = self.layers.conv, self.layers.normalised
        y = conv(x, self.maps, 3, self.stride, name="conv1")
        y = nn.relu(normalised(y, train, name="norm1"))
        y = conv(y, self.maps, 3, name="conv2")
        y = normalised(y, train, name="norm2")
        return nn.relu(_shortcut(self, x, y, train))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, the last four times as wide, and the shortcut around them (Fig. 5, right).

    stride_in: the convolution that has the stride: 1x1, the first, as in the paper; or 3x3, as in most public weights.
    """

    maps: int
    stride: int
    shortcut: str
    layers: Layers
    stride_in: str = "1x1"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, 4 maps]."""
        conv, normalised = self.layers.conv, self.layers.normalised
        first, second = (self.stride, 1) if self.stride_in == "1x1" else (1, self.stride)
        y = conv(x, self.maps, 1, first, name="conv1")
        y = nn.relu(normalised(y, train, name="norm1"))
        y = conv(y, self.maps, 3, second, name="conv2")
        y = nn.relu(normalised(y, train, name="norm2"))
        y = conv(y, 4 * self.maps, 1, name="conv3")
        y = normalised(y, train, name="norm3")
        return nn.relu(_shortcut(self, x, y, train))


def _shortcut(block: Basic | Bottleneck, x: jax.Array, y: jax.Array, train: bool) -> jax.Array:
    """Sec. 3.3: y plus x, as it is, zero-padded (A) or projected (B where the sizes differ, C everywhere)."""
    if block.shortcut == PLAIN:
        return y
    if block.shortcut == "C" or (block.shortcut == "B" and x.shape != y.shape):
        x = block.layers.conv(x, y.shape[-1], 1, block.stride, name="projection")
        x = block.layers.normalised(x, train, name="projection_norm")
    elif x.shape != y.shape:
        x = widened(x, y.shape[-1], block.stride)
    return y + x


class ResNet(Net, kw_only=True):
    """A stem, stages of blocks, a global average and a dense layer.

    Attributes:
      blocks: how many in each stage.
      channels: of each stage's 3x3 convolutions.
      block: Basic or Bottleneck.
      imagenet_stem: 7x7/2 convolution and 3x3/2 max pool (Table 1) in place of one 3x3 convolution (Sec. 4.2).
      shortcut: A | B | C (Sec. 4.1, "Identity vs. Projection Shortcuts"), or plain: none.
      stride_in: of bottlenecks: 1x1 | 3x3.
      conv_bias: of the convolutions, before a batch norm too, which makes it useless: for weights that have it.
      bn_group: images per batch-statistics group; 0: the whole batch. The paper's CIFAR nets saw 128 images
        over two GPUs, each with its own statistics: 64.
      scan_from: a stage with at least this many identical blocks runs them in lax.scan, which compiles one
        block in place of hundreds; None: by platform. Parameters are the same either way.
    """

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    block: type[nn.Module] = Basic
    imagenet_stem: bool = False
    shortcut: str = "B"
    stride_in: str = "1x1"
    conv_bias: bool = False
    norm: str = "bn"
    scan_from: int | None = None

    def __post_init__(self) -> None:
        """Raises UserError for an option's value that there is not."""
        for option, known in (("shortcut", (*SHORTCUTS, PLAIN)), ("stride_in", STRIDES)):
            if getattr(self, option) not in known:
                raise UserError(f"model.{option}={getattr(self, option)!r}: choose {', '.join(known)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        layers = Layers(self.weights(), self.batch_norm(), self.conv_bias)
        stem = (7, 2) if self.imagenet_stem else (3, 1)
        x = layers.conv(images, self.maps(self.channels[0]), *stem, name="stem")  # [B, 112, 112, 64]
        x = self.lrn(nn.relu(layers.normalised(x, train, name="stem_norm")))
        if self.imagenet_stem:
            x = MaxPool(3, 2, ((1, 1), (1, 1)), name="stem_pool")(x)  # [B, 56, 56, 64]
        self.keep("stem", x)
        block = functools.partial(self.block, shortcut=self.shortcut, layers=layers)
        if self.block is Bottleneck:
            block = functools.partial(block, stride_in=self.stride_in)
        for stage, (count, channels) in enumerate(zip(self.blocks, self.channels, strict=True), start=1):
            of_stage = functools.partial(block, self.maps(channels))
            names = [f"stage{stage}_block{i}" for i in range(1, count + 1)]
            x = of_stage(stride=1 if stage == 1 else 2, name=names[0])(x, train)
            x = self.keep(f"stage{stage}", self._repeat(functools.partial(of_stage, stride=1), names[1:], x, train))
        x = self.dropped(self.keep("pool", GlobalAvgPool(name="pool")(x)), train)
        return Dense(self.num_classes, kernel_init=self.weights(), name="head")(x)

    def _repeat(self, block: Callable[..., nn.Module], names: list[str], x: jax.Array, train: bool) -> jax.Array:
        if self.is_initializing() or len(names) < (self.scan_from or _scan_from()):
            for name in names:
                x = block(name=name)(x, train)
            return x
        each = [{c: v[name] for c, v in self.variables.items() if name in v} for name in names]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        bare = block(parent=None)

        def body(x: jax.Array, variables: dict) -> tuple[jax.Array, dict]:
            return bare.apply(variables, x, train, mutable=["batch_stats"])

        x, stats = jax.lax.scan(body, x, stacked)
        if "batch_stats" in stats and self.is_mutable_collection("batch_stats"):
            for i, name in enumerate(names):
                self.put_variable("batch_stats", name, jax.tree.map(lambda s, i=i: s[i], stats["batch_stats"]))
        return x


def _scan_from() -> int:
    # XLA on the CPU runs a convolution inside a scan many times slower (jax#12868), so that there only
    # ResNet-1202, which would not finish compiling, is worth it; elsewhere a scan costs next to nothing.
    return 100 if mesh.platform() == "cpu" else 17


def cifar(depth: int, num_classes: int, shortcut: str = "A", **options) -> ResNet:  # noqa: ANN003
    """The CIFAR nets of Sec. 4.2: 6n + 2 layers, stages of 16, 32 and 64 maps, option A."""
    n, rest = divmod(depth - 2, 6)
    assert rest == 0 and n > 0, depth
    return ResNet(num_classes, blocks=(n, n, n), channels=(16, 32, 64), shortcut=shortcut, **options)


def imagenet(blocks: tuple[int, ...], block: type[nn.Module], num_classes: int, **options) -> ResNet:  # noqa: ANN003
    """The ImageNet nets of Table 1; option B unless said otherwise."""
    channels = (64, 128, 256, 512)
    return ResNet(num_classes, blocks=blocks, channels=channels, block=block, imagenet_stem=True, **options)
