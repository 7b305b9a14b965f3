"""Learning-rate schedules: each is a function in `SCHEDULES` that returns an optax transformation.

A schedule multiplies updates by minus the learning rate and remembers the rate in its state, where
`read_current_rate` finds it. It takes the run's `Length`; its keyword-only parameters are the
options of `schedule.*`. To add one, write a function and put it into `SCHEDULES`.

The base rate is also an argument of the transformation's `update`: runs that differ only in it then
share a compiled program (`trace_shared_program`).
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import registry
from cnn_jax.config import Choice, change
from cnn_jax.errors import UserError
from cnn_jax.optim.transformations import (
    PlateauState,
    WarmUpState,
    multiply,
    reduce_on_plateau,
    warm_up_until,
)
from cnn_jax.values import MAX_INT32, Bound, Count, NonNegative, Positive

Base = Annotated[Positive, "Learning rate at the start"]
Factor = Annotated[float, Bound(above=0, most=1), "Factor by which each cut multiplies the rate"]
Times = tuple[Annotated[int, Bound(1, MAX_INT32)], ...]
Unit = Annotated[Literal["steps", "epochs"], "Unit of the schedule's times"]
Rate = Callable[[Any, Any], Any]  # (updates done, base) -> the learning rate


class Length(NamedTuple):
    """The length of a run.

    Attributes:
      total_steps: Number of steps of the run.
      steps_per_epoch: Number of steps per epoch, which may be a fraction; None: unknown.
    """

    total_steps: int
    steps_per_epoch: float | None = None

    def count_steps(self, unit: str) -> float:
        """Returns the number of steps in one unit of time: "steps" or "epochs".

        Raises:
          UserError: If the number of steps per epoch is unknown.
        """
        if unit == "steps":
            return 1.0
        if self.steps_per_epoch is None:
            raise UserError("schedule.unit=epochs: the steps per epoch are not known; use steps")
        return self.steps_per_epoch


def constant(length: Length, *, base: Base = 0.1) -> optax.GradientTransformation:
    """The same rate at every step."""
    return scale_by_rate(_hold, base)


def step(
    length: Length,
    *,
    base: Base = 0.1,
    boundaries: Annotated[Times, "Times at which the rate is cut"] = (),
    every: Annotated[
        int, Bound(0, MAX_INT32), "Time between cuts of the rate; 0: cuts at boundaries"
    ] = 0,
    factor: Factor = 0.1,
    unit: Unit = "steps",
    warmup_base: Annotated[Positive, "Learning rate of the warm-up"] = 0.01,
    warmup_until_error: Annotated[
        float, Bound(above=0, most=1), "Training error at which the warm-up ends; 1: no warm-up"
    ] = 1.0,
) -> optax.GradientTransformation:
    """The rate is multiplied by `factor` at each boundary, after He et al.'s optional warm-up.

    A boundary of k epochs is at the first step after k complete epochs.
    """
    if boundaries and every:
        raise UserError(f"schedule.every={every}: set it, or schedule.boundaries, but not both")
    period = length.count_steps(unit)
    if every and unit == "epochs":
        boundaries = tuple(range(every, int(length.total_steps / period) + 1, every))
    # Rounded, because period * time may be slightly above an integer.
    ends = [math.ceil(round(time * period, 6)) for time in boundaries]
    edges = jnp.asarray([min(end, MAX_INT32) for end in ends], jnp.int32)

    def rate(count: Any, base: Any) -> jax.Array:
        count = jnp.asarray(count)
        if every and unit == "steps":
            return base * jnp.float32(factor) ** (count // every).astype(jnp.float32)
        return base * jnp.prod(jnp.where(count >= edges, jnp.float32(factor), 1))

    scaled = scale_by_rate(rate, base)
    if warmup_until_error >= 1:
        return scaled
    return optax.chain(scaled, warm_up_until(warmup_until_error, warmup_base / base))


def exponential(
    length: Length,
    *,
    base: Base = 0.1,
    rate: Annotated[NonNegative, "Decay rate k in base * exp(-k * t)"] = 0.0,
    unit: Unit = "steps",
) -> optax.GradientTransformation:
    """The rate is base * exp(-rate * t)."""
    k = rate / length.count_steps(unit)
    return scale_by_rate(lambda t, base: base * jnp.exp(-k * jnp.asarray(t, jnp.float32)), base)


def inverse_time(
    length: Length,
    *,
    base: Base = 0.1,
    rate: Annotated[NonNegative, "Decay rate k in base / (1 + k * t)"] = 0.0,
    unit: Unit = "steps",
) -> optax.GradientTransformation:
    """The rate is base / (1 + rate * t)."""
    k = rate / length.count_steps(unit)
    return scale_by_rate(lambda t, base: base / (1 + k * jnp.asarray(t, jnp.float32)), base)


def plateau(
    length: Length,
    *,
    base: Base = 0.1,
    factor: Factor = 0.1,
    patience: Annotated[Count, "Evaluations without a lower error before the rate is cut"] = 5,
    max_cuts: Annotated[int, Bound(0, MAX_INT32), "Largest number of cuts; 0: no limit"] = 0,
) -> optax.GradientTransformation:
    """The rate is multiplied by `factor` whenever evaluations stop improving."""
    held = scale_by_rate(_hold, base)
    return optax.chain(held, reduce_on_plateau(factor, patience, max_cuts))


def cosine(
    length: Length,
    *,
    base: Base = 0.1,
    final: Annotated[NonNegative, "Learning rate at the last step"] = 0.0,
    warmup_steps: Annotated[
        int, Bound(0, MAX_INT32), "Number of steps in which the rate rises linearly to base"
    ] = 0,
) -> optax.GradientTransformation:
    """The rate falls along half a cosine from `base` to `final`, after an optional linear warm-up.

    The rate of step t is base (t + 1) / warmup_steps in the warm-up (Goyal et al. 2017,
    arXiv:1706.02677, Sec. 2.2, which starts at base / k for k workers) and then
    final + (base - final) (1 + cos(pi u)) / 2 with u from 0 to 1 over the remaining steps
    (Loshchilov, Hutter 2017, arXiv:1608.03983, eq. 5, without restarts).
    """
    if warmup_steps >= length.total_steps:
        raise UserError(
            f"schedule.warmup_steps={warmup_steps}: must be less than"
            f" train.steps={length.total_steps}"
        )

    def rate(count: Any, base: Any) -> jax.Array:
        step = jnp.asarray(count, jnp.float32)
        share = (step - warmup_steps) / max(1, length.total_steps - 1 - warmup_steps)
        falling = final + (base - final) * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1))) / 2
        return jnp.where(step < warmup_steps, base * (step + 1) / max(1, warmup_steps), falling)

    return scale_by_rate(rate, base)


def _hold(count: Any, base: Any) -> Any:
    return base


SCHEDULES = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "inverse_time": inverse_time,
    "plateau": plateau,
    "cosine": cosine,
}


def make_schedule(
    choice: Choice, total_steps: int, steps_per_epoch: float | None = None
) -> optax.GradientTransformation:
    """Returns the transformation that a choice of `SCHEDULES` names.

    Args:
      choice: The schedule and its arguments.
      total_steps: The run's steps.
      steps_per_epoch: For a schedule that counts epochs.

    Raises:
      UserError: If there is no such schedule, or an argument is wrong.

    Example:
      >>> from cnn_jax.config import choose
      >>> schedule = make_schedule(choose("step", base=0.1, boundaries=(1,)), total_steps=3)
      >>> state, rates = schedule.init({}), []
      >>> for _ in range(3):
      ...     updates, state = schedule.update({"w": jnp.ones(())}, state)
      ...     rates.append(f"{read_current_rate(state):.2f}")
      >>> rates
      ['0.10', '0.01', '0.01']
    """
    length = Length(total_steps, steps_per_epoch)
    return registry.build("schedule", choice, SCHEDULES, length)


class RateState(NamedTuple):
    """The state of `scale_by_rate`.

    Attributes:
      count: [] int32, updates done.
      scale: [] float32, the learning rate of the last one.
    """

    # It hides tuple.count, which nobody calls; checkpoints have the name.
    count: jax.Array  # type: ignore[assignment]
    scale: jax.Array


def scale_by_rate(rate: Rate, base: float) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the rate at their step, and remembers it.

    `optax.scale_by_schedule` does not remember.

    Args:
      rate: (updates done, base) -> the learning rate.
      base: The base rate.

    Returns:
      A transformation whose `update` may take another base rate, [] float32, as `base`.
    """
    own = base

    def init(params: optax.Params) -> RateState:
        return RateState(jnp.zeros((), jnp.int32), jnp.asarray(rate(0, own), jnp.float32))

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        base: jax.typing.ArrayLike | None = None,
        **_: Any,
    ) -> tuple[optax.Updates, RateState]:
        now = jnp.asarray(rate(state.count, own if base is None else base), jnp.float32)
        return multiply(-now, updates), RateState(state.count + 1, now)

    return optax.GradientTransformationExtraArgs(init, update)


