"""Estimates of what runs cost, before anything is compiled."""

import time
from dataclasses import replace

import jax
import pytest

from cnn_jax import models
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.cost import estimate, traced_counts
from experiments import STUDIES

RUN = Experiment(
    name="resnet-20",
    data=Data(dataset=choose("cifar10"), batch_size=128),
    model=choose("resnet20"),
    train=Train(steps=1_000),
)
CROPS = replace(
    RUN,
    name="vgg-a",
    model=choose("vgg_a"),
    data=Data(
        dataset=choose("imagenet2012"),
        batch_size=256,
        train_resize=(256,),
        image_size=224,
        pad_and_crop=0,
    ),
    protocols=(choose("single"), choose("ten_crop", scales=(256,)), choose("dense", scales=(448,))),
)


def test_a_run_s_estimate_by_hand():
    found = estimate.estimate_run(RUN, speed=1e9)
    model = models.create("resnet20", 10)
    assert found.parameters == traced_counts.count_parameters(model, (32, 32, 3))
    assert (
        found.multiply_adds == traced_counts.count_multiply_adds(model, (32, 32, 3)) == 40_551_040
    )
    assert found.seconds == pytest.approx(1_000 * 128 * 3 * 40_551_040 / 1e9)
    assert (found.steps, found.batch_size, found.evaluation_passes) == (1_000, 128, 0)


def test_a_paper_s_run_by_hand():
    run = STUDIES["resnet_degradation"]("paper").runs["resnet-110"]
    found = estimate.estimate_run(run, speed=1e9)
    assert (found.parameters, found.steps, found.batch_size) == (1_727_962, 64_000, 128)
    assert found.seconds == pytest.approx(64_000 * 128 * 3 * 252_887_680 / 1e9)


def test_evaluation_is_counted_in_forward_passes():
    found = estimate.estimate_run(CROPS, speed=1e12)
    dense = 2 * 448 * 597 / 224**2
    assert found.evaluation_passes == pytest.approx(1 + 10 + dense)
    expected = 1_000 * found.evaluation_passes * found.multiply_adds / 1e12
    assert found.evaluation_seconds == pytest.approx(expected)
    assert found.protocols == ("single", "ten_crop@256", "dense@448")


def test_evaluation_costs_its_views():
    """By hand, on 4:3: 1 + 10 + 50 + 36 crops, and dense 2 x 224 x 298 / 224^2."""
    names = ("single", "ten_crop", "grid", "googlenet144")
    each = (*(choose(name, scales=(256,)) for name in names), choose("dense", scales=(224,)))
    run = replace(CROPS, protocols=each)
    assert estimate.count_evaluation_passes(run) == pytest.approx(1 + 10 + 50 + 36 + 2 * 298 / 224)
    unmirrored = replace(run, data=replace(run.data, flip=False))
    assert estimate.count_evaluation_passes(unmirrored) == pytest.approx(
        1 + 5 + 25 + 18 + 298 / 224
    )


def test_views_that_protocols_share_count_once():
    both = replace(CROPS, protocols=(choose("grid"), choose("dense+grid"), choose("dense")))
    one = replace(CROPS, protocols=(choose("dense+grid"),))
    assert estimate.count_evaluation_passes(both) == estimate.count_evaluation_passes(one)


def test_small_images_are_square():
    run = replace(RUN, protocols=(choose("dense"),))
    assert estimate.count_evaluation_passes(run) == 2
    unmirrored = replace(run, data=replace(run.data, flip=False))
    assert estimate.count_evaluation_passes(unmirrored) == 1


def test_the_speed_of_this_machine_is_measured_once():
    first = estimate.estimate_speed()
    assert 1e8 < first < 1e14
    assert estimate.estimate_speed() == first


def test_a_study_has_a_line_per_run_and_compiles_nothing(monkeypatch):
    study = STUDIES["resnet_degradation"]("paper")
    runs = [replace(run, seed=seed) for run in study.runs.values() for seed in (0, 1)]
    estimate.estimate_speed()

    def refuse(*_, **__):
        raise AssertionError("compiles")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    begin = time.process_time()
    lines = estimate.format_study(runs).splitlines()
    assert time.process_time() - begin < 5
    assert len(lines) == 1 + len(study.runs) + 2
    assert lines[0].split() == [
        "run",
        "model",
        "image",
        "parameters",
        "multiply-adds",
        "steps",
        "batch",
        "seeds",
        "time",
    ]
    assert lines[1].split()[:2] == ["plain-20", "plain20"] and "64,000" in lines[1]
    assert (
        lines[-1].startswith("all: ")
        and "of the speed of a matrix product (measured now:" in lines[-1]
    )


def test_a_study_with_protocols_has_a_column_for_evaluation():
    lines = estimate.format_study([CROPS]).splitlines()
    assert lines[0].endswith("evaluation passes") and lines[1].endswith("21.66")


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "under a second"),
        (0.96, "under a second"),
        (1.4, "1 second"),
        (1.6, "2 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_200, "2 hours"),
        (1e6, "12 days"),
    ],
)
def test_durations(seconds, text):
    assert estimate.format_duration(seconds) == text
