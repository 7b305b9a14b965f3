"""Augmentation: invariants and distribution of each operation; it depends on (key, row) only."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.distributions import looks_uniform
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage

from cnn_jax.data import augment

KEYS = augment.make_row_keys(jax.random.key(0), jnp.arange(2000))
PHOTOS = jax.random.uniform(jax.random.key(1), (16, 6, 7, 3), minval=0.3, maxval=0.7)
VALUES, VECTORS = (
    jnp.array([0.2, 0.02, 0.005]),
    jnp.linalg.qr(jax.random.normal(jax.random.key(2), (3, 3)))[0],
)
OPERATIONS = {
    "random_crop": functools.partial(augment.random_crop, height=4, width=5),
    "pad_and_crop": functools.partial(augment.pad_and_crop, pad=2),
    "shift": functools.partial(augment.shift, most=2),
    "rotate": functools.partial(augment.rotate, degrees=30.0),
    "affine": functools.partial(augment.affine, shift=1, scale=0.1, squeeze=0.1, shear=0.2),
    "flip": augment.flip,
    "vertical_flip": augment.vertical_flip,
    "color_jitter": functools.partial(
        augment.color_jitter, brightness=0.2, contrast=0.4, saturation=0.4, hue=0.1
    ),
    "add_pca_noise": functools.partial(augment.add_pca_noise, values=VALUES, vectors=VECTORS),
    "add_noise": functools.partial(augment.add_noise, deviation=0.1),
}


def repeated(image):
    return jnp.broadcast_to(image, (2000, *image.shape))


def keys_of(step, rows):
    return augment.make_row_keys(jax.random.fold_in(jax.random.key(3), step), rows)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_image_depends_on_its_key_alone(name):
    operation, rows = jax.jit(OPERATIONS[name]), jnp.arange(16)
    whole = np.asarray(operation(keys_of(5, rows), PHOTOS))
    assert np.array_equal(whole, operation(keys_of(5, rows), PHOTOS)) and whole.dtype == np.float32
    assert not np.array_equal(whole, operation(keys_of(6, rows), PHOTOS))
    parts = [operation(keys_of(5, rows[i : i + 2]), PHOTOS[i : i + 2]) for i in range(0, 16, 2)]
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-6)


def test_eight_devices_give_the_images_of_one():
    @jax.jit
    def every(keys, images):
        return functools.reduce(
            lambda x, operation: operation(keys, x), OPERATIONS.values(), images
        )

    given = keys_of(5, jnp.arange(16)), PHOTOS
    split = every(
        *jax.device_put(given, NamedSharding(Mesh(jax.devices(), "batch"), PartitionSpec("batch")))
    )
    assert len(split.sharding.device_set) == 8
    np.testing.assert_allclose(every(*given), split, atol=1e-5)


@pytest.mark.parametrize(
    "operation, turned", [(augment.flip, np.fliplr), (augment.vertical_flip, np.flipud)]
)
def test_flip_mirrors_half_of_the_images_and_is_its_own_inverse(operation, turned):
    image = np.asarray(PHOTOS[0])
    found = operation(KEYS, repeated(image))
    mirrored = (np.asarray(found) == turned(image)).all((1, 2, 3))
    assert ((np.asarray(found) == image).all((1, 2, 3)) != mirrored).all()
    assert abs(mirrored.sum() - 1000) < 4 * math.sqrt(500)
    np.testing.assert_array_equal(operation(KEYS, found), repeated(image))


def test_random_crop_cuts_each_window_equally_often():
    image = jnp.arange(30, dtype=jnp.float32).reshape(5, 6, 1)
    found = np.asarray(augment.random_crop(KEYS, repeated(image), 3, 5))
    windows = {(i, j): np.asarray(image)[i : i + 3, j : j + 5] for i in range(3) for j in range(2)}
    counts = [(found == window).all((1, 2, 3)).sum() for window in windows.values()]
    assert sum(counts) == 2000 and np.abs(np.array(counts) - 2000 / 6).max() < 4 * math.sqrt(
        2000 / 6
    )


@pytest.mark.parametrize("operation", [augment.shift, augment.pad_and_crop])
def test_shift_moves_a_point_to_each_position_equally_often_and_fills_with_zeros(operation):
    found = np.asarray(operation(KEYS, repeated(jnp.zeros((9, 9, 1)).at[4, 4].set(1.0)), 2))
    assert (found.sum((1, 2, 3)) == 1).all()
    counts = found.sum((0, 3))
    assert counts[2:7, 2:7].sum() == 2000 and np.abs(counts[2:7, 2:7] - 80).max() < 4 * math.sqrt(
        80
    )
    corner = np.asarray(operation(KEYS, repeated(jnp.ones((4, 4, 1))), 2)).sum((1, 2, 3))
    # 2, 3 or 4 rows, and the same numbers of columns.
    assert sorted(np.unique(corner)) == [4, 6, 8, 9, 12, 16]


def test_rotate_turns_about_the_center_by_uniform_angles():
    """Measured by the center of mass of a blob of light to the right of the center."""
    y, x = jnp.mgrid[-12:13, -12:13].astype(jnp.float32)
    found = augment.rotate(KEYS, repeated(jnp.exp(-((x - 6) ** 2 + y**2) / 4)[..., None]), 40.0)[
        ..., 0
    ]
    mass = found.sum((1, 2))
    up, right = -(found * y[None]).sum((1, 2)) / mass, (found * x[None]).sum((1, 2)) / mass
    np.testing.assert_allclose(jnp.hypot(up, right), 6, atol=0.05)
    angles = np.rad2deg(np.arctan2(up, right))
    assert np.abs(angles).max() <= 40.2 and looks_uniform(angles, -40, 40)


def test_rotate_by_0_degrees_is_the_identity_and_by_90_a_permutation(monkeypatch):
    np.testing.assert_allclose(augment.rotate(KEYS[:16], PHOTOS, 0.0), PHOTOS, atol=1e-6)
    monkeypatch.setattr(jax.random, "uniform", lambda key, minval, maxval: jnp.float32(maxval))
    square = PHOTOS[:, :, :6]
    quarter = augment.rotate(KEYS[:16], square, 90.0)
    # Counter-clockwise.
    np.testing.assert_allclose(quarter, jnp.rot90(square, axes=(1, 2)), atol=1e-5)
    eighth = np.asarray(augment.rotate(KEYS[:1], jnp.ones((1, 9, 9, 1)), 45.0))[0, :, :, 0]
    assert eighth[0, 0] == 0 and eighth[4, 4] == pytest.approx(1)  # Zeros surround it.


@pytest.mark.parametrize(
    "drawn",
    [
        (1.5, -0.5, 0, 0, 0),
        (0, 0, 0.3, 0, 0),
        (0, 0, 0, 0.2, 0),
        (0, 0, 0, 0, 0.4),
        (0.7, 1.2, -0.2, 0.1, -0.3),
    ],
)
def test_affine_is_shear_then_scaling_then_translation(drawn, monkeypatch):
    """Against scipy's resampling by the map that is composed here."""
    most = (2.0, 2.0, 0.5, 0.5, 0.5)
    unit = jnp.array(drawn) / jnp.array(most)
    monkeypatch.setattr(jax.random, "uniform", lambda *_: unit)
    found = augment.affine(KEYS[:1], PHOTOS[:1], 2.0, 0.5, 0.5, 0.5)[0]
    down, across, u, v, s = drawn
    # Of (y, x) relative to the center.
    forward = np.diag([np.exp(u + v), np.exp(u - v)]) @ np.array([[1, 0], [s, 1]])
    inverse = np.linalg.inv(forward)
    middle = (np.array(PHOTOS.shape[1:3]) - 1) / 2
    offset = middle - inverse @ (middle + np.array([down, across]))
    for channel in range(3):
        expected = ndimage.affine_transform(
            np.asarray(PHOTOS[0, :, :, channel], np.float64), inverse, offset, order=1,
            mode="grid-constant",
        )  # fmt: skip
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_affine_of_nothing_is_the_identity_and_translations_are_uniform():
    np.testing.assert_allclose(augment.affine(KEYS[:16], PHOTOS, 0, 0, 0, 0), PHOTOS, atol=1e-6)
    y, x = jnp.mgrid[-10:11, -10:11].astype(jnp.float32)
    blob = repeated(jnp.exp(-(x**2 + y**2) / 4)[..., None])
    found = augment.affine(KEYS, blob, 3.0, 0.0, 0.0, 0.0)[..., 0]
    mass = found.sum((1, 2))
    for axis in (y, x):
        assert looks_uniform(np.asarray((found * axis[None]).sum((1, 2)) / mass), -3, 3)