def trace_shared_program(
    choice: Choice, total_steps: int, steps_per_epoch: float | None = None
) -> str | None:
    """Traces a schedule's program if the base rate is an argument of it and not a part of it.

    This holds if the schedule uses the base rate only through `scale_by_rate`. All base rates with
    the same program then share a compiled step. The function traces the program for two base rates
    and compares them.

    Args:
      choice: The schedule with all its arguments.
      total_steps: The run's steps.
      steps_per_epoch: For a schedule that counts epochs.

    Returns:
      The program as text. None if the program contains the base rate, or if the schedule
      refuses the second rate.
    """
    own = choice.args.get("base")
    if not isinstance(own, float | int):
        return None
    updates, scalar = {"w": jnp.zeros(())}, jnp.float32(1)

    def trace(base: float) -> str:
        schedule = make_schedule(change(choice, base=base), total_steps, steps_per_epoch)
        whole = optax.with_extra_args_support(schedule)

        def update(state: Any, x: jax.Array) -> Any:
            return whole.update(updates, state, updates, error=x, base=x)

        closed = jax.make_jaxpr(update)(schedule.init(updates), scalar)
        return f"{closed} {[np.asarray(constant).tolist() for constant in closed.consts]}"

    program = trace(own)
    with contextlib.suppress(UserError):  # A schedule of the user may refuse the other rate.
        return program if trace(own / 2) == program else None
    return None


