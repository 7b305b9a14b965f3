"""Several steps in one call change no number, and nothing of what follows a step."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.small_run import RUN, TIMES, cut_at

from cnn_jax.config import Data, Train, choose
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.training import (
    checkpoint,
    loop,
    metrics_log,
    program,
    saved_parameters,
    steps_per_call,
    train,
)
from cnn_jax.training.components import check
from cnn_jax.training.program import build_program
from cnn_jax.training.steps_per_call import choose_steps_per_call, count_steps
from cnn_jax.training.watchdog import Watch

# Something follows steps 9, 14, 18, 27, 28 and 36: single steps are 1, 14, 27 and 28.
ONE = dataclasses.replace(
    RUN,
    train=Train(
        steps=36, log_every=9, eval_every=18, save_every=14, steps_per_call=1, precision="float32"
    ),
)
FOUR = dataclasses.replace(ONE, train=dataclasses.replace(ONE.train, steps_per_call=4))
CHOSEN = dataclasses.replace(ONE, train=dataclasses.replace(ONE.train, steps_per_call=0))


def divide_steps(step, until, size, ends_call):
    while step < until:
        yield (count := count_steps(step, until, size, ends_call))
        step += count


def test_calls_end_where_something_follows():
    counts = list(divide_steps(1, 20, 4, lambda step: step in (6, 14, 20)))
    # 2-5 | 6 || 7-10 | 11-14 || 15-18 | 19 | 20
    assert counts == [4, 1, 4, 4, 4, 1, 1]
    assert list(divide_steps(3, 9, 1, lambda step: False)) == [1] * 6
    # The step at the end of a call may be followed by something, one within it may not.
    assert list(divide_steps(1, 5, 4, lambda step: step == 5)) == [4]
    assert list(divide_steps(1, 5, 4, lambda step: step == 4)) == [1] * 4


def every(*intervals):
    return lambda step: any(step % interval == 0 for interval in intervals)


@pytest.mark.parametrize(
    ("step_seconds", "step", "until", "ends_call", "expected"),
    [
        (0.0005, 100, 100_000, every(100), 100),  # A call lasts 50 ms: all of the interval.
        (0.0005, 50, 100_000, every(100), 100),
        (0.0015, 100, 100_000, every(100), 50),  # At most 66; 66 + 34 single steps are worse.
        (0.00002, 0, 10**7, every(10**6), 1000),  # At most 1,024; nothing follows for long.
        (0.002, 0, 10**6, every(7), 7),
        (0.0005, 0, 10**6, every(1), 1),
        (0.004, 100, 100_000, every(100), 1),  # The device is busy with one step per call too.
        (0.0005, 100, 20_000, every(100), 1),  # 10 s: less than compiling another program.
        (0.0005, 100, 20_200, every(100), 100),
    ],
)
def test_the_fewest_calls_are_chosen(step_seconds, step, until, ends_call, expected):
    assert choose_steps_per_call(step_seconds, step, until, ends_call) == expected


def events(workdir, seed=0):
    found = metrics_log.read_events(workdir / f"net/seed{seed}")
    return [{k: v for k, v in event.items() if k not in TIMES} for event in found]


def last_state(workdir, seed=0):
    with checkpoint.open_checkpoints(workdir / f"net/seed{seed}") as saved:
        state = saved_parameters.restore_all(saved, saved.latest_step())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_equal(workdir, other, seed=0):
    assert events(workdir, seed) == events(other, seed)
    for a, b in zip(last_state(workdir, seed), last_state(other, seed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_other_number_makes_fewer_calls():
    ends_call = every(30, 47)  # After 30, 47, 60, 90, 94, ...
    chosen = choose_steps_per_call(0.0025, 47, 5_000, ends_call)  # At most 40.
    counts = [len(list(divide_steps(47, 5_000, size, ends_call))) for size in range(1, 41)]
    assert counts.index(min(counts)) + 1 == chosen > 1


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    train.run(ONE, workdir)
    return workdir


def count_calls(monkeypatch):
    """Returns a list that takes the number of steps of each call."""
    calls = []
    advance = train.TrainProgram.advance

    def counted(program, state, batches):
        calls.append(len(batches))
        if len(batches) > 1:  # No call is queued behind another, where it would delay a signal.
            assert all(leaf.is_ready() for leaf in jax.tree.leaves(state))
        return advance(program, state, batches)

    monkeypatch.setattr(train.TrainProgram, "advance", counted)
    return calls


def test_four_steps_per_call_give_the_numbers_of_one(one_by_one, tmp_path, monkeypatch):
    calls = count_calls(monkeypatch)
    train.run(FOUR, tmp_path)
    assert_equal(tmp_path, one_by_one)
    assert sum(calls) == 36 and calls.count(4) >= 5 and set(calls) == {1, 4}


def test_a_long_run_of_large_batches_gives_the_numbers_of_one(tmp_path):
    # Such runs are compiled with other convolutions on some CPUs.
    run = dataclasses.replace(
        ONE,
        data=Data(dataset=choose("digits", side=16), batch_size=32, eval_batch_size=360),
        model=choose("small_cnn", channels=(8,), kernel=3, pool_size=2, pool_stride=2),
        train=dataclasses.replace(
            ONE.train, steps=104, log_every=52, eval_every=104, save_every=104
        ),
    )
    train.run(run, tmp_path / "one")
    several = dataclasses.replace(run.train, steps_per_call=4)
    train.run(dataclasses.replace(run, train=several), tmp_path / "several")
    assert_equal(tmp_path / "one", tmp_path / "several")


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    """Lets runs choose their steps per call on this CPU, however short or slow they are."""
    monkeypatch.setattr(program, "SINGLE_STEP_PLATFORMS", ())
    monkeypatch.setattr(loop, "MIN_MEASURED_STEPS", 5)
    monkeypatch.setattr(steps_per_call, "CALL_SECONDS", 1000.0)
    monkeypatch.setattr(steps_per_call, "MAX_STEP_SECONDS", 1000.0)
    monkeypatch.setattr(steps_per_call, "MIN_RUN_SECONDS", 0.0)


@pytest.mark.usefixtures("as_on_an_accelerator")
def test_a_chosen_number_of_steps_gives_the_numbers_of_one(one_by_one, tmp_path, monkeypatch):
    calls = count_calls(monkeypatch)
    cut_at(26, CHOSEN, tmp_path, monkeypatch)
    # Measured to step 9. From there calls of four are the fewest for 5 + 4 + 9 + 1 + 8 steps.
    assert calls == [1] * 9 + [4, 1, 4, 4, 4, 1]
    calls.clear()
    train.run(CHOSEN, tmp_path)
    # From the checkpoint of step 18: measured to step 27, with 1 + 8 steps left.
    assert calls == [1] * 10 + [8]
    assert_equal(tmp_path, one_by_one)


@pytest.mark.parametrize("changes", [{"parallel": "pmap"}, {"check_numerics": True}])
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_one_step_is_chosen_where_a_call_can_make_only_one(changes):
    changed = dataclasses.replace(CHOSEN.train, **changes)
    assert build_program(dataclasses.replace(CHOSEN, train=changed)).steps_per_call == 1


def test_one_step_is_chosen_on_a_cpu():
    assert build_program(CHOSEN).steps_per_call == 1


def test_a_run_that_was_cut_off_continues_with_another_number(one_by_one, tmp_path, monkeypatch):
    cut_at(26, FOUR, tmp_path, monkeypatch)  # In step 27, which is followed by a log line.
    train.run(ONE, tmp_path)
    assert_equal(tmp_path, one_by_one)


def test_a_signal_stops_after_a_call_and_the_run_continues(one_by_one, tmp_path, monkeypatch):
    calls = count_calls(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "stop_requested", lambda watch: "SIGTERM" if 4 in calls else "")
        with pytest.raises(StoppedError, match="at step 5, which is saved"):
            train.run(FOUR, tmp_path)
    train.run(FOUR, tmp_path)
    assert_equal(tmp_path, one_by_one)


def test_several_seeds_make_several_steps_per_call(tmp_path):
    for workdir, run in ((tmp_path / "one", ONE), (tmp_path / "four", FOUR)):
        train.run_seeds(run, [0, 1], workdir)
    for seed in (0, 1):
        assert_equal(tmp_path / "four", tmp_path / "one", seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": Train(steps_per_call=4, parallel="pmap")}, "takes train.parallel=jit"),
        ({"train": Train(steps_per_call=4, check_numerics=True)}, "without train.check_numerics"),
        (
            {
                "train": Train(steps_per_call=4),
                "data": Data(dataset=choose("digits"), train_resize=(28,), image_size=28),
            },
            "for data sets in memory",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        check(dataclasses.replace(RUN, **changes))
    assert "\n" not in str(caught.value)
