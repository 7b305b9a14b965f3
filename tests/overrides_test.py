"""Overrides are strict and helpful."""

import numpy as np
import pytest

from cnn_jax import config_file
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.errors import UserError
from cnn_jax.overrides import RENAMED, override
from cnn_jax.training.components import KINDS, complete


def change(*assignments, of=None):
    return override(of or Experiment(), assignments, KINDS)


def test_override_changes_one_field_and_keeps_its_type():
    changed = change("schedule.base=0.05", "data.flip=false", "model.shortcut=B", "train.steps=7")
    assert changed.schedule == choose("constant", base=0.05)
    assert changed.data.flip is False and changed.train.steps == 7
    assert changed.model == choose("resnet20", shortcut="B")
    assert change("model.shortcut=none", of=changed).model == choose("resnet20")
    assert changed.optimizer == Experiment().optimizer


def test_a_new_choice_keeps_the_arguments_that_both_have():
    step = change(
        "schedule=step", "schedule.base=0.3", "schedule.boundaries=(10,20)", "schedule.factor=0.5"
    )
    assert change("schedule=plateau", of=step).schedule == choose("plateau", base=0.3, factor=0.5)
    assert change("schedule=exponential", of=step).schedule == choose("exponential", base=0.3)
    assert change("model=mlp", of=change("model.dropout=0.5", "model.shortcut=B")).model == choose(
        "mlp", dropout=0.5
    )


def test_data_dataset_takes_the_names_of_the_flag_data():
    assert change("data.dataset=folder:/a/b").data.dataset == choose("folder", path="/a/b")
    assert change("data.dataset=mnist", of=change("data.dataset=folder:/a")).data.dataset == choose(
        "mnist"
    )


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("schedule.bse=0.1", "nearest: base"),
        ("schedule=exponental", "no such schedule; nearest: exponential"),
        ("shedule=step", "no such field; nearest: schedule"),
        ("schedule.boundaries=1,2", "constant has no such option"),
        ("model=resnet21", "no such model; nearest: "),
        ("model.shortct=B", "nearest: shortcut"),
        ("data.batchsize=1", "nearest: data.batch_size"),
        ("schedule.base=fast", "must be a number, not 'fast'"),
        ("schedule.base=0", "must be more than 0"),
        ("schedule.base=nan", "must be a finite number"),
        ("optimizer.momentum=inf", "must be a finite number"),
        ("data.batch_size=1.5", "must be an integer"),
        ("data.pad_and_crop=-1", "must be at least 0"),
        ("data.flip=maybe", "must be true or false"),
        ("data.subtract_mean=median", "choose pixel or channel or none"),
        ("train.steps=0", "must be at least 1"),
        ("train.steps=3000000000", "must be at most 2147483647"),
        (f"train.steps={'9' * 5000}", "must be an integer"),
        ("train.parallel=pjit", "choose jit or pmap"),
        ("train.steps", "write it as field=value"),
        ("train=3", "no such field"),
        ("seed=7", "--seeds=N"),
        ("name=x", "--run=NAME"),
        ("study=x", "--experiment=NAME"),
    ],
)
def test_an_invalid_override_gives_one_line(assignment, words):
    with pytest.raises(UserError) as error:
        change(assignment)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_field_name_suggests_the_new_one(old):
    with pytest.raises(UserError, match=f"it is now called {RENAMED[old]}"):
        change(f"{old}=1")


def test_new_names_of_old_fields_exist():
    options = {
        f"{field}.{option}"
        for field, kind in KINDS.items()
        for name in kind.names or ()
        for option in kind.get_option_types(name)
    }
    fields = {f"data.{name}" for name in vars(Experiment().data)} | {
        f"train.{n}" for n in vars(Experiment().train)
    }
    assert set(RENAMED.values()) <= options | fields | set(KINDS)


def test_an_experiment_is_completed_by_defaults():
    whole = complete(change("schedule=plateau"))
    assert (
        whole.schedule.args.keys() == {"base", "factor", "patience", "max_cuts"}
        and complete(whole) == whole
    )


def test_plain_fields_may_be_numbers_of_numpy(tmp_path):
    train = Train(steps=np.int64(3))
    run = complete(Experiment(seed=np.int32(1), train=train, data=Data(dir=tmp_path)))
    assert config_file.from_json(config_file.to_json(run)) == run
    assert type(run.seed) is int and type(run.train.steps) is int


def test_a_single_assignment_needs_no_list():
    assert override(Experiment(), "train.steps=7", KINDS).train.steps == 7
