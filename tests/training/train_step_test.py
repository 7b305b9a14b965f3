"""The training step: the same numbers on one and on eight devices, with jit and pmap; metrics."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_models

from cnn_jax import data, models
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.data import augment
from cnn_jax.errors import UserError
from cnn_jax.evaluation import losses
from cnn_jax.optim import make_optimizer
from cnn_jax.training.program import build_program
from cnn_jax.training.state import init_state
from cnn_jax.training.train_step import StepParts, split_keys, train_step

DATA = Data(dataset=choose("fake"), batch_size=32, eval_batch_size=8, pad_and_crop=1)


def train_steps(steps=3, devices=None, parallel="jit", **model):
    config = Experiment(
        data=DATA,
        model=choose("two_blocks", **({"bn_group": 8} | model)),
        schedule=choose("constant", base=0.1),
        train=Train(parallel=parallel),
    )
    parts = build_program(config, devices=jax.devices()[:devices] if devices else None)
    state, items = parts.state, parts.batches(0)
    for _ in range(steps):
        state = parts.step(state, next(items))
    return jax.device_get(state), parts.evaluate(state)


@pytest.fixture(scope="module", autouse=True)
def _two_blocks():
    with pytest.MonkeyPatch.context() as patch:
        small_models.register(patch)
        yield


@pytest.fixture(scope="module")
def on_one_device():
    return train_steps(devices=1)


@pytest.mark.parametrize("devices, parallel", [(8, "jit"), (8, "pmap"), (2, "pmap")])
def test_eight_devices_train_to_the_numbers_of_one(devices, parallel, on_one_device):
    """Groups of 8 images lie within one device of 16 or on two of 4. Sums differ by rounding."""
    state, found = train_steps(devices=devices, parallel=parallel)
    expected, expected_found = on_one_device
    assert int(state.step) == int(expected.step) == 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        state.params,
        expected.params,
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        state.stats,
        expected.stats,
    )
    assert found["images"] == 40 and found["loss"] == pytest.approx(
        expected_found["loss"], rel=1e-3
    )


def test_statistics_depend_on_the_group(on_one_device):
    """The test above cannot see whether bn_group is ignored; another group gives other numbers."""
    state, _ = train_steps(devices=1, bn_group=32)
    difference = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), state.params, on_one_device[0].params
    )
    assert max(jax.tree.leaves(difference)) > 1e-2


def test_dropout_draws_other_masks_under_pmap():
    """As --parallel says; under jit they do not depend on the number of devices."""
    kernels = []
    for devices, parallel in ((1, "jit"), (8, "jit"), (8, "pmap")):
        config = Experiment(
            data=DATA,
            model=choose("mlp", hidden=(16,), dropout=0.5),
            schedule=choose("constant", base=0.1),
            train=Train(parallel=parallel),
        )
        parts = build_program(config, devices=jax.devices()[:devices])
        state = parts.step(parts.state, next(parts.batches(0)))
        kernels.append(jax.device_get(state.params["Dense_1"]["kernel"]))
    one, eight, mapped = kernels
    np.testing.assert_allclose(eight, one, atol=1e-6)
    assert np.abs(mapped - one).max() > 1e-3


def test_the_first_step_with_a_loss_that_is_not_finite_is_recorded():
    config = Experiment(data=DATA, model=choose("mlp"), schedule=choose("constant", base=1e30))
    parts = build_program(config)
    state, items, losses = parts.state, parts.batches(0), []
    for _ in range(5):
        before = float(state.sums["loss"])
        state = parts.step(state, next(items))
        losses.append(float(state.sums["loss"]) - before)
    assert int(state.nan_step) == next(i for i, loss in enumerate(losses) if not np.isfinite(loss))


def steep(outputs, images, labels):
    """Cross-entropy whose gradient, but not value, overflows for images with a pixel above 5."""
    zero = outputs[:, 0] - jax.lax.stop_gradient(outputs[:, 0])
    slope = jnp.where(images.max((1, 2, 3)) > 5, 3e38, 0)
    return losses.compute_cross_entropy(outputs, labels) + zero * slope, losses.compute_top1_error(
        outputs, labels
    )


@pytest.mark.parametrize("broken", [np.nan, 100.0], ids=["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped(broken):
    model = models.create("mlp", 10, hidden=(8,))._replace(score=steep)
    as_given = SimpleNamespace(
        fetch=lambda arrays, item: item, preprocess=lambda arrays, images, *_: images
    )
    tx = make_optimizer(choose("sgd"), choose("constant", base=0.01), total_steps=3)
    parts = StepParts(model, tx, as_given, jax.random.key(1))
    skipping = parts._replace(skip_not_finite=True)
    move, plain = (jax.jit(functools.partial(train_step, fixed)) for fixed in (skipping, parts))
    draw = np.random.default_rng(0)
    good = [
        {"image": draw.random((4, 6, 6, 1), np.float32), "label": np.arange(4)} for _ in range(2)
    ]
    bad = {"image": good[0]["image"].copy(), "label": np.arange(4)}
    bad["image"][2, 3, 3] = broken
    state = init_state(model, tx, jax.random.key(0), good[0]["image"][:1])
    expected = plain(plain(state, {}, good[0]), {}, good[1])
    state = move(state, {}, good[0])
    if broken == 100:
        assert np.isfinite(plain(state, {}, bad).sums["loss"])  # Only the gradient overflows.
    state = move(state, {}, bad)
    assert (
        int(state.nan_step) == 1
        and int(state.sums["skipped"]) == 1
        and int(state.sums["steps"]) == 1
    )
    state = move(state, {}, good[1])
    assert int(state.nan_step) == -1 and int(state.step) == 3

    def assert_equal_states(a, b):
        return np.testing.assert_array_equal(a, b)

    jax.tree.map(assert_equal_states, (state.params, state.opt), (expected.params, expected.opt))
    assert float(state.sums["loss"]) == float(expected.sums["loss"])


def test_each_step_draws_from_keys_of_its_own():
    parts = SimpleNamespace(key=jax.random.key(1), axis=None)
    keys = [key for step in range(3) for key in split_keys(parts, jnp.int32(step))]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == 9


def test_sums_cover_every_step():
    config = Experiment(
        data=DATA,
        model=choose("mlp"),
        optimizer=choose("sgd", weight_decay=0.0),
        schedule=choose("constant", base=0.0001),
    )
    parts = build_program(config)
    state, items = parts.state, parts.batches(0)
    for _ in range(3):  # An epoch of 96 images.
        state = parts.step(state, next(items))
    assert int(state.sums["steps"]) == 3
    assert 0.5 < float(state.sums["error"]) / 3 <= 1  # Almost nothing was learned.
    assert float(state.sums["loss"]) / 3 == pytest.approx(np.log(10), rel=0.5)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"data": Data(dataset=choose("fake"), batch_size=30)},
            "batch_size=30 does not divide over 8 devices: set it to 24 or 32",
        ),
        (
            {"data": DATA, "model": choose("resnet20", bn_group=5)},
            "bn_group=5 does not divide data.batch_size=32",
        ),
    ],
)
def test_invalid_settings_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        parts = build_program(Experiment(**change))
        parts.step(parts.state, next(parts.batches(0)))


def run_mixup_step(devices, parallel):
    """Trains the MLP with mixup for one step; returns the parts, the state before and after."""
    config = Experiment(
        data=Data(dataset=choose("fake"), batch_size=32, pad_and_crop=0, flip=False, mixup=1.0),
        model=choose("mlp"),
        schedule=choose("constant", base=0.1),
        train=Train(parallel=parallel, label_smoothing=0.1),
    )
    parts = build_program(config, devices=jax.devices()[:devices])
    before = jax.device_get(parts.state)
    return parts, before, jax.device_get(parts.step(parts.state, next(parts.batches(0))))


@pytest.mark.parametrize("devices, parallel", [(1, "jit"), (8, "jit"), (4, "pmap")])
def test_mixup_by_hand(devices, parallel):
    """Images are mixed within the batch, or under pmap within each device's rows."""
    parts, before, after = run_mixup_step(devices, parallel)
    source, rows = data.open_dataset(choose("fake")), next(parts.batches(0))["index"]
    images = ((source.train.images - source.train.images.mean(0)) / 255).astype(np.float32)[rows]
    labels = source.train.labels[rows]
    step_key = jax.random.split(jax.random.key(0))[1]
    key = jax.random.split(jax.random.fold_in(step_key, 0), 3)[2]
    if parallel == "jit":
        groups = [(key, images, labels)]
    else:
        keys = [jax.random.fold_in(key, device) for device in range(devices)]
        groups = zip(keys, np.split(images, devices), np.split(labels, devices), strict=True)
    columns = []
    for group in groups:
        x, partners, share = (np.asarray(a) for a in augment.mixup(*group, 1.0))
        columns.append((x, share * np.eye(10)[group[2]] + (1 - share) * np.eye(10)[partners]))
    x, soft = (np.concatenate(column) for column in zip(*columns, strict=True))
    first, last = before.params["Dense_0"], before.params["Dense_1"]
    hidden = np.maximum(x.reshape(32, -1) @ first["kernel"] + first["bias"], 0)
    logits = (hidden @ last["kernel"] + last["bias"]).astype(np.float64)
    loss = (np.log(np.exp(logits).sum(1)) - ((0.9 * soft + 0.01) * logits).sum(1)).mean()
    assert float(after.sums["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(after.sums["error"]) == pytest.approx(
        1 - soft[range(32), logits.argmax(1)].mean(), abs=1e-6
    )
