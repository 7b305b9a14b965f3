"""Statistics of layers: against numpy, for models of several kinds, and in a run that is cut."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_models
from helpers.small_run import RUN, cut_at

from cnn_jax import models
from cnn_jax.config import Experiment, Log, choose
from cnn_jax.training import layer_log, layer_statistics, run_folders, train

pytestmark = pytest.mark.usefixtures("shared_programs")

IMAGES = np.random.default_rng(0).normal(size=(6, 2, 2, 1)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def measured(name, images=IMAGES, labels=LABELS, **options):
    model = layer_statistics.make_measured_model(Experiment(model=choose(name, **options)), 3)
    params, stats = model.init(jax.random.key(0), images)
    arguments = (params, stats, jnp.asarray(images), jnp.asarray(labels), jax.random.key(1))
    kinds = layer_statistics.list_layers(
        model, params, stats, jax.ShapeDtypeStruct(images.shape, "float32")
    )
    found = jax.jit(lambda *given: layer_statistics.measure(model, *given))(*arguments)
    return params, {line["layer"]: line for line in layer_statistics.to_json(found, kinds)}


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_mlp_s_values_and_gradients_are_those_of_numpy():
    params, layers = measured("mlp", hidden=(20,), activation="tanh", initializer="normal_1")
    assert [(line["layer"], line["kind"]) for line in layers.values()] == [
        ("Dense_0", "Dense"),
        ("activation1", "tanh"),
        ("Dense_1", "Dense"),
    ]
    (w1, b1), (w2, b2) = (
        (np.asarray(params[n]["kernel"]), np.asarray(params[n]["bias"]))
        for n in ("Dense_0", "Dense_1")
    )
    z1 = IMAGES.reshape(6, 4) @ w1 + b1
    h = np.tanh(z1)
    z2 = h @ w2 + b2
    softmax = np.exp(z2 - z2.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    gradients = {"Dense_1": softmax - np.eye(3)[LABELS]}
    gradients["activation1"] = gradients["Dense_1"] @ w2.T
    gradients["Dense_0"] = gradients["activation1"] * (1 - h**2)
    for name, values in {"Dense_0": z1, "activation1": h, "Dense_1": z2}.items():
        line = layers[name]
        close([line["mean"], line["std"]], [values.mean(), values.std()])
        close([line["low"], line["high"]], [values.min(), values.max()])
        close(line["units"], np.percentile(values[:, :8], (15, 50, 85), axis=0).T)
        counts, _ = np.histogram(values, 30, (values.min(), values.max()))
        assert np.abs(np.cumsum(line["counts"]) - np.cumsum(counts)).max() <= 1  # at an edge
        close(
            [line["grad_mean"], line["grad_std"]], [gradients[name].mean(), gradients[name].std()]
        )
        assert sum(line["grad_counts"]) == values.size
    flat = 1 - h**2 < 0.05
    assert 0 < flat.mean() < 1
    close(layers["activation1"]["saturated"], flat.mean())
    close(layers["activation1"]["dead"], flat.all(0).mean())
    assert "saturated" not in layers["Dense_0"]


def test_a_relu_that_no_image_turns_on_is_dead():
    images = np.abs(IMAGES)
    model = models.create("mlp", 3, hidden=(4,))
    params, stats = model.init(jax.random.key(0), images)
    first = params["Dense_0"]
    kernel = jnp.ones_like(first["kernel"]).at[:, 0].set(-1.0)
    params = params | {"Dense_0": first | {"kernel": kernel}}
    found = layer_statistics.measure(
        model, params, stats, jnp.asarray(images), jnp.asarray(LABELS), jax.random.key(0)
    )
    assert found["activation1"]["dead"] == 0.25 and found["activation1"]["saturated"] == 0.25


def test_prelu_with_its_first_slope_is_never_saturated():
    _, layers = measured("mlp", hidden=(4,), activation="prelu")
    assert layers["activation1"]["saturated"] == 0 and layers["activation1"]["kind"] == "PRelu"


def test_batch_norm_s_output_has_the_batch_s_statistics():
    _, layers = measured("mlp", hidden=(5,), activation="sigmoid", norm="bn")
    close([layers["norm1"]["mean"], layers["norm1"]["std"]], [0, 1])


@pytest.mark.parametrize(
    "name, side, channels, count",
    [
        ("lenet5", 28, 1, 12),  # C1 to F6, each with its activation; the RBFs are not trained
        ("two_blocks", 16, 3, 18),  # 3 of the stem, 6 a block, a projection with norm, the head
        ("googlenet", 79, 3, 125),  # 57 convolutions with ReLU, the head, twice 5 of a side head
    ],
)
def test_every_layer_of_convolutional_models_is_found(name, side, channels, count, monkeypatch):
    """Traced, not computed; layers called in a scan or a checkpoint would not be traceable."""
    small_models.register(monkeypatch)
    options = {"width": 1 / 16} if name == "googlenet" else {}
    classes = 10
    model = layer_statistics.make_measured_model(Experiment(model=choose(name, **options)), classes)
    images = jax.ShapeDtypeStruct((2, side, side, channels), "float32")
    params, stats = jax.eval_shape(model.init, jax.random.key(0), images)
    labels = jax.ShapeDtypeStruct((2,), "int32")
    found = jax.eval_shape(
        lambda *given: layer_statistics.measure(model, *given),
        *(params, stats, images, labels, jax.random.key(0)),
    )
    kinds = layer_statistics.list_layers(model, params, stats, images)
    assert {name for name, _ in kinds} == found.keys()
    assert len(kinds) == count
    assert sum("saturated" in line for line in found.values()) > 2


MEASURED = dataclasses.replace(RUN, log=Log(layer_statistics=(0, 3, 6, 7, 12)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train.run(MEASURED, folder), folder / "net/seed0"


def test_a_run_writes_the_chosen_steps_and_its_numbers_stay(whole, tmp_path):
    result, folder = whole
    lines = layer_log.read_lines(folder)
    assert [line["step"] for line in lines] == [0, 3, 6, 7, 12]
    assert [layer["layer"] for layer in lines[0]["layers"]] == ["Dense_0", "activation1", "Dense_1"]
    stds = [line["layers"][0]["std"] for line in lines]
    assert len(set(stds)) == 5, "the weights move"
    plain = train.run(RUN, tmp_path)
    assert {k: plain[k] for k in ("loss", "top1_error")} == {
        k: result[k] for k in ("loss", "top1_error")
    }
    assert not (tmp_path / "net/seed0/layers.jsonl").exists()


@pytest.mark.parametrize("damage", ["nothing", "a torn line", "the file is gone"])
def test_a_run_that_was_cut_writes_the_same_lines(damage, whole, tmp_path, monkeypatch):
    _, folder = whole
    cut_at(9, MEASURED, tmp_path, monkeypatch)
    path = tmp_path / "net/seed0/layers.jsonl"
    assert len(layer_log.read_lines(path.parent)) == 4
    if damage == "a torn line":
        # Of a step after the last checkpoint, and half of another.
        line = json.dumps({"step": 11, "layers": []})
        path.write_text(path.read_text() + line + "\n" + line[:9])
    elif damage == "the file is gone":
        path.unlink()
    train.run(MEASURED, tmp_path)
    expected = (folder / "layers.jsonl").read_text()
    if damage == "the file is gone":  # What is left behind cannot be measured again.
        expected = expected.splitlines(keepends=True)[-1]
    assert path.read_text() == expected


def test_seeds_together_have_lines_of_their_own(tmp_path):
    run = dataclasses.replace(
        MEASURED, train=dataclasses.replace(RUN.train, steps=2), log=Log(layer_statistics=(2,))
    )
    train.run_seeds(run, [0, 1], tmp_path / "together")
    train.run(dataclasses.replace(run, seed=1), tmp_path / "alone")
    (first,), (second,), (alone,) = (
        layer_log.read_lines(tmp_path / place / "net" / seed)
        for place, seed in (("together", "seed0"), ("together", "seed1"), ("alone", "seed1"))
    )
    assert first["layers"] != second["layers"]
    for ours, single in zip(second["layers"], alone["layers"], strict=True):
        close(ours["std"], single["std"])
        close(ours["grad_std"], single["grad_std"])


def test_erase_runs_takes_the_file_too(whole):
    assert "layers.jsonl" in run_folders.RUN_FILES


def test_a_kernel_s_weights_are_counted_and_those_that_are_0():
    images = jnp.asarray(IMAGES)
    model = layer_statistics.make_measured_model(
        Experiment(model=choose("mlp", hidden=(20,), activation="tanh")), 3
    )
    params, stats = model.init(jax.random.key(0), images)
    first = params["Dense_0"]
    kernel = first["kernel"].at[:, :5].set(0.0).at[0, 5].set(-0.0009).at[1, 5].set(0.0011)
    params = params | {"Dense_0": first | {"kernel": kernel}}
    found = layer_statistics.measure(
        model, params, stats, images, jnp.asarray(LABELS), jax.random.key(1)
    )
    line, weights = found["Dense_0"], np.asarray(kernel)
    close(line["kernel_zeros"], 21 / 80)
    close([line["kernel_mean"], line["kernel_std"]], [weights.mean(), weights.std()])
    counts, _ = np.histogram(weights, 30, (weights.min(), weights.max()))
    assert np.abs(np.cumsum(line["kernel_counts"]) - np.cumsum(counts)).max() <= 1
    assert "kernel_zeros" not in found["activation1"]
