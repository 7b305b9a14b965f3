"""Schedules against their formulas."""

from typing import Annotated

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import optim
from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.optim.schedules import scale_by_rate
from cnn_jax.values import Bound

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])}


def rates(schedule, steps, steps_per_epoch=None):
    """Returns a schedule's rates after these numbers of updates."""
    tx = optim.make_schedule(schedule, 100, steps_per_epoch)
    state, found = tx.init(PARAMS), []
    for step in steps:
        there = state._replace(count=jnp.int32(step))
        _, after = tx.update(GRADS, there)
        found.append(float(optim.read_current_rate(after)))
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


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="nearest: exponential"):
        optim.make_schedule(choose("exponental"), 100)


@pytest.mark.parametrize("name", ["constant", "step", "exponential", "inverse_time", "plateau"])
def test_no_schedule_but_cosine_depends_on_the_number_of_steps(name):
    options = {"step": {"boundaries": (5,), "warmup_until_error": 0.8}}.get(name, {})
    assert not optim.schedule_depends_on_steps(choose(name, **options), 10, 20)


def test_a_schedule_that_does(monkeypatch):
    def linear(length, *, base: float = 0.1):
        rate = optax.linear_schedule(base, 0.0, length.total_steps)
        return optim.schedules.scale_by_rate(lambda t, _: rate(jnp.asarray(t, jnp.float32)), base)

    monkeypatch.setitem(optim.SCHEDULES, "linear", linear)
    assert optim.schedule_depends_on_steps(choose("linear"), 10, 20)
    assert not optim.schedule_depends_on_steps(choose("linear"), 10, 10)


def test_cosine_follows_its_formula():
    """Half a cosine over steps 0 to 99: (base - final) (1 + cos(pi t / 99)) / 2 + final."""
    found = rates(choose("cosine", base=0.5, final=0.1), [0, 33, 66, 99, 120])
    expected = [0.1 + 0.4 * (1 + np.cos(np.pi * t / 99)) / 2 for t in (0, 33, 66, 99)]
    assert found == pytest.approx([*expected, 0.1])


def test_cosine_warms_up_linearly():
    found = rates(choose("cosine", base=0.5, warmup_steps=10), [0, 4, 9, 10, 99])
    assert found == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.0], abs=1e-7)


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match=r"warmup_steps=100: must be less than train.steps=100"):
        optim.make_schedule(choose("cosine", warmup_steps=100), 100)


def test_the_cosine_depends_on_the_number_of_steps():
    assert optim.schedule_depends_on_steps(choose("cosine"), 10, 20)


def test_a_step_schedule_cuts_again_and_again():
    found = rates(choose("step", base=0.8, every=30, factor=0.5), [0, 29, 30, 59, 60, 99])
    assert found == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.1])


def test_time_is_counted_in_epochs_too():
    """An epoch has 12.5 steps: it is not over after 12 steps, and over after 13."""
    steps = [0, 12, 13, 24, 25, 37, 38]
    boundaries = choose("step", base=1.0, boundaries=(1, 3), unit="epochs")
    assert rates(boundaries, steps, 12.5) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])
    every = choose("step", base=1.0, every=1, unit="epochs")
    assert rates(every, steps, 12.5) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])
    exponential = choose("exponential", base=0.1, rate=0.5, unit="epochs")
    expected = [0.1 * np.exp(-0.5 * t / 12.5) for t in steps]
    assert rates(exponential, steps, 12.5) == pytest.approx(expected)
    inverse = choose("inverse_time", base=0.1, rate=0.5, unit="epochs")
    assert rates(inverse, steps, 12.5) == pytest.approx([0.1 / (1 + t / 25) for t in steps])


def test_the_end_of_an_epoch_whose_steps_are_no_binary_fraction():
    """200 images in batches of 60 are 10/3 steps: three epochs end with the tenth."""
    schedule = choose("step", base=1.0, boundaries=(3,), unit="epochs")
    assert rates(schedule, [9, 10], 200 / 60) == pytest.approx([1.0, 0.1])
    # 15 epochs of 1,000 images in batches of 30 are 500 steps; 15 * (1000 / 30) is slightly more.
    assert 15 * (1000 / 30) > 500
    schedule = choose("step", base=1.0, boundaries=(15,), unit="epochs")
    assert rates(schedule, [499, 500], 1000 / 30) == pytest.approx([1.0, 0.1])