def test_color_jitter_of_zero_is_the_identity():
    np.testing.assert_array_equal(
        augment.color_jitter(KEYS[:16], PHOTOS, 0.0, 0.0, 0.0, 0.0), PHOTOS
    )
    # Through every operation.
    tiny = augment.color_jitter(KEYS[:16], PHOTOS, 1e-9, 1e-9, 1e-9, 1e-9)
    np.testing.assert_allclose(tiny, PHOTOS, atol=1e-6)


def test_brightness_and_contrast_are_uniform():
    image = jnp.broadcast_to(PHOTOS[0], (2000, 6, 7, 3))
    added = augment.color_jitter(KEYS, image, 0.2, 0.0, 0.0, 0.0) - image
    np.testing.assert_allclose(added.std((1, 2, 3)), 0, atol=1e-6)
    assert looks_uniform(added.mean((1, 2, 3)), -0.2, 0.2)
    spread = augment.color_jitter(KEYS, image, 0.0, 0.4, 0.0, 0.0)
    np.testing.assert_allclose(spread.mean((1, 2)), image.mean((1, 2)), atol=1e-6)
    assert looks_uniform(spread.std((1, 2))[:, 0] / image.std((1, 2))[:, 0], 0.6, 1.4)


def test_saturation_and_hue_keep_gray_pixels_and_the_brightest_channel():
    image = repeated(jnp.array([[[0.5, 0.5, 0.5], [0.8, 0.4, 0.4], [0.0, 0.0, 0.0]]]))
    found = np.asarray(augment.color_jitter(KEYS, image, 0.0, 0.0, 0.5, 0.0))
    np.testing.assert_allclose(found[:, :, [0, 2]], image[:, :, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(found.max(-1), image.max(-1), atol=1e-6)
    assert looks_uniform(1 - found[:, 0, 1, 1] / 0.8, 0.25, 0.75)  # The value was 0.5.
    found = np.asarray(augment.color_jitter(KEYS, image, 0.0, 0.0, 0.0, 1 / 6))
    np.testing.assert_allclose(found[:, :, [0, 2]], image[:, :, [0, 2]], atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1].max(-1), 0.8, atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1].min(-1), 0.4, atol=1e-6)
    # Red turned to yellow has more green, turned to magenta more blue.
    towards = found[:, 0, 1, 1] - found[:, 0, 1, 2]
    assert looks_uniform(towards, -0.4, 0.4)


