"""Residual nets and their plain twins. He, Zhang, Ren, Sun 2015, "Deep Residual Learning" (arXiv:1512.03385)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.models.layers import BatchNorm, Conv, he_normal, keep, widened

SHORTCUTS = ("A", "B", "C")  # Sec. 4.1, "Identity vs. Projection Shortcuts"
PLAIN = "plain"  # none


def _conv(maps: int, kernel: int, stride: int = 1, *, name: str) -> nn.Module:
    # The paper's symmetric padding; XLA's SAME would pad a strided convolution on one side only.
    padding = [(kernel // 2, kernel // 2)] * 2
    return Conv(maps, (kernel, kernel), stride, padding, use_bias=False, kernel_init=he_normal, name=name)


class Basic(nn.Module):
    """Two 3x3 convolutions and the shortcut around them (Fig. 5, left)."""

    maps: int
    stride: int
    shortcut: str
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, maps]."""
        y = _conv(self.maps, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train))
        y = _conv(self.maps, 3, name="conv2")(y)
        y = self.norm(name="norm2")(y, train)
        return nn.relu(_shortcut(self, x, y, train))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, the last four times as wide, and the shortcut around them (Fig. 5, right)."""

    maps: int
    stride: int
    shortcut: str
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, 4 maps]; the stride is in the first 1x1, as in the paper."""
        y = _conv(self.maps, 1, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train))
        y = _conv(self.maps, 3, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y, train))
        y = _conv(4 * self.maps, 1, name="conv3")(y)
        y = self.norm(name="norm3")(y, train)
        return nn.relu(_shortcut(self, x, y, train))


def _shortcut(block: Basic | Bottleneck, x: jax.Array, y: jax.Array, train: bool) -> jax.Array:
    """Sec. 3.3: y plus x, as it is, zero-padded (A) or projected (B where the sizes differ, C everywhere)."""
    if block.shortcut == PLAIN:
        return y
    if block.shortcut == "C" or (block.shortcut == "B" and x.shape != y.shape):
        x = _conv(y.shape[-1], 1, block.stride, name="projection")(x)
        x = block.norm(name="projection_norm")(x, train)
    elif x.shape != y.shape:
        x = widened(x, y.shape[-1], block.stride)
    return y + x


class ResNet(nn.Module):
    """A stem, stages of blocks, a global average and a dense layer.

    Attributes:
      num_classes: logits.
      blocks: how many in each stage.
      maps: of each stage's 3x3 convolutions.
      block: Basic or Bottleneck.
      imagenet_stem: 7x7/2 convolution and 3x3/2 max pool (Table 1) in place of one 3x3 convolution (Sec. 4.2).
      shortcut: A | B | C (Sec. 4.1, "Identity vs. Projection Shortcuts"), or plain: none.
      bn_group: images per batch-statistics group; 0: the whole batch. The paper's CIFAR nets saw 128 images
        over two GPUs, each with its own statistics: 64.
      axis: the pmapped axis over which the batch is split, if it is.
      scan_from: a stage with at least this many identical blocks runs them in lax.scan, which compiles one
        block in place of hundreds; None: by platform. Parameters are the same either way.
    """

    num_classes: int
    blocks: tuple[int, ...]
    maps: tuple[int, ...]
    block: type[nn.Module] = Basic
    imagenet_stem: bool = False
    shortcut: str = "B"
    bn_group: int = 0
    axis: str | None = None
    scan_from: int | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        norm = functools.partial(BatchNorm, group=self.bn_group, axis=self.axis)
        if self.imagenet_stem:
            x = _conv(self.maps[0], 7, 2, name="stem")(images)  # [B, 112, 112, 64]
            x = nn.relu(norm(name="stem_norm")(x, train))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # [B, 56, 56, 64]
        else:
            x = _conv(self.maps[0], 3, name="stem")(images)
            x = nn.relu(norm(name="stem_norm")(x, train))
        keep(self, "stem", x)
        for stage, (count, maps) in enumerate(zip(self.blocks, self.maps, strict=True), start=1):
            block = functools.partial(self.block, maps, shortcut=self.shortcut, norm=norm)
            names = [f"stage{stage}_block{i}" for i in range(1, count + 1)]
            x = block(stride=1 if stage == 1 else 2, name=names[0])(x, train)
            x = keep(self, f"stage{stage}", self._repeat(functools.partial(block, stride=1), names[1:], x, train))
        x = keep(self, "pool", x.mean((1, 2)))
        return nn.Dense(self.num_classes, kernel_init=he_normal, name="head")(x)

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
        if self.is_mutable_collection("batch_stats"):
            for i, name in enumerate(names):
                self.put_variable("batch_stats", name, jax.tree.map(lambda s, i=i: s[i], stats["batch_stats"]))
        return x


def _scan_from() -> int:
    # XLA on the CPU runs a convolution inside a scan many times slower (jax#12868), so that there only
    # ResNet-1202, which would not finish compiling, is worth it; elsewhere a scan costs next to nothing.
    return 100 if jax.default_backend() == "cpu" else 17


def cifar(depth: int, num_classes: int, shortcut: str = "A", **options) -> ResNet:  # noqa: ANN003
    """The CIFAR nets of Sec. 4.2: 6n + 2 layers, stages of 16, 32 and 64 maps, option A."""
    n, rest = divmod(depth - 2, 6)
    assert rest == 0 and n > 0, depth
    return ResNet(num_classes, (n, n, n), (16, 32, 64), shortcut=shortcut, **options)


def imagenet(blocks: tuple[int, ...], block: type[nn.Module], num_classes: int, **options) -> ResNet:  # noqa: ANN003
    """The ImageNet nets of Table 1; option B unless said otherwise."""
    return ResNet(num_classes, blocks, (64, 128, 256, 512), block, imagenet_stem=True, **options)
