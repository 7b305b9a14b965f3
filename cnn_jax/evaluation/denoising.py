"""Denoising: how near restored images are to the clean ones, and two filters to compare with."""

from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

TV_STEPS = 100  # Steps of the dual iteration.


class Quality(NamedTuple):
    """How near images are to the clean ones.

    Attributes:
      psnr: Peak signal-to-noise ratio in dB, the mean over images; the peak is 1.
      ssim: Structural similarity, -1 to 1, the mean over images: windows of 11 pixels with a
        Gaussian of deviation 1.5 (Wang, Bovik, Sheikh, Simoncelli 2004, Sec. III-B).
    """

    psnr: float
    ssim: float


def measure_quality(clean: np.ndarray, restored: np.ndarray) -> Quality:
    """Returns the quality of restored images.

    Args:
      clean: [N, H, W, C], 0 to 1; sides of at least 11 pixels.
      restored: [N, H, W, C], 0 to 1.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        pair = jnp.asarray(clean, jnp.float32), jnp.asarray(restored, jnp.float32)
        psnr, ssim = dm_pix.psnr(*pair), dm_pix.ssim(*pair)
    return Quality(float(np.mean(psnr)), float(np.mean(ssim)))


def filter_median(images: np.ndarray, size: int) -> np.ndarray:
    """Returns the images with each pixel replaced by the median of its neighborhood.

    Each channel is filtered separately. Pixels beyond the border equal the nearest border pixel.

    Args:
      images: [N, H, W, C].
      size: Side of the square neighborhood, in pixels.
    """
    from scipy import ndimage

    return ndimage.median_filter(images, (1, size, size, 1), mode="nearest")


def denoise_total_variation(images: np.ndarray, weight: float) -> np.ndarray:
    """Returns the images u that minimize |u - f|² / 2 + weight * (total variation of u).

    Here f are the given images. Each channel is restored separately, by the dual iteration of
    Chambolle 2004, "An Algorithm for Total Variation Minimization and Applications", Sec. 3, with
    steps of 1/4.

    Args:
      images: f, [N, H, W, C].
      weight: The larger it is, the smoother the result.
    """
    return np.asarray(_run_total_variation(jnp.asarray(images, jnp.float32), jnp.float32(weight)))


@jax.jit
def _run_total_variation(images: jax.Array, weight: jax.Array) -> jax.Array:
    def step(_: int, p: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        down, across = _compute_gradient(_compute_divergence(*p) - images / weight)
        length = 1 + 0.25 * jnp.sqrt(jnp.square(down) + jnp.square(across))
        return (p[0] + 0.25 * down) / length, (p[1] + 0.25 * across) / length

    start = (jnp.zeros_like(images), jnp.zeros_like(images))
    return images - weight * _compute_divergence(*jax.lax.fori_loop(0, TV_STEPS, step, start))


def _compute_gradient(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the differences to the next pixel down and across; 0 at the last one."""
    down = jnp.pad(x[:, 1:] - x[:, :-1], ((0, 0), (0, 1), (0, 0), (0, 0)))
    across = jnp.pad(x[:, :, 1:] - x[:, :, :-1], ((0, 0), (0, 0), (0, 1), (0, 0)))
    return down, across


def _compute_divergence(down: jax.Array, across: jax.Array) -> jax.Array:
    """Returns minus the transpose of the gradient; the last differences are 0."""
    vertical = down - jnp.pad(down[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
    horizontal = across - jnp.pad(across[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
    return vertical + horizontal
