"""Training-time augmentation as pure functions of (key, images), run inside the compiled step.

Each image draws from a key of its own, made of the step's key and the image's row in the global batch, so
that the same images come out however the batch is split over devices; mixup, which pairs images, has one key a batch.

Images are float32 [B, H, W, C]. Color is changed while pixels are 0 to 1, before the mean is subtracted; what moves
pixels comes after that, so that the zeros it fills in are the mean's color. A reflection is `flip` or `vertical_flip`;
with `rotate`, one about any axis.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """A key an image: keys [B] from the step's key and the row numbers [B] in the global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def random_crop(keys: jax.Array, images: jax.Array, height: int, width: int) -> jax.Array:
    """A window [B, height, width, C] of each image at a uniform place (Krizhevsky et al. 2012, Sec. 4.1)."""
    places = jnp.array([images.shape[1] - height + 1, images.shape[2] - width + 1])
    corner = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, places))(keys)
    crop = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, image.shape[-1]))
    return jax.vmap(crop)(images, corner)


def center_crop(images: jax.Array, height: int, width: int) -> jax.Array:
    """The middle window [B, height, width, C]; where it cannot lie even, one pixel nearer to the top or the left."""
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def pad_and_crop(keys: jax.Array, images: jax.Array, pad: int) -> jax.Array:
    """Pads [B, H, W, C] by `pad` zeros on each side and crops back at a uniform place (He et al. 2015, Sec. 4.2)."""
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return random_crop(keys, padded, *images.shape[1:3])


def shift(keys: jax.Array, images: jax.Array, most: int) -> jax.Array:
    """Moves each image by whole pixels, uniform from -most to most down and across; zeros fill what it leaves.

    It is `pad_and_crop` by its other name.
    """
    return pad_and_crop(keys, images, most)


def rotate(keys: jax.Array, images: jax.Array, degrees: float) -> jax.Array:
    """Turns each image about its middle by an angle uniform from -degrees to degrees, bilinear; zeros lie around it."""
    # dm_pix.rotate interpolates between channels too, which on CPU takes 50 times as long or longer.
    height, width = images.shape[1:3]
    y, x = (jnp.arange(n, dtype=images.dtype) - (n - 1) / 2 for n in (height, width))
    y, x = y[:, None], x[None]

    def turned(key: jax.Array, image: jax.Array) -> jax.Array:
        angle = jnp.deg2rad(jax.random.uniform(key, minval=-degrees, maxval=degrees))
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        at = [cos * y + sin * x + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2]
        return jax.vmap(lambda plane: map_coordinates(plane, at, order=1), -1, -1)(image)

    return jax.vmap(turned)(keys, images)


def flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image of [B, H, W, C] left to right with probability one half."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1, :], images)


def vertical_flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Turns each image of [B, H, W, C] upside down with probability one half."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, ::-1], images)


def color_jitter(
    keys: jax.Array, images: jax.Array, brightness: float, contrast: float, saturation: float, hue: float
) -> jax.Array:
    """Changes the colors of images [B, H, W, 3] of pixels 0 to 1, which stay 0 to 1, an image as a whole.

    brightness: what is added to its pixels, at most, either way; contrast: its pixels' distance from each channel's
    mean is multiplied by 1 - contrast to 1 + contrast; saturation: likewise, in HSV; hue: turned by at most so much
    of a full circle, either way. All uniform; 0 leaves the thing alone. Images of one channel have neither of the last.

    Howard 2013, arXiv:1312.5402, has contrast, brightness and color changed by up to a half. Differs: in the order
    above, not a random one, so that it is one program; what the words mean is TensorFlow's, as dm_pix has it.
    """
    import dm_pix  # only here, for it and what it brings take 50 ms

    amounts = jnp.array([brightness, contrast, saturation, hue], images.dtype)

    def jittered(key: jax.Array, image: jax.Array) -> jax.Array:
        add, *factors, turn = amounts * jax.random.uniform(key, (4,), images.dtype, -1, 1)
        image = dm_pix.adjust_brightness(image, add) if brightness else image
        image = dm_pix.adjust_contrast(image, 1 + factors[0]) if contrast else image
        image = jnp.clip(image, 0, 1)  # HSV is of such pixels alone, and gives such pixels
        image = dm_pix.adjust_saturation(image, 1 + factors[1]) if saturation else image
        return dm_pix.adjust_hue(image, turn) if hue else image

    with jax.numpy_dtype_promotion("standard"):  # dm_pix adds numbers and truth values
        return jax.vmap(jittered)(keys, images)


def add_pca_noise(
    keys: jax.Array, images: jax.Array, values: jax.Array, vectors: jax.Array, deviation: float = 0.1
) -> jax.Array:
    """Adds [p1 p2 p3] [a1 l1, a2 l2, a3 l3] to all pixels of an image, a ~ N(0, deviation) anew for each image.

    images: [B, H, W, 3], pixels on the scale 0 to 1, whatever has been subtracted; values l [3] and vectors p [3, 3],
    in columns: what `measure_pca` gives. Krizhevsky et al. 2012, Sec. 4.1. The paper does not name the pixels' scale, on which
    its l, variances, depend: with pixels 0 to 255 the noise would be 255 times as strong, and drown the image.
    """
    a = deviation * jax.vmap(lambda key: jax.random.normal(key, values.shape, images.dtype))(keys)
    added = ((a * values[None])[:, None, :] * vectors[None]).sum(-1)  # in float32 on every platform, unlike a product
    return images + added[:, None, None, :]


def measure_pca(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [3], the largest first, and eigenvectors [3, 3], in columns, of the covariance of RGB pixels.

    images: uint8 [H, W, 3] each, of any sizes; a pixel counts as one, on the scale 0 to 1. float32, computed on the
    host. The largest component of each vector is positive: which of the two signs it has is a solver's whim.
    """
    count, total, products = 0, 0.0, 0.0
    for image in images:
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64) / 255
        count, total, products = count + len(pixels), total + pixels.sum(0), products + pixels.T @ pixels
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    values, vectors = values.clip(0)[::-1], (vectors * np.sign(largest))[:, ::-1]
    return values.astype(np.float32), vectors.astype(np.float32)


def add_noise(keys: jax.Array, images: jax.Array, deviation: float) -> jax.Array:
    """Adds N(0, deviation) to each value, in units of the pixels, without clipping."""
    return images + deviation * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)


def mixup(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each image mixed with a partner, the batch being paired with a permutation of itself.

    images: [B, H, W, C]; labels: [B]. Returns share images + (1 - share) partners [B, H, W, C], the partners' labels
    [B], and the share [], ~ Beta(alpha, alpha), one a batch (Zhang et al. 2018, arXiv:1710.09412, Sec. 2 and code).
    """
    pair_key, share_key = jax.random.split(key)
    partner = jax.random.permutation(pair_key, len(images))
    share = jax.random.beta(share_key, alpha, alpha, dtype=images.dtype)
    return share * images + (1 - share) * images[partner], labels[partner], share
