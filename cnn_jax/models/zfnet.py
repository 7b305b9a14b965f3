"""ZFNet. Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks" (arXiv:1311.2901)."""

import flax.linen as nn
import jax

from cnn_jax.layers.conv import Conv, normal
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import Net

# maps, kernel, stride, padding on each side (Fig. 3); on 224x224 the sides are 110, 26, 13, 13, 13
LAYERS = ((96, 7, 2, 1), (256, 5, 2, 0), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2, 5)  # 3x3/2, rounding up: 55, 13, 6
NORMALISED = (1, 2)  # contrast normalisation, after the pooling


class ZfNet(Net):
    """Five convolutions and three dense layers (Fig. 3), on images of 224x224.

    Filters are renormalised by the optimiser: optimizer.max_filter_rms=0.1.
    Differs: contrast normalisation is AlexNet's LRN with AlexNet's constants.

    Attributes:
      initialiser: paper: N(0, 0.01^2) | xavier | he; biases 0.
    """

    norm: str = "lrn"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        windows = []
        for number, (_, kernel, stride, pad) in enumerate(LAYERS, start=1):
            # Rounding up is rounding down with one pixel more.
            windows += [(kernel, stride, 2 * pad)] + [(3, 2, 1)] * (number in POOLED)
        self.check_size(images, windows)
        weights = self.weights(normal(0.01))

        x = images
        for number, (maps, kernel, stride, pad) in enumerate(LAYERS, start=1):
            name = f"conv{number}"
            x = Conv(self.maps(maps), (kernel, kernel), stride, [(pad, pad)] * 2, kernel_init=weights, name=name)(x)
            x = self.keep(name, nn.relu(self.normalised(x, f"norm{number}", train)))
            if number in POOLED:
                x = self.keep(f"pool{number}", MaxPool(3, 2, "CEIL", name=f"pool{number}")(x))
            if number in NORMALISED:
                x = self.lrn(x, f"lrn{number}")
        return self.classified(x, weights, train)  # of [B, 6, 6, 256]
