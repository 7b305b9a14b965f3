"""Experiments are frozen values, and their differences are named."""

import dataclasses

import numpy as np
import pytest

from cnn_jax import config
from cnn_jax.config import RUNTIME_FIELDS, Data, Experiment, Train, change, choose
from cnn_jax.errors import UserError


def test_experiments_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().seed = 3


def test_the_order_of_a_choice_s_arguments_does_not_matter():
    assert choose("step", base=1.0, edges=[1, 2]) == choose("step", edges=(1, 2), base=1.0)
    assert hash(choose("step", edges=[1])) == hash(choose("step", edges=(1,)))
    assert choose("step", base=None) == choose("step")
    assert change(choose("step", base=1.0), base=None, factor=0.5) == choose("step", factor=0.5)
    assert str(choose("step", base=0.1, edges=(1, 2))) == "step(base=0.1, edges=1,2)"


def test_differences_name_fields_and_both_values():
    old = Experiment()
    new = dataclasses.replace(
        old, train=Train(steps=300), data=Data(dir="/elsewhere"), schedule=choose("step", base=1.0)
    )
    assert config.find_differences(old, new, RUNTIME_FIELDS) == [
        "schedule: constant -> step",
        "train.steps: 64000 -> 300",
        "schedule.base: default -> 1.0",
    ]


def test_differences_leave_out_options_of_a_choice_that_is_replaced():
    old = Experiment(data=Data(train_resize=(32,)), schedule=choose("step", base=0.1, factor=0.5))
    new = Experiment(schedule=choose("cosine", base=0.2, final=0.01))
    assert config.find_differences(old, new) == [
        "data.train_resize: 32 -> empty",
        "schedule: step -> cosine",
        "schedule.base: 0.1 -> 0.2",
        "schedule.final: default -> 0.01",
    ]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "a\0b", "n" * 300, "caf\udce9"])
@pytest.mark.parametrize("field", ["name", "start_from"])
def test_an_invalid_folder_name_is_refused(name, field):
    train = Train(start_from=name) if field == "start_from" else Train()
    run = Experiment(name=name if field == "name" else "x", train=train)
    with pytest.raises(UserError, match=field):
        config.check_names(run)


def test_a_data_set_has_its_name_on_the_command_line():
    for name in ("digits", "folder:/a/b", "imagenet2012"):
        assert Data(dataset=config.parse_dataset(name)).name == name


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Experiment(model="resnet20"), "model=.resnet20.: write it as choose.'resnet20'"),
        (lambda: Experiment(schedule=None), "schedule=None: write it as choose.'NAME'"),
        (lambda: Data(dataset="digits"), "data.dataset=.digits.: write it as choose.'digits'"),
        (lambda: Experiment(data="digits"), "data=.digits.: must be a Data"),
        (lambda: Experiment(train={"steps": 2}), "train={'steps': 2}: must be a Train"),
        (lambda: Experiment(protocols="dense"), "protocols=.dense.: must be a tuple of choices"),
        (lambda: Experiment(protocols=("dense",)), "protocols=.dense.: write it as choose"),
    ],
)
def test_a_name_in_place_of_a_choice_is_refused_where_it_is_written(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_arrays_in_a_choice_become_tuples():
    chosen = choose("step", base=np.float64(0.1), boundaries=np.array([1, 2]))
    assert chosen == choose("step", base=0.1, boundaries=(1, 2)) and hash(chosen)
