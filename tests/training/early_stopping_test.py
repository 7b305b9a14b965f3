"""Early stopping: when a run ends, which state it keeps, and that a cut changes neither."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest
from helpers.report_folders import write_study
from helpers.small_run import RUN, TIMES, cut_at

from cnn_jax import data, optim
from cnn_jax.config import Data, choose
from cnn_jax.errors import UserError
from cnn_jax.evaluation.evaluation_file import read_evaluation
from cnn_jax.report.parts import missing, run_states
from cnn_jax.report.reading.folder import read
from cnn_jax.training import checkpoint, metrics_log, program, train

pytestmark = pytest.mark.usefixtures("shared_programs")

PATIENCE = 2
# Evaluated every second step, on so few images that the error stops falling soon.
STOPPING = dataclasses.replace(
    RUN,
    data=Data(batch_size=64, eval_batch_size=24, validation_images=24, pad_and_crop=0, flip=False),
    schedule=choose("constant", base=0.3),
    train=dataclasses.replace(RUN.train, steps=30, eval_every=2, stop_after=PATIENCE),
    protocols=(choose("single"), choose("single", split="test"), choose("single", split="train")),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train.run(STOPPING, workdir)


def events(workdir, seed=0):
    return [
        {k: v for k, v in e.items() if k not in TIMES}
        for e in metrics_log.read_events(workdir / f"net/seed{seed}")
    ]


def restore(workdir, seed=0):
    """The newest state that a run has saved."""
    like = train.build_program(dataclasses.replace(STOPPING, seed=seed)).state
    with checkpoint.make_manager(workdir / f"net/seed{seed}") as checkpoints:
        return jax.device_get(checkpoint.restore(checkpoints, like))


def find_end(errors, patience):
    """(step of the last evaluation, step of the state that is kept), by the errors of a log.

    A second way to say what early stopping is: from the whole list of (step, error).
    """
    for count in range(1, len(errors) + 1):
        seen = [error for _, error in errors[:count]]
        if count - 1 - seen.index(min(seen)) >= patience:
            break
    kept = min(step for step, error in errors[:count] if error == min(seen))
    return errors[count - 1][0], kept


def test_it_ends_when_its_patience_has_run_out_and_keeps_its_best_state(whole):
    workdir, found = whole
    logged = events(workdir)
    errors = [(e["step"], e["top1_error"]) for e in logged if e["event"] == "eval"]
    end = logged[-1]
    assert (end["event"], end["step"], end["best_step"]) == ("stop", *find_end(errors, PATIENCE))
    assert end["best_step"] < end["step"] < STOPPING.train.steps
    assert found["step"] == end["best_step"] and found["top1_error"] == dict(errors)[found["step"]]
    state = restore(workdir)
    assert int(state.step) == end["best_step"]
    # The parameters are those of the error, not only their name.
    measured = train.build_program(STOPPING).evaluate(state)
    assert measured["top1_error"] == pytest.approx(found["top1_error"])


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_cut_changes_neither_its_end_nor_its_state(cut, whole, tmp_path, monkeypatch):
    workdir, _ = whole
    last = events(workdir)[-1]["step"]
    assert cut < last
    cut_at(cut, STOPPING, tmp_path, monkeypatch)
    train.run(STOPPING, tmp_path)
    assert events(tmp_path) == events(workdir)
    for a, b in zip(
        jax.tree.leaves(restore(tmp_path)), jax.tree.leaves(restore(workdir)), strict=True
    ):
        assert a.tobytes() == b.tobytes()


def test_a_cut_before_its_last_line_repeats_the_steps_since_its_best(whole, tmp_path, monkeypatch):
    """As when the process dies after later checkpoints were deleted."""

    class DiedError(Exception):
        pass

    workdir, _ = whole
    real = metrics_log.open_log

    def open_log(*args):
        @contextlib.contextmanager
        def opened():
            with real(*args) as (write, bar):

                def write_until_the_end(event, **fields):
                    if event == "stop":
                        raise DiedError
                    write(event, **fields)

                yield write_until_the_end, bar

        return opened()

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log, "open_log", open_log)
        with pytest.raises(DiedError):
            train.run(STOPPING, tmp_path)
    assert checkpoint.find_latest_step(tmp_path / "net/seed0") == events(workdir)[-1]["best_step"]
    train.run(STOPPING, tmp_path)
    assert events(tmp_path) == events(workdir)


def test_it_is_not_trained_again(whole, monkeypatch):
    workdir, found = whole
    monkeypatch.setattr(train, "build_program", None)  # would raise
    assert train.run(STOPPING, workdir) == found
    longer = dataclasses.replace(STOPPING, train=dataclasses.replace(STOPPING.train, steps=60))
    assert train.run(longer, workdir) == found


def test_seeds_that_are_trained_together_end_each_at_its_own_step(whole, tmp_path):
    seeds = (0, 1)
    found = train.run_seeds(STOPPING, seeds, tmp_path)  # Seed 0 goes on longer than the others.
    for seed in seeds:
        logged = events(tmp_path, seed)
        errors = [(e["step"], e["top1_error"]) for e in logged if e["event"] == "eval"]
        end = logged[-1]
        assert (end["step"], end["best_step"]) == find_end(errors, PATIENCE)
        assert found[seed]["step"] == int(restore(tmp_path, seed).step) == end["best_step"]
    assert len({events(tmp_path, seed)[-1]["step"] for seed in seeds}) > 1
    assert events(tmp_path)[-1] == events(whole[0])[-1]


def test_a_run_that_comes_to_its_last_step_keeps_its_best_state_too(tmp_path, whole):
    errors = [(e["step"], e["top1_error"]) for e in events(whole[0]) if e["event"] == "eval"]
    steps, kept = errors[-2][0], find_end(errors[:-1], 100)[1]
    assert kept < steps
    run = dataclasses.replace(STOPPING, train=dataclasses.replace(STOPPING.train, steps=steps))
    assert train.run(run, tmp_path)["step"] == kept
    end = events(tmp_path)[-1]
    assert (end["event"], end["step"], end["best_step"]) == ("end", steps, kept)
    # More steps continue it, to where the whole run came.
    assert train.run(STOPPING, tmp_path) == train.run(STOPPING, whole[0]) | {
        "wall_s": metrics_log.read_result(tmp_path / "net/seed0")["wall_s"]
    }
    assert events(tmp_path) == events(whole[0])


@pytest.mark.parametrize("split, count", [("", 24), ("test", 360), ("train", 1_413)])
def test_its_protocols_measure_the_state_that_is_kept_on_each_split(split, count, whole):
    """As the evaluation in training would measure it, if it had these images."""
    name = f"single@split={split}" if split else "single"
    found = read_evaluation(whole[0] / f"net/seed0/evaluations/{name}.json")
    state, source = restore(whole[0]), data.load_dataset(STOPPING.data)
    images = {
        "": source.test,
        "test": data.open_dataset(STOPPING.data.dataset).test,
        "train": source.train,
    }
    built = program.build_program(STOPPING, source._replace(test=images[split]))
    expected = built.evaluate(state)
    assert (found.images, found.step) == (count, int(state.step))
    assert expected["images"] == count
    assert found.top1_error == pytest.approx(expected["top1_error"])
    assert found.loss == pytest.approx(expected["loss"], rel=1e-4)


def test_the_report_says_that_it_stopped_early(whole):
    workdir, found = whole
    write_study(workdir, "net")
    results = read(workdir)
    (run,) = results.runs["net"]
    end = events(workdir)[-1]
    assert run.state == (f"finished early at step {end['step']}, best at step {end['best_step']}")
    assert run.finished and run.final_error == found["top1_error"]
    line = next(
        e for e in events(workdir) if e["event"] == "train" and e["step"] == end["best_step"]
    )
    assert run.final_training_error == line["top1_error"]
    assert run_states(results).progress == "1 of 1 runs finished" and missing(results) is None
    (workdir / "study.json").unlink()


def test_the_test_set_is_not_what_it_stops_by(tmp_path):
    all_images = dataclasses.replace(STOPPING.data, validation_images=0)
    with pytest.raises(UserError, match=r"stop_after=2: .* set data.validation_images too"):
        train.run(dataclasses.replace(STOPPING, data=all_images), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_patience_counts_evaluations_without_a_lower_error():
    tx = optim.count_evaluations(2)
    params = {"w": np.zeros(1, np.float32)}
    state, seen = tx.init(params), []
    for error in (0.5, 0.5, 0.4, 0.6, 0.4):
        updates, state = tx.update(params, state)
        state = optim.observe_error(state, error)
        seen.append(optim.ran_out_of_patience((state, "of others")))
    assert seen == [False, False, False, False, True] and updates is params
