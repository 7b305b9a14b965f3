"""Studies as a library: load, configure and run them with several seeds, also a user's own."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from helpers import shared_programs
from helpers.small_run import RUN

from cnn_jax import study
from cnn_jax.config import Train, choose
from cnn_jax.config_file import read_config
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.report.reading.folder import read
from cnn_jax.study import Row, Study
from cnn_jax.training import metrics_log, run_folders, run_lock, train
from experiments import STUDIES

ROOT = Path(__file__).parents[2]
MINE = ROOT / "tests/testdata/my_study/my_study.py"


@pytest.fixture(autouse=True)
def _shared_programs(monkeypatch):
    monkeypatch.setattr(train, "build_program", shared_programs.build_program)


def make_study(**runs):
    rows = tuple(Row(name, name, "", "") for name in runs)
    return Study(
        "s",
        "A study",
        "Nobody",
        "",
        "laptop",
        {n: dataclasses.replace(r, name=n) for n, r in runs.items()},
        rows,
    )


def test_a_script_of_fifteen_lines_runs_a_users_study_with_seeds(tmp_path):
    script = MINE.with_name("run_my_study.py")
    assert len(script.read_text().splitlines()) <= 15
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, str(script), "here"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "already started" not in done.stderr, "the flags for CPUs came too late"
    assert "perceptron" in done.stdout and "hidden" in done.stdout
    assert len(list((tmp_path / "here").glob("*/seed*/config.json"))) == 6
    run = read_config(tmp_path / "here/hidden/seed2/config.json")
    assert (
        run.schedule == choose("constant", base=0.05) and (tmp_path / "here/report.html").exists()
    )


@pytest.mark.parametrize("arguments", [{"seeds": 0}, {"seeds": -1}, {"profile_steps": -1}])
def test_counts_out_of_range_are_refused_before_anything_is_written(arguments, tmp_path):
    with pytest.raises(UserError, match=r"^(seeds|profile)=(0|-1): must be at least [01]$"):
        study.run(make_study(net=RUN), tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tuning", "launches", "study.json", "report.png"])
def test_a_run_cannot_have_the_name_of_a_file_of_the_study(name, tmp_path):
    mine = make_study(**{name: dataclasses.replace(RUN, name=name)})
    with pytest.raises(UserError, match=f"a run cannot be named '{name}'"):
        study.run(mine, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_users_file_is_loaded_by_its_path():
    mine = study.load(str(MINE), "laptop", STUDIES)
    assert (mine.name, list(mine.runs)) == ("my_study", ["perceptron", "hidden"])


@pytest.mark.parametrize(
    "code, words",
    [
        ("x = 1\ny = 1 / 0\n", r"bad.py, line 2: ZeroDivisionError: division by zero"),
        ("def study(preset):\n    return undefined\n", r"bad.py, line 2: NameError"),
        ("def study(preset)\n", r"bad.py, line 1: SyntaxError"),
        ("import no_such_module\n", "bad.py, line 1: ModuleNotFoundError"),
        ("x = 1\n", r"bad.py: defines no function study\(preset\)"),
        ("def study(preset):\n    return 3\n", "returns no cnn_jax.study.Study"),
        ("def study():\n    return 3\n", "bad.py: TypeError"),
    ],
)
def test_a_mistake_in_a_users_file_gives_one_line(code, words, tmp_path):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(UserError, match=words) as error:
        study.load(str(tmp_path / "bad.py"), "laptop", STUDIES)
    assert "\n" not in str(error.value)


def test_an_option_that_is_set_to_its_default_is_no_deviation():
    found = study.configure(make_study(net=RUN), ["model.dropout=0", "model.dtype=bfloat16"])
    said = [words for words in found.runs["net"].deviations if words.startswith("model.")]
    assert said == ["model.dtype: default -> bfloat16"]


def test_deviations_come_from_values_model_and_run():
    base = dataclasses.replace(RUN, deviations=("in words",))
    mine = dataclasses.replace(make_study(net=base), paper_runs={"net": RUN})
    found = study.configure(mine, ["train.steps=3", "train.log_every=1"]).runs["net"].deviations
    assert "in words" in found and "train.steps: 12 -> 3" in found
    assert not [words for words in found if "log_every" in words]


@pytest.mark.parametrize("schedule, count", [("plateau", 1), ("constant", 0)])
def test_how_often_a_run_is_evaluated_is_a_deviation_where_it_changes_the_rate(schedule, count):
    mine = make_study(net=dataclasses.replace(RUN, schedule=choose(schedule, base=0.05)))
    found = study.configure(mine, ["train.eval_every=4"]).runs["net"].deviations
    assert found == ("train.eval_every: 6 -> 4",) * count


def test_other_data_get_suitable_augmentation():
    run = study.configure(make_study(net=RUN), data="digits").runs["net"]
    assert run.data.name == "digits" and run.data.pad_and_crop == 1 and not run.data.flip


def augmentation_of(name, data):
    runs = study.configure(STUDIES[name]("laptop"), data=data).runs
    return {name: (run.data.pad_and_crop, run.data.flip) for name, run in runs.items()}


def test_other_data_switch_on_no_augmentation_that_a_preset_leaves_off():
    assert set(augmentation_of("kernel_size", "cifar10").values()) == {(0, False)}
    assert set(augmentation_of("resnet_degradation", "cifar10").values()) == {(4, True)}
    kinds = augmentation_of("augmentation", "mnist")
    assert {name for name, (pad, _) in kinds.items() if pad} == {"crop", "all"}
    assert not any(flip for _, flip in kinds.values())


def test_the_preset_s_own_data_keep_their_options():
    made = STUDIES["kernel_size"]("laptop")
    assert made.runs["kernel-3"].data.dataset.args["side"] == 16
    assert study.configure(made, data="digits").runs == study.configure(made).runs


def test_a_run_whose_name_is_not_its_key_is_refused():
    with pytest.raises(UserError, match=r"the run 'two' has the name 'net'.*name='two'"):
        study.configure(dataclasses.replace(make_study(two=RUN), runs={"two": RUN}))


def test_a_row_of_an_unknown_run_is_refused():
    rows = (Row("nett", "Net", "", ""),)
    with pytest.raises(UserError, match=r"the run 'nett', which is not in the study.*nearest: net"):
        study.configure(dataclasses.replace(make_study(net=RUN), rows=rows))


def test_runs_are_selected_by_a_pattern_with_their_seeds():
    chosen = study.select(make_study(one=RUN, two=RUN), "t*", seeds=3)
    assert [(run.name, run.seed) for run in chosen] == [("two", 0), ("two", 1), ("two", 2)]


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    wild = dataclasses.replace(RUN, schedule=choose("constant", base=1e30))
    lines = []
    with pytest.raises(study.RunsFailedError, match="not finite") as error:
        study.run(make_study(wild=wild, net=RUN), tmp_path, tell=lines.append)
    assert "failed" in lines[0] and "test error" in lines[1]
    assert error.value.report and (tmp_path / "report.html").exists()


def test_a_run_that_is_to_record_its_divergence_does_not_fail(tmp_path):
    wild = dataclasses.replace(
        RUN,
        schedule=choose("constant", base=1e30),
        train=dataclasses.replace(RUN.train, on_nan="record"),
    )
    lines = []
    report = study.run(make_study(wild=wild, net=RUN), tmp_path, tell=lines.append)
    assert "wild seed 0: diverged at step 1" in lines[0] and "test error" in lines[1]
    assert "1 of 2 runs finished, 1 diverged" in report.html.read_text()
    markdown = report.markdown.read_text()
    assert "diverged at step 1" in markdown and "## Missing" not in markdown


def test_nothing_is_written_if_one_run_cannot_start(tmp_path):
    wrong = dataclasses.replace(RUN, data=dataclasses.replace(RUN.data, batch_size=30))
    with pytest.raises(UserError, match="batch_size=30 does not divide over 8 devices"):
        study.run(make_study(net=RUN, wrong=wrong), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_folder_of_another_study_is_refused(tmp_path):
    study.run(make_study(net=RUN), tmp_path, tell=print)
    other = dataclasses.replace(make_study(net=RUN), name="other")
    with pytest.raises(UserError, match="holds s, preset laptop"):
        study.run(other, tmp_path)


def starts(workdir):
    return [
        json.loads(line) for line in (workdir / "net/seed0/starts.jsonl").read_text().splitlines()
    ]


def test_overwriting_restarts_the_runs_and_keeps_other_files(tmp_path):
    first = dataclasses.replace(make_study(net=RUN, other=RUN), contact_sheet=True)
    study.run(first, tmp_path, tell=print)
    sheet = (tmp_path / "sheet.png").read_bytes()
    (tmp_path / "net/seed0/notes.txt").write_text("mine")
    own = dataclasses.replace(RUN.data, pad_and_crop=4)
    changed = dataclasses.replace(RUN, data=own, optimizer=choose("sgd", momentum=0.5))
    with pytest.raises(UserError, match="start again with --overwrite"):
        study.run(make_study(net=changed), tmp_path)
    again = dataclasses.replace(make_study(net=changed, other=RUN), contact_sheet=True)
    study.run(again, tmp_path, only="net", overwrite=True, tell=print)
    assert [start["step"] for start in starts(tmp_path)] == [0]
    assert read_config(tmp_path / "net/seed0/config.json").optimizer.args["momentum"] == 0.5
    assert (tmp_path / "sheet.png").read_bytes() != sheet
    assert (tmp_path / "net/seed0/notes.txt").exists() and (
        tmp_path / "other/seed0/metrics.jsonl"
    ).exists()


def test_tracing_too_many_steps_is_refused_before_anything_is_written(tmp_path):
    short = dataclasses.replace(RUN, train=Train(steps=3))
    with pytest.raises(UserError, match="profile=5: after the first, 2 steps are left"):
        study.run(make_study(net=short), tmp_path / "here", profile_steps=5)
    assert not (tmp_path / "here").exists()


def measure_finished(workdir, runs, tell):
    results = {
        run: metrics_log.read_result(run_folders.find_run_folder(run, workdir)) for run in runs
    }
    return [{"seed": run.seed, "step": found["step"]} for run, found in results.items() if found]


def stop(*_):
    raise StoppedError


def read_measured(workdir):
    there = json.loads((workdir / "study.json").read_text())
    return [(row["seed"], row["step"]) for row in there.get("measured", ())]


def test_what_earlier_launches_have_measured_is_kept(tmp_path, monkeypatch):
    mine = dataclasses.replace(make_study(net=RUN), measure_runs=measure_finished)
    every = [(seed, 12) for seed in range(3)]
    study.run(mine, tmp_path, seeds=3, tell=str)
    assert read_measured(tmp_path) == every
    study.run(mine, tmp_path, tell=str)  # With fewer seeds.
    assert read_measured(tmp_path) == every
    commit = json.loads((tmp_path / "study.json").read_text())["commit"]

    monkeypatch.setattr(train, "run_seeds", stop)
    with pytest.raises(StoppedError):
        study.run(mine, tmp_path, seeds=4, tell=str)
    assert read_measured(tmp_path) == every
    assert json.loads((tmp_path / "study.json").read_text())["commit"] == commit


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_was_measured_of_runs_that_change_is_not_kept(overwrite, tmp_path, monkeypatch):
    mine = dataclasses.replace(make_study(net=RUN), measure_runs=measure_finished)
    study.run(mine, tmp_path, tell=str)
    assert read_measured(tmp_path) == [(0, 12)]
    steps = 12 if overwrite else 18
    longer = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, steps=steps))
    mine = dataclasses.replace(make_study(net=longer), measure_runs=measure_finished)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(train, "run_seeds", stop)
        study.run(mine, tmp_path, overwrite=overwrite, tell=str)
    assert read_measured(tmp_path) == []
    study.run(mine, tmp_path, tell=str)
    assert read_measured(tmp_path) == [(0, steps)]


def read_seeds(workdir):
    results = read(workdir)
    return [run.seed for run in results.runs["net"]], results.problems


OTHER = dataclasses.replace(RUN, schedule=choose("constant", base=0.01))


def test_seeds_of_earlier_launches_are_erased_too(tmp_path):
    study.run(make_study(net=RUN), tmp_path, seeds=2, tell=str)
    study.run(make_study(net=OTHER), tmp_path, overwrite=True, tell=str)
    assert not (tmp_path / "net/seed1/config.json").exists()
    assert read_seeds(tmp_path) == ([0], ())


def test_seeds_of_earlier_launches_with_other_settings_are_refused(tmp_path):
    train.run(dataclasses.replace(RUN, seed=1), tmp_path)
    with pytest.raises(UserError, match=r"net/seed1 holds another configuration .*--overwrite"):
        study.run(make_study(net=OTHER), tmp_path, tell=str)
    assert not (tmp_path / "study.json").exists()


def test_seeds_that_have_fewer_steps_than_the_last_launch_are_in_no_mean(tmp_path):
    mine = dataclasses.replace(make_study(net=RUN), measure_runs=measure_finished)
    study.run(mine, tmp_path, seeds=2, tell=str)
    longer = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, steps=18))
    mine = dataclasses.replace(make_study(net=longer), measure_runs=measure_finished)
    study.run(mine, tmp_path, tell=str)
    seeds, (problem,) = read_seeds(tmp_path)
    assert seeds == [0] and read_measured(tmp_path) == [(0, 18)]
    assert problem.startswith("net/seed1: left out") and "train.steps: 12 -> 18" in problem
    study.run(mine, tmp_path, seeds=2, tell=str)
    assert read_seeds(tmp_path) == ([0, 1], ())


def read_files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overwrite", [True, False])
def test_nothing_changes_if_another_launch_trains_one_of_the_runs(overwrite, tmp_path):
    mine = make_study(a=RUN, net=RUN)
    study.run(mine, tmp_path, command="first", tell=str)
    with run_lock.hold(tmp_path / "net/seed0"):
        before = read_files(tmp_path)
        with pytest.raises(run_lock.HeldError, match="net/seed0 is in use by process"):
            study.run(mine, tmp_path, command="second", overwrite=overwrite, tell=str)
        after = read_files(tmp_path)
    for files in (before, after):
        files.pop(tmp_path / "a/seed0/lock")
    assert after == before


def test_runs_that_start_from_one_another_are_refused(tmp_path):
    def start(name):
        return dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, start_from=name))

    with pytest.raises(UserError, match=r"start_from: b -> c -> b is a circle"):
        study.run(make_study(a=start("b"), b=start("c"), c=start("b")), tmp_path / "here")
    with pytest.raises(UserError, match=r"start_from: a -> a is a circle"):
        study.run(make_study(a=start("a")), tmp_path / "here", share=True)
    assert not (tmp_path / "here").exists()


def test_a_run_for_which_a_device_has_no_memory_does_not_stop_the_others(tmp_path, monkeypatch):
    build = train.build_program

    def build_large(config, **more):
        program = build(config, **more)
        if config.name == "net":
            return program

        def step(state, arrays, batch):
            return state.replace(step=state.step + jnp.ones(2**45).sum().astype(int))

        return program._replace(compiled_step=step, steps_per_call=1)

    monkeypatch.setattr(train, "build_program", build_large)
    words = r"large: a device has not enough memory \(.*\): lower data.batch_size or, if it was"
    with pytest.raises(study.RunsFailedError, match=words):
        study.run(make_study(large=RUN, net=RUN), tmp_path, tell=str)
    assert metrics_log.read_result(tmp_path / "net/seed0")


USERS = """
from cnn_jax.report.claims import Claim
from cnn_jax.study import Study
from cnn_jax.report import parts

def compose(results):
    CODE_1
    return parts.standard(results)

def measure():
    CODE_2
    return [{"a": 1}]

def study(preset):
    return Study("s", "A study", "-", "", preset, {}, report=compose, measure=measure)
"""


@pytest.mark.parametrize("place, line", [("CODE_1", 7), ("CODE_2", 11)])
def test_a_mistake_in_a_users_function_gives_one_line(place, line, tmp_path):
    (tmp_path / "mine.py").write_text(USERS.replace(place, "1 / 0").replace("CODE", "# CODE"))
    mine = study.load(str(tmp_path / "mine.py"), "laptop", STUDIES)
    with pytest.raises(UserError, match=rf"mine.py, line {line}: ZeroDivisionError: division"):
        study.run(mine, tmp_path / "here", tell=str)
