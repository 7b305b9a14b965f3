"""Codes: which layer, how it is pooled, and PCA against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.traced_precision import watch_precision
from sklearn.decomposition import PCA

from cnn_jax import models, trained
from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval import codes


@pytest.fixture(scope="module")
def lenet():
    model = models.create("lenet5_modern", 10)
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))
    return model, params, stats


def choose(made, **options):
    return codes.choose_layer(*made, (12, 12, 1), **options)


def test_the_layer_is_the_last_one_or_an_autoencoders_code(lenet):
    assert choose(lenet) == ("dense2", "average")
    model = models.create("autoencoder_lectures")
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    assert codes.choose_layer(model, params, stats, (8, 8, 1)) == ("code", "flat")
    assert choose(lenet, name="conv1", pooling="max") == ("conv1", "max")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"name": "dens2"}, "layer=dens2: the model has no such layer; nearest: dense2"),
        ({"pooling": "sum"}, "pooling='sum': no such pooling; known: flat, average, max"),
    ],
)
def test_a_layer_that_does_not_exist_is_named_with_the_nearest(lenet, options, words):
    with pytest.raises(UserError, match=words):
        choose(lenet, **options)


def test_maps_are_pooled_or_kept_whole():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    assert codes.pool(x, "average").tolist() == [[3.0, 4.0]]
    assert codes.pool(x, "max").tolist() == [[6.0, 7.0]]
    assert codes.pool(x, "flat").tolist() == [list(range(8))]
    assert codes.pool(x.reshape(2, 4), "average").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_each_image_has_its_own_code_whatever_the_batch(lenet):
    """20 images in batches of 9, over eight devices."""
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 1), dtype=np.uint8)

    def prepare(x):
        return x.astype(jnp.float32) / 255

    for name in ("dense2", "pool1"):
        layer = choose(lenet, name=name)
        found = codes.encode_images(codes.make_encoder(*lenet, layer, prepare), images, batch=9)
        model, params, stats = lenet
        expected = model.features(params, stats, prepare(jnp.asarray(images)))[name]
        expected = codes.pool(expected, layer.pooling)
        assert found.shape == expected.shape == (20, 84 if name == "dense2" else 6)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision, products", [("tensorfloat32", "HIGH"), ("highest", "HIGHEST")])
def test_codes_have_the_precision_of_training(precision, products):
    loaded = trained.load("mlp:untrained")._replace(precision=precision)
    watched, seen = watch_precision(loaded)
    encode = codes.make_trained_encoder(watched, codes.find_layer(loaded))
    encode(np.zeros((2, *loaded.image_shape), np.uint8))
    assert seen and set(seen) == {products}


def test_length_is_one_and_zeros_stay_zeros():
    x = np.array([[3, 4], [0, 0], [-2e3, 0]], np.float32)
    np.testing.assert_allclose(codes.normalize_length(x), [[0.6, 0.8], [0, 0], [-1, 0]])


@pytest.mark.parametrize("shape", [(40, 7), (9, 30)])
@pytest.mark.parametrize("whiten", [False, True])
def test_pca_is_scikit_learns_up_to_signs(shape, whiten):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=shape) * np.linspace(1, 3, shape[1]) + 5).astype(np.float32)
    more = rng.normal(size=(3, shape[1])).astype(np.float32)
    theirs = PCA(5, whiten=whiten, svd_solver="full").fit(x.astype(np.float64))
    ours = codes.fit_pca(x, 5, whiten)
    np.testing.assert_allclose(
        np.abs(codes.project(ours, more)), np.abs(theirs.transform(more)), rtol=1e-3, atol=1e-3
    )
    if whiten:
        np.testing.assert_allclose(codes.project(ours, x).std(0, ddof=1), 1, rtol=1e-4)


def test_whitening_leaves_components_without_variance_out():
    x = np.zeros((10, 3), np.float32)
    x[:, 0] = np.arange(10)
    whitened = codes.project(codes.fit_pca(x, 2, whiten=True), x)
    assert np.isfinite(whitened).all() and (whitened[:, 1] == 0).all()


def test_more_components_than_there_are_is_said():
    with pytest.raises(UserError, match=r"code_size=9: 9 codes of 30 numbers have at most 8"):
        codes.fit_pca(np.ones((9, 30), np.float32), 9)
