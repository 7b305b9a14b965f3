"""The first steps of a long run, by a plain program while a thread compiles the fast one."""

import dataclasses
import threading
import types

import jax
import pytest
from helpers.small_run import CutError, cut_at

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.cpu import settings
from cnn_jax.training import metrics_log, program, train
from cnn_jax.training.first_steps import FIRST_STEPS, FirstProgram, FirstSteps

# Long enough for two programs.
RUN = Experiment(
    name="net",
    data=Data(dataset=choose("digits", side=16), batch_size=32, eval_batch_size=360),
    model=choose("small_cnn", channels=(8,), kernel=3, pool_size=2, pool_stride=2),
    schedule=choose("constant", base=0.05),
    train=Train(steps=settings.MIN_ONEDNN_STEPS, log_every=1, eval_every=100, save_every=5),
)


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch):
    """Gives long runs two programs on processors without oneDNN too, where they are equal."""
    if not settings.choose_onednn_for_run(RUN.train.steps, settings.MIN_BATCH_VALUES):
        monkeypatch.setattr(
            settings,
            "choose_onednn_for_run",
            lambda steps, values: (
                {"xla_llvm_disable_expensive_passes": False}
                if steps >= settings.MIN_ONEDNN_STEPS and values >= settings.MIN_BATCH_VALUES
                else {}
            ),
        )


def read_losses(workdir):
    events = metrics_log.read_events(workdir / "net/seed0")
    return {event["step"]: event["loss"] for event in events if event["event"] == "train"}


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """{step: loss} of a run that is not interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    train.run(RUN, workdir)
    return read_losses(workdir)


def cut_first_steps_at(cut, workdir, monkeypatch):
    """Starts the run and interrupts it in its first step after `cut` steps."""
    make = FirstSteps.make

    def make_or_die(steps, state, inputs, batch):
        if int(state.step) == cut:
            raise CutError
        return make(steps, state, inputs, batch)

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(FirstSteps, "make", make_or_die)
        train.run(RUN, workdir)


@pytest.mark.parametrize("cut", [7, FIRST_STEPS, FIRST_STEPS + 6])
def test_a_run_that_was_interrupted_has_the_numbers_of_one_that_was_not(
    cut, losses, tmp_path, monkeypatch
):
    if cut < FIRST_STEPS:
        cut_first_steps_at(cut, tmp_path, monkeypatch)
    else:
        cut_at(cut, RUN, tmp_path, monkeypatch)
    assert max(read_losses(tmp_path)) <= cut
    train.run(RUN, tmp_path)
    assert read_losses(tmp_path) == losses


def test_the_thread_compiles_what_the_next_steps_call(request):
    compiled = []

    def record(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(record)
    request.addfinalizer(lambda: jax.monitoring.unregister_event_duration_listener(record))
    built = program.build_program(RUN)
    steps, batches = FirstSteps(built.first, until=100), built.batches(0)
    state, _ = built.state, compiled.clear()
    for _ in range(2):
        state = steps.make(state, built.inputs, next(batches))
    assert steps.wait() and not steps.wait()
    assert compiled == ["MainThread", "compile"]
    state = built.step(state, next(batches))
    assert int(state.step) == 3 and compiled == ["MainThread", "compile"]


@pytest.mark.parametrize("until, has_more", [(FIRST_STEPS, False), (FIRST_STEPS + 1, True)])
def test_the_fast_program_is_compiled_once_and_only_if_more_steps_follow(until, has_more):
    compiled = []
    lowered = types.SimpleNamespace(compile=lambda: compiled.append(until))
    fast = types.SimpleNamespace(lower=lambda *_: lowered)
    steps = FirstSteps(FirstProgram(lambda state, *_: state + 1, fast), until)
    assert steps.make(steps.make(0, None, None), None, None) == 2 and steps.wait() == has_more
    assert compiled == [until] * has_more


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": settings.MIN_ONEDNN_STEPS - 1},
        {"check_numerics": True},
        {"parallel": "pmap"},
    ],
)
def test_runs_whose_program_is_in_the_compile_cache_have_one(changed):
    run = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, **changed))
    assert program.build_program(RUN).first is not None
    assert program.build_program(run).first is None


@pytest.mark.parametrize("batch, has_two", [(8, False), (32, True)])
@pytest.mark.parametrize("eval_batch", [8, 360])
def test_the_batch_of_evaluations_does_not_decide_the_programs_of_steps(batch, has_two, eval_batch):
    sizes = {"batch_size": batch, "eval_batch_size": eval_batch}
    run = dataclasses.replace(RUN, data=dataclasses.replace(RUN.data, **sizes))
    assert (program.build_program(run).first is not None) == has_two
