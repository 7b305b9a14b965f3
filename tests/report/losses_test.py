"""Training losses as lines and as figures of claims."""

import math

import pytest
from helpers.report_folders import read_folder, write_study

from cnn_jax.config import Experiment, Train
from cnn_jax.config_file import to_json
from cnn_jax.report.parts import find_final_loss, find_loss_at, loss_line


def write(folder, run, seed, losses, last="end", **train):
    """A run that logged a loss every 10 steps."""
    place = folder / run / f"seed{seed}"
    place.mkdir(parents=True)
    experiment = Experiment(name=run, seed=seed, train=Train(steps=10 * len(losses), **train))
    (place / "config.json").write_text(to_json(experiment))
    (place / "starts.jsonl").write_text('{"step": 0, "time": "", "commit": "", "hardware": ""}\n')
    lines = [
        f'{{"event": "train", "step": {10 * n}, "loss": {loss}, "top1_error": 0.5}}'
        for n, loss in enumerate(losses, 1)
    ]
    end = 10 * len(losses)
    lines.append(f'{{"event": "eval", "step": {end}, "loss": 1.0, "top1_error": 0.5}}')
    lines.append(f'{{"event": "{last}", "step": {end}}}')
    (place / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def results(tmp_path):
    write_study(tmp_path, "a", "b", "c", seeds=2)
    write(tmp_path, "a", 0, (2.0, 1.0, 0.5))
    write(tmp_path, "a", 1, (4.0, 0.0, 0.7))
    write(tmp_path, "b", 0, (3.0, 9.0), last="nan", on_nan="record")
    return read_folder(tmp_path)


def test_a_line_has_the_mean_and_the_band_of_the_seeds(results):
    line = loss_line(results, "a", "A", "#000000", scale=32)
    # Seed 1's loss of 0 has no place on a logarithmic axis.
    assert line.points == ((320, 3.0, 2.0, 4.0), (640, 1.0, 1.0, 1.0), (960, 0.6, 0.5, 0.7))
    assert loss_line(results, "c", "C", "#000000") is None


def test_the_last_loss_and_that_of_a_step(results):
    first, _ = results.runs["a"]
    assert find_final_loss(first) == 0.5
    assert [find_loss_at(first, step) for step in (9, 10, 19, 25, 99)] == [None, 2.0, 2.0, 1.0, 0.5]


def test_a_run_that_diverged_or_did_not_end(results):
    assert find_final_loss(results.runs["b"][0]) == math.inf
    assert find_final_loss(results.runs["b"][1]) is None