def test_an_update_goes_against_the_gradient():
    tx = optim.make_schedule(choose("constant", base=0.5), 100, None)
    updates, _ = tx.update(GRADS, tx.init(PARAMS))
    np.testing.assert_allclose(updates["kernel"], [[-0.15, -0.05]], rtol=1e-6)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match=r"every=5: set it, or schedule.boundaries, but not both"):
        optim.make_schedule(choose("step", every=5, boundaries=(3,)), 100)
    with pytest.raises(UserError, match=r"unit=epochs: the steps per epoch are not known"):
        optim.make_schedule(choose("exponential", unit="epochs"), 100)


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_the_base_rate_of_an_update_takes_the_place_of_the_schedule_s(name):
    options = {
        "step": {"boundaries": (1,)},
        "exponential": {"rate": 0.1},
        "inverse_time": {"rate": 0.1},
        "cosine": {"final": 0.01, "warmup_steps": 2},
    }.get(name, {})
    own, other = (
        optax.with_extra_args_support(optim.make_schedule(choose(name, base=b, **options), 10))
        for b in (0.3, 0.7)
    )
    state, expected = own.init(PARAMS), other.init(PARAMS)
    for _ in range(5):
        updates, state = own.update(GRADS, state, PARAMS, base=jnp.float32(0.7))
        expected_updates, expected = other.update(GRADS, expected, PARAMS)
        np.testing.assert_allclose(updates["kernel"], expected_updates["kernel"], rtol=1e-6)
        rates = [float(optim.read_current_rate(after)) for after in (state, expected)]
        assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_programs_of_our_schedules_take_their_base_rate(name):
    options = {"step": {"boundaries": (5,), "warmup_until_error": 0.8}}.get(name, {})
    assert optim.trace_shared_program(choose(name, base=0.3, **options), 10)


def put_into_a_constant(length, *, base: float = 0.1):
    return optax.scale(-base)


def put_into_a_table(length, *, base: float = 0.1):
    table = jnp.linspace(-base, 0, 2_000)
    return optax.scale_by_schedule(lambda t: table[t])


def have_none(length):
    return optax.scale(-0.1)


@pytest.mark.parametrize("make", [put_into_a_constant, put_into_a_table, have_none])
def test_a_program_that_contains_its_base_rate_is_found(make, monkeypatch):
    monkeypatch.setitem(optim.SCHEDULES, "own", make)
    args = {} if make is have_none else {"base": 0.1}
    assert optim.trace_shared_program(choose("own", **args), 10) is None


def test_the_program_of_cuts_every_so_many_steps_takes_the_base_rate():
    assert optim.trace_shared_program(choose("step", base=0.3, every=2), 10)


def refuse_small_rates(length, *, base: Annotated[float, Bound(0.1, 1.0)] = 0.1):
    return scale_by_rate(lambda count, base: base, base)


def test_a_schedule_that_refuses_another_rate_shares_no_program(monkeypatch):
    monkeypatch.setitem(optim.SCHEDULES, "own", refuse_small_rates)
    assert optim.trace_shared_program(choose("own", base=0.1), 10) is None
    assert optim.trace_shared_program(choose("own", base=0.8), 10)


def branch_on_the_rate(length, *, base: float = 0.1):
    steps = 10 if base > 0.1 else 1
    return scale_by_rate(lambda count, base: base * jnp.minimum(1, count / steps), base)


def test_rates_with_other_programs_do_not_share_one(monkeypatch):
    monkeypatch.setitem(optim.SCHEDULES, "own", branch_on_the_rate)
    large, small = (optim.trace_shared_program(choose("own", base=b), 10) for b in (0.8, 0.05))
    assert large and small and large != small


def test_a_schedule_without_a_rate_in_its_state_is_named():
    state = optax.scale(-0.1).init(PARAMS)
    with pytest.raises(UserError, match="no learning rate: build it with scale_by_rate"):
        optim.read_current_rate(state)
