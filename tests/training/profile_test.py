"""Profiles: the traced calls and the table; the run's numbers do not change."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.cost import hlo
from cnn_jax.errors import UserError
from cnn_jax.training import profile


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
    traced = profile.trace_steps(step, tmp_path, steps, left)
    state = plain = jnp.eye(64)
    for calls in range(left):  # noqa: B007
        state, plain = traced(state, jnp.ones((64, 64)), 0.5), step(plain, jnp.ones((64, 64)), 0.5)
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
        profile.trace_steps(step, tmp_path, steps, left)


def test_the_table_lists_the_ten_costliest_operations_with_share_and_layer():
    layers = {"op.11": hlo.Origin("fusion", "jit(step)/conv1"), "while.1": hlo.Origin("while", "")}
    found = Counter({f"op.{i}": float(i) for i in range(12)} | {"while.1": 99.0})
    lines = profile.format_costs(found, layers).splitlines()
    assert len(lines) == 12
    assert lines[1].split() == ["11.000", "16.7%", "op.11", "jit(step)/conv1"]
    assert lines[-1].split() == ["66.000", "100.0%", "all", "12", "operations"]