def read_current_rate(opt_state: Any) -> jax.Array:
    """Returns the last update's learning rate, [] float32, with warm-up's and plateau's scales.

    Raises:
      UserError: If a schedule of the user keeps no rate in its state.
    """
    kinds = (RateState, WarmUpState, PlateauState)
    states = jax.tree.leaves(opt_state, is_leaf=lambda state: isinstance(state, kinds))
    scales = [state.scale for state in states if isinstance(state, kinds)]
    if not scales:
        raise UserError("the schedule's state has no learning rate: build it with scale_by_rate")
    return functools.reduce(jnp.multiply, scales)


def schedule_depends_on_steps(choice: Choice, before: int, after: int) -> bool:
    """Returns whether a run's first rates depend on its number of steps.

    Args:
      choice: The schedule.
      before: A run's steps.
      after: Those of a longer run.

    Returns:
      Whether the two runs' rates differ at one of 100 steps up to `before`.
    """
    params = {"w": jnp.zeros(())}
    schedules = [make_schedule(choice, steps, 1.0) for steps in (before, after)]
    for step in sorted({before * k // 100 for k in range(100)}):
        rates = [_rate_at(tx, step, params) for tx in schedules]
        if rates[0] != rates[1]:
            return True
    return False


def _rate_at(tx: optax.GradientTransformation, step: int, params: optax.Params) -> float:
    def jump(state: Any) -> Any:
        return state._replace(count=jnp.int32(step)) if isinstance(state, RateState) else state

    state = jax.tree.map(jump, tx.init(params), is_leaf=lambda state: isinstance(state, RateState))
    _, state = optax.with_extra_args_support(tx).update(params, state, params, error=jnp.float32(1))
    return float(read_current_rate(state))
