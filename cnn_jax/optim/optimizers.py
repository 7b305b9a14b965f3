"""Optimizers: each is a function in `OPTIMIZERS` that returns an optax transformation.

An optimizer takes the schedule's transformation, which multiplies by minus the learning rate, and
places it where its paper does; its keyword-only parameters are the options of `optimizer.*`. To add
one, write a function and put it into `OPTIMIZERS`.

SGD is that of the papers, v := m v - lr (g + wd w); w := w + v (Krizhevsky et al. 2012, Sec. 5;
Caffe, and so VGG and ResNet): the rate is inside the velocity, which differs from a rate outside of
it in the steps after the rate changes.

Penalties enter by their exact gradients, which are added to the loss's before anything else: that
of L2, weight_decay / 2 times the sum of w^2, is weight_decay w; a subgradient of L1, l1 times the
sum of |w|, is l1 sign(w), with sign(0) = 0. The loss that a run logs is without them. AdamW alone
takes its decay apart from the gradient.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from cnn_jax import registry
from cnn_jax.config import Choice
from cnn_jax.cpu.barriers import fence_updates
from cnn_jax.errors import UserError
from cnn_jax.optim.schedules import make_schedule
from cnn_jax.optim.transformations import renormalize_filters
from cnn_jax.values import Bound, NonNegative

Share = Annotated[float, Bound(0, below=1)]
Momentum = Annotated[Share, "Factor of the previous update"]
WeightDecay = Annotated[NonNegative, "Coefficient of the L2 penalty: d in gradient + d * weight"]
L1 = Annotated[NonNegative, "Coefficient of the L1 penalty: d in gradient + d * sign(weight)"]
Beta1 = Annotated[Share, "Decay rate of the running mean of gradients"]
Beta2 = Annotated[Share, "Decay rate of the running mean of squared gradients"]
AdamEpsilon = Annotated[NonNegative, "Added to the root of the mean square"]
DecayBiases = Annotated[bool, "Also penalize biases and batch norm's scale and shift"]
ClipNorm = Annotated[NonNegative, "Largest norm of the gradient; larger ones are scaled; 0: none"]
FilterRms = Annotated[
    NonNegative, "Largest RMS of a filter; larger filters are scaled (ZFNet: 0.1); 0: none"
]


def sgd(
    schedule: optax.GradientTransformation,
    *,
    momentum: Momentum = 0.9,
    nesterov: Annotated[bool, "Use Nesterov's momentum"] = False,
    weight_decay: WeightDecay = 1e-4,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum. The L2 penalty is part of the gradient.

    Momentum accumulates gradients that are already multiplied by the learning rate. With `nesterov`
    the update is m v - lr g with the new v. As in PyTorch and optax, the parameters are the point
    at which Sutskever et al. 2013 ("On the importance of initialization and momentum in deep
    learning", eqs. 3 and 4) take the gradient.
    """
    if nesterov and not momentum:
        raise UserError("optimizer.nesterov=true: needs optimizer.momentum above 0")
    return optax.chain(
        _clip(clip_norm),
        _penalize(weight_decay, l1, decay_biases),
        schedule,
        optax.trace(decay=momentum, nesterov=nesterov),
        _limit(max_filter_rms),
    )


