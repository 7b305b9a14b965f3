"""The order of the loop: next batch, step, log, evaluate, save."""

import dataclasses
import time
import types

import jax.numpy as jnp
import pytest

from cnn_jax.config import Experiment, Log, Train, choose
from cnn_jax.errors import StoppedError
from cnn_jax.optim import make_optimizer
from cnn_jax.training import checkpoint, first_steps, loop
from cnn_jax.training.first_steps import FirstProgram
from cnn_jax.training.program import TrainProgram
from cnn_jax.training.seed_run import SeedRun, find_due
from cnn_jax.training.state import State, make_zero_sums
from cnn_jax.training.watchdog import StopError, Watch

TRAIN = Train(steps=6, log_every=2, eval_every=3, save_every=4)


class Recorder:
    """A program, a run and a watch that record the loop's calls."""

    def __init__(self, monkeypatch, stop_after=0, stop_in=""):
        self.seen, self.saved, self.stop_after, self.stop_in = [], {}, stop_after, stop_in
        self.experiment = Experiment(train=TRAIN)
        optimizer = make_optimizer(choose("sgd"), choose("constant"), total_steps=6)
        params = {"w": jnp.zeros(())}
        self.state = State(
            jnp.int32(0), params, {}, optimizer.init(params), make_zero_sums(), jnp.int32(-1)
        )
        nothing = [None] * len(TrainProgram._fields)
        self.program = TrainProgram(*nothing)._replace(
            compiled_step=self.step,
            batches=self.batches,
            evaluate=self.evaluate,
            error_name="top1_error",
            images_per_epoch=128,
            steps_per_call=1,
            join=lambda states: states[0],
            split=lambda state: [state],
        )
        self.checkpoints = types.SimpleNamespace(
            all_steps=lambda: list(self.saved), directory="here"
        )
        monkeypatch.setattr(checkpoint, "save", self.save)
        monkeypatch.setattr(checkpoint, "wait", lambda checkpoints: None)
        monkeypatch.setattr(
            checkpoint, "was_evaluated", lambda checkpoints, step: self.saved[step] is not None
        )

    def step(self, state, arrays, batch):
        self.seen.append(f"step {batch}")
        sums = state.sums | {"steps": state.sums["steps"] + 1}
        return state.replace(step=state.step + 1, sums=sums)

    def batches(self, start):
        for number in range(start + 1, 100):
            self.seen.append(f"batch {number}")
            yield number

    def evaluate(self, state):
        self.seen.append("evaluate")
        return {"loss": 1.0, "top1_error": 0.5, "images": 4}

    def save(self, checkpoints, state, error):
        self.seen.append("save" if error is None else "save evaluated")
        self.saved[int(state.step)] = error

    def write(self, event, **fields):
        self.seen.append(f"log {event}")

    def run(self, until=TRAIN.steps):
        def enter(phase):
            if phase == self.stop_in:
                raise StopError("SIGTERM")

        def stop_requested():
            steps = sum(words.startswith("step") for words in self.seen)
            return "SIGTERM" if steps == self.stop_after else ""

        bar = types.SimpleNamespace(n=0, update=lambda n: None, set_postfix_str=lambda text: None)
        seed_run = SeedRun(self.experiment, self.checkpoints, self.write, bar, self.state)
        return loop.run_loop(self.program, [seed_run], until, Watch(enter, stop_requested))


def test_each_step_is_batch_step_log_evaluate_save(monkeypatch):
    recorder = Recorder(monkeypatch)
    assert recorder.run() == {}
    evaluated = ["log train", "evaluate", "log eval", "save evaluated"]
    assert recorder.seen == [
        *["batch 1", "step 1"],
        *["batch 2", "step 2", "log train"],
        *["batch 3", "step 3", *evaluated],
        *["batch 4", "step 4", "log train", "save"],
        *["batch 5", "step 5"],
        *["batch 6", "step 6", *evaluated, "log end"],
    ]
    assert recorder.saved == {3: 0.5, 4: None, 6: 0.5}


def test_saves_and_evaluations_happen_at_log_lines():
    due = [find_due(step, Experiment(train=TRAIN), until=6) for step in range(1, 7)]
    assert [step for step, each in enumerate(due, 1) if each.log] == [2, 3, 4, 6]
    assert [step for step, each in enumerate(due, 1) if each.evaluate] == [3, 6]
    assert [step for step, each in enumerate(due, 1) if each.save] == [3, 4, 6]