def test_color_jitter_stays_within_the_pixels_range():
    black_to_white = jax.random.uniform(jax.random.key(4), (16, 6, 7, 3)).round()
    found = augment.color_jitter(KEYS[:16], black_to_white, 0.5, 0.5, 0.5, 0.5)
    assert (
        float(found.min()) >= 0
        and float(found.max()) <= 1 + 1e-6
        and bool(jnp.isfinite(found).all())
    )


def test_brightness_and_contrast_work_on_one_channel():
    found = augment.color_jitter(KEYS[:16], PHOTOS[..., :1], 0.2, 0.4, 0.0, 0.0)
    assert found.shape == (16, 6, 7, 1) and not np.allclose(found, PHOTOS[..., :1])


def test_add_pca_noise_adds_one_color_per_image_with_the_right_covariance():
    keys = augment.make_row_keys(jax.random.key(7), jnp.arange(20_000))
    added = np.asarray(augment.add_pca_noise(keys, jnp.zeros((20_000, 2, 3, 3)), VALUES, VECTORS))
    assert (added == added[:, :1, :1]).all()
    # The noise is a combination of a * l, whose variance is (0.1 l)^2.
    p, wanted = np.asarray(VECTORS), np.diag((0.1 * np.asarray(VALUES)) ** 2)
    found = np.cov((added[:, 0, 0] @ p).T)
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert np.abs((found - wanted) / scale).max() < 4 * math.sqrt(2 / 20_000)
    assert np.abs(added.mean((0, 1, 2))).max() < 4 * 0.02 / math.sqrt(20_000)


