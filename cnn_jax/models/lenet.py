"""LeNet-5, and its modern variant. LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning", Sec. II-B.

The modern one has LeNet-5's widths. Differs: C3 sees all six maps, pooling has nothing to train, ReLU for the
scaled tanh, a dense softmax for the RBF output; hence the name.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.config import UserError
from cnn_jax.models.layers import Conv, TableConv, he_normal, initialiser, keep
from cnn_jax.models.pooling import Subsampling, check_size

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
    logits -y, with which the library trains.
    """
    right = jnp.take_along_axis(distances, labels[:, None], axis=1)[:, 0]
    rubbish = jnp.full((len(distances), 1), j, distances.dtype)
    return right + jax.nn.logsumexp(-jnp.concatenate([distances, rubbish], axis=1), axis=1)


class Lenet5(nn.Module):
    """C1 to F6 and ten Euclidean RBF units, 60,000 trained numbers on images of 32x32.

    Takes pixels from 0, background, to 1, ink: the feed's with data.mean=none. What goes into C1 is `contrast` of
    them. Logits are minus the squared distances between F6 and the fixed `bitmaps`.
    initialiser: paper: `uniform` | xavier | he.
    """

    num_classes: int
    initialiser: str = "paper"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images (under 32x32: with two pixels of background all around) to [B, num_classes] logits."""
        if self.num_classes > 10:
            raise UserError(f"lenet5: {self.num_classes} classes; its bitmaps are of ten digits: choose lenet5_modern")
        border = 2 if min(images.shape[1:3]) < 32 else 0
        check_size("lenet5", images, [(5, 1, 2 * border), (2, 2, 0), (5, 1, 0), (2, 2, 0), (5, 1, 0)])
        weights = initialiser(self.initialiser, uniform)

        x = contrast(jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0))))
        x = squash(Conv(6, (5, 5), padding="VALID", kernel_init=weights, name="c1")(x))
        x = squash(Subsampling(name="s2")(keep(self, "c1", x)))  # [B, 14, 14, 6]
        x = squash(TableConv(C3_TABLE, (5, 5), kernel_init=weights, name="c3")(keep(self, "s2", x)))
        x = squash(Subsampling(name="s4")(keep(self, "c3", x)))  # [B, 5, 5, 16]
        x = squash(Conv(120, (5, 5), padding="VALID", kernel_init=weights, name="c5")(keep(self, "s4", x)))
        x = keep(self, "c5", x).reshape(len(x), -1)
        x = keep(self, "f6", squash(nn.Dense(84, kernel_init=weights, name="f6")(x)))
        codes = jnp.asarray(bitmaps()[: self.num_classes], x.dtype)
        return -jnp.square(x[:, None] - codes[None]).sum(-1)


class LenetModern(nn.Module):
    """conv 5x5 6, pool, conv 5x5 16, pool, dense 120, dense 84, dense classes."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images, at least 12x12 (28x28 are padded to the paper's 32x32), to [B, num_classes] logits."""
        if min(images.shape[1:3]) < 12:
            raise UserError(f"lenet5_modern: images of {images.shape[1]}x{images.shape[2]}; the smallest are 12x12")
        x = Conv(6, (5, 5), padding="SAME" if images.shape[1] <= 28 else "VALID", kernel_init=he_normal)(images)
        x = keep(self, "conv1", nn.relu(x))
        x = keep(self, "pool1", nn.max_pool(x, (2, 2), (2, 2)))  # [B, 14, 14, 6] from 28x28 or 32x32
        x = keep(self, "conv2", nn.relu(Conv(16, (5, 5), padding="VALID", kernel_init=he_normal)(x)))
        x = keep(self, "pool2", nn.max_pool(x, (2, 2), (2, 2)))  # [B, 5, 5, 16]
        x = x.reshape(len(x), -1)
        for number, width in enumerate((120, 84), start=1):
            x = keep(self, f"dense{number}", nn.relu(nn.Dense(width, kernel_init=he_normal)(x)))
        return nn.Dense(self.num_classes, kernel_init=he_normal)(x)
