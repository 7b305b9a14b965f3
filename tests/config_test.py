"""Overrides are strict and helpful; JSON goes both ways."""

import dataclasses
import json

import pytest

from cnn_jax import config
from cnn_jax.config import Experiment, override
from cnn_jax.errors import UserError


def test_override_changes_one_field_and_keeps_its_type():
    changed = override(
        Experiment(),
        ["schedule.base=0.05", "schedule.boundaries=10,20", "data.flip=false", "model.shortcut=B", "train.steps=7"],
    )
    assert changed.optim.learning_rate == 0.05 and changed.optim.boundaries == (10, 20)
    assert changed.data.flip is False and changed.model.shortcut == "B" and changed.train.steps == 7
    assert override(changed, ["model.shortcut=none"]).model.shortcut is None
    assert changed.optim.momentum == Experiment().optim.momentum


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("learning_rate=0.1", "nearest: schedule.base"),
        ("optim.lr=0.1", "nearest: schedule.base"),
        ("optim.learnign_rate=0.1", "nearest: schedule.base"),
        ("schedule.base=fast", "wants a number, not 'fast'"),
        ("data.batch_size=1.5", "wants an integer"),
        ("data.flip=maybe", "wants true or false"),
        ("schedule.boundaries=1,x", "wants several of an integer"),
        ("train.steps", "write it as field=value"),
        ("optim=3", "no such field"),
    ],
)
def test_a_wrong_override_is_told_in_one_line(assignment, words):
    with pytest.raises(UserError) as error:
        override(Experiment(), [assignment])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_json_gives_an_equal_value_back():
    experiment = override(Experiment(name="x", deviations=("a", "b")), ["schedule.boundaries=1,2", "model.bn_group=64"])
    assert config.from_json(config.to_json(experiment)) == experiment


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda c: c["optim"].update(lr=1.0), "no such field optim.lr"),
        (lambda c: c["optim"].pop("momentum"), "optimizer.momentum is missing"),
        (lambda c: c["train"].update(steps="10"), "train.steps wants an integer"),
        (lambda c: c["data"].update(flip=1), "data.flip wants true or false"),
    ],
)
def test_a_wrong_config_file_names_the_field(edit, words):
    items = json.loads(config.to_json(Experiment()))
    edit(items)
    with pytest.raises(UserError, match=words):
        config.from_json(json.dumps(items))


def test_differences_name_fields_and_both_values():
    old = Experiment()
    new = override(old, ["train.steps=300", "data.dir=/elsewhere"])
    assert config.differences(old, new, config.PLACE) == ["train.steps: 64000 -> 300"]


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("train.steps=0", "train.steps=0: wants at least 1"),
        ("train.steps=3000000000", "wants at most 2147483647"),
        ("train.eval_every=0", "wants at least 1"),
        ("data.pad_and_crop=-1", "wants at least 0"),
        ("schedule.base=0", "wants more than 0"),
        ("schedule.base=nan", "wants a finite number"),
        ("optimizer.momentum=inf", "wants a finite number"),
        ("schedule.boundaries=0,5", "schedule.boundaries=0,5: wants steps from 1"),
        ("train.parallel=pjit", "choose jit or pmap"),
        ("data.subtract_mean=median", "choose pixel or channel or none"),
        ("model.bn_group=5", "model.bn_group=5 does not divide data.batch_size=128"),
    ],
)
def test_a_value_that_no_run_can_have_is_told(assignment, words):
    config.check(Experiment())
    with pytest.raises(UserError, match=words):
        config.check(override(Experiment(), [assignment]))


@pytest.mark.parametrize(
    "assignment, words", [("seed=7", "--seeds=N"), ("name=x", "--run=NAME"), ("study=x", "no such")]
)
def test_what_other_flags_choose_cannot_be_set(assignment, words):
    with pytest.raises(UserError, match=words):
        override(Experiment(), [assignment])


def test_experiments_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().seed = 3
