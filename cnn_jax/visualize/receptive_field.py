"""Which pixels a unit of a layer can see, for any model: found by experiment, not by formula."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.models import Model


class ReceptiveFields(NamedTuple):
    """The pixels that the units of a layer see.

    Attributes:
      rows: First row and the row after the last, for each row of the layer's maps, [h, 2].
      columns: Likewise for columns, [w, 2].
    """

    rows: np.ndarray
    columns: np.ndarray

    def find_box(self, row: int, column: int) -> tuple[slice, slice]:
        """Returns the rows and columns of the image that the unit at a place sees."""
        return slice(*map(int, self.rows[row])), slice(*map(int, self.columns[column]))


def find_receptive_fields(
    model: Model, params: Any, stats: Any, image_shape: tuple[int, ...], layer: str
) -> ReceptiveFields:
    """Finds the receptive field of every unit of a layer with a spatial map.

    One row after another, then one column after another, of an image of zeros is not a number:
    the units that see it are not numbers either, through convolutions, pooling and normalization.

    Args:
      model: The model.
      params: Its parameters; any finite ones will do.
      stats: Its statistics.
      image_shape: (H, W, C) of the images.
      layer: A layer of `list_layers` with a spatial map.
    """
    compute = jax.jit(lambda params, stats, x: jnp.isnan(model.features(params, stats, x)[layer]))
    ends = []
    for axis in (0, 1):
        side = image_shape[axis]
        mark = np.where(np.eye(side, dtype=bool), np.nan, 0.0).astype(np.float32)
        mark = mark[:, :, None, None] if axis == 0 else mark[:, None, :, None]
        marked = np.broadcast_to(mark, (side, *image_shape))
        # In batches, because all rows of a large image at once take much memory.
        size = max(1, min(side, 2**18 // int(np.prod(image_shape[:2]))))
        seen = [
            np.asarray(compute(params, stats, jnp.asarray(_pad(marked[i : i + size], size))))
            for i in range(0, side, size)
        ]
        across = 2 if axis == 0 else 1
        ends.append(np.concatenate(seen)[:side].any((across, 3)))
    return ReceptiveFields(_find_ends(ends[0]), _find_ends(ends[1]))


def _pad(images: np.ndarray, size: int) -> np.ndarray:
    return np.pad(images, ((0, size - len(images)), (0, 0), (0, 0), (0, 0)))


def _find_ends(seen: np.ndarray) -> np.ndarray:
    """Returns the first pixel and the one after the last, [units, 2], of seen [pixels, units]."""
    first = seen.argmax(0)
    last = len(seen) - seen[::-1].argmax(0)
    return np.stack([first, last], 1)
