"""AlexNet and its variants. Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep CNNs"."""

import functools

import flax.linen as nn
import jax

from cnn_jax.layers.conv import Conv, normal
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import Net

POOLED = (1, 2, 5)  # convolutions followed by overlapping pooling, 3x3/2 (Sec. 3.4)
NORMALISED = (1, 2)  # convolutions followed by LRN (Sec. 3.5)
ONES = (2, 4, 5)  # convolutions whose biases, like fc6's and fc7's, the paper starts at 1 (Sec. 5)


class AlexNet(Net):
    """Five convolutions and three dense layers (Sec. 3.5 and Fig. 2), on images of 227x227.

    The paper prints 224x224, from which its own 55x55 maps do not follow. Its two towers, which meet at conv3 and
    at the dense layers only, are groups of each convolution's channels; LRN's neighbours are of one tower.

    Attributes:
      channels: of each convolution.
      towers: 2, the paper's; or 1.
      padding: of conv1, on each side.
      initialiser: paper: N(0, 0.01^2) | xavier | he.
      initial_bias: where the paper has 1, with which reimplementations did not train.
    """

    channels: tuple[int, ...] = (96, 256, 384, 384, 256)
    towers: int = 2
    padding: int = 0
    norm: str = "lrn"
    dropout: float = 0.5
    initial_bias: float = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        # kernel, stride, padding, towers of the convolution
        layers = ((11, 4, self.padding, 1), (5, 1, 2, self.towers), (3, 1, 1, 1),
                  (3, 1, 1, self.towers), (3, 1, 1, self.towers))  # fmt: skip
        windows = []
        for number, (kernel, stride, pad, _) in enumerate(layers, start=1):
            windows += [(kernel, stride, 2 * pad)] + [(3, 2, 0)] * (number in POOLED)
        self.check_size(images, windows)
        weights = self.weights(normal(0.01))
        ones = nn.initializers.constant(self.initial_bias)

        x = images
        for number, (kernel, stride, pad, towers) in enumerate(layers, start=1):
            x = Conv(
                self.maps(self.channels[number - 1], self.towers),
                (kernel, kernel),
                stride,
                [(pad, pad)] * 2,
                feature_group_count=towers,
                kernel_init=weights,
                bias_init=ones if number in ONES else nn.initializers.zeros,
                name=f"conv{number}",
            )(x)
            x = self.keep(f"conv{number}", nn.relu(self.normalised(x, f"norm{number}", train)))
            if number in NORMALISED:
                x = self.lrn(x, f"lrn{number}", self.towers)
            if number in POOLED:
                x = self.keep(f"pool{number}", MaxPool(3, 2, name=f"pool{number}")(x))
        return self.classified(x, weights, train, ones)  # of [B, 6, 6, 256]


one_tower = functools.partial(AlexNet, towers=1)
# The net of Sec. 3.2's comparison. Its footnote: conv5 and the dense layers are not halved.
half = functools.partial(AlexNet, towers=1, channels=(48, 128, 192, 192, 256))
# Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks" (arXiv:1404.5997), as torchvision
# has it.
owt = functools.partial(AlexNet, towers=1, channels=(64, 192, 384, 256, 256), padding=2, norm="none")
