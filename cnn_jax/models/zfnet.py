"""ZFNet. Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks" (arXiv:1311.2901)."""

import functools

import flax.linen as nn
import jax

from cnn_jax.models.layers import BatchNorm, Conv, initialiser, keep, normal, rectified
from cnn_jax.models.lrn import local_response_norm
from cnn_jax.models.pooling import check_size, max_pool_ceil

# maps, kernel, stride, padding on each side (Fig. 3); on 224x224 the sides are 110, 26, 13, 13, 13
LAYERS = ((96, 7, 2, 1), (256, 5, 2, 0), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2, 5)  # 3x3/2, rounding up: 55, 13, 6
NORMALISED = (1, 2)  # contrast normalisation, after the pooling


class ZfNet(nn.Module):
    """Five convolutions and three dense layers (Fig. 3), on images of 224x224.

    Filters are renormalised by the optimiser: `cnn_jax.optim.renormalise_filters`.
    Differs: contrast normalisation is AlexNet's LRN with AlexNet's constants.

    Attributes:
      num_classes: logits.
      norm: lrn after the first two poolings | bn before each convolution's ReLU | none.
      dropout: the share of fc6's and fc7's outputs dropped in training; what is kept is scaled up.
      initialiser: paper: N(0, 0.01^2) | xavier | he; biases 0.
      bn_group: images per batch-statistics group; 0: the whole batch.
      axis: the pmapped axis over which the batch is split, if it is.
    """

    num_classes: int
    norm: str = "lrn"
    dropout: float = 0.5
    initialiser: str = "paper"
    bn_group: int = 0
    axis: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        windows = []
        for number, (_, kernel, stride, pad) in enumerate(LAYERS, start=1):
            # Rounding up is rounding down with one pixel more.
            windows += [(kernel, stride, 2 * pad)] + [(3, 2, 1)] * (number in POOLED)
        check_size("zfnet", images, windows)
        weights = initialiser(self.initialiser, normal(0.01))
        batch_norm = functools.partial(BatchNorm, group=self.bn_group, axis=self.axis)

        x = images
        for number, (maps, kernel, stride, pad) in enumerate(LAYERS, start=1):
            name = f"conv{number}"
            x = Conv(maps, (kernel, kernel), stride, [(pad, pad)] * 2, kernel_init=weights, name=name)(x)
            x = keep(self, name, rectified(x, self.norm, batch_norm, f"norm{number}", train))
            if number in POOLED:
                x = keep(self, f"pool{number}", max_pool_ceil(x, 3, 2))
            if self.norm == "lrn" and number in NORMALISED:
                x = local_response_norm(x)
        x = x.reshape(len(x), -1)  # [B, 6 * 6 * 256]
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(4096, kernel_init=weights, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(keep(self, name, x))
        return nn.Dense(self.num_classes, kernel_init=weights, name="fc8")(x)
