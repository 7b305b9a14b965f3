"""Scores of views: dense scores against those of crops, and independence of batches and devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import mesh, models
from cnn_jax.cpu import memory, settings
from cnn_jax.errors import UserError
from cnn_jax.evaluation import protocols
from cnn_jax.evaluation.dense_views import compute_logits, compute_valid_sizes
from cnn_jax.evaluation.scoring import Scores, cut_views, fuse_scores, make_scorer, score_images
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel

CLASSES, CROP = 6, 32
SIDES = {"single": 40, "ten_crop": 40, "grid": 40, "googlenet144": 44, "dense": 40}
VIEWS = {name: protocols.PROTOCOLS[name]().views[0] for name in SIDES}


class Unpadded(BaseModel):
    """A small model without padding: a crop has the same features alone and in its image."""

    @nn.compact
    def __call__(self, images, train):
        x = MaxPool(2, 2)(nn.relu(Conv(4, (3, 3), padding="VALID")(images)))
        x = MaxPool(2, 2)(nn.relu(Conv(5, (4, 4), padding="VALID")(x)))  # 32 -> 30 -> 15 -> 12 -> 6
        return self.classify(x, self.get_kernel_init(), train)


def prepare(images, size=None):
    return images.astype(jnp.float32) / 255 - 0.5


def make_model(name="vgg_a"):
    if name == "unpadded":
        net = Unpadded(CLASSES, width=1 / 256, name=name)

        def apply(params, stats, images, train=False):
            return (net.apply({"params": params}, images, train), stats)

        params = net.init(jax.random.key(0), jnp.zeros((1, CROP, CROP, 3)), False)["params"]
        return models.Model(None, apply, None, net), params, {}
    model = models.create(name, CLASSES, width=1 / 32)
    return model, *model.init(jax.random.key(0), jnp.zeros((1, CROP, CROP, 3)))


def make_batches(sizes, batch, bucket=64, seed=0):
    """Yields batches of noise images of these sizes; the last batch is padded."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for first in range(0, len(sizes), batch):
        image, size = np.zeros((batch, bucket, bucket, 3), np.uint8), np.ones((batch, 2), np.int32)
        rows = range(first, min(first + batch, len(sizes)))
        for row, i in enumerate(rows):
            h, w = size[row] = sizes[i]
            image[row, :h, :w] = drawn[i]
        index = np.array([*rows, *[-1] * (batch - len(rows))], np.int32)
        yield {
            "image": image,
            "size": size,
            "index": index,
            "label": index % CLASSES,
            "valid": index >= 0,
        }


def prepare_views(kind, batches):
    """Yields the batches as the protocol takes them: cut into views, or whole images."""
    for batch in batches:
        if kind != "dense":
            pairs = zip(batch["image"], batch["size"], strict=True)
            images = [image[:h, :w] for image, (h, w) in pairs]
            # Padding rows have size 1x1.
            images = [images[0] if min(image.shape[:2]) == 1 else image for image in images]
            cut = [cut_views(VIEWS[kind], CROP, image) for image in images]
            batch = {name: np.stack([each[name] for each in cut]) for name in cut[0]} | batch
        yield batch


def score_batches(net, kind, sizes, batch=4, devices=1, **options):
    scorer = make_scorer(
        *net, prepare, CROP, mesh.make_batch_mesh(jax.devices()[:devices]), **options
    )
    found = score_images(scorer, VIEWS[kind], prepare_views(kind, make_batches(sizes, batch)))
    assert found.index.tolist() == list(range(len(sizes)))
    return np.exp(found.scores)


def get_sizes(kind, count=10):
    side = SIDES[kind]
    return [(side, side + 2 * i) if i % 2 else (side + i, side) for i in range(count)]


def test_dense_scores_are_the_mean_over_all_crops():
    """Without padding, at stride 4: positions of the class map are crops at multiples of 4."""
    net = model, params, stats = make_model("unpadded")
    image = next(make_batches([(40, 48)], 1))
    crops = [
        image["image"][:, y : y + CROP, x : x + CROP]
        for y in range(0, 9, 4)
        for x in range(0, 17, 4)
    ]
    for mirrored in (False, True):
        logits = [
            model.apply(params, stats, prepare(c[:, :, ::-1] if mirrored else c))[0] for c in crops
        ]
        expected = jax.nn.softmax(np.mean(logits, axis=0))
        if not mirrored:
            np.testing.assert_allclose(
                score_batches(net, "dense", [(40, 48)], 1, mirror=False), expected, atol=1e-5
            )
        else:
            both = (expected + score_batches(net, "dense", [(40, 48)], 1, mirror=False)) / 2
            np.testing.assert_allclose(score_batches(net, "dense", [(40, 48)], 1), both, atol=1e-5)


