"""Perceptron and multi-layer perceptron: dense layers with a nonlinearity between them, and logits."""

from collections.abc import Callable

import flax.linen as nn
import jax

from cnn_jax.errors import UserError, nearest
from cnn_jax.layers.conv import Dense, he_normal, xavier_normal
from cnn_jax.models.base import Net

ACTIVATIONS: dict[str, Callable] = {"sigmoid": nn.sigmoid, "tanh": nn.tanh, "relu": nn.relu}


class Mlp(Net):
    """Dense layers of `hidden` units each and a last one of `num_classes`.

    Without a hidden layer it is Rosenblatt's perceptron, but for the step function, which has no gradient: the
    class is the largest logit. Batch norm comes before the nonlinearity; dropout after it.

    Attributes:
      hidden: units of each hidden layer.
      activation: sigmoid | tanh | relu.
      initialiser: paper: he with relu, xavier with the others | xavier | he.
    """

    hidden: tuple[int, ...] = (256,)
    activation: str = "relu"

    def __post_init__(self) -> None:
        """Raises UserError for an unknown activation."""
        if self.activation not in ACTIVATIONS:
            raise UserError(f"model.activation={self.activation!r}: {nearest(str(self.activation), ACTIVATIONS)}")
        if any(units < 1 for units in self.hidden):
            raise UserError(f"model.hidden={','.join(map(str, self.hidden))}: wants at least 1 unit in each layer")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, num_classes] logits."""
        init = self.weights(he_normal if self.activation == "relu" else xavier_normal)
        x = images.reshape(len(images), -1)
        for number, units in enumerate(self.hidden, start=1):
            x = Dense(self.maps(units), kernel_init=init, name=f"Dense_{number - 1}")(x)
            x = ACTIVATIONS[self.activation](self.normalised(x, f"norm{number}", train))
            x = self.keep(f"hidden{number}", self.lrn(x) if number == 1 else x)
            x = self.dropped(x, train)
        return Dense(self.num_classes, kernel_init=init, name=f"Dense_{len(self.hidden)}")(x)
