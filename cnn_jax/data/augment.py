"""Training-time augmentation as pure functions of (key, images), run inside the compiled step.

Each image draws from a key of its own, made of the step's key and the image's row in the global batch, so
that the same images come out however the batch is split over devices.
"""

import jax
import jax.numpy as jnp


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """A key an image: keys [B] from the step's key and the row numbers [B] in the global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def pad_and_crop(keys: jax.Array, images: jax.Array, pad: int) -> jax.Array:
    """Pads [B, H, W, C] by `pad` zeros on each side and crops back at a uniform place (He et al. 2015, Sec. 4.2)."""
    shape = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corner = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * pad + 1))(keys)
    crop = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), shape)  # noqa: E731
    return jax.vmap(crop)(padded, corner)


def flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image of [B, H, W, C] left to right with probability one half."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1, :], images)