@pytest.mark.parametrize("kind", SIDES)
def test_scores_do_not_depend_on_batches_and_devices(kind):
    net, sizes = make_model(), get_sizes(kind)
    whole_batch = score_batches(net, kind, sizes, 10)
    np.testing.assert_allclose(score_batches(net, kind, sizes, 4), whole_batch, atol=1e-6)
    np.testing.assert_allclose(
        score_batches(net, kind, sizes, 16, devices=8), whole_batch, atol=1e-6
    )
    assert np.ptp(whole_batch, axis=0).max() > 1e-4  # The images' scores differ.


@pytest.mark.parametrize("name", ["vgg_a", "vgg_a_lrn", "vgg_c", "resnet18"])
def test_padding_does_not_change_dense_scores(name):
    """Images of odd sizes, padded in larger arrays, against each in an array of its own size."""
    model, params, stats = make_model(name)
    sizes = [(37, 64), (41, 33), (64, 64), (32, 50)]
    together = score_batches((model, params, stats), "dense", sizes, 4, mirror=False)
    for row, batch in zip(together, make_batches(sizes, 1), strict=True):
        (h, w), image = batch["size"][0], batch["image"]
        reach = compute_valid_sizes(model.module, params, stats, batch["size"], 3)
        alone = compute_logits(model.module, params, stats, prepare(image[:, :h, :w]), reach)
        np.testing.assert_allclose(row, jax.nn.softmax(alone.mean((1, 2)))[0], atol=1e-5)


@pytest.mark.parametrize("name", ["vgg_a", "resnet18"])
def test_valid_sizes_are_those_of_each_image_alone(name):
    """Sizes more than a period above the smallest are computed; they equal the traced ones."""
    model, params, stats = make_model(name)
    together = compute_valid_sizes(model.module, params, stats, np.array([[33, 99], [65, 131]]), 3)
    for row, size in enumerate([(33, 99), (65, 131)]):
        for axis, side in enumerate(size):
            alone = compute_valid_sizes(model.module, params, stats, np.array([[side, side]]), 3)
            np.testing.assert_array_equal(together[:, row, axis], alone[:, 0, 0])


def test_without_masks_padding_changes_scores():
    model, params, stats = make_model()
    batch = next(make_batches([(37, 41)], 1))
    reach = compute_valid_sizes(model.module, params, stats, batch["size"], 3)
    full = np.broadcast_to(np.int32(64), reach.shape)
    right, wrong = (
        compute_logits(model.module, params, stats, prepare(batch["image"]), r)
        for r in (reach, full)
    )
    assert np.abs(np.asarray(right - wrong))[:, 0, 0].max() > 1e-3


@pytest.mark.parametrize(
    "kind, count",
    [("single", 1), ("ten_crop", 10), ("grid", 50), ("googlenet144", 36), ("dense", 2)],
)
def test_each_protocol_has_its_number_of_views_per_scale(kind, count):
    net, seen = make_model(), []
    scorer = make_scorer(*net, prepare, CROP, mesh.make_batch_mesh(jax.devices()[:1]))

    def count_call(*arguments):
        seen.append(arguments[4 if kind == "dense" else 3])
        return np.zeros((1, CLASSES))

    programs = ("score_crops", "score_squares", "score_dense")
    scorer = scorer._replace(**dict.fromkeys(programs, count_call))
    score_images(scorer, VIEWS[kind], prepare_views(kind, make_batches([(44, 50)], 1)))
    assert len(seen) == count and sum(seen) == count // 2


def test_crops_are_cut_at_their_offsets():
    """Tested with a model that returns the upper left pixel of its input."""
    seen = []
    net = (models.Model(None, lambda p, s, images, train: (images[:, 0, 0], s), None, None), {}, {})

    def as_is(x, size):
        return x.astype(jnp.float32)

    scorer = make_scorer(*net, as_is, CROP, mesh.make_batch_mesh(jax.devices()[:1]), "logits")

    def record(*arguments):
        seen.append(tuple(np.asarray(scorer.score_crops(*arguments))[0, :2].astype(int)))
        return np.zeros((1, 3))

    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, ..., 0], image[0, ..., 1] = np.arange(64)[:, None], np.arange(64)
    batch = next(make_batches([(40, 48)], 1)) | {"image": image}
    score_images(
        scorer._replace(score_crops=record), VIEWS["ten_crop"], prepare_views("ten_crop", [batch])
    )
    corners = protocols.offset_corners((40, 48), CROP)
    assert seen[:5] == corners
    assert seen[5:] == [(y, x + CROP - 1) for y, x in corners]


