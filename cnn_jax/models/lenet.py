"""The modern LeNet: LeNet-5's widths with ReLU, max pooling, full connections and softmax logits.

After LeCun, Bottou, Bengio, Haffner 1998. Differs: C3 sees all six maps, pooling has nothing to train,
ReLU for the scaled tanh, a dense softmax for the RBF output; hence the name.
"""

import flax.linen as nn
import jax

from cnn_jax.config import UserError
from cnn_jax.models.layers import Conv, he_normal


class LenetModern(nn.Module):
    """conv 5x5 6, pool, conv 5x5 16, pool, dense 120, dense 84, dense classes."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images, at least 12x12 (28x28 are padded to the paper's 32x32), to [B, num_classes] logits."""
        if min(images.shape[1:3]) < 12:
            raise UserError(f"lenet5_modern: images of {images.shape[1]}x{images.shape[2]}; the smallest are 12x12")
        x = Conv(6, (5, 5), padding="SAME" if images.shape[1] <= 28 else "VALID", kernel_init=he_normal)(images)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))  # [B, 14, 14, 6] from 28x28 or 32x32
        x = nn.relu(Conv(16, (5, 5), padding="VALID", kernel_init=he_normal)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))  # [B, 5, 5, 16]
        x = x.reshape(len(x), -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width, kernel_init=he_normal)(x))
        return nn.Dense(self.num_classes, kernel_init=he_normal)(x)
