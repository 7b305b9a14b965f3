"""Test protocols: views placed by hand, dense against its crops, batches and devices that change nothing."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cnn_jax import mesh, models, views
from cnn_jax.config import UserError
from cnn_jax.models import extent
from cnn_jax.models.layers import Conv
from cnn_jax.models.net import Net
from cnn_jax.models.pooling import MaxPool

CLASSES, CROP = 6, 32
SIDES = {"single": 40, "ten_crop": 40, "grid": 40, "googlenet144": 44, "dense": 40}


class Unpadded(Net):
    """A small net whose convolutions pad nothing, so that a crop alone is what it is in the whole image."""

    @nn.compact
    def __call__(self, images, train):
        x = MaxPool(2, 2)(nn.relu(Conv(4, (3, 3), padding="VALID")(images)))
        x = MaxPool(2, 2)(nn.relu(Conv(5, (4, 4), padding="VALID")(x)))  # 32 -> 30 -> 15 -> 12 -> 6
        return self.classified(x, self.weights(), train)


def prepare(images):
    return images.astype(jnp.float32) / 255 - 0.5


def made(name="vgg_a"):
    if name == "unpadded":
        net = Unpadded(CLASSES, width=1 / 256, name=name)
        apply = lambda params, stats, images, train=False: (net.apply({"params": params}, images, train), stats)
        dense = (functools.partial(extent.maps, net), functools.partial(extent.reaches, net))
        params = net.init(jax.random.key(0), jnp.zeros((1, CROP, CROP, 3)), False)["params"]
        return models.Model(None, apply, None, *dense), params, {}
    model = models.create(name, CLASSES, width=1 / 32)
    return model, *model.init(jax.random.key(0), jnp.zeros((1, CROP, CROP, 3)))


def whole(sizes, batch, bucket=64, seed=0):
    """Noise images of these sizes, in batches; the last filled up."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for first in range(0, len(sizes), batch):
        image, size = np.zeros((batch, bucket, bucket, 3), np.uint8), np.ones((batch, 2), np.int32)
        rows = range(first, min(first + batch, len(sizes)))
        for row, i in enumerate(rows):
            h, w = size[row] = sizes[i]
            image[row, :h, :w] = drawn[i]
        index = np.array([*rows, *[-1] * (batch - len(rows))], np.int32)
        yield {"image": image, "size": size, "index": index, "label": index % CLASSES, "valid": index >= 0}


def scored(net, kind, sizes, batch=4, devices=1, **options):
    scorer = views.scorer(*net, prepare, CROP, mesh.batch_mesh(jax.devices()[:devices]), **options)
    found = views.scores(scorer, kind, min(map(min, sizes)), whole(sizes, batch))
    return np.stack([found[i][0] for i in range(len(sizes))])


def sizes_of(kind, count=10):
    side = SIDES[kind]
    return [(side, side + 2 * i) if i % 2 else (side + i, side) for i in range(count)]


def test_dense_is_the_mean_over_the_crops_it_stands_for():
    """Unpadded, stride 4: the class map's places are the crops at multiples of 4."""
    net = model, params, stats = made("unpadded")
    image = next(whole([(40, 48)], 1))
    crops = [image["image"][:, y : y + CROP, x : x + CROP] for y in range(0, 9, 4) for x in range(0, 17, 4)]
    for mirrored in (False, True):
        logits = [model.apply(params, stats, prepare(c[:, :, ::-1] if mirrored else c))[0] for c in crops]
        expected = jax.nn.softmax(np.mean(logits, axis=0))
        if not mirrored:
            np.testing.assert_allclose(scored(net, "dense", [(40, 48)], 1, mirror=False), expected, atol=1e-5)
        else:
            both = (expected + scored(net, "dense", [(40, 48)], 1, mirror=False)) / 2
            np.testing.assert_allclose(scored(net, "dense", [(40, 48)], 1), both, atol=1e-5)


