"""ZFNet. Zeiler, Fergus 2013, "Visualizing and Understanding ..." (arXiv:1311.2901)."""

import flax.linen as nn
import jax

from cnn_jax.errors import UserError
from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.initializers import normal
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel, Dropout, Norm, Units
from cnn_jax.models.spec import Deviation, ModelSpec

# Kernel, stride, padding on each side (Fig. 3); on 224x224 the sides are 110, 26, 13, 13, 13.
LAYERS = ((7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))
POOLED = (1, 2, 5)  # 3x3/2, rounding up: 55, 13, 6
NORMALIZED = (1, 2)  # convolutions followed by contrast normalization, after the pooling


class ZfNet(BaseModel):
    """Five convolutions and three dense layers (Fig. 3), on images of 224x224.

    For the paper's limit of the RMS of each filter (Sec. 3), set optimizer.max_filter_rms=0.1.
    Differs: contrast normalization is AlexNet's LRN with AlexNet's constants.

    Attributes:
      initializer: paper: N(0, 0.01^2); biases are 0.
      channels: Number of channels of each convolution.
      dense_units: Number of units of fc6 and fc7.
    """

    norm: Norm = "lrn"
    dropout: Dropout = 0.5
    channels: tuple[Units, ...] = (96, 256, 384, 384, 256)
    dense_units: Units = 4096

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        if len(self.channels) != len(LAYERS):
            raise UserError(
                f"model.channels: must be {len(LAYERS)} numbers, one for each convolution"
            )
        windows = []
        for number, (kernel, stride, padding) in enumerate(LAYERS, start=1):
            # Rounding up is rounding down with one more pixel.
            windows += [(kernel, stride, 2 * padding)] + [(3, 2, 1)] * (number in POOLED)
        self.check_size(images, windows)
        kernel_init = self.get_kernel_init(normal(0.01))

        x = images
        for number, (kernel, stride, padding) in enumerate(LAYERS, start=1):
            x = Conv(
                self.scale_channels(self.channels[number - 1]),
                (kernel, kernel),
                stride,
                [(padding, padding)] * 2,
                kernel_init=kernel_init,
                name=f"conv{number}",
            )(x)
            x = relu(self.apply_norm(x, f"norm{number}", train))
            x = self.capture(f"conv{number}", x)
            if number in POOLED:
                x = self.capture(f"pool{number}", MaxPool(3, 2, "CEIL", name=f"pool{number}")(x))
            if number in NORMALIZED:
                x = self.apply_lrn(x, f"lrn{number}")
        # [B, 6, 6, 256]
        return self.classify(x, kernel_init, train, units=self.dense_units)


# Parameters: computed from Fig. 3.
MODELS = {
    "zfnet": ModelSpec(
        ZfNet,
        parameters=62_357_608,
        deviations=(
            Deviation(
                "contrast normalization is AlexNet's LRN with AlexNet's constants",
                lambda model: model.norm == "lrn",
            ),
            Deviation("filters are renormalized only with optimizer.max_filter_rms=0.1"),
        ),
    )
}
