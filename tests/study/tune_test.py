"""Launches of a study that tunes its runs: what is checked and written before the first trial."""

import dataclasses
import shutil

import pytest
from helpers.tuned_study import RATES, make_study

from cnn_jax import study as library
from cnn_jax.config import choose
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.report import build
from cnn_jax.report.parts import tuning_table
from cnn_jax.report.reading.folder import read
from cnn_jax.study.check_runs import find_trial_folders
from cnn_jax.training import run_lock, train

TRIAL = "tuning/tanh-base0.05/seed0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    library.run(make_study(), folder, seeds=2, tell=str)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """Returns a copy of a finished study's folder."""
    return shutil.copytree(finished, tmp_path / "copy")


def read_logs(folder):
    return {path: path.read_bytes() for path in folder.rglob("metrics.jsonl")}


def change_runs(change):
    study = make_study()
    return dataclasses.replace(study, runs={name: change(run) for name, run in study.runs.items()})


def change_train(run, **changes):
    return dataclasses.replace(run, train=dataclasses.replace(run.train, **changes))


def start_relu_from(other):
    return lambda run: change_train(run, start_from=other) if run.name == "relu" else run


def stop(*_, **__):
    raise StoppedError("stopped")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda run: dataclasses.replace(run, protocols=(choose("gird"),)), "nearest: grid"),
        (start_relu_from("linear"), "starts from linear, which is not finished"),
        (start_relu_from("relu"), "is a circle"),
    ],
    ids=["protocol", "unknown start", "circle"],
)
def test_what_is_wrong_with_the_runs_is_said_before_the_trials(change, words, tmp_path):
    with pytest.raises(UserError, match=words):
        library.run(change_runs(change), tmp_path, tell=str)
    assert not list(tmp_path.iterdir())


def test_seeds_together_are_checked_before_the_trials(tmp_path):
    with pytest.raises(UserError, match="together: trains several seeds at once"):
        library.run(make_study(), tmp_path, together=True, tell=str)
    assert not list(tmp_path.iterdir())


def test_runs_of_other_settings_are_refused_before_the_trials(folder):
    shutil.rmtree(folder / "tuning")
    study = change_runs(lambda run: change_train(run, eval_every=15))
    with pytest.raises(UserError, match=r"tanh/seed0 holds another .*\(train.eval_every: 30 -> 15"):
        library.run(study, folder, tell=str)
    others = dataclasses.replace(study.tuning, values=(0.1, 0.2))
    with pytest.raises(UserError, match=r"tanh/seed0 holds another .*schedule.base: 0.05 -> 0.1"):
        library.run(make_study(tuning=others), folder, tell=str)
    assert not (folder / "tuning").exists()


def test_a_tuned_run_that_starts_from_another_is_refused(tmp_path):
    study = change_runs(start_relu_from("tanh"))
    study = dataclasses.replace(study, tuning=dataclasses.replace(study.tuning, runs="*"))
    words = r"^relu: starts from tanh, .* leave relu out of Tuning.runs, or set schedule.base"
    with pytest.raises(UserError, match=words):
        library.run(study, tmp_path, tell=str)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("held", ["relu/seed0", TRIAL])
def test_nothing_changes_while_another_launch_is_at_work(folder, held, overwrite):
    shutil.rmtree(folder / "tuning/tanh-base0.0001")
    before = read_logs(folder)
    with run_lock.hold(folder / held), pytest.raises(run_lock.HeldError, match="is in use by"):
        library.run(make_study(), folder, seeds=2, overwrite=overwrite, tell=str)
    assert read_logs(folder) == before


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"share": True}])
def test_a_launch_that_sets_the_field_waits_for_the_trials_of_its_runs(folder, how):
    shutil.rmtree(folder / "tanh")
    before = read_logs(folder)
    study = library.configure(make_study(), ["schedule.base=0.05"])
    with run_lock.hold(folder / TRIAL):
        with pytest.raises(run_lock.HeldError, match=r"tanh-base0.05/seed0 is in use by .* wait"):
            library.run(study, folder, only="tanh", tell=str, **how)
        assert read_logs(folder) == before
        library.run(library.configure(make_study(), ()), folder, only="relu", tell=str)