def test_many_images_take_the_options_of_long_evaluations(monkeypatch):
    asked = []
    monkeypatch.setattr(settings, "choose_onednn_for_views", lambda pixels: asked.append(pixels))
    make_scorer(*make_model(), prepare, CROP, mesh.make_batch_mesh(jax.devices()[:1]), count=10**6)
    assert asked == [10**6 * CROP**2]


@pytest.mark.parametrize("kind, calls", [("ten_crop", 20), ("googlenet144", 72), ("dense", 4)])
def test_each_call_waits_and_trims_as_training_does(kind, calls, monkeypatch):
    """Two batches. What each call waits for are the scores of the last call of its program."""
    states = []
    monkeypatch.setattr(memory.Trimmer, "prepare_call", lambda self, state: states.append(state))
    score_batches(make_model(), kind, get_sizes(kind, 8))
    waits = [state for state in states if state is not None]
    programs = 2 if kind == "googlenet144" else 1  # Crops and squares.
    assert (len(states), len(states) - len(waits)) == (calls, programs)
    assert all(scores.shape == (4, CLASSES) for scores in waits)


@pytest.mark.parametrize("kind", ["ten_crop", "dense"])
def test_the_options_of_long_evaluations_change_no_scores(kind):
    net, sizes = make_model(), get_sizes(kind, 3)
    few, many = (score_batches(net, kind, sizes, count=count) for count in (3, 10**6))
    np.testing.assert_allclose(many, few, atol=1e-6)


def test_an_image_that_comes_twice_is_refused():
    batch = next(make_batches([(40, 40)], 1))
    scorer = make_scorer(*make_model(), prepare, CROP, mesh.make_batch_mesh(jax.devices()[:1]))
    with pytest.raises(AssertionError, match="an image came twice"):
        score_images(scorer, VIEWS["single"], prepare_views("single", [batch, batch]))


def scores(*rows, index=None):
    rows = np.array(rows)
    return Scores(
        np.arange(len(rows)) if index is None else np.array(index), np.ones(len(rows), int), rows
    )


def test_fused_scores_are_the_mean_of_probabilities():
    one, two = scores(np.log([0.2, 0.8])), scores(np.log([0.6, 0.4]))
    np.testing.assert_allclose(np.exp(fuse_scores([one, two]).scores), [[0.4, 0.6]])
    fused = fuse_scores([one, two], "logits").scores
    np.testing.assert_allclose(fused, np.log([[0.12, 0.32]]) / 2)
    with pytest.raises(UserError, match="different images"):
        fuse_scores([one, scores(two.scores[0], index=[1])])


def test_a_model_without_class_maps_is_refused():
    model = models.create("mlp", CLASSES)
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match="mlp"):
        compute_valid_sizes(model.module, params, stats, np.array([[8, 8]]), 3)


def test_a_shift_moves_crops_to_the_right_and_fills_in_zeros():
    image = np.arange(1, 26, dtype=np.uint8).reshape(5, 5, 1)
    (view,) = protocols.shift(pixels=2).views
    (crop,) = cut_views(view, 3, image)["crops"]
    middle = image[1:4, 1:4, 0]
    assert crop[:, 2, 0].tolist() == middle[:, 0].tolist() and not crop[:, :2].any()


def test_what_cannot_be_averaged_is_refused():
    model, params, stats = make_model()
    with pytest.raises(UserError, match="average='probabilities': choose softmax or logits"):
        make_scorer(
            model, params, stats, prepare, CROP, mesh.make_batch_mesh(), average="probabilities"
        )
    few, many = (Scores(np.arange(2), np.zeros(2, int), np.zeros((2, n))) for n in (3, 4))
    with pytest.raises(UserError, match="scores of different classes"):
        fuse_scores([few, many])
    with pytest.raises(UserError, match="average='mean': choose softmax or logits"):
        fuse_scores([few, few], "mean")
    scorer = make_scorer(model, params, stats, prepare, CROP, mesh.make_batch_mesh())
    with pytest.raises(UserError, match="no images to score"):
        score_images(scorer, VIEWS["single"], [])
