"""The output of LeNet-5: radial basis functions, their codes, and the loss of their distances.

Source: LeCun, Bottou, Bengio, Haffner 1998, Sec. II-B and II-C.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# As in Fig. 3, digits of 7x12 pixels. Differs: the drawings are ours, not the paper's.
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


def draw_bitmaps() -> np.ndarray:
    """Returns the codes with which LeNet-5's output units compare F6.

    Returns:
      Array [10, 84] float32 of +1 (ink) and -1: for each digit 12 rows of 7 pixels.
    """
    rows = [line.split() for line in _DRAWN.split("\n") if line]
    digits = ["".join(row[digit] for row in rows) for digit in range(10)]
    return np.array(
        [[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits], np.float32
    )


class Rbf(nn.Module):
    """Euclidean radial basis functions: minus the squared distance of the input to each code.

    It has no trained parameters. Source: Sec. II-B, the output layer.

    Attributes:
      codes: Fixed codes [classes, units].
    """

    codes: tuple[tuple[float, ...], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, units] to [B, classes] float32."""
        codes = jnp.asarray(self.codes, jnp.float32)
        return -jnp.square(x.astype(jnp.float32)[:, None] - codes[None]).sum(-1)


def compute_map_loss(distances: jax.Array, labels: jax.Array, j: float) -> jax.Array:
    """Computes the maximum a posteriori criterion: y_label + log(exp(-j) + sum of exp(-y)) (eq. 9).

    Args:
      distances: Squared distances y, [B, classes].
      labels: Labels [B] int.
      j: Squared distance of a rubbish class, more than 0. It stops the growth of distances that
        are already large. Without it (j = inf) this is the softmax cross-entropy of the logits -y.

    Returns:
      The loss, [B].
    """
    labeled = jnp.take_along_axis(distances, labels[:, None], axis=1)[:, 0]
    rubbish = jnp.full((len(distances), 1), j, distances.dtype)
    return labeled + jax.nn.logsumexp(-jnp.concatenate([distances, rubbish], axis=1), axis=1)
