"""SGD as the papers write it: coupled L2, momentum on the scaled gradient, and the learning rate's rules; RMSProp.

The update is v := m v - lr (g + wd w); w := w + v (Krizhevsky et al. 2012, Sec. 5; Caffe, and so VGG and
ResNet): the rate is inside the velocity, which differs from lr outside it at the moments when lr changes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_jax import mesh
from cnn_jax.config import Optim
from cnn_jax.errors import UserError, nearest

MANY = 2**16  # weights of a kernel from which its update is kept apart from its gradient


def schedule(optim: Optim) -> optax.Schedule:
    """The learning rate at a step: constant | step | exponential | inverse_time (plateau: constant times a factor)."""
    lr, k, boundaries = optim.learning_rate, optim.decay, jnp.asarray(optim.boundaries, jnp.int32)
    schedules = {
        "constant": lambda: optax.constant_schedule(lr),
        "plateau": lambda: optax.constant_schedule(lr),
        "step": lambda: lambda step: lr * jnp.prod(jnp.where(step >= boundaries, jnp.float32(optim.factor), 1)),
        "exponential": lambda: lambda step: lr * jnp.exp(-k * jnp.asarray(step, jnp.float32)),
        "inverse_time": lambda: lambda step: lr / (1 + k * jnp.asarray(step, jnp.float32)),
    }
    if optim.schedule not in schedules:
        raise UserError(f"optim.schedule={optim.schedule!r}: {nearest(optim.schedule, schedules)}")
    return schedules[optim.schedule]()


def transformation(optim: Optim) -> optax.GradientTransformationExtraArgs:
    """The whole chain; `update` takes the step's training error (0 to 1) as the extra argument `error`."""
    mask = None if optim.decay_all else lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    chain = [optax.clip_by_global_norm(optim.clip)] if optim.clip else []
    chain.append(optax.add_decayed_weights(optim.weight_decay, mask))
    if optim.rule == "rmsprop":  # as TensorFlow's: the mean square starts at 1, epsilon is inside the root
        chain.append(optax.scale_by_rms(optim.rms_decay, optim.rms_epsilon, initial_scale=1.0))
    chain.append(scheduled(schedule(optim)))
    if optim.warmup_error < 1:
        chain.append(warm_up_until(optim.warmup_error, optim.warmup_learning_rate / optim.learning_rate))
    if optim.schedule == "plateau":
        chain.append(reduce_on_plateau(optim.factor, optim.patience))
    chain.append(optax.trace(decay=optim.momentum))
    if optim.filter_rms:
        chain.append(renormalise_filters(optim.filter_rms))
    # The extra argument is for warm-up; optax.chain passes it on to those that take it.
    return _fenced(optax.with_extra_args_support(optax.chain(*chain)))


