"""Net: the options that every net here has, and the few layers that obey them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax

from cnn_jax.errors import UserError, nearest
from cnn_jax.layers.conv import BatchNorm, ConvUnit, Dense, DenseAsConv, he_normal, xavier_normal
from cnn_jax.layers.lrn import LocalResponseNorm
from cnn_jax.layers.pooling import Window, smallest_side

Init = Callable[..., jax.Array]
NORMS = ("none", "bn", "lrn")
INITIALISERS: Mapping[str, Init | None] = {"paper": None, "xavier": xavier_normal, "he": he_normal}


class Net(nn.Module):
    """A net with the options that all nets share; what each defaults to is the paper's.

    It computes in the dtype of the images that it is given, with float32 parameters and statistics.

    Attributes:
      num_classes: logits.
      width: the maps or units of every layer but the last, in multiples of the paper's.
      initialiser: of the weights: paper | xavier: N(0, 1 / inputs) | he: N(0, 2 / inputs).
      norm: none | bn: batch normalisation before the nonlinearity of each convolution, and of mlp's and LeNet-5's
        dense layers | lrn: local response normalisation with AlexNet's constants, where the net's paper has it;
        where that has none, after the first layer's nonlinearity.
      dropout: the share dropped in training of what hidden dense layers put out, or where there are none of what the
        last layer takes in; what is kept is scaled up.
      bn_group: images per batch-statistics group; 0: the whole batch.
      bn_epsilon: added to the variances.
      axis: the pmapped axis over which the batch is split, if it is.
      as_maps: logits of every place of images larger than those it was trained on (`Model.maps`); not an option.
    """

    num_classes: int
    width: float = 1.0
    initialiser: str = "paper"
    norm: str = "none"
    dropout: float = 0.0
    bn_group: int = 0
    bn_epsilon: float = 1e-5
    axis: str | None = None
    as_maps: bool = False

    def __post_init__(self) -> None:
        """Raises UserError for an option's value that no net has."""
        for option, known in (("norm", NORMS), ("initialiser", INITIALISERS)):
            value = getattr(self, option)
            if value not in known:
                raise UserError(f"model.{option}={value!r}: {nearest(str(value), known)}")
        if not 0 <= self.dropout <= 1:
            raise UserError(f"model.dropout={self.dropout}: wants a share from 0 to 1")
        if not 0 < self.width < math.inf:
            raise UserError(f"model.width={self.width}: wants more than 0")
        if not 0 <= self.bn_epsilon < math.inf:
            raise UserError(f"model.bn_epsilon={self.bn_epsilon}: wants at least 0")
        super().__post_init__()

    def check_size(self, images: jax.Array, windows: Sequence[Window], side: int = 1) -> None:
        """Raises UserError for images [B, H, W, C] too small to leave `side` pixels after the chain of windows."""
        side = smallest_side(windows, side)
        if min(images.shape[1:3]) < side:
            name = self.name or type(self).__name__
            raise UserError(f"{name}: images of {images.shape[1]}x{images.shape[2]}; the smallest are {side}x{side}")

    def maps(self, count: int, towers: int = 1) -> int:
        """The paper's number of maps, or units, times the width: at least one a tower."""
        return towers * max(1, round(count / towers * self.width))

    def weights(self, paper: Init = he_normal) -> Init:
        """The initialiser of weights; paper: the paper's own."""
        return INITIALISERS[self.initialiser] or paper

    def batch_norm(self) -> Callable[..., BatchNorm] | None:
        """Batch norm but for its name, or None if there is none."""
        if self.norm != "bn":
            return None
        return functools.partial(BatchNorm, group=self.bn_group, axis=self.axis, epsilon=self.bn_epsilon)

    def unit(self, paper: Init = he_normal) -> Callable[..., ConvUnit]:
        """A convolution, batch norm if there is any, and ReLU; but for its maps, kernel and name."""
        return functools.partial(ConvUnit, norm=self.batch_norm(), kernel_init=self.weights(paper))

    def normalised(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """[B, ..., C] after batch norm of this name, if there is any."""
        norm = self.batch_norm()
        return norm(name=name)(x, train) if norm else x

    def lrn(self, x: jax.Array, name: str = "lrn", towers: int = 1) -> jax.Array:
        """[B, ..., C] after local response normalisation, if there is any."""
        return LocalResponseNorm(towers, name=name)(x) if self.norm == "lrn" else x

    def dropped(self, x: jax.Array, train: bool) -> jax.Array:
        """x with dropout, in training."""
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    def classified(
        self, x: jax.Array, weights: Init, train: bool, bias_init: Init = nn.initializers.zeros
    ) -> jax.Array:
        """Logits of maps [B, H, W, C], by AlexNet's three dense layers, which ZFNet and VGG have too."""
        if self.as_maps:
            for name in ("fc6", "fc7"):
                x = nn.relu(DenseAsConv(name=name)(x))
            return DenseAsConv(name="fc8")(x)
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = Dense(self.maps(4096), kernel_init=weights, bias_init=bias_init, name=name)(x)
            x = self.dropped(self.keep(name, nn.relu(x)), train)
        return Dense(self.num_classes, kernel_init=weights, name="fc8")(x)

    def keep(self, name: str, x: jax.Array) -> jax.Array:
        """x, which `Model.features` gives under this name."""
        # All in one variable, as flax lets none have the name of a layer.
        self.sow("features", "stages", {name: x}, reduce_fn=lambda kept, new: kept | new, init_fn=dict)
        return x
