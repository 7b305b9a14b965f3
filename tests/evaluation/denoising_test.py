"""Denoising: quality and filters by hand."""

import numpy as np
import pytest

from cnn_jax.evaluation import denoising


def test_quality_by_hand():
    """An error of 0.1 everywhere is 20 dB; an image is like itself."""
    clean = np.full((2, 12, 12, 1), 0.5, np.float32)
    found = denoising.measure_quality(clean, clean + 0.1)
    assert found.psnr == pytest.approx(20, abs=1e-3)
    rng = np.random.default_rng(0)
    clean = rng.random((2, 12, 12, 1), np.float32)
    same, noisy = (denoising.measure_quality(clean, x) for x in (clean, clean[:, ::-1]))
    assert same.ssim == pytest.approx(1, abs=1e-4) and noisy.ssim < 0.5


def test_the_median_of_nine_removes_a_lone_pixel():
    image = np.zeros((1, 5, 5, 2), np.float32)
    image[0, 2, 2, 0], image[0, :, :3, 1] = 1, 1
    found = denoising.filter_median(image, 3)
    assert found[..., 0].max() == 0
    np.testing.assert_array_equal(found[..., 1], image[..., 1])  # An edge stays where it is.


@pytest.mark.parametrize("axis", [0, 1])
def test_total_variation_of_two_pixels(axis):
    """Pixels a < b move toward each other by the weight, and meet in their mean."""
    pair = np.array([0.2, 0.8], np.float32).reshape((1, 2, 1, 1) if axis else (1, 1, 2, 1))
    near = denoising.denoise_total_variation(pair, 0.1).ravel()
    np.testing.assert_allclose(near, [0.3, 0.7], atol=1e-3)
    np.testing.assert_allclose(denoising.denoise_total_variation(pair, 1.0).ravel(), 0.5, atol=1e-2)


def energy(u, f, weight):
    down, across = np.diff(u, axis=0), np.diff(u, axis=1)
    lengths = np.sqrt(np.pad(down, ((0, 1), (0, 0))) ** 2 + np.pad(across, ((0, 0), (0, 1))) ** 2)
    return np.sum((u - f) ** 2) / 2 + weight * lengths.sum()


def test_no_change_of_the_result_lowers_its_energy():
    rng = np.random.default_rng(0)
    f = rng.random((6, 7)).astype(np.float32)
    u = denoising.denoise_total_variation(f[None, :, :, None], 0.2)[0, :, :, 0].astype(float)
    least = energy(u, f, 0.2)
    assert least < energy(f, f, 0.2)
    for _ in range(200):
        assert energy(u + 0.02 * rng.normal(size=u.shape), f, 0.2) > least
