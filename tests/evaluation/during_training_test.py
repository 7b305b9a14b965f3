"""The evaluation during training: each image counts once, for any batch and number of devices."""

import jax
import numpy as np
import pytest
from helpers import small_models

from cnn_jax import data
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.cpu import settings
from cnn_jax.training.program import build_program


@pytest.fixture(scope="module", autouse=True)
def _two_blocks():
    with pytest.MonkeyPatch.context() as patch:
        small_models.register(patch)
        yield


def evaluate_images(batch, images=10):
    """Returns the metrics of the digits' first test images, evaluated in batches of `batch`."""
    source = data.open_dataset(choose("digits"))
    few = source._replace(test=data.Arrays(*(column[:images] for column in source.test)))
    config = Experiment(data=Data(eval_batch_size=batch), model=choose("two_blocks"))
    parts = build_program(config, few, devices=jax.devices()[:1])
    return parts.evaluate(parts.state)


def test_ten_images_at_batch_4_give_the_metrics_of_batch_10():
    """The losses are equal up to rounding: convolutions may sum more images in another order."""
    four, ten = evaluate_images(4), evaluate_images(10)
    assert four["images"] == ten["images"] == 10 and four["top1_error"] == ten["top1_error"]
    assert four["loss"] == pytest.approx(ten["loss"], rel=1e-6)


def test_a_long_run_is_evaluated_with_the_options_of_its_step(monkeypatch):
    asked = []

    def choose_compiler_options(steps, values):
        asked.append((steps, values))
        return {}

    monkeypatch.setattr(settings, "choose_onednn_for_run", choose_compiler_options)
    config = Experiment(
        data=Data(batch_size=10, eval_batch_size=20), model=choose("mlp"), train=Train(steps=200)
    )
    build_program(config, devices=jax.devices()[:1])
    assert asked == [(200, 10 * 8 * 8), (200, 20 * 8 * 8)]


def test_an_evaluation_batch_need_not_divide_over_the_devices():
    config = Experiment(
        data=Data(dataset=choose("fake"), batch_size=8, eval_batch_size=13), model=choose("mlp")
    )
    alone, eight = (build_program(config, devices=jax.devices()[:n]) for n in (1, 8))
    found = eight.evaluate(eight.state)
    assert found["images"] == 40 and found == pytest.approx(alone.evaluate(alone.state), rel=1e-5)


def test_evaluation_is_the_mean_over_images_by_hand():
    source = data.open_dataset(choose("fake"))
    config = Experiment(data=Data(dataset=choose("fake"), eval_batch_size=24), model=choose("mlp"))
    parts = build_program(config)
    parts.evaluate(parts.state)
    x = (source.test.images - source.train.images.mean(0)).astype(np.float32).reshape(40, -1) / 255
    params = jax.device_get(parts.state.params)
    hidden = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    logits = logits.astype(np.float64)
    right = logits[np.arange(40), source.test.labels]
    found = parts.evaluate(parts.state)
    assert found["loss"] == pytest.approx(
        float(np.mean(np.log(np.exp(logits).sum(1)) - right)), rel=1e-4
    )
    assert found["top1_error"] == pytest.approx(
        float(np.mean(logits.argmax(1) != source.test.labels))
    )
