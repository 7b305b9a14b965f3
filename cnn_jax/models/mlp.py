"""Multi-layer perceptron: dense layers with a nonlinearity between them, and logits."""

from collections.abc import Callable

import flax.linen as nn
import jax

from cnn_jax.models.layers import he_normal, keep, xavier_normal

ACTIVATIONS: dict[str, Callable] = {"sigmoid": nn.sigmoid, "tanh": nn.tanh, "relu": nn.relu}


class Mlp(nn.Module):
    """Dense layers of `hidden` units each and a last one of `num_classes`; no hidden layer: a linear classifier.

    activation: sigmoid | tanh | relu. Weights: Xavier's, for relu He's.
    """

    num_classes: int
    hidden: tuple[int, ...] = (256,)
    activation: str = "relu"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        init = he_normal if self.activation == "relu" else xavier_normal
        x = images.reshape(len(images), -1)
        for number, width in enumerate(self.hidden, start=1):
            x = keep(self, f"hidden{number}", ACTIVATIONS[self.activation](nn.Dense(width, kernel_init=init)(x)))
        return nn.Dense(self.num_classes, kernel_init=init)(x)
