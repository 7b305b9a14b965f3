"""ResNets and their plain twins.

He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385).
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.rewrites import choose_min_scan_blocks
from cnn_jax.layers.activations import relu
from cnn_jax.layers.batch_norm import BatchNorm
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import Initializer
from cnn_jax.layers.pooling import GlobalAvgPool, MaxPool
from cnn_jax.models.base import BaseModel, Norm
from cnn_jax.models.spec import Deviation, ModelSpec
from cnn_jax.values import Count

PLAIN = "plain"  # the value of `shortcut` for no shortcut


class BlockLayers(NamedTuple):
    """Makes the convolutions and norm layers of a block.

    Attributes:
      kernel_init: Initializer of the kernels.
      norm: Makes a batch norm layer from name=...; None: no batch norm.
      bias: Whether convolutions have biases in addition to batch norm.
    """

    kernel_init: Initializer
    norm: Callable[..., BatchNorm] | None
    bias: bool

    def conv(
        self, x: jax.Array, channels: int, kernel: int, stride: int = 1, *, name: str
    ) -> jax.Array:
        """Convolves [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels].

        Args:
          x: Feature maps [B, H, W, C].
          channels: Number of output channels.
          kernel: Side of the kernel, in pixels.
          stride: Stride on both axes, in pixels.
          name: Name of the layer.
        """
        return Conv(
            channels,
            (kernel, kernel),
            stride,
            # The paper's symmetric padding; XLA's SAME would pad a strided convolution on one side.
            [(kernel // 2, kernel // 2)] * 2,
            use_bias=self.bias or not self.norm,
            kernel_init=self.kernel_init,
            name=name,
        )(x)

    def batch_norm(self, x: jax.Array, train: bool, *, name: str) -> jax.Array:
        """Applies batch norm to [B, H, W, C] if the model has it."""
        return self.norm(name=name)(x, train) if self.norm else x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut around them (Fig. 5, left).

    Attributes:
      channels: Number of channels of the convolutions.
      stride: Stride of the first convolution, in pixels.
      shortcut: A | B | C | plain.
      layers: Makes the convolutions and norm layers.
    """

    channels: int
    stride: int
    shortcut: str
    layers: BlockLayers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, channels]."""
        conv, batch_norm = self.layers.conv, self.layers.batch_norm
        y = conv(x, self.channels, 3, self.stride, name="conv1")
        y = relu(batch_norm(y, train, name="norm1"))
        y = conv(y, self.channels, 3, name="conv2")
        y = batch_norm(y, train, name="norm2")
        return relu(_add_shortcut(self, x, y, train))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, and the shortcut around them (Fig. 5, right).

    Attributes:
      channels: Number of channels of the first two convolutions; the last has four times as many.
      stride: Stride of the convolution that `stride_in` names, in pixels.
      shortcut: A | B | C | plain.
      layers: Makes the convolutions and norm layers.
      stride_in: 1x1: the first convolution has the stride, as in the paper; 3x3: the second, as in
        most public weights.
    """

    channels: int
    stride: int
    shortcut: str
    layers: BlockLayers
    stride_in: str = "1x1"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 channels]."""
        conv, batch_norm = self.layers.conv, self.layers.batch_norm
        first, second = (self.stride, 1) if self.stride_in == "1x1" else (1, self.stride)
        y = conv(x, self.channels, 1, first, name="conv1")
        y = relu(batch_norm(y, train, name="norm1"))
        y = conv(y, self.channels, 3, second, name="conv2")
        y = relu(batch_norm(y, train, name="norm2"))
        y = conv(y, 4 * self.channels, 1, name="conv3")
        y = batch_norm(y, train, name="norm3")
        return relu(_add_shortcut(self, x, y, train))


def _add_shortcut(
    block: BasicBlock | BottleneckBlock, x: jax.Array, y: jax.Array, train: bool
) -> jax.Array:
    """Adds the block's input x to its output y (Sec. 3.3).

    If the sizes differ, x is padded with zeros (A) or projected (B). Option C always projects.
    """
    if block.shortcut == PLAIN:
        return y
    if block.shortcut == "C" or (block.shortcut == "B" and x.shape != y.shape):
        x = block.layers.conv(x, y.shape[-1], 1, block.stride, name="projection")
        x = block.layers.batch_norm(x, train, name="projection_norm")
    elif x.shape != y.shape:
        x = zero_pad_shortcut(x, y.shape[-1], block.stride)
    return y + x


def zero_pad_shortcut(x: jax.Array, channels: int, stride: int) -> jax.Array:
    """Takes every stride-th pixel of [B, H, W, C] and adds channels of zeros (option A).

    Args:
      x: Feature maps [B, H, W, C].
      channels: Number of output channels.
      stride: Stride on both axes, in pixels.
    """
    zeros = channels - x.shape[-1]
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, zeros)))


class ResNet(BaseModel, kw_only=True):
    """A stem, stages of blocks, a global average and a dense layer.

    Attributes:
      blocks: Number of blocks of each stage.
      channels: Number of channels of the 3x3 convolutions of each stage.
      block: BasicBlock or BottleneckBlock.
      imagenet_stem: A 7x7/2 convolution and 3x3/2 max pool (Table 1) instead of one 3x3
        convolution (Sec. 4.2).
      shortcut: A | B | C (Sec. 4.1, "Identity vs. Projection Shortcuts"), or plain: none.
      stride_in: Which convolution of a bottleneck block has the stride: 1x1 | 3x3.
      conv_bias: Whether convolutions have biases in addition to batch norm. Batch norm cancels
        them, but some public weights have them.
      bn_group: Number of images in a group of batch statistics; 0: the whole batch. The paper's
        CIFAR models used 64: a batch of 128 images on two GPUs, each with its own statistics.
      scan_min_blocks: A stage with at least this many identical blocks runs them in lax.scan,
        which compiles one block instead of hundreds; None: chosen by platform. The parameters do
        not depend on it.
    """

    not_options: ClassVar[tuple[str, ...]] = ("blocks", "channels", "block", "imagenet_stem")

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    block: type[nn.Module] = BasicBlock
    imagenet_stem: bool = False
    shortcut: Literal["A", "B", "C", "plain"] = "B"
    stride_in: Literal["1x1", "3x3"] = "1x1"
    conv_bias: bool = False
    norm: Norm = "bn"
    scan_min_blocks: Count | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        layers = BlockLayers(self.get_kernel_init(), self.get_norm_layer(), self.conv_bias)
        kernel, stride = (7, 2) if self.imagenet_stem else (3, 1)
        # [B, 112, 112, 64] from 224x224
        x = layers.conv(images, self.scale_channels(self.channels[0]), kernel, stride, name="stem")
        x = self.apply_lrn(relu(layers.batch_norm(x, train, name="stem_norm")))
        if self.imagenet_stem:
            x = MaxPool(3, 2, ((1, 1), (1, 1)), name="stem_pool")(x)  # [B, 56, 56, 64]
        x = self.capture("stem", x)
        block = functools.partial(self.block, shortcut=self.shortcut, layers=layers)
        if self.block is BottleneckBlock:
            block = functools.partial(block, stride_in=self.stride_in)
        stages = zip(self.blocks, self.channels, strict=True)
        for stage, (count, channels) in enumerate(stages, start=1):
            of_stage = functools.partial(block, self.scale_channels(channels))
            names = [f"stage{stage}_block{i}" for i in range(1, count + 1)]
            x = of_stage(stride=1 if stage == 1 else 2, name=names[0])(x, train)
            x = self._repeat(functools.partial(of_stage, stride=1), names[1:], x, train)
            x = self.capture(f"stage{stage}", x)
        x = self.capture("pool", GlobalAvgPool(name="pool")(x))
        x = self.apply_dropout(x, train)
        return Dense(self.num_classes, kernel_init=self.get_kernel_init(), name="head")(x)

    def _repeat(
        self, block: Callable[..., nn.Module], names: list[str], x: jax.Array, train: bool
    ) -> jax.Array:
        minimum = self.scan_min_blocks or choose_min_scan_blocks()
        if self.is_initializing() or len(names) < minimum:
            for name in names:
                x = block(name=name)(x, train)
            return x
        each = [{c: v[name] for c, v in self.variables.items() if name in v} for name in names]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        bare = block(parent=None)

        def body(x: jax.Array, variables: dict) -> tuple[jax.Array, Any]:
            return bare.apply(variables, x, train, mutable=["batch_stats"])

        x, stats = jax.lax.scan(body, x, stacked)
        if "batch_stats" in stats and self.is_mutable_collection("batch_stats"):
            for i, name in enumerate(names):
                own = jax.tree.map(operator.itemgetter(i), stats["batch_stats"])
                self.put_variable("batch_stats", name, own)
        return x


_NUMBERS = Deviation(
    "batch norm adds {bn_epsilon} to the variance and its averages have momentum 0.9; the paper"
    " states neither number",
    lambda model: model.norm == "bn",
)
_WHOLE_BATCH = Deviation(
    "batch statistics are of the whole batch; the paper's are of each GPU's half, 64 images",
    lambda model: model.bn_group == 0 and model.norm == "bn",
)


def make_cifar_spec(depth: int, shortcut: str = "A", parameters: int | None = None) -> ModelSpec:
    """Makes a CIFAR model of Sec. 4.2: 6n + 2 layers, stages of 16, 32 and 64 channels.

    Args:
      depth: Number of layers.
      shortcut: A | B | C | plain.
      parameters: Number of parameters.
    """
    n, rest = divmod(depth - 2, 6)
    assert rest == 0 and n > 0, depth
    return ModelSpec(
        ResNet,
        {"blocks": (n, n, n), "channels": (16, 32, 64), "shortcut": shortcut},
        not_options=("stride_in", "shortcut") if shortcut == PLAIN else ("stride_in",),
        input_shape=(32, 32, 3),
        num_classes=10,
        parameters=parameters,
        deviations=(_NUMBERS, _WHOLE_BATCH),
    )


def make_imagenet_spec(
    blocks: tuple[int, ...],
    block: type[nn.Module],
    shortcut: str = "B",
    parameters: int | None = None,
) -> ModelSpec:
    """Makes an ImageNet model of Table 1, by default with shortcuts of option B.

    Args:
      blocks: Number of blocks of each stage.
      block: BasicBlock or BottleneckBlock.
      shortcut: A | B | C | plain.
      parameters: Number of parameters.
    """
    not_options = () if block is BottleneckBlock else ("stride_in",)
    return ModelSpec(
        ResNet,
        {
            "blocks": blocks,
            "channels": (64, 128, 256, 512),
            "block": block,
            "imagenet_stem": True,
            "shortcut": shortcut,
        },
        not_options=(*not_options, "shortcut") if shortcut == PLAIN else not_options,
        parameters=parameters,
        deviations=(_NUMBERS,),
    )


# Parameters: computed from Table 6 and the layer table of Sec. 4.2 (with option A the plain models
# have the same number), and from Table 1 (option B: as in torchvision's resnet18 to resnet152).
MODELS = {
    "resnet20": make_cifar_spec(20, parameters=269_722),
    "resnet32": make_cifar_spec(32, parameters=464_154),
    "resnet44": make_cifar_spec(44, parameters=658_586),
    "resnet56": make_cifar_spec(56, parameters=853_018),
    "resnet110": make_cifar_spec(110, parameters=1_727_962),
    "resnet1202": make_cifar_spec(1202, parameters=19_421_274),
    "plain20": make_cifar_spec(20, PLAIN, parameters=269_722),
    "plain32": make_cifar_spec(32, PLAIN, parameters=464_154),
    "plain44": make_cifar_spec(44, PLAIN, parameters=658_586),
    "plain56": make_cifar_spec(56, PLAIN, parameters=853_018),
    "plain110": make_cifar_spec(110, PLAIN, parameters=1_727_962),
    "resnet18": make_imagenet_spec((2, 2, 2, 2), BasicBlock, parameters=11_689_512),
    "resnet34": make_imagenet_spec((3, 4, 6, 3), BasicBlock, parameters=21_797_672),
    "resnet50": make_imagenet_spec((3, 4, 6, 3), BottleneckBlock, parameters=25_557_032),
    "resnet101": make_imagenet_spec((3, 4, 23, 3), BottleneckBlock, parameters=44_549_160),
    "resnet152": make_imagenet_spec((3, 8, 36, 3), BottleneckBlock, parameters=60_192_808),
    "plain18": make_imagenet_spec((2, 2, 2, 2), BasicBlock, PLAIN, parameters=11_515_688),
    "plain34": make_imagenet_spec((3, 4, 6, 3), BasicBlock, PLAIN, parameters=21_623_848),
}
