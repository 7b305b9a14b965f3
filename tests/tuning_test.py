"""Tuning: each run's value is the one whose trial erred least on held-out training images."""

import dataclasses
import json
import shutil
import types

import pytest
from helpers.tuned_study import RATES, make_study, replace_rate

from cnn_jax import study as library
from cnn_jax.config_file import read_config
from cnn_jax.errors import UserError
from cnn_jax.report import build, elements, export
from cnn_jax.report.parts import tuning_table
from cnn_jax.report.reading import read
from cnn_jax.study import sweep
from cnn_jax.training import metrics_log
from cnn_jax.tuning import (
    Tuning,
    apply_choices,
    choose_value,
    compute_mean_training_error,
    find_scores,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "find_study", lambda *_: make_study())
        library.run(make_study(), folder, seeds=2, tell=str)
        yield folder


def last_error(folder):
    events = metrics_log.read_events(folder)
    return events[-2]["top1_error"] if events[-1]["event"] == "end" else float("inf")


def test_the_best_rate_on_held_out_images_is_the_run_s(folder):
    places = [folder / "tuning" / f"tanh-base{rate}" / "seed0" for rate in (0.0001, 0.05, 1e12)]
    errors = [last_error(place) for place in places]
    assert errors[1] < errors[0] and errors[2] == float("inf")
    for seed in (0, 1):
        config = read_config(folder / "tanh" / f"seed{seed}" / "config.json")
        assert config.schedule.args["base"] == 0.05 and config.data.validation_images == 0
    trial = read_config(places[0] / "config.json")
    assert trial.data.validation_images == 32
    description = json.loads((places[0] / "data.json").read_text())
    assert (description["train_images"], description["test_images"]) == (64, 32)
    assert not (places[1] / "layers.jsonl").exists()
    assert (folder / "tanh/seed0/layers.jsonl").exists()


def test_a_run_that_is_not_to_be_tuned_stays_as_it_is(folder):
    assert read_config(folder / "relu/seed0/config.json").schedule.args["base"] == 0.3
    assert sorted(path.name for path in (folder / "tuning").iterdir()) == [
        "tanh-base0.0001",
        "tanh-base0.05",
        "tanh-base1000000000000.0",
    ]


def test_runs_and_trials_say_how_their_rate_differs_from_the_paper_s(folder):
    names = ("tanh/seed0", "tanh/seed1", "relu/seed0", "tuning/tanh-base0.0001/seed0")
    said = [read_config(folder / name / "config.json").deviations for name in names]
    rates = [[words for words in each if words.startswith("schedule.base: ")] for each in said]
    assert rates == [
        ["schedule.base: 0.1 -> 0.05"],
        ["schedule.base: 0.1 -> 0.05"],
        ["schedule.base: 0.1 -> 0.3"],
        ["schedule.base: 0.1 -> 0.0001"],
    ]


def test_the_paper_s_own_rate_is_no_deviation_when_it_is_chosen():
    study = library.configure(make_study(), ["train.steps=20"])
    trials = {"tanh-base0.05": (FakeRun(0.1),), "tanh-base0.0001": (FakeRun(0.2),)}
    trials["tanh-base1000000000000.0"] = (FakeRun(None),)
    for paper, said in ((0.05, []), (0.3, ["schedule.base: 0.3 -> 0.05"])):
        papers = {name: replace_rate(run, paper) for name, run in study.runs.items()}
        chosen = apply_choices(study.tuning, study.runs, trials, papers)["tanh"].deviations
        assert [words for words in chosen if words.startswith("schedule.base: ")] == said
        assert "train.steps: 30 -> 20" in chosen
    chosen = apply_choices(study.tuning, study.runs, trials, {})["tanh"].deviations
    assert not [words for words in chosen if words.startswith("schedule.base: ")]


def test_the_report_prints_grid_trials_and_choice(folder):
    study = make_study()
    table = tuning_table(read(folder, study.rows, study.claims, study.tuning))
    assert table.columns == ("run", "0.0001", "0.05", "1000000000000.0", "chosen")
    ((label, first, second, third, chosen),) = table.rows
    assert (label, chosen) == ("TANH", "0.05") and third.startswith("diverged at step")
    assert float(second) < float(first)
    assert "32 that are held out" in table.footnote and "same 3 trials" in table.footnote
    assert "At the edge" not in table.footnote
    assert "0.05" in (folder / "report.md").read_text()


