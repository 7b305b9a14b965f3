"""Perceptron and multi-layer perceptron: dense layers with a nonlinearity between them."""

from typing import TYPE_CHECKING, Literal

import flax.linen as nn
import jax

from cnn_jax.layers.activations import ACTIVATION_NAMES, RECTIFIERS, activate
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import he_normal, xavier_normal
from cnn_jax.models.base import BaseModel, Dropout, Units
from cnn_jax.models.spec import ModelSpec

if TYPE_CHECKING:
    Activation = str  # as Initialization in base.py
else:
    Activation = Literal[*ACTIVATION_NAMES]


class Mlp(BaseModel):
    """Hidden dense layers, and a last one of `num_classes` units.

    Without a hidden layer it is Rosenblatt's perceptron without the step function, which has no
    gradient: the class is the largest logit. Batch norm is before the nonlinearity, dropout after
    it.

    Attributes:
      hidden: Number of units of each hidden layer.
      activation: One of `layers.activations.ACTIVATION_NAMES`.
      initializer: paper: he for ReLU, leaky ReLU and PReLU, xavier for other activations.
      input_dropout: Share of the pixels that is dropped in training (Srivastava et al. 2014: 0.2).
    """

    hidden: tuple[Units, ...] = (256,)
    activation: Activation = "relu"
    input_dropout: Dropout = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        kernel_init = self.get_kernel_init(
            he_normal if self.activation in RECTIFIERS else xavier_normal
        )
        x = images.reshape(images.shape[0], -1)
        if self.input_dropout:
            x = nn.Dropout(self.input_dropout, deterministic=not train, name="input_dropout")(x)
        for number, units in enumerate(self.hidden, start=1):
            layer = f"Dense_{number - 1}"
            x = Dense(self.scale_channels(units), kernel_init=kernel_init, name=layer)(x)
            x = self.apply_norm(x, f"norm{number}", train)
            x = activate(self.activation, x, f"activation{number}")
            x = self.capture(f"hidden{number}", self.apply_lrn(x) if number == 1 else x)
            x = self.apply_dropout(x, train)
        layer = f"Dense_{len(self.hidden)}"
        return Dense(self.num_classes, kernel_init=kernel_init, name=layer)(x)


# Parameters: 784 * 10 + 10, and 784 * 256 + 256 + 256 * 10 + 10.
MODELS = {
    "perceptron": ModelSpec(
        Mlp,
        {"hidden": ()},
        # Options of hidden layers.
        not_options=(
            "hidden",
            "activation",
            "norm",
            "dropout",
            "input_dropout",
            "width",
            "bn_group",
            "bn_epsilon",
        ),
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=7_850,
    ),
    "mlp": ModelSpec(Mlp, input_shape=(28, 28, 1), num_classes=10, parameters=203_530),
}