@pytest.mark.parametrize("kind", SIDES)
def test_batches_and_devices_change_nothing(kind):
    net, sizes = made(), sizes_of(kind)
    whole_batch = scored(net, kind, sizes, 10)
    np.testing.assert_allclose(scored(net, kind, sizes, 4), whole_batch, atol=1e-6)
    np.testing.assert_allclose(scored(net, kind, sizes, 16, devices=8), whole_batch, atol=1e-6)
    assert np.ptp(whole_batch, axis=0).max() > 1e-4  # the images do not all score alike


@pytest.mark.parametrize("name", ["vgg_a", "vgg_a_lrn", "vgg_c", "resnet18"])
def test_what_an_image_lies_in_does_not_change_its_scores(name):
    """Of odd sizes, together in arrays of zeros around them, against each alone in an array of its own size."""
    model, params, stats = made(name)
    sizes = [(37, 64), (41, 33), (64, 64), (32, 50)]
    together = scored((model, params, stats), "dense", sizes, 4, mirror=False)
    for row, batch in zip(together, whole(sizes, 1), strict=True):
        (h, w), image = batch["size"][0], batch["image"]
        reach = model.reaches(params, stats, batch["size"], 3)
        alone = model.maps(params, stats, prepare(image[:, :h, :w]), reach)
        np.testing.assert_allclose(row, jax.nn.softmax(alone.mean((1, 2)))[0], atol=1e-5)


@pytest.mark.parametrize("name", ["vgg_a", "resnet18"])
def test_reach_is_what_each_size_alone_would_have(name):
    """Sizes further than a period from the smallest, which are not traced, against those that are."""
    model, params, stats = made(name)
    together = model.reaches(params, stats, np.array([[33, 99], [65, 131]]), 3)
    for row, size in enumerate([(33, 99), (65, 131)]):
        for axis, side in enumerate(size):
            alone = model.reaches(params, stats, np.array([[side, side]]), 3)
            np.testing.assert_array_equal(together[:, row, axis], alone[:, 0, 0])


def test_without_masks_padding_would_change_scores():
    model, params, stats = made()
    batch = next(whole([(37, 41)], 1))
    reach = model.reaches(params, stats, batch["size"], 3)
    full = np.broadcast_to(np.int32(64), reach.shape)
    right, wrong = (model.maps(params, stats, prepare(batch["image"]), r) for r in (reach, full))
    assert np.abs(np.asarray(right - wrong))[:, 0, 0].max() > 1e-3


def test_the_views_are_where_the_papers_say():
    assert views.middle((40, 47), 32) == [(4, 7)]
    assert views.corners((40, 48), 32) == [(0, 0), (0, 16), (8, 0), (8, 16), (4, 8)]
    places = views.grid((40, 48), 32)
    assert len(places) == 25 and places[:5] == [(0, 0), (0, 4), (0, 8), (0, 12), (0, 16)] and places[-1] == (8, 16)
    assert views.squares((40, 60)) == [(0, 0), (0, 10), (0, 20)] and views.squares((60, 40))[2] == (20, 0)
    assert views.in_squares((40, 60), 32)[5:10] == [(0, 10), (0, 18), (8, 10), (8, 18), (4, 14)]


@pytest.mark.parametrize(
    "kind, count", [("single", 1), ("ten_crop", 10), ("grid", 50), ("googlenet144", 36), ("dense", 2)]
)
def test_so_many_views_a_scale(kind, count):
    net, seen = made(), []
    scorer = views.scorer(*net, prepare, CROP, mesh.batch_mesh(jax.devices()[:1]))
    counted = lambda run: lambda *a: seen.append(a[4]) or np.zeros((1, CLASSES))
    scorer = scorer._replace(**{part: counted(part) for part in ("cropped", "squared", "dense")})
    views.scores(scorer, kind, 44, whole([(44, 50)], 1))
    assert len(seen) == count and sum(seen) == count // 2