def rmsprop(
    schedule: optax.GradientTransformation,
    *,
    decay: Annotated[Share, "Decay rate of the running mean square"] = 0.9,
    epsilon: Annotated[NonNegative, "Added to the mean square inside the root"] = 1.0,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 1e-4,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """RMSProp as in TensorFlow: the mean square starts at 1, and epsilon is inside the root."""
    return optax.chain(
        _clip(clip_norm),
        _penalize(weight_decay, l1, decay_biases),
        optax.scale_by_rms(decay, epsilon, initial_scale=1.0),
        schedule,
        optax.trace(decay=momentum),
        _limit(max_filter_rms),
    )


def adam(
    schedule: optax.GradientTransformation,
    *,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    epsilon: AdamEpsilon = 1e-8,
    weight_decay: WeightDecay = 0.0,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Adam, with penalties that are part of the gradient.

    Kingma, Ba 2015, arXiv:1412.6980, Algorithm 1. The paper's rate is 0.001.
    """
    return optax.chain(
        _clip(clip_norm),
        _penalize(weight_decay, l1, decay_biases),
        _allow_promotion(optax.scale_by_adam(beta1, beta2, epsilon)),
        schedule,
        _limit(max_filter_rms),
    )


def adadelta(
    schedule: optax.GradientTransformation,
    *,
    decay: Annotated[Share, "Decay rate of the mean squares of gradients and updates"] = 0.95,
    epsilon: Annotated[NonNegative, "Added to both mean squares inside their roots"] = 1e-6,
    weight_decay: WeightDecay = 0.0,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Adadelta. Set schedule.base=1, because its update rule needs no learning rate.

    Zeiler 2012, arXiv:1212.5701, Algorithm 1; decay and epsilon of Sec. 4.1.
    """
    return optax.chain(
        _clip(clip_norm),
        _penalize(weight_decay, l1, decay_biases),
        optax.scale_by_adadelta(decay, epsilon),
        schedule,
        _limit(max_filter_rms),
    )


def adamw(
    schedule: optax.GradientTransformation,
    *,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    epsilon: AdamEpsilon = 1e-8,
    weight_decay: Annotated[
        NonNegative, "Decoupled weight decay: each step subtracts rate * weight_decay * weight"
    ] = 0.01,
    decay_biases: DecayBiases = False,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, which is not part of the gradient.

    Loshchilov, Hutter 2019, arXiv:1711.05101, Algorithm 2, with the rate on both terms.
    """
    return optax.chain(
        _clip(clip_norm),
        _allow_promotion(optax.scale_by_adam(beta1, beta2, epsilon)),
        _penalize(weight_decay, 0.0, decay_biases),
        schedule,
        _limit(max_filter_rms),
    )


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adam": adam,
    "adamw": adamw,
}


def make_optimizer(
    optimizer: Choice,
    schedule: Choice,
    total_steps: int,
    steps_per_epoch: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Returns the whole transformation of a run.

    Args:
      optimizer: A name of `OPTIMIZERS` and its arguments.
      schedule: A name of `cnn_jax.optim.SCHEDULES` and its arguments.
      total_steps: The run's steps.
      steps_per_epoch: For a schedule that counts epochs.

    Returns:
      A transformation whose `update` takes the step's training error, 0 to 1, as `error`, and may
      take another base rate, [] float32, as `base`.

    Raises:
      UserError: If a name or an argument is wrong.

    Example:
      >>> from cnn_jax.config import choose
      >>> sgd, rate = choose("sgd", momentum=0.9, weight_decay=0.0), choose("constant", base=0.1)
      >>> optimizer = make_optimizer(sgd, rate, total_steps=100)
      >>> params = {"w": jnp.ones(2)}
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update({"w": jnp.ones(2)}, state, params)
      >>> print(updates["w"])
      [-0.1 -0.1]
    """
    rate = make_schedule(schedule, total_steps, steps_per_epoch)
    chain = registry.build("optimizer", optimizer, OPTIMIZERS, rate)
    # The extra arguments are the schedule's; optax.chain hands them to whoever takes them.
    return fence_updates(optax.with_extra_args_support(chain))


def _clip(norm: float) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(norm) if norm else optax.identity()


def _penalize(weight_decay: float, l1: float, decay_biases: bool) -> optax.GradientTransformation:
    """Adds the penalties' gradients, of biases too or of kernels alone."""

    def is_kernel(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    mask = None if decay_biases else is_kernel
    decay = optax.add_decayed_weights(weight_decay, mask)
    if not l1:  # Without L1 the state has one element less; checkpoints depend on it.
        return decay

    def add_signs(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda g, p: g + l1 * jnp.sign(p), updates, params)

    signs = optax.stateless(add_signs)
    return optax.chain(decay, optax.masked(signs, mask) if mask else signs)


def _allow_promotion(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lets optax mix integers and floats, which train.check_numerics forbids our own code."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)


def _limit(max_filter_rms: float) -> optax.GradientTransformation:
    return renormalize_filters(max_filter_rms) if max_filter_rms else optax.identity()