def test_a_trial_belongs_to_the_run_of_the_longest_name(folder):
    """A launch of `tanh` need not wait for the trials of `tanh-wide`."""
    study = change_runs(lambda run: run)
    wide = dataclasses.replace(study.runs["tanh"], name="tanh-wide")
    study = dataclasses.replace(study, runs={**study.runs, "tanh-wide": wide})
    (folder / "tuning/tanh-wide-base0.05/seed0").mkdir(parents=True)
    for name, found in (("tanh", 3), ("tanh-wide", 1), ("relu", 0)):
        trials = find_trial_folders(study, [study.runs[name]], folder / "tuning")
        assert len({trial.parent for trial in trials}) == found


def test_trials_and_runs_are_erased_before_the_first_trial(folder, monkeypatch):
    monkeypatch.setattr(train, "run_seeds", stop)
    with pytest.raises(StoppedError):
        library.run(make_study(), folder, seeds=2, overwrite=True, tell=str)
    assert not read_logs(folder)


def test_a_launch_that_is_cut_off_in_its_trials_has_a_report(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "run_seeds", stop)
    study = make_study()
    with pytest.raises(StoppedError):
        library.run(study, tmp_path, command="again", tell=str)
    assert "tanh: not started" in build.build(tmp_path, study).markdown.read_text()
    for number, rate in enumerate(RATES[:2]):
        name = f"tuning/tanh-base{rate}"
        shutil.copytree(finished / name, tmp_path / name)
        table = tuning_table(read(tmp_path, study.rows, (), study.tuning))
        ((_, *scores, chosen),) = table.rows
        assert chosen == "—" and [score != "—" for score in scores] == [True, number > 0, False]
        assert "At the edge" not in table.footnote
        build.build(tmp_path, study)
    with pytest.raises(UserError, match="holds tuned, preset smoke"):
        library.run(make_study(name="other"), tmp_path, tell=str)


def test_there_is_no_choice_while_a_trial_is_cut_off(folder):
    log = folder / TRIAL / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    study = make_study()
    ((_, _, cut, _, chosen),) = tuning_table(read(folder, study.rows, (), study.tuning)).rows
    assert cut.startswith("cut off") and chosen == "—"


def test_trials_are_in_no_report_of_a_launch_that_sets_their_field(folder):
    study = library.configure(make_study(), ["schedule.base=0.05", "train.steps=40"])
    library.run(study, folder, seeds=2, only="tanh", tell=str)
    assert tuning_table(read(folder, study.rows, (), make_study().tuning)) is None


def test_what_is_measured_has_the_values_of_runs_that_are_not_launched(folder):
    seen = {}

    def measure(workdir, runs, tell):
        seen.update({(run.name, run.seed): run.schedule.args["base"] for run in runs})
        return []

    library.run(make_study(measure_runs=measure), folder, only="relu", tell=str)
    assert seen == {("tanh", 0): 0.05, ("tanh", 1): 0.05, ("relu", 0): 0.3, ("relu", 1): 0.3}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seeds": 0}, r"^Tuning.seeds=0: must be at least 1$"),
        ({"steps": -1}, r"^Tuning.steps=-1: must be at least 0$"),
        ({"validation_images": 0}, r"^Tuning.validation_images=0: .* the test set must not choose"),
        ({"values": (0.1, 0.1)}, r"^Tuning.values=0.1,0.1: a value is given twice$"),
        ({"values": ("stop", "record")}, r"^Tuning.values='stop': a grid has numbers only$"),
        ({"runs": "tahn"}, r"^Tuning.runs='tahn': no such run; nearest: tanh$"),
    ],
    ids=["seeds", "steps", "test set", "twice", "text", "no run"],
)
def test_a_tuning_with_a_mistake_is_refused_before_anything_is_written(change, words, tmp_path):
    wrong = make_study(tuning=dataclasses.replace(make_study().tuning, **change))
    with pytest.raises(UserError, match=words):
        library.run(wrong, tmp_path, tell=str)
    with pytest.raises(UserError, match=words):
        library.list_trials(wrong)
    assert not list(tmp_path.iterdir())


def test_a_grid_without_values_is_refused(tmp_path):
    empty = dataclasses.replace(make_study().tuning, values=())
    with pytest.raises(UserError, match=r"^Tuning.values: has no value of schedule.base to try"):
        library.run(make_study(tuning=empty), tmp_path, tell=str)
    assert not list(tmp_path.iterdir())
