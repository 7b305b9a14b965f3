"""Grids: products of values as runs with names, labels and deviations."""

import dataclasses
import json

import pytest
from helpers.small_run import RUN

from cnn_jax import study as library
from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.study import Study, configure, sweep


def make_study():
    runs = {name: dataclasses.replace(RUN, name=name) for name in ("one", "two")}
    return Study("s", "A study", "Nobody", "", "laptop", runs)


def test_a_sweep_is_a_field_and_values():
    assert sweep.parse("schedule.base=0.01, 0.1") == ("schedule.base", ("0.01", "0.1"))
    assert sweep.parse("model.hidden=100;300,100") == ("model.hidden", ("100", "300,100"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("schedule.base", "write it as field=value,value"),
        ("schedule.base=", "write it as field=value,value"),
        ("=1", "write it as field=value,value"),
        ("schedule.base=1,2,1", "a value is given twice"),
    ],
)
def test_an_invalid_sweep_is_refused(text, words):
    with pytest.raises(UserError, match=words):
        sweep.parse(text)


def test_several_sweeps_are_their_product():
    grid = sweep.expand_grid(make_study(), ["schedule.base=0.01,0.1", "model.hidden=4;8,4"])
    assert len(grid.runs) == len(grid.rows) == 2 * 2 * 2
    run = grid.runs["one-base0.1-hidden8_4"]
    assert (
        run.schedule.args["base"] == 0.1
        and run.model == choose("mlp", hidden=(8, 4))
        and run.name in grid.runs
    )
    assert grid.swept == ("schedule.base", "model.hidden")
    assert all(row.run in grid.runs and row.group in ("one", "two") for row in grid.rows)


def test_only_chosen_runs_are_varied():
    assert set(sweep.expand_grid(make_study(), ["train.steps=1,2"], only="two").runs) == {
        "two-steps1",
        "two-steps2",
    }


def test_deviations_of_a_grid_are_from_the_run_it_varies():
    grid = configure(sweep.expand_grid(make_study(), ["schedule.base=0.01,0.05"], only="one"))
    assert "schedule.base: 0.05 -> 0.01" in grid.runs["one-base0.01"].deviations
    assert not [words for words in grid.runs["one-base0.05"].deviations if "schedule" in words]


def test_a_value_that_a_sweep_replaces_is_no_deviation():
    found = make_study()
    changes = ["schedule.base=0.3", "train.steps=6"]
    grid = sweep.configure_grid(
        found, configure(found, changes), ["schedule.base=0.05,0.1"], only="one"
    )
    assert grid.runs["one-base0.05"].deviations == ("train.steps: 12 -> 6",)
    assert set(grid.runs["one-base0.1"].deviations) == {
        "schedule.base: 0.05 -> 0.1",
        "train.steps: 12 -> 6",
    }


@pytest.mark.parametrize(
    "sweeps, words",
    [
        (["schedule.base=0.1,fast"], "must be a number"),
        (["schedule.bse=0.1,1"], "nearest: base"),
        (["train.steps=" + ",".join(map(str, range(1, 600)))], "1198 runs; at most 1000"),
        (["schedule.base=0.1,0.10,1e-1"], "is the same as"),
        (["schedule.base=0.1", "schedule.base=0.2"], "twice"),
    ],
)
def test_an_impossible_grid_is_refused(sweeps, words):
    with pytest.raises(UserError, match=words):
        sweep.expand_grid(make_study(), sweeps)


def test_a_grid_runs_to_its_report_without_what_the_study_measures_of_its_own_runs(tmp_path):
    def measure_runs(workdir, runs, tell):
        return [{"value": {run.name: run.seed for run in runs}["one"]}]

    study = dataclasses.replace(make_study(), measure_runs=measure_runs)
    grid = configure(sweep.expand_grid(study, ["train.steps=1"], only="one"))
    report = library.run(grid, tmp_path, tell=str)
    assert report.html.exists() and not report.problem
    assert {path.parent.name for path in tmp_path.glob("*/seed0")} == set(grid.runs)
    assert not json.loads((tmp_path / "study.json").read_text()).get("measured")
