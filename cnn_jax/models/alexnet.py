"""AlexNet and its variants. Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification ..."."""

from typing import Annotated, ClassVar

import flax.linen as nn
import jax

from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.initializers import normal
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel, Dropout, LeftOut, Norm, Units
from cnn_jax.models.spec import Deviation, ModelSpec
from cnn_jax.values import Bound

POOLED = (1, 2, 5)  # convolutions followed by overlapping pooling, 3x3/2 (Sec. 3.4)
NORMALIZED = (1, 2)  # convolutions followed by LRN (Sec. 3.5)
# Convolutions whose initial biases are 1 in the paper, as are those of fc6 and fc7 (Sec. 5).
BIAS_ONE_LAYERS = (2, 4, 5)


class AlexNet(BaseModel):
    """Five convolutions and three dense layers (Sec. 3.5 and Fig. 2), on images of 227x227.

    The paper prints 224x224, which does not give its 55x55 feature maps. The paper's two towers,
    connected only at conv3 and the dense layers, are groups of channels in each convolution. LRN
    does not cross towers.

    Attributes:
      channels: Number of channels of each convolution.
      towers: 2, as in the paper, or 1.
      padding: Padding of conv1, in pixels on each side.
      initializer: paper: N(0, 0.01^2).
      initial_bias: Initial bias of the layers for which the paper has 1. Reimplementations did not
        train with 1.
      dense_units: Number of units of fc6 and fc7.
      left_out: Layers to remove, of conv3, conv4, fc6 and fc7 (ZFNet's paper, Table 3).
    """

    not_options: ClassVar[tuple[str, ...]] = ("channels", "towers", "padding")

    channels: tuple[int, ...] = (96, 256, 384, 384, 256)
    towers: int = 2
    padding: int = 0
    norm: Norm = "lrn"
    dropout: Dropout = 0.5
    initial_bias: Annotated[float, Bound(-100, 100)] = 0.1
    dense_units: Units = 4096
    left_out: LeftOut = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        # kernel, stride, padding, towers of the convolution
        layers = (
            (11, 4, self.padding, 1),
            (5, 1, 2, self.towers),
            (3, 1, 1, 1),
            (3, 1, 1, self.towers),
            (3, 1, 1, self.towers),
        )
        windows = []
        for number, (kernel, stride, padding, _) in enumerate(layers, start=1):
            windows += [(kernel, stride, 2 * padding)] + [(3, 2, 0)] * (number in POOLED)
        self.check_size(images, windows)
        kernel_init = self.get_kernel_init(normal(0.01))
        zeros, ones = nn.initializers.zeros, nn.initializers.constant(self.initial_bias)

        x = images
        for number, (kernel, stride, padding, towers) in enumerate(layers, start=1):
            if f"conv{number}" in self.left_out:
                continue
            x = Conv(
                self.scale_channels(self.channels[number - 1], self.towers),
                (kernel, kernel),
                stride,
                [(padding, padding)] * 2,
                feature_group_count=towers,
                kernel_init=kernel_init,
                bias_init=ones if number in BIAS_ONE_LAYERS else zeros,
                name=f"conv{number}",
            )(x)
            x = relu(self.apply_norm(x, f"norm{number}", train))
            x = self.capture(f"conv{number}", x)
            if number in NORMALIZED:
                x = self.apply_lrn(x, f"lrn{number}", self.towers)
            if number in POOLED:
                x = self.capture(f"pool{number}", MaxPool(3, 2, name=f"pool{number}")(x))
        # [B, 6, 6, 256]
        return self.classify(x, kernel_init, train, ones, self.dense_units, self.left_out)


_IMAGE_SIZE = Deviation(
    "images are 227x227, which gives the paper's feature maps of 55x55; the paper prints 224x224"
)
_BIASES = Deviation(
    "initial biases of conv2, conv4, conv5, fc6 and fc7 are {initial_bias}; the paper has 1",
    lambda model: model.initial_bias != 1,
)
_DROPOUT = Deviation(
    "dropout scales the kept units up in training; the paper halves all outputs at test",
    lambda model: model.dropout > 0,
)

# Parameters: computed from Fig. 2 and Sec. 3.5. Caffe's bvlc_alexnet has 60,965,224 too.
MODELS = {
    "alexnet": ModelSpec(
        AlexNet,
        input_shape=(227, 227, 3),
        parameters=60_965_224,
        deviations=(_IMAGE_SIZE, _BIASES, _DROPOUT),
    ),
    "alexnet_one_tower": ModelSpec(
        AlexNet,
        {"towers": 1},
        input_shape=(227, 227, 3),
        parameters=62_378_344,
        deviations=(
            Deviation("one tower as wide as the paper's two towers together"),
            _IMAGE_SIZE,
            _BIASES,
            _DROPOUT,
        ),
    ),
    # The one-GPU model that Sec. 3.2 compares with. By its footnote, conv5 and the dense layers are
    # not halved.
    "alexnet_half": ModelSpec(
        AlexNet,
        {"towers": 1, "channels": (48, 128, 192, 192, 256)},
        input_shape=(227, 227, 3),
        parameters=59_798_312,
        deviations=(_IMAGE_SIZE, _BIASES, _DROPOUT),
    ),
    # Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"
    # (arXiv:1404.5997). Parameters: those of torchvision's alexnet.
    "alexnet_owt": ModelSpec(
        AlexNet,
        {"towers": 1, "channels": (64, 192, 384, 256, 256), "padding": 2, "norm": "none"},
        parameters=61_100_840,
        deviations=(
            Deviation("the 2014 variant with torchvision's widths, no LRN, conv1 padded by 2"),
            _BIASES,
            _DROPOUT,
        ),
    ),
}
