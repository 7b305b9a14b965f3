"""The study of regularization: how a strength is chosen, and what its claims compare."""

import dataclasses
import json

import pytest
from helpers.report_folders import read_folder, write_study

from cnn_jax.config_file import to_json
from cnn_jax.report.verdicts import judge
from cnn_jax.study import configure
from experiments import regularization
from experiments.regularization.measure import choose_run

STUDY = configure(regularization.study("laptop"))
SPREAD = {"mean": 0.0, "std": 1.0, "low": -1.0, "high": 1.0, "counts": [1]}


def write(folder, run, seed, validation, test, loss, zeros):
    """A finished run: its errors in %, its test loss, and its share of weights at 0."""
    place = folder / run / f"seed{seed}"
    (place / "evaluations").mkdir(parents=True)
    (place / "config.json").write_text(to_json(dataclasses.replace(STUDY.runs[run], seed=seed)))
    (place / "starts.jsonl").write_text('{"step": 0, "time": "", "commit": "", "hardware": ""}\n')
    steps = STUDY.runs[run].train.steps
    evaluation = {"event": "eval", "step": steps, "top1_error": validation / 100, "loss": 1.0}
    end = {"event": "end", "step": steps}
    (place / "metrics.jsonl").write_text(f"{json.dumps(evaluation)}\n{json.dumps(end)}\n")
    for split, error, nats in (("train", 0.0, 0.25), ("test", test / 100, loss)):
        words = {"top1_error": error, "loss": nats}
        (place / f"evaluations/single@split={split}.json").write_text(json.dumps(words))
    kernel = {f"kernel_{key}": value for key, value in SPREAD.items()} | {"kernel_zeros": zeros}
    gradients = {f"grad_{key}": value for key, value in SPREAD.items()}
    layer = {"layer": "Dense_0", "kind": "Dense", "units": [], **SPREAD, **gradients, **kernel}
    (place / "layers.jsonl").write_text(json.dumps({"step": steps, "layers": [layer]}) + "\n")


@pytest.fixture
def results(tmp_path):
    """Three seeds without a regularizer and of two L1 penalties, of which one has a lower test
    error, and the other a lower validation error.
    """
    write_study(tmp_path, *STUDY.runs, seeds=3)
    for seed in range(3):
        noise = 0.1 * seed
        write(tmp_path, "none", seed, 20 + noise, 22 + noise, 1.25, 0.01)
        write(tmp_path, "l1-0.0001", seed, 19 + noise, 10, 1.0, 0.2)
        write(tmp_path, "l1-0.0003", seed, 18 + noise, 21 + 3 * noise, 0.75 - noise, 0.5)
    return read_folder(tmp_path)


def test_the_strength_is_that_of_the_lowest_validation_error(results):
    """Whatever the test error says; a family without finished runs has none."""
    assert choose_run(results, "l1") == "l1-0.0003"
    assert choose_run(results, "dropout") is None


def test_claims_are_figures_of_the_chosen_run_minus_those_without(results):
    verdicts = {claim.statement: judge(results, claim) for claim in STUDY.claims}
    error = verdicts["L1 penalty lowers the test error"]
    # 21 - 22, 21.3 - 22.1 and 21.6 - 22.2: the mean of -1, -0.8 and -0.6.
    assert error.ours.value == pytest.approx(-0.8) and error.ours.seeds == 3
    gap = verdicts["L1 penalty narrows the gap between training and test loss"]
    # Gaps of 0.5, 0.4 and 0.3 against 1.
    assert gap.ours.value == pytest.approx(-0.6) and gap.verdict == "agrees"
    zeros = verdicts["An L1 penalty leaves more weights at 0 than none"]
    assert zeros.ours.value == pytest.approx(49)
    assert verdicts["Dropout lowers the test error"].verdict == "undecided"


def test_a_page_of_unfinished_runs_is_made(results):
    page = STUDY.report(results)
    assert page.title == "A study"


def test_every_trial_differs_from_none_in_its_regularizer_alone():
    from cnn_jax.config import find_differences

    none, ignore = STUDY.runs["none"], ("name", "deviations", "train.eval_every")
    found = {
        name: [words.partition(":")[0] for words in find_differences(none, run, ignore)]
        for name, run in STUDY.runs.items()
    }
    fields = {
        "l2": "optimizer.weight_decay",
        "l1": "optimizer.l1",
        "dropout": "model.dropout",
        "early-stopping": "train.stop_after",
        "augmentation": "data.rotate",
    }
    assert found.pop("none") == [] and len(found) == 15
    assert all(own == [fields[name.rpartition("-")[0]]] for name, own in found.items())
