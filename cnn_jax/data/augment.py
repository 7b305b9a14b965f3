"""Training-time augmentation as pure functions of (keys, images), run inside the compiled step.

Each image has its own key, made of the step's key and the image's row in the global batch. The
result therefore does not depend on how the batch is split over devices. Mixup, which pairs images,
has one key per batch. `cnn_jax.data.preprocess` fixes the order of the augmentations.

Images are float32 [B, H, W, C]; keys are [B].
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates


def make_row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns a key for each image, [B].

    Args:
      key: The random key of the step.
      rows: [B], each image's row in the global batch.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def random_crop(keys: jax.Array, images: jax.Array, height: int, width: int) -> jax.Array:
    """Cuts a window out of each image at a uniform position (Krizhevsky et al. 2012, Sec. 4.1).

    Args:
      keys: [B].
      images: [B, H, W, C].
      height: Height of the window, in pixels.
      width: Width of the window, in pixels.

    Returns:
      [B, height, width, C].
    """
    places = jnp.array([images.shape[1] - height + 1, images.shape[2] - width + 1])
    corners = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, places))(keys)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        size = (height, width, image.shape[-1])
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), size)

    return jax.vmap(cut)(images, corners)


def pad_and_crop(keys: jax.Array, images: jax.Array, pad: int) -> jax.Array:
    """Pads each side with zeros and crops back at a uniform position (He et al. 2015, Sec. 4.2).

    Args:
      keys: [B].
      images: [B, H, W, C].
      pad: Pixels that are added at each side.

    Returns:
      [B, H, W, C].
    """
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return random_crop(keys, padded, *images.shape[1:3])


def shift(keys: jax.Array, images: jax.Array, most: int) -> jax.Array:
    """Shifts each image by whole pixels, uniform from -most to most, vertically and horizontally.

    Zeros fill the rest. This is the same as `pad_and_crop`.

    Args:
      keys: [B].
      images: [B, H, W, C].
      most: The largest shift, in pixels.
    """
    return pad_and_crop(keys, images, most)


def rotate(keys: jax.Array, images: jax.Array, degrees: float) -> jax.Array:
    """Rotates each image about its center by an angle uniform from -degrees to degrees.

    It interpolates bilinearly, with zeros around the image. With `flip` it also gives reflections
    about any axis.

    Args:
      keys: [B].
      images: [B, H, W, C].
      degrees: The largest angle.
    """

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        angle = jnp.deg2rad(jax.random.uniform(key, minval=-degrees, maxval=degrees))
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        return jnp.array([[cos, sin], [-sin, cos]]), jnp.zeros(2)

    return _map_affinely(images, *jax.vmap(draw)(keys))


def affine(
    keys: jax.Array, images: jax.Array, shift: float, scale: float, squeeze: float, shear: float
) -> jax.Array:
    """Distorts each image by a random planar affine map about its center.

    The map combines translation, scaling, squeezing and horizontal shearing. It interpolates
    bilinearly, with zeros around the image. Source: LeCun, Bottou, Bengio, Haffner 1998, Sec.
    III-B, which prints no ranges.

    Args:
      keys: [B].
      images: [B, H, W, C].
      shift: Largest translation in pixels, each way, uniform.
      scale: Both sides are multiplied by exp(u), u uniform from -scale to scale.
      squeeze: The height is multiplied by exp(v) and the width by exp(-v), v uniform from -squeeze
        to squeeze, so that the area stays.
      shear: Rows move sideways by s pixels per row, s uniform from -shear to shear.

    Returns:
      [B, H, W, C].
    """

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        most = jnp.array([shift, shift, scale, squeeze, shear], images.dtype)
        down, across, u, v, s = most * jax.random.uniform(key, (5,), images.dtype, -1, 1)
        # The inverse map, from a pixel of the result to its source.
        matrix = jnp.array([[jnp.exp(-u - v), 0.0], [-s * jnp.exp(-u - v), jnp.exp(v - u)]])
        return matrix, -matrix @ jnp.array([down, across])

    return _map_affinely(images, *jax.vmap(draw)(keys))


def _map_affinely(images: jax.Array, matrices: jax.Array, offsets: jax.Array) -> jax.Array:
    """Takes each pixel (y, x), relative to the center, from matrix @ (y, x) + offset of the image.

    Args:
      images: [B, H, W, C].
      matrices: [B, 2, 2].
      offsets: [B, 2] in pixels, down and across.
    """
    # dm_pix also interpolates between channels, which takes 50 times as long on a CPU.
    height, width = images.shape[1:3]
    y, x = (jnp.arange(n, dtype=images.dtype) - (n - 1) / 2 for n in (height, width))
    y, x = y[:, None], x[None]

    def move(image: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
        at = [
            row[0] * y + row[1] * x + (start + (side - 1) / 2)
            for row, start, side in zip(matrix, offset, (height, width), strict=True)
        ]
        return jax.vmap(lambda plane: map_coordinates(plane, at, order=1), -1, -1)(image)

    return jax.vmap(move)(images, matrices, offsets)


def flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1, :], images)


def vertical_flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Turns each image upside down with probability one half."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, ::-1], images)


def color_jitter(
    keys: jax.Array,
    images: jax.Array,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> jax.Array:
    """Changes the colors of each image as a whole; pixels 0 to 1 stay 0 to 1.

    Source: Howard 2013 (arXiv:1312.5402), which changes contrast, brightness and color by up to a
    half. Differs: the order is fixed instead of random, so that one program suffices; the
    operations are TensorFlow's, as in dm_pix.

    Args:
      keys: [B].
      images: [B, H, W, 3]; with one channel saturation and hue must be 0.
      brightness: The largest number that is added to the pixels, either way.
      contrast: Each pixel's distance from its channel's mean is multiplied by 1 - contrast to
        1 + contrast.
      saturation: The saturation of HSV is multiplied by 1 - saturation to 1 + saturation.
      hue: The largest turn, either way, as a fraction of a full circle.
    """
    import dm_pix  # The import takes 50 ms.

    amounts = jnp.array([brightness, contrast, saturation, hue], images.dtype)

    def jitter(key: jax.Array, image: jax.Array) -> jax.Array:
        add, *factors, turn = amounts * jax.random.uniform(key, (4,), images.dtype, -1, 1)
        image = dm_pix.adjust_brightness(image, add) if brightness else image
        image = dm_pix.adjust_contrast(image, 1 + factors[0]) if contrast else image
        image = jnp.clip(image, 0, 1)  # HSV requires and returns such pixels.
        image = dm_pix.adjust_saturation(image, 1 + factors[1]) if saturation else image
        return dm_pix.adjust_hue(image, turn) if hue else image

    with jax.numpy_dtype_promotion("standard"):  # dm_pix adds numbers and booleans.
        return jax.vmap(jitter)(keys, images)


def add_pca_noise(
    keys: jax.Array,
    images: jax.Array,
    values: jax.Array,
    vectors: jax.Array,
    deviation: float = 0.1,
) -> jax.Array:
    """Adds [p1 p2 p3] [a1 l1, a2 l2, a3 l3] to all pixels of an image, a ~ N(0, deviation).

    Source: Krizhevsky et al. 2012, Sec. 4.1. The paper does not state the scale of pixels, on which
    its l, variances, depend. With pixels from 0 to 255 the noise would be 255 times as strong and
    hide the image.

    Args:
      keys: [B]; a is drawn anew for each image.
      images: [B, H, W, 3], pixels on the scale 0 to 1, whatever has been subtracted.
      values: l, [3], from `measure_pca`.
      vectors: p, [3, 3], in columns, from `measure_pca`.
      deviation: The standard deviation of a.
    """
    a = deviation * jax.vmap(lambda key: jax.random.normal(key, values.shape, images.dtype))(keys)
    # A sum is computed in float32 on every platform, unlike a matrix product.
    added = ((a * values[None])[:, None, :] * vectors[None]).sum(-1)
    return images + added[:, None, None, :]


class ColorMoments:
    """The first two moments of the colors of images that are added one by one."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.products: np.ndarray | float = 0.0

    def add(self, image: np.ndarray) -> None:
        """Adds an image, uint8 [H, W, C]."""
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64) / 255
        self.count += len(pixels)
        self.total = self.total + pixels.sum(0)
        self.products = self.products + pixels.T @ pixels

    def find_components(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the eigenvalues and eigenvectors of the covariance, as `measure_pca` does."""
        mean = self.total / self.count
        values, vectors = np.linalg.eigh(self.products / self.count - np.outer(mean, mean))
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
        values, vectors = values.clip(0)[::-1], (vectors * np.sign(largest))[:, ::-1]
        return values.astype(np.float32), vectors.astype(np.float32)


def measure_pca(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the principal components of the colors of images, computed on the host.

    Args:
      images: uint8 [H, W, 3] each, of any sizes; every pixel counts as one, on the scale 0 to 1.

    Returns:
      The eigenvalues of the covariance [3] float32, the largest first, and its eigenvectors [3, 3]
      float32, in columns. An eigenvector's sign is arbitrary; here its largest component is
      positive, so that it is reproducible.
    """
    moments = ColorMoments()
    for image in images:
        moments.add(image)
    return moments.find_components()


def add_noise(keys: jax.Array, images: jax.Array, deviation: float) -> jax.Array:
    """Adds noise of N(0, deviation) to each value, without clipping.

    Args:
      keys: [B].
      images: [B, H, W, C].
      deviation: The standard deviation, in units of the pixels.
    """

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, images.shape[1:], images.dtype)

    return images + deviation * jax.vmap(draw)(keys)


def mixup(
    key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixes each image with a partner: the batch is paired with a permutation of itself.

    Source: Zhang et al. 2018 (arXiv:1710.09412), Sec. 2 and code.

    Args:
      key: The random key of the step, for the whole batch.
      images: [B, H, W, C].
      labels: [B].
      alpha: Alpha of the Beta distribution.

    Returns:
      share * images + (1 - share) * partners [B, H, W, C]; the partners' labels [B]; and the share
      [], ~ Beta(alpha, alpha), one for the batch.
    """
    pair_key, share_key = jax.random.split(key)
    partner = jax.random.permutation(pair_key, len(images))
    share = jax.random.beta(share_key, alpha, alpha, dtype=images.dtype)
    return share * images + (1 - share) * images[partner], labels[partner], share
