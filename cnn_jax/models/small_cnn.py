"""A small configurable CNN for studies of single design choices. It is not from a paper."""

import functools
from typing import TYPE_CHECKING, Annotated, Literal

import flax.linen as nn
import jax

from cnn_jax.layers.activations import ACTIVATION_NAMES, RECTIFIERS, activate
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import Initializer, he_normal, xavier_normal
from cnn_jax.layers.local import LocalConv
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from cnn_jax.models.base import BaseModel, Units
from cnn_jax.models.spec import ModelSpec
from cnn_jax.values import Bound

if TYPE_CHECKING:
    Activation = str  # as Initialization in base.py
else:
    Activation = Literal[*ACTIVATION_NAMES]

Side = Annotated[int, Bound(1, 64)]


class SmallCnn(BaseModel):
    """Stages of convolutions and a pooling, hidden dense layers, and a last dense layer.

    Padding is SAME, so that every size of kernel and window works for images of any size. Batch
    norm is before the nonlinearity.

    Attributes:
      channels: Number of channels of the convolutions of each stage.
      convolutions: Number of convolutions in each stage.
      kernel: Side of the kernels, in pixels.
      layer: conv | local: locally connected, each output pixel has its own kernel | dense: fully
        connected, with as many units as the convolution has outputs.
      activation: One of `layers.activations.ACTIVATION_NAMES`.
      pooling: At the end of each stage: max | average | strided: no pooling, but the stage's last
        convolution has stride pool_stride (Springenberg et al. 2015, arXiv:1412.6806, Sec. 2) |
        none.
      pool_size: Side of the pooling window, in pixels.
      pool_stride: Distance between windows, in pixels; windows overlap if it is less than
        pool_size.
      global_pool: Whether the dense layers see the mean of each channel instead of every pixel.
      hidden: Number of units of each hidden dense layer.
      initializer: paper: he for ReLU, leaky ReLU and PReLU, xavier for other activations.
    """

    channels: tuple[Units, ...] = (16, 32)
    convolutions: Annotated[int, Bound(1, 64)] = 1
    kernel: Side = 5
    layer: Literal["conv", "local", "dense"] = "conv"
    activation: Activation = "relu"
    pooling: Literal["max", "average", "strided", "none"] = "max"
    pool_size: Side = 2
    pool_stride: Side = 2
    global_pool: bool = False
    hidden: tuple[Units, ...] = (64,)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        init = self.get_kernel_init(he_normal if self.activation in RECTIFIERS else xavier_normal)
        x = images
        for stage, channels in enumerate(self.channels, start=1):
            for number in range(1, self.convolutions + 1):
                name = f"{stage}_{number}"
                strided = self.pooling == "strided" and number == self.convolutions
                stride = self.pool_stride if strided else 1
                x = self._apply_layer(x, self.scale_channels(channels), stride, init, f"conv{name}")
                x = self.apply_norm(x, f"norm{name}", train)
                x = activate(self.activation, x, f"activation{name}")
                x = self.capture(f"conv{name}", self.apply_lrn(x) if name == "1_1" else x)
            if self.pooling in ("max", "average"):
                pool = {"max": MaxPool, "average": AvgPool}[self.pooling]
                x = pool(self.pool_size, self.pool_stride, "SAME", name=f"pool{stage}")(x)
                x = self.capture(f"pool{stage}", x)
        x = GlobalAvgPool(name="global_pool")(x) if self.global_pool else x.reshape(x.shape[0], -1)
        dense = functools.partial(Dense, kernel_init=init)
        for number, units in enumerate(self.hidden, start=1):
            x = dense(self.scale_channels(units), name=f"dense{number}")(x)
            x = self.apply_norm(x, f"dense_norm{number}", train)
            x = activate(self.activation, x, f"dense_activation{number}")
            x = self.apply_dropout(self.capture(f"dense{number}", x), train)
        x = x if self.hidden else self.apply_dropout(x, train)
        return dense(self.num_classes, name="output")(x)

    def _apply_layer(
        self, x: jax.Array, channels: int, stride: int, init: Initializer, name: str
    ) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        if self.layer == "dense":
            sides = [-(-side // stride) for side in x.shape[1:3]]
            units = sides[0] * sides[1] * channels
            x = Dense(units, kernel_init=init, name=name)(x.reshape(x.shape[0], -1))
            return x.reshape(x.shape[0], *sides, channels)
        kind = LocalConv if self.layer == "local" else Conv
        kernel = (self.kernel, self.kernel)
        return kind(channels, kernel, stride, kernel_init=init, name=name)(x)


# Parameters, on 28x28: 416 + 12,832 + 64 * (7 * 7 * 32 + 1) + 650.
MODELS = {
    "small_cnn": ModelSpec(SmallCnn, input_shape=(28, 28, 1), num_classes=10, parameters=114_314)
}
