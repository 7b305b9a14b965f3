"""Optax transformations of our own.

Warm-up, plateau, early stopping, and the renormalization of filters.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class WarmUpState(NamedTuple):
    """The state of `warm_up_until`.

    Attributes:
      scale: [] float32, what updates are multiplied by.
      error: [] float32, a running mean of the training error.
    """

    scale: jax.Array
    error: jax.Array


def warm_up_until(
    error_below: float, scale: float, memory: float = 0.98
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by `scale` until the training error is low enough, then by 1 for good.

    He et al. 2015, Sec. 4.2: ResNet-110 starts at a rate of 0.01 until the training error is below
    80% (about 400 steps) and continues at 0.1. A batch's error is noisy, so a running mean
    over about 1 / (1 - memory) steps decides; it starts at 1.

    Args:
      error_below: The training error, 0 to 1, that ends the warm-up.
      scale: Factor of the updates during the warm-up.
      memory: Factor of the previous value in the running mean.

    Returns:
      A transformation whose `update` takes the step's training error as `error`.
    """

    def init(params: optax.Params) -> WarmUpState:
        return WarmUpState(jnp.asarray(scale, jnp.float32), jnp.ones((), jnp.float32))

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        error: jax.Array,
        **_: Any,
    ) -> tuple[optax.Updates, WarmUpState]:
        mean = memory * state.error + (1 - memory) * error
        now = jnp.where(mean < error_below, jnp.float32(1), state.scale)
        return multiply(now, updates), WarmUpState(now, mean)

    # optax types the arguments as those of GradientTransformation, whose update takes no others.
    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]


class PlateauState(NamedTuple):
    """The state of `reduce_on_plateau`.

    Attributes:
      scale: [] float32, what updates are multiplied by.
      best: [] float32, the lowest error seen.
      waited: [] int32, evaluations since then.
      cuts: [] int32, how often the scale has been cut.
      factor: [] float32, what a cut multiplies it by.
      patience: [] int32, evaluations without a better error before a cut.
      max_cuts: [] int32, cuts after which it stays; 0: no limit.
    """

    scale: jax.Array
    best: jax.Array
    waited: jax.Array
    cuts: jax.Array
    factor: jax.Array
    patience: jax.Array
    max_cuts: jax.Array


def reduce_on_plateau(
    factor: float, patience: int, max_cuts: int = 0
) -> optax.GradientTransformation:
    """Multiplies updates by a scale that `observe_error` cuts when evaluations stop improving.

    "divided by 10 when the validation error stopped improving" (Krizhevsky et al. 2012, Sec. 5).
    Evaluations are rare and outside the step, so optax.contrib's transformation, which expects a
    value at every update, does not serve.

    Args:
      factor: What a cut multiplies the scale by.
      patience: Evaluations without a better error before a cut.
      max_cuts: Cuts after which the scale stays; 0: no limit.
    """

    def init(params: optax.Params) -> PlateauState:
        def f32(x: float) -> jax.Array:
            return jnp.asarray(x, jnp.float32)

        def i32(x: int) -> jax.Array:
            return jnp.asarray(x, jnp.int32)

        return PlateauState(
            scale=f32(1),
            best=f32(jnp.inf),
            waited=i32(0),
            cuts=i32(0),
            factor=f32(factor),
            patience=i32(patience),
            max_cuts=i32(max_cuts),
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, PlateauState]:
        return multiply(state.scale, updates), state

    return optax.GradientTransformation(init, update)


class PatienceState(NamedTuple):
    """The state of `count_evaluations`.

    Attributes:
      best: [] float32, the lowest error seen.
      waited: [] int32, evaluations since then.
      patience: [] int32, how many of them end the run.
    """

    best: jax.Array
    waited: jax.Array
    patience: jax.Array


def count_evaluations(patience: int) -> optax.GradientTransformation:
    """Leaves updates as they are, and counts evaluations without a lower error: early stopping.

    The count is part of the optimizer's state, so that a run that is continued stops where an
    uninterrupted one does. `observe_error` counts, `ran_out_of_patience` reads.

    Args:
      patience: Evaluations without a lower error that end the run.
    """

    def init(params: optax.Params) -> PatienceState:
        return PatienceState(
            best=jnp.asarray(jnp.inf, jnp.float32),
            waited=jnp.asarray(0, jnp.int32),
            patience=jnp.asarray(patience, jnp.int32),
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, PatienceState]:
        return updates, state

    return optax.GradientTransformation(init, update)


def ran_out_of_patience(opt_state: Any) -> bool:
    """Returns whether early stopping ends the run; False where it is not asked for."""
    states = jax.tree.leaves(opt_state, is_leaf=_is_patience)
    return any(int(s.waited) >= int(s.patience) for s in states if _is_patience(s))


def _is_patience(state: Any) -> bool:
    return isinstance(state, PatienceState)


def observe_error(opt_state: Any, error: float) -> Any:
    """Returns the optimizer's state after an evaluation.

    A plateau's rate may be cut, and early stopping counts the evaluation.

    Args:
      opt_state: The optimizer's state.
      error: The evaluation's error, 0 to 1.
    """

    def observe(state: Any) -> Any:
        if not isinstance(state, PlateauState | PatienceState):
            return state
        better = error < state.best
        waited = jnp.where(better, 0, state.waited + 1)
        if isinstance(state, PatienceState):
            return state._replace(best=jnp.where(better, error, state.best), waited=waited)
        due = waited >= state.patience
        cut = due & ((state.max_cuts == 0) | (state.cuts < state.max_cuts))
        return state._replace(
            scale=jnp.where(cut, state.scale * state.factor, state.scale),
            best=jnp.where(better, error, state.best),
            waited=jnp.where(due, 0, waited),
            cuts=jnp.where(cut, state.cuts + 1, state.cuts),
        )

    kinds = (PlateauState, PatienceState)
    return jax.tree.map(observe, opt_state, is_leaf=lambda s: isinstance(s, kinds))


def renormalize_filters(radius: float) -> optax.GradientTransformation:
    """Scales every convolution filter whose RMS exceeds `radius` back to it.

    Zeiler, Fergus 2013, Sec. 3. A filter is [h, w, in] of a kernel [h, w, in, out]; other
    parameters are left alone. It must be the last of a chain, since it sees the whole update.
    """

    def shorten(update: jax.Array, param: jax.Array) -> jax.Array:
        if param.ndim != 4:
            return update
        moved = param + update
        rms = jnp.sqrt(jnp.mean(jnp.square(moved), axis=(0, 1, 2), keepdims=True))
        # Where nothing exceeds the radius, the update stays as it is to the bit.
        scaled = moved * (radius / jnp.maximum(rms, radius)) - param
        return jnp.where(rms > radius, scaled, update)

    return optax.stateless(lambda updates, params: jax.tree.map(shorten, updates, params))


def multiply(scale: jax.Array, updates: optax.Updates) -> optax.Updates:
    """Returns the updates times a scalar, each in its own dtype."""
    return jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