def test_a_pause_is_saved_and_logs_nothing(monkeypatch):
    assert find_due(5, Experiment(train=TRAIN), until=5) == (False, False, True, False)
    assert find_due(4, Experiment(train=TRAIN), until=4) == (True, False, True, False)
    recorder = Recorder(monkeypatch)
    assert recorder.run(until=5) == {}
    assert recorder.seen[-4:] == ["save", "batch 5", "step 5", "save"]
    assert recorder.saved == {3: 0.5, 4: None, 5: None}


def test_the_last_step_is_evaluated_and_saved_between_the_intervals():
    experiment = Experiment(train=dataclasses.replace(TRAIN, steps=7))
    assert find_due(7, experiment, until=7) == (True, True, True, False)


def test_a_signal_after_a_step_saves_it_and_logs_nothing(monkeypatch):
    recorder = Recorder(monkeypatch, stop_after=5)
    with pytest.raises(StoppedError, match="stopped by SIGTERM at step 5, which is saved"):
        recorder.run()
    assert recorder.seen[-2:] == ["step 5", "save"]


@pytest.mark.parametrize("until, last", [(6, "log end"), (5, "save")])
def test_a_signal_in_the_last_step_stops_the_launch_too(until, last, monkeypatch):
    recorder = Recorder(monkeypatch, stop_after=until)
    with pytest.raises(StoppedError, match=f"stopped by SIGTERM after step {until}, where"):
        recorder.run(until)
    assert recorder.seen[-1] == last and until in recorder.saved


def test_a_signal_while_it_waits_for_data_or_evaluates_saves_the_last_step(monkeypatch):
    waiting = Recorder(monkeypatch, stop_in="data")
    with pytest.raises(StoppedError, match="at step 0"):
        waiting.run()
    assert not waiting.saved
    evaluating = Recorder(monkeypatch, stop_in="evaluate")
    with pytest.raises(StoppedError, match="at step 3"):
        evaluating.run()
    assert evaluating.saved == {3: None}  # It is evaluated when the run continues.


def test_a_signal_while_layers_are_measured_saves_the_step(monkeypatch):
    measuring = Recorder(monkeypatch, stop_in="evaluate")
    measuring.experiment = Experiment(train=TRAIN, log=Log(layer_statistics=(2,)))
    measuring.program = measuring.program._replace(measure_layers=lambda state, seed: [])
    with pytest.raises(StoppedError, match="at step 2, which is saved"):
        measuring.run()
    assert measuring.seen[-2:] == ["log train", "save"] and measuring.saved == {2: None}


@pytest.mark.parametrize("done", [0, 2, 3, 4])
def test_the_number_of_a_step_decides_which_program_makes_it(done, monkeypatch):
    monkeypatch.setattr(first_steps, "FIRST_STEPS", 3)
    recorder = Recorder(monkeypatch)
    recorder.state = recorder.state.replace(step=jnp.int32(done))
    recorder.saved[done] = 0.5

    def make_plain_step(state, inputs, batch):
        state = recorder.step(state, inputs, batch)
        recorder.seen[-1] += " plain"
        return state

    def compile_fast():
        time.sleep(0.2)  # The first fast step waits for it.
        recorder.seen.append("compiled")

    lowered = types.SimpleNamespace(compile=compile_fast)
    fast = types.SimpleNamespace(lower=lambda *arguments: lowered)
    recorder.program = recorder.program._replace(first=FirstProgram(make_plain_step, fast))
    recorder.run()
    steps = [words for words in recorder.seen if "step" in words or words == "compiled"]
    plain = [f"step {k} plain" for k in range(done + 1, 4)]
    assert steps == [
        *plain,
        *(["compiled"] if plain else []),
        *(f"step {k}" for k in range(max(done, 3) + 1, 7)),
    ]


def test_a_launch_that_ends_within_the_first_steps_does_not_compile_the_other_program(monkeypatch):
    recorder = Recorder(monkeypatch)  # Six steps.
    recorder.program = recorder.program._replace(first=FirstProgram(recorder.step, fast=None))
    recorder.run()
    assert recorder.seen.count("evaluate") == 2
