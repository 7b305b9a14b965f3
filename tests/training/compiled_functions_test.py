"""The compiled functions of a run serve its other seeds and base rates, and no other run."""

import dataclasses

import jax.numpy as jnp
import pytest
from helpers.small_run import RUN

from cnn_jax.config import change, choose
from cnn_jax.optim import schedules
from cnn_jax.training import compiled_functions, metrics_log, program, train


@pytest.fixture
def traced(monkeypatch):
    """The steps that are traced, each once for a program that is compiled."""
    steps, train_step = [], compiled_functions.train_step

    def note(parts, *arguments):
        steps.append(parts)
        return train_step(parts, *arguments)

    monkeypatch.setattr(compiled_functions, "train_step", note)
    return steps


def read_losses(folder):
    return [event["loss"] for event in metrics_log.read_events(folder) if "loss" in event]


def test_the_second_seed_compiles_nothing_and_has_its_own_numbers(tmp_path, traced):
    cache = compiled_functions.FunctionCache()
    for seed in (0, 1):
        train.run_seeds(RUN, [seed], tmp_path / "study", cache=cache)
    assert len(traced) == 1
    train.run_seeds(RUN, [1], tmp_path / "alone")
    assert len(traced) == 2, "a launch of its own compiles its own program"
    first, second = (read_losses(tmp_path / "study/net" / f"seed{seed}") for seed in (0, 1))
    assert second == read_losses(tmp_path / "alone/net/seed1")
    assert len(first) == len(second) and first != second


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(RUN, schedule=choose("exponential", base=0.1, rate=0.1)),
        dataclasses.replace(RUN, data=dataclasses.replace(RUN.data, batch_size=8)),
    ],
    ids=["schedule", "batch"],
)
def test_another_run_gets_its_own_functions(other):
    cache = compiled_functions.FunctionCache()
    first, again, changed = (
        program.build_program(run, cache=cache)
        for run in (RUN, dataclasses.replace(RUN, seed=1), other)
    )
    assert first.compiled_step is again.compiled_step
    assert changed.compiled_step is not first.compiled_step


def branch_on_the_rate(length, *, base: float = 0.1):
    steps = 10 if base > 0.1 else 1
    return schedules.scale_by_rate(lambda count, base: base * jnp.minimum(1, count / steps), base)


def test_a_base_rate_with_another_program_gets_its_own_functions(monkeypatch):
    monkeypatch.setitem(schedules.SCHEDULES, "own", branch_on_the_rate)
    cache = compiled_functions.FunctionCache()
    large, also_large, small = (
        program.build_program(
            dataclasses.replace(RUN, schedule=choose("own", base=base)), cache=cache
        )
        for base in (0.8, 0.4, 0.05)
    )
    assert large.compiled_step is also_large.compiled_step
    assert small.compiled_step is not large.compiled_step


def test_another_base_rate_compiles_nothing_and_has_its_own_numbers(tmp_path, traced):
    schedule = change(RUN.schedule, base=0.02)
    other = dataclasses.replace(RUN, name="other", schedule=schedule, deviations=("a rate",))
    cache = compiled_functions.FunctionCache()
    for run in (RUN, other):
        train.run_seeds(run, [0], tmp_path / "study", cache=cache)
    assert len(traced) == 1
    train.run_seeds(other, [0], tmp_path / "alone")
    assert len(traced) == 2
    first, second = (read_losses(tmp_path / "study" / name / "seed0") for name in ("net", "other"))
    assert second == read_losses(tmp_path / "alone/other/seed0")
    assert first[0] != second[0]


def test_a_schedule_that_hides_its_base_rate_compiles_a_program_for_each(monkeypatch):
    def hidden(length, *, base: float = 0.1):
        return schedules.scale_by_rate(lambda t, _: base, base)

    monkeypatch.setitem(schedules.SCHEDULES, "hidden", hidden)
    runs = [dataclasses.replace(RUN, schedule=choose("hidden", base=b)) for b in (0.1, 0.02)]
    cache = compiled_functions.FunctionCache()
    first, second = (program.build_program(run, cache=cache) for run in runs)
    assert first.compiled_step is not second.compiled_step and first.inputs.base is None
