"""Schedules against their formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import optim
from cnn_jax.config import choose
from cnn_jax.errors import UserError

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])}


def rates(schedule, steps):
    """The rates at which a schedule multiplies updates after so many others."""
    tx = optim.make_schedule(schedule, 100)
    state, found = tx.init(PARAMS), []
    for step in steps:
        there = state._replace(count=jnp.int32(step))
        _, after = tx.update(GRADS, there)
        found.append(float(optim.current_rate(after)))
    return found


def test_schedules_follow_their_formulas():
    assert rates(choose("constant", base=0.3), [0, 10**6]) == pytest.approx([0.3, 0.3])
    paper = choose("step", base=0.1, boundaries=(32_000, 48_000), factor=0.1)
    steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
    assert rates(paper, steps) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    exponential = choose("exponential", base=0.1, rate=0.05)
    assert rates(exponential, [0, 7, 40]) == pytest.approx(
        [0.1 * np.exp(-0.05 * t) for t in (0, 7, 40)]
    )
    inverse = choose("inverse_time", base=0.1, rate=0.5)
    assert rates(inverse, [0, 1, 8]) == pytest.approx([0.1, 0.1 / 1.5, 0.1 / 5])


def test_an_unknown_schedule_is_told():
    with pytest.raises(UserError, match="nearest: exponential"):
        optim.make_schedule(choose("exponental"), 100)


@pytest.mark.parametrize("name", ["constant", "step", "exponential", "inverse_time", "plateau"])
def test_schedules_that_do_not_depend_on_the_number_of_steps(name):
    options = {"step": {"boundaries": (5,), "warmup_until_error": 0.8}}.get(name, {})
    assert not optim.schedule_depends_on_steps(choose(name, **options), 10, 20)


def test_a_schedule_that_does(monkeypatch):
    def linear(total_steps, *, base: float = 0.1):
        rate = optax.linear_schedule(base, 0.0, total_steps)
        return optim.schedules.scale_by_rate(lambda count: rate(jnp.asarray(count, jnp.float32)))

    monkeypatch.setitem(optim.SCHEDULES, "linear", linear)
    assert optim.schedule_depends_on_steps(choose("linear"), 10, 20)
    assert not optim.schedule_depends_on_steps(choose("linear"), 10, 10)


def test_cosine_follows_its_formula():
    """Half a cosine over steps 0 to 99: (base - final) (1 + cos(pi t / 99)) / 2 + final."""
    found = rates(choose("cosine", base=0.5, final=0.1), [0, 33, 66, 99, 120])
    expected = [0.1 + 0.4 * (1 + np.cos(np.pi * t / 99)) / 2 for t in (0, 33, 66, 99)]
    assert found == pytest.approx([*expected, 0.1])


def test_cosine_rises_linearly_before():
    found = rates(choose("cosine", base=0.5, warmup_steps=10), [0, 4, 9, 10, 99])
    assert found == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.0], abs=1e-7)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match=r"warmup_steps=100: must be less than train.steps=100"):
        optim.make_schedule(choose("cosine", warmup_steps=100), 100)


def test_the_cosine_depends_on_the_number_of_steps():
    assert optim.schedule_depends_on_steps(choose("cosine"), 10, 20)