def test_pca_finds_the_axes_of_the_pixels():
    rng = np.random.default_rng(0)
    p = np.asarray(VECTORS, np.float64)
    p = p * np.sign(p[np.abs(p).argmax(0), range(3)])
    deviations = np.array([0.15, 0.06, 0.02])
    pixels = 0.5 + (rng.standard_normal((100_000, 3)) * deviations) @ p.T
    images = (pixels * 255).round().clip(0, 255).astype(np.uint8)
    values, vectors = augment.measure_pca(
        [images[:60_000].reshape(200, 300, 3), images[60_000:].reshape(400, 100, 3)]
    )
    np.testing.assert_allclose(values, deviations**2, rtol=0.03)
    np.testing.assert_allclose(vectors, p, atol=0.02)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-6)
    again, axes = augment.measure_pca(images.reshape(10, 100, 100, 3)[::-1])
    np.testing.assert_allclose((again[:, None] * axes), (values[:, None] * vectors), atol=1e-6)
    assert values.dtype == vectors.dtype == np.float32


def test_pca_of_one_color_adds_nothing():
    values, vectors = augment.measure_pca(np.full((2, 4, 4, 3), 77, np.uint8))
    np.testing.assert_allclose(
        augment.add_pca_noise(KEYS[:16], PHOTOS, values, vectors), PHOTOS, atol=1e-6
    )


def test_noise_is_normal_and_independent():
    added = np.asarray(augment.add_noise(KEYS, jnp.zeros((2000, 2, 2, 1)), 0.5)).reshape(2000, 4)
    assert np.abs(np.cov(added.T) / 0.25 - np.eye(4)).max() < 5 * math.sqrt(2 / 2000)
    assert (np.abs(added) < 0.5).mean() == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_s_share_has_the_beta_distribution(alpha):
    images, labels = jnp.zeros((2, 1, 1, 1)), jnp.arange(2)
    shares = np.asarray(
        jax.jit(jax.vmap(lambda key: augment.mixup(key, images, labels, alpha)[2]))(KEYS)
    )
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=4 * float(shares.std()) / math.sqrt(2000))
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert alpha != 1 or looks_uniform(shares, 0, 1)


def test_mixup_pairs_the_batch_with_a_permutation_of_itself():
    images, labels = jnp.eye(8)[:, :, None, None], jnp.arange(8)
    mixed, partners, share = augment.mixup(KEYS[0], images, labels, 1.0)
    assert sorted(partners.tolist()) == list(range(8)) and partners.tolist() != list(range(8))
    assert share.shape == () and 0 < float(share) < 1
    wanted = float(share) * np.eye(8) + (1 - float(share)) * np.eye(8)[partners]
    np.testing.assert_allclose(mixed[:, :, 0, 0], wanted, atol=1e-6)
    assert partners.tolist() != augment.mixup(KEYS[1], images, labels, 1.0)[1].tolist()
