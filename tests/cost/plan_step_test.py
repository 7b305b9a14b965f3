"""A plan compiles the step of the run: the texts of both programs are equal."""

import functools
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.cost import lower
from cnn_jax.training import program

DATASET = "noise"
IMAGES, SHAPE, CLASSES = (96, 40), (32, 32, 3), 10


@pytest.fixture(autouse=True)
def _known_dataset(monkeypatch):
    monkeypatch.setitem(data.DATASETS, DATASET, lambda data_dir: make_dataset())
    monkeypatch.setitem(data.DATASET_INFO, DATASET, data.DatasetInfo(SHAPE, CLASSES, *IMAGES))


def make_dataset():
    rng = np.random.default_rng(0)
    train, test = (
        data.Arrays(
            rng.integers(0, 256, (count, *SHAPE), np.uint8),
            rng.integers(0, CLASSES, count, np.int32),
        )
        for count in IMAGES
    )
    return data.Dataset(train, test, CLASSES)


def run(model, train=None, optimizer=None, **of_data):
    return Experiment(
        data=Data(dataset=choose(DATASET), batch_size=16, eval_batch_size=16, **of_data),
        model=model,
        optimizer=optimizer or choose("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=choose("step", base=0.1, boundaries=(3,)),
        train=train or Train(steps=10),
    )


AUGMENTED = {
    "shift": 2,
    "rotate": 5.0,
    "color_jitter": (0.1, 0.1, 0.1, 0.1),
    "color_pca": True,
    "mixup": 0.2,
}
RUNS = {
    "skips steps that are not finite": run(choose("mlp"), Train(steps=10, on_nan="skip")),
    "batch statistics of groups": run(choose("mlp", norm="bn", bn_group=4)),
    "dropout": run(choose("vgg_a", width=1 / 32)),
    "augmentation": run(choose("mlp"), Train(steps=10, label_smoothing=0.1), **AUGMENTED),
    "clipped rmsprop": run(
        choose("lenet5_modern"),
        optimizer=choose("rmsprop", decay=0.9, epsilon=1.0, clip_norm=2.0),
        flip=False,
    ),
    "pmap": run(choose("mlp", norm="bn"), Train(steps=10, parallel="pmap")),
}


@functools.cache
def compile_run(experiment):
    """Compiles the step that the run executes, with its own state, arrays and first batch."""
    built = program.build_program(experiment, make_dataset(), jax.devices()[:2])
    batch = next(built.batches(0))
    step = (
        built.compiled_step
        if hasattr(built.compiled_step, "lower")
        else jax.jit(built.compiled_step)
    )
    return compile_text(step.lower(built.state, built.inputs, batch))


def compile_plan(experiment):
    return compile_text(lower.lower_step(experiment, jax.devices()[:2]).lowered)


def compile_text(lowered):
    """Returns the text of the compiled program, without the Python lines of its operations.

    Operations are numbered by their first appearance: the compiler's own numbers depend on what it
    has compiled before.
    """
    text = lowered.compile().as_text()
    computations = text[text.index("\n%") :]  # Tables of files and lines come before them.
    bare, numbers = re.sub(r", metadata=\{[^}]*\}", "", computations), {}

    def number(name):
        return numbers.setdefault(name[0], f"%{len(numbers)}")

    return re.sub(r"%[\w.-]+", number, bare)


@pytest.mark.parametrize("name", RUNS)
def test_the_planned_step_is_that_of_the_run(name):
    planned = compile_plan(RUNS[name])
    assert "ENTRY" in planned
    assert planned == compile_run(RUNS[name])


def test_a_plan_without_on_nan_is_another_step(monkeypatch):
    """The comparison can fail: a plan that drops train.on_nan."""
    experiment, make_step = RUNS["skips steps that are not finite"], lower.make_step

    def make_without(experiment, *arguments):
        stop = replace(experiment, train=replace(experiment.train, on_nan="stop"))
        return make_step(stop, *arguments)

    monkeypatch.setattr(lower, "make_step", make_without)
    assert compile_plan(experiment) != compile_run(experiment)
