"""Profiles: the traced calls and the table; the run's numbers do not change."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import RUN, cut_at

from cnn_jax import study
from cnn_jax.config import Train, choose
from cnn_jax.cost import hlo
from cnn_jax.errors import UserError
from cnn_jax.training import profile, train

pytestmark = pytest.mark.usefixtures("shared_programs")


@jax.jit
def step(state, arrays, item):
    with jax.named_scope("layer"):
        return jnp.tanh(state @ arrays) + item


@pytest.mark.parametrize("left, steps, before", [(3, 2, 1), (5, 1, 4), (30, 5, 10)])
def test_a_trace_covers_steady_steps_and_changes_no_number(
    tmp_path, capsys, monkeypatch, left, steps, before
):
    calls, started = 0, []
    start, stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(
        jax.profiler, "start_trace", lambda *args: (started.append(calls), start(*args))
    )
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (started.append(calls), stop()))
    state = plain = jnp.eye(64)
    with profile.trace_steps(step, tmp_path, steps, left) as traced:
        for calls in range(left):  # noqa: B007
            state = traced(state, jnp.ones((64, 64)), 0.5)
            plain = step(plain, jnp.ones((64, 64)), 0.5)
    np.testing.assert_array_equal(state, plain)
    assert started == [before, before + steps - 1]
    said = capsys.readouterr().out
    assert f"{steps} steps are traced in {tmp_path}/profile" in said and "jit(step)/layer" in said
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


@pytest.mark.parametrize("steps, left", [(2, 2), (1, 0)])
def test_tracing_more_steps_than_remain_is_refused(tmp_path, steps, left):
    with pytest.raises(
        UserError, match=f"profile={steps}: after the first, {max(0, left - 1)} steps are left"
    ):
        profile.trace_steps(step, tmp_path, steps, left).__enter__()


def test_the_table_lists_the_ten_costliest_operations_with_share_and_layer():
    layers = {"op.11": hlo.Origin("fusion", "jit(step)/conv1"), "while.1": hlo.Origin("while", "")}
    found = Counter({f"op.{i}": float(i) for i in range(12)} | {"while.1": 99.0})
    lines = profile.format_costs(found, layers).splitlines()
    assert len(lines) == 12
    assert lines[1].split() == ["11.000", "16.7%", "op.11", "jit(step)/conv1"]
    assert lines[-1].split() == ["66.000", "100.0%", "all", "12", "operations"]


def make_study(**runs):
    named = {name: dataclasses.replace(run, name=name) for name, run in runs.items()}
    rows = tuple(study.Row(name, name, "", "") for name in runs)
    return study.Study("s", "A study", "-", "", "laptop", named, rows)


def test_a_run_that_ends_while_it_is_traced_does_not_keep_the_next_from_it(tmp_path, capsys):
    rare = dataclasses.replace(RUN, train=Train(steps=12, log_every=4, eval_every=12))
    wild = dataclasses.replace(rare, schedule=choose("constant", base=1e30))
    patient = Train(steps=24, log_every=24, eval_every=6, stop_after=1)
    held_out = dataclasses.replace(RUN.data, validation_images=32)
    slow = choose("constant", base=1e-20)
    early = dataclasses.replace(RUN, train=patient, data=held_out, schedule=slow)
    both = make_study(wild=wild, early=early, net=rare)
    with pytest.raises(study.RunsFailedError, match="wild: the loss is not finite"):
        study.run(both, tmp_path, profile_steps=10, tell=str)
    said = capsys.readouterr().out
    for name, traced in (("wild", "2 of its steps are"), ("early", "2 of its steps are")):
        line = f"profile=10: {tmp_path}/{name}/seed0: the run ended, and only {traced} traced\n"
        assert line in said
        assert len(list((tmp_path / name / "seed0/profile").rglob("*.xplane.pb"))) == 1
    assert f"10 steps are traced in {tmp_path}/net/seed0/profile" in said


def test_a_run_that_has_ended_is_not_traced_and_says_so(tmp_path, capsys):
    train.run(RUN, tmp_path)
    train.run_seeds(RUN, [0], tmp_path, profile_steps=3)
    said = capsys.readouterr().out
    assert f"{tmp_path}/net/seed0: nothing is traced, because the run has ended: start" in said


@pytest.mark.parametrize("steps, line", [(1, "1 steps are traced in"), (2, "nothing is traced: ")])
def test_seeds_that_catch_up_may_have_fewer_steps_left(steps, line, tmp_path, monkeypatch, capsys):
    for seed, cut in ((0, 10), (1, 8)):
        cut_at(cut, dataclasses.replace(RUN, seed=seed), tmp_path, monkeypatch)
    ends = train.run_seeds(RUN, [0, 1], tmp_path, profile_steps=steps)
    assert [end["step"] for end in ends.values()] == [12, 12]
    assert capsys.readouterr().out.count(line) == 1


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "profile").touch()
        with profile.trace_steps(step, tmp_path / name, 1, 3) as traced:
            for _ in range(3):
                traced(jnp.eye(4), jnp.ones((4, 4)), 0.5)
        said = capsys.readouterr().out
        assert said.startswith(f"{tmp_path}/{name}/profile: the trace cannot be written (")
        assert said.endswith("; the run goes on\n") and said.count("\n") == 1