def _fenced(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """The same, its arithmetic kept out of what makes the gradients.

    On a CPU, XLA moves the sum with weight decay into the matrix product that gives a gradient, and for that writes
    the decay of each weight to memory first: a pass over them all for each term of the update.
    """

    fence = lambda g: jax.lax.optimization_barrier(g) if g.size >= MANY else g

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple:
        return tx.update(jax.tree.map(fence, updates), state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update) if mesh.platform() == "cpu" else tx


class ScheduledState(NamedTuple):
    """count [] int32: updates done; scale [] float32: the learning rate of the last one."""

    count: jax.Array
    scale: jax.Array


def scheduled(rate: optax.Schedule) -> optax.GradientTransformation:
    """Multiplies updates by minus the scheduled rate, and remembers it (optax.scale_by_schedule does not)."""

    def init(params: Any) -> ScheduledState:
        return ScheduledState(jnp.zeros((), jnp.int32), jnp.asarray(rate(0), jnp.float32))

    def update(updates: Any, state: ScheduledState, params: Any = None) -> tuple:
        now = jnp.asarray(rate(state.count), jnp.float32)
        return _times(-now, updates), ScheduledState(state.count + 1, now)

    return optax.GradientTransformation(init, update)


class WarmUpState(NamedTuple):
    """scale [] float32: what updates are multiplied by; error [] float32: a running mean of the training error."""

    scale: jax.Array
    error: jax.Array


def warm_up_until(error_below: float, scale: float, memory: float = 0.98) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by `scale` until the training error is below `error_below`, then by 1 for good.

    He et al. 2015, Sec. 4.2: ResNet-110 starts at 0.01 until the training error is below 80% (about 400
    iterations), then goes on at 0.1. A batch's error is noisy, so that a running mean over about
    1 / (1 - memory) steps decides; it starts at 1.
    """

    def init(params: Any) -> WarmUpState:
        return WarmUpState(jnp.asarray(scale, jnp.float32), jnp.ones((), jnp.float32))

    def update(updates: Any, state: WarmUpState, params: Any = None, *, error: jax.Array, **_: Any) -> tuple:
        mean = memory * state.error + (1 - memory) * error
        now = jnp.where(mean < error_below, jnp.float32(1), state.scale)
        return _times(now, updates), WarmUpState(now, mean)

    return optax.GradientTransformationExtraArgs(init, update)


class PlateauState(NamedTuple):
    """scale [] float32; best [] float32: the lowest error seen; waited [] int32: evaluations since then."""

    scale: jax.Array
    best: jax.Array
    waited: jax.Array
    factor: jax.Array
    patience: jax.Array


def reduce_on_plateau(factor: float, patience: int) -> optax.GradientTransformation:
    """Multiplies updates by a scale that `observe` cuts by `factor` when evaluations stop improving.

    "divided by 10 when the validation error stopped improving" (Krizhevsky et al. 2012, Sec. 5). Evaluations
    come seldom and outside of the step, which is why optax.contrib's, fed at every update, does not serve.
    """

    def init(params: Any) -> PlateauState:
        f32, i32 = (lambda x: jnp.asarray(x, jnp.float32)), (lambda x: jnp.asarray(x, jnp.int32))
        return PlateauState(f32(1), f32(jnp.inf), i32(0), f32(factor), i32(patience))

    def update(updates: Any, state: PlateauState, params: Any = None) -> tuple:
        return _times(state.scale, updates), state

    return optax.GradientTransformation(init, update)


def renormalise_filters(radius: float = 0.1) -> optax.GradientTransformation:
    """Ends an update with every convolution filter whose RMS exceeds `radius` scaled back to it; comes last in a chain.

    Zeiler, Fergus 2013, Sec. 3. A filter is [h, w, in] of a kernel [h, w, in, out]; other parameters are left alone.
    """

    def shortened(update: jax.Array, param: jax.Array) -> jax.Array:
        if param.ndim != 4:
            return update
        moved = param + update
        rms = jnp.sqrt(jnp.mean(jnp.square(moved), axis=(0, 1, 2), keepdims=True))
        # Where nothing exceeds, the update stays as it is to the bit.
        return jnp.where(rms > radius, moved * (radius / jnp.maximum(rms, radius)) - param, update)

    return optax.stateless(lambda updates, params: jax.tree.map(shortened, updates, params))


def observe(opt_state: Any, error: float) -> Any:
    """The optimiser's state after an evaluation: on a plateau the rate is cut (`patience` without a better error)."""

    def seen(state: Any) -> Any:
        if not isinstance(state, PlateauState):
            return state
        better = error < state.best
        waited = jnp.where(better, 0, state.waited + 1)
        cut = waited >= state.patience
        return state._replace(
            scale=jnp.where(cut, state.scale * state.factor, state.scale),
            best=jnp.where(better, error, state.best),
            waited=jnp.where(cut, 0, waited),
        )

    return jax.tree.map(seen, opt_state, is_leaf=lambda s: isinstance(s, PlateauState))


def current_rate(opt_state: Any) -> jax.Array:
    """The learning rate of the last update, [] float32: the schedule's times warm-up's and plateau's scales."""
    ours = (ScheduledState, WarmUpState, PlateauState)
    states = jax.tree.leaves(opt_state, is_leaf=lambda s: isinstance(s, ours))
    return functools.reduce(jnp.multiply, [s.scale for s in states if isinstance(s, ours)])


def _times(scale: jax.Array, updates: Any) -> Any:
    return jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