@pytest.mark.parametrize("values", [RATES[1:], RATES[:2]], ids=["first", "last"])
def test_the_report_names_the_runs_that_chose_a_value_at_the_grid_s_edge(folder, values, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "study.json"
    words = json.loads(path.read_text())
    words["tuning"]["values"] = values
    path.write_text(json.dumps(words))
    table = tuning_table(read(tmp_path, make_study().rows, (), make_study().tuning))
    assert table.footnote.endswith("a value outside of it may be better: TANH.")


def test_the_report_has_the_grid_that_was_tried_though_the_code_s_is_another(folder):
    other = dataclasses.replace(make_study().tuning, values=(0.5, 0.6), seeds=7, steps=3)
    study = make_study()
    tables = [tuning_table(read(folder, study.rows, (), t)) for t in (study.tuning, other)]
    assert tables[0] == tables[1] and "0.05" in tables[0].columns


def test_a_second_launch_repeats_nothing_and_chooses_the_same(folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    assert len(before) == 3 + 4
    library.run(make_study(), folder, seeds=2, tell=str)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")} == before
    # An older version has written other deviations.
    library.run(make_study(paper_runs={}), folder, seeds=2, tell=str)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")} == before


def test_the_trials_are_kept_with_the_results(folder, tmp_path):
    export.export(folder, tmp_path, make_study())
    assert (tmp_path / "report.md").read_text() == (folder / "report.md").read_text()
    assert (tmp_path / "tuning/runs.json").exists()


def test_the_seeds_of_a_trial_are_trained_one_by_one_under_pmap(tmp_path):
    study = make_study()
    runs = {
        name: dataclasses.replace(run, train=dataclasses.replace(run.train, parallel="pmap"))
        for name, run in list(study.runs.items())[:1]
    }
    rows = tuple(row for row in study.rows if row.run in runs)
    tuning = dataclasses.replace(study.tuning, values=RATES[1:2], seeds=2)
    study = dataclasses.replace(study, runs=runs, rows=rows, tuning=tuning)
    library.run(study, tmp_path, tell=str)
    assert len(list(tmp_path.glob("tuning/*/seed*/metrics.jsonl"))) == 2


def test_a_field_that_is_set_is_not_tuned():
    assert library.configure(make_study(), ["schedule.base=0.2"]).tuning is None
    assert library.configure(make_study(), ["train.steps=3"]).tuning is not None
    assert sweep.expand_grid(make_study(), ["schedule.base=0.1,0.2"]).tuning is None


def test_the_report_of_a_launch_without_the_study_s_tuning_says_so():
    study = make_study(notes=("Each run has its own best rate.",))
    without = (
        *study.notes,
        "No run is tuned here: schedule.base is what the launch or the study sets.",
    )
    assert library.configure(study, ["schedule.base=0.2"]).notes == without
    assert library.configure(study, ["train.steps=3"]).notes == study.notes
    for tuned in (study, library.configure(study, ["schedule.base=0.2"])):
        configured = library.configure(tuned)
        grid = sweep.configure_grid(tuned, configured, ["data.batch_size=8,16"])
        assert grid.notes == without


@pytest.mark.parametrize(
    "steps, changes, expected",
    [
        (5, ["train.steps=3"], 3),
        (5, [" train.steps = 20"], 5),
        (50, ["train.steps=40"], 40),
        (50, ["data.batch_size=16"], 50),  # As the study has it.
        (0, ["train.steps=3"], 0),  # As many as the run.
    ],
)
def test_a_trial_has_no_more_steps_than_the_launch_gives_its_run(steps, changes, expected):
    study = make_study(tuning=Tuning(RATES, 32, runs="tanh", steps=steps))
    configured = library.configure(study, changes)
    assert configured.tuning.steps == expected
    trials = {trial.train.steps for trial in library.list_trials(configured)}
    assert trials == {expected or 3}


def test_the_trials_of_a_study_are_listed_with_their_seeds():
    study = make_study(tuning=Tuning(RATES, 32, runs="tanh", seeds=2, steps=5))
    trials = library.list_trials(study, "t*")
    names = [f"tanh-base{rate}" for rate in ("0.0001", "0.05", "1000000000000.0")]
    assert [(t.name, t.seed) for t in trials] == [(n, seed) for n in names for seed in (0, 1)]
    train = trials[0].train
    assert (train.steps, train.eval_every, train.save_every, train.on_nan) == (5, 5, 5, "record")
    assert len(library.list_trials(study)) == 6 and not library.list_trials(study, "relu")


def test_profiling_wants_one_rate(tmp_path):
    with pytest.raises(UserError, match=r"tunes schedule\.base first: it takes neither"):
        library.run(make_study(), tmp_path, profile_steps=2)
    assert not list(tmp_path.iterdir())


class FakeRun:
    def __init__(self, error, train=(), seed=0):
        self.final_error, self.seed = error, seed
        self.finished, self.ended = error is not None, True
        self.train = {step: types.SimpleNamespace(error=e) for step, e in enumerate(train)}


def test_speed_is_the_mean_training_error():
    assert compute_mean_training_error(FakeRun(0.1, [0.9, 0.5, 0.1])) == pytest.approx(0.5)
    assert compute_mean_training_error(FakeRun(0.1, [0.9, None, 0.1])) == pytest.approx(0.5)
    assert compute_mean_training_error(FakeRun(None, [0.9])) == float("inf")


def test_the_first_of_equal_scores_is_chosen_and_seeds_are_averaged():
    tuning = Tuning(values=(1.0, 2.0, 3.0), validation_images=1, seeds=2)
    trials = {
        "a-base1.0": (FakeRun(0.5), FakeRun(0.1)),
        "a-base2.0": (FakeRun(0.2), FakeRun(0.2)),
        "a-base3.0": (FakeRun(0.2), FakeRun(0.2)),
    }
    scores = find_scores(tuning, "a", trials)
    assert scores == {1.0: 0.3, 2.0: 0.2, 3.0: 0.2} and choose_value(scores) == 2.0
    assert choose_value(find_scores(tuning, "b", trials)) is None
    worst = {f"a-base{value}": (FakeRun(None),) * 2 for value in tuning.values}
    assert choose_value(find_scores(tuning, "a", worst)) == 1.0


def test_seeds_that_an_earlier_launch_has_tried_besides_do_not_count():
    tuning = Tuning(values=(1.0,), validation_images=1, seeds=1)
    trials = {"a-base1.0": (FakeRun(0.5), FakeRun(0.1, seed=1))}
    assert find_scores(tuning, "a", trials) == {1.0: 0.5}


def test_a_value_is_chosen_only_when_all_its_seeds_and_all_values_have_ended():
    tuning = Tuning(values=(1.0, 2.0), validation_images=1, seeds=2)
    trials = {name: (FakeRun(0.5), FakeRun(0.1, seed=1)) for name in ("a-base1.0", "a-base2.0")}
    trials["a-base2.0"][1].ended = False
    scores = find_scores(tuning, "a", trials)
    assert scores == {1.0: 0.3, 2.0: None} and choose_value(scores) is None
    trials["a-base2.0"][1].ended = True
    assert choose_value(find_scores(tuning, "a", trials)) == 1.0


def test_a_seed_that_is_left_out_does_not_count():
    tuning = Tuning(values=(1.0,), validation_images=1, seeds=2)
    trials = {"a-base1.0": (FakeRun(0.5), FakeRun(0.1, seed=1))}
    for seed, score in ((0, 0.1), (1, 0.5), (None, 0.3)):
        assert find_scores(tuning, "a", trials, left_out=seed) == {1.0: score}


def test_tuning_has_no_figures_where_nothing_was_tuned(folder):
    results = read(folder)
    assert tuning_table(results) is None and results.trials == {}
    assert isinstance(tuning_table(read(folder, tuning=make_study().tuning)), elements.Table)


@pytest.mark.parametrize("score", [None, "high", (0.1,)])
def test_a_score_of_another_type_is_refused(score):
    tuning = Tuning((1.0,), 1, score=lambda _: score)
    with pytest.raises(UserError, match=r"^Tuning.score: returns .* for a trial: return a number"):
        find_scores(tuning, "a", {"a-base1.0": (FakeRun(0.1),)})


def test_a_score_that_is_not_a_number_is_never_chosen():
    tuning = Tuning((1.0, 2.0), 1, score=lambda run: float("nan") if run.seed else 0.5, seeds=2)
    trials = {"a-base1.0": (FakeRun(0.1), FakeRun(0.1, seed=1)), "a-base2.0": (FakeRun(0.1),) * 2}
    assert choose_value(find_scores(tuning, "a", trials)) == 2.0