def test_a_crop_is_cut_where_it_says():
    """A net that answers with its input's upper left pixel."""
    apply = lambda params, stats, images, train: (images[:, 0, 0], stats)
    net, as_is = (models.Model(None, apply, None), {}, {}), lambda x: x.astype(jnp.float32)
    scorer = views.scorer(*net, as_is, CROP, mesh.batch_mesh(jax.devices()[:1]), "logits")
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, ..., 0], image[0, ..., 1] = np.arange(64)[:, None], np.arange(64)
    batch = {"image": image, "size": np.array([[40, 48]], np.int32)}
    seen = [tuple(np.asarray(score)[0, :2].astype(int)) for score in views._crops(scorer, "ten_crop", 40, batch)]
    assert seen[:5] == views.corners((40, 48), CROP)
    assert seen[5:] == [(y, x + CROP - 1) for y, x in views.corners((40, 48), CROP)]


def test_fused_scores_are_the_mean():
    one, two = {0: (np.array([0.2, 0.8]), 1)}, {0: (np.array([0.6, 0.4]), 1)}
    np.testing.assert_allclose(views.fused([one, two])[0][0], [0.4, 0.6])
    with pytest.raises(UserError, match="different images"):
        views.fused([one, {1: two[0]}])


def test_measures_by_hand():
    score = np.full((4, 7), 0.1)
    score[0, 0] = score[1, 1] = score[2, 3] = score[3, 0] = 0.4
    score[3, 6] = 0.05
    found = views.measures({i: (row, label) for i, (row, label) in enumerate(zip(score, (0, 1, 2, 6), strict=True))})
    assert found["error_top1"] == 0.5 and found["wrong"] == "0011" and found["images"] == 4
    assert found["error_top5"] == 0.25  # the last image's class is the least likely of seven
    assert found["error_by_class"] == [0, 0, 1, None, None, None, 1]
    assert found["confusion"][2][3] == 1 and found["confusion"][6][0] == 1 and np.sum(found["confusion"]) == 4
    np.testing.assert_allclose(found["loss"], -np.log([0.4, 0.4, 0.1, 0.05]).mean())


def test_logits_are_averaged_before_their_softmax():
    logits = {0: (np.array([1.0, 3.0]), 0)}
    np.testing.assert_allclose(views.measures(logits, "logits")["loss"], np.log(1 + np.exp(2.0)))


@pytest.mark.parametrize("images, wrong", [(200, 30), (1000, 100), (2000, 700)])
def test_the_interval_holds_95_percent(images, wrong):
    """Its ends are the binomial's 2.5% and 97.5%, to half the way to those of 90% and 99%.

    For 30 wrong of 200 these are 0.10 and 0.20; those of 90% are 0.11 and 0.19.
    """
    of_resampled = scipy.stats.binom(images, wrong / images)
    ends = lambda level: of_resampled.ppf([(1 - level) / 2, (1 + level) / 2]) / images
    found = np.array(views.interval(np.arange(images) < wrong))
    assert np.abs(found - ends(0.95)).max() < np.abs(ends(0.9) - ends(0.95)).min() / 2
    assert np.abs(found - ends(0.95)).max() < np.abs(ends(0.99) - ends(0.95)).min() / 2
    assert views.interval(np.arange(images) < wrong) == found.tolist()


@pytest.mark.parametrize(
    "text, said",
    [("dence@64", "nearest: dense"), ("dense@16", "'16' is no shorter side"), ("grid", "no shorter side"),
     ("dense@64,x", "'x' is no shorter side")],
)  # fmt: skip
def test_a_wrong_protocol_is_told(text, said):
    with pytest.raises(UserError, match=said):
        views.parse(text, CROP)


def test_a_protocol_is_its_views_and_scales():
    assert views.parse("dense+grid@256,384", 224) == (("dense", "grid"), (256, 384))


def test_a_net_without_class_maps_says_so():
    model = models.create("mlp", CLASSES)
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match="mlp"):
        model.reaches(params, stats, np.array([[8, 8]]), 3)
