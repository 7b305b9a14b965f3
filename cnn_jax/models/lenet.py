"""LeNet-5, and its modern variant. LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning", Sec. II-B.

The modern one has LeNet-5's widths. Differs: C3 sees all six maps, pooling has nothing to train, ReLU for the
scaled tanh, a dense softmax for the RBF output; hence the name.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.layers.conv import Conv, Dense, TableConv
from cnn_jax.layers.pooling import MaxPool, Subsampling
from cnn_jax.models.base import Net

# Table I: the maps of S2 that each map of C3 sees; 60 kernels in all.
C3_TABLE = (
    *(tuple((i + step) % 6 for step in range(3)) for i in range(6)),
    *(tuple((i + step) % 6 for step in range(4)) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

# Fig. 3's idea, 7x12 pixels a digit. Differs: our own drawings, not the paper's.
_DRAWN = """
..###.. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.#...#. ..##... #.....# #.....# ...#.#. #...... .#..... ......# #.....# #.....#
#.....# .#.#... ......# ......# ..#..#. #...... #...... ......# #.....# #.....#
#.....# ...#... ......# ......# .#...#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. .....#. .#...#. #.####. #.####. .....#. .#...#. #.....#
#.....# ...#... ....#.. ..###.. #....#. ##....# ##....# ....#.. ..###.. #....##
#.....# ...#... ...#... .....#. ####### ......# #.....# ....#.. .#...#. .####.#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... .#..... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... #...... ......# .....#. ......# #.....# ..#.... #.....# ......#
.#...#. ...#... #...... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..
"""


def bitmaps() -> np.ndarray:
    """The codes that the output units compare F6 with: [10, 84] float32 of +1 (ink) and -1, 12 rows of 7 a digit."""
    rows = [line.split() for line in _DRAWN.split("\n") if line]
    digits = ["".join(row[digit] for row in rows) for digit in range(10)]
    return np.array([[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits], np.float32)


def squash(a: jax.Array) -> jax.Array:
    """1.7159 tanh(2a / 3), which is +-1 near +-1 (App. A)."""
    return 1.7159 * jnp.tanh(2 / 3 * a)


def contrast(images: jax.Array) -> jax.Array:
    """Images from 0, background, to 1, ink, as the paper's -0.1 to 1.175: mean about 0, variance about 1 on digits."""
    return 1.275 * images - 0.1


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Weights from -2.4 / inputs to 2.4 / inputs of a unit (App. A)."""
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * (2.4 / math.prod(shape[:-1]))


def map_loss(distances: jax.Array, labels: jax.Array, j: float) -> jax.Array:
    """The maximum a posteriori criterion [B] of squared distances [B, classes] and labels [B] (eq. 9).

    y_label + log(exp(-j) + sum over classes of exp(-y)): j > 0 is the distance of a rubbish class, which keeps
    distances that are large already from growing. Without it (j = inf) this is the softmax cross-entropy of the
    logits -y.
    """
    right = jnp.take_along_axis(distances, labels[:, None], axis=1)[:, 0]
    rubbish = jnp.full((len(distances), 1), j, distances.dtype)
    return right + jax.nn.logsumexp(-jnp.concatenate([distances, rubbish], axis=1), axis=1)


class Rbf(nn.Module):
    """Euclidean radial basis functions of fixed codes: minus the squared distance between what comes and each.

    Source: Sec. II-B, the output layer. Nothing is trained. codes: [classes, units].
    """

    codes: tuple[tuple[float, ...], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, units] to [B, classes] float32."""
        codes = jnp.asarray(self.codes, jnp.float32)
        return -jnp.square(x.astype(jnp.float32)[:, None] - codes[None]).sum(-1)


class Lenet5(Net):
    """C1 to F6 and ten Euclidean RBF units, 60,000 trained numbers on images of 32x32.

    Takes pixels from 0, background, to 1, ink: the feed's with data.subtract_mean=none. What goes into C1 is `contrast` of
    them. Logits are minus the squared distances between F6 and the fixed `bitmaps`.

    Attributes:
      initialiser: paper: `uniform` | xavier | he.
      norm: none | bn: before each squashing | lrn: after C1's.
      dropout: the share dropped of what goes into F6 and into the output.
      rubbish: the constant j of the MAP criterion, the squared distance of a rubbish class; None: there is none.
    """

    rubbish: float | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images (under 32x32: with two pixels of background all around) to [B, num_classes] logits."""
        if self.num_classes > 10:
            raise UserError(f"lenet5: {self.num_classes} classes; its bitmaps are of ten digits: choose lenet5_modern")
        border = 2 if min(images.shape[1:3]) < 32 else 0
        self.check_size(images, [(5, 1, 2 * border), (2, 2, 0), (5, 1, 0), (2, 2, 0), (5, 1, 0)])
        weights = self.weights(uniform)
        normed = lambda name, x: squash(self.normalised(x, f"{name}_norm", train))

        x = contrast(jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0))))
        x = normed("c1", Conv(6, (5, 5), padding="VALID", kernel_init=weights, name="c1")(x))
        x = self.lrn(self.keep("c1", x))
        x = self.keep("s2", normed("s2", Subsampling(name="s2")(x)))  # [B, 14, 14, 6]
        x = self.keep("c3", normed("c3", TableConv(C3_TABLE, (5, 5), kernel_init=weights, name="c3")(x)))
        x = self.keep("s4", normed("s4", Subsampling(name="s4")(x)))  # [B, 5, 5, 16]
        x = self.keep("c5", normed("c5", Conv(120, (5, 5), padding="VALID", kernel_init=weights, name="c5")(x)))
        x = self.dropped(x.reshape(len(x), -1), train)
        x = self.keep("f6", normed("f6", Dense(84, kernel_init=weights, name="f6")(x)))
        codes = tuple(map(tuple, bitmaps()[: self.num_classes].tolist()))
        return Rbf(codes, name="output")(self.dropped(x, train))

    def score(self, logits: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Loss [B], the MAP criterion, and error [B]."""
        loss = map_loss(-logits, labels, jnp.inf if self.rubbish is None else self.rubbish)
        return loss, jnp.argmax(logits, -1) != labels


class LenetModern(Net):
    """conv 5x5 6, pool, conv 5x5 16, pool, dense 120, dense 84, dense classes; ReLU, He's initial weights."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images, at least 12x12 (28x28 are padded to the paper's 32x32), to [B, num_classes] logits."""
        same = min(images.shape[1:3]) <= 28
        self.check_size(images, [(5, 1, 4 * same), (2, 2, 0), (5, 1, 0), (2, 2, 0)])
        conv = functools.partial(Conv, kernel_size=(5, 5), kernel_init=self.weights())
        dense = functools.partial(Dense, kernel_init=self.weights())

        first = conv(self.maps(6), padding="SAME" if same else "VALID", name="Conv_0")
        x = self.keep("conv1", nn.relu(self.normalised(first(images), "norm1", train)))
        x = self.keep("pool1", MaxPool(2, 2, name="pool1")(self.lrn(x)))  # [B, 14, 14, 6] from 28x28 or 32x32
        x = conv(self.maps(16), padding="VALID", name="Conv_1")(x)
        x = self.keep("conv2", nn.relu(self.normalised(x, "norm2", train)))
        x = self.keep("pool2", MaxPool(2, 2, name="pool2")(x))  # [B, 5, 5, 16]
        x = x.reshape(len(x), -1)
        for number, units in enumerate((120, 84), start=1):
            x = dense(self.maps(units), name=f"Dense_{number - 1}")(self.dropped(x, train))
            x = self.keep(f"dense{number}", nn.relu(self.normalised(x, f"dense_norm{number}", train)))
        return dense(self.num_classes, name="Dense_2")(self.dropped(x, train))
