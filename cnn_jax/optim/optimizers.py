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
Momentum = Annotated[Share, "Share of the last update that is kept"]
WeightDecay = Annotated[NonNegative, "Factor of the L2 penalty's gradient"]
L1 = Annotated[NonNegative, "Factor of the L1 penalty's subgradient, the sign of a weight"]
Beta1 = Annotated[Share, "Of the running mean of gradients"]
Beta2 = Annotated[Share, "Of the running mean of squared gradients"]
AdamEpsilon = Annotated[NonNegative, "Added to the root of the mean square"]
DecayBiases = Annotated[bool, "Penalize biases and batch norm's scale and shift too"]
ClipNorm = Annotated[NonNegative, "Scale gradients of a larger norm back to it; 0: do not"]
FilterRms = Annotated[
    NonNegative, "Scale filters of a larger RMS back to it (ZFNet: 0.1); 0: do not"
]


def sgd(
    schedule: optax.GradientTransformation,
    *,
    momentum: Momentum = 0.9,
    nesterov: Annotated[bool, "Take the gradient's step from where momentum leads"] = False,
    weight_decay: WeightDecay = 1e-4,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum on the scaled gradient and coupled L2.

    With `nesterov` the update is m v - lr g with the new v: the parameters are those at which
    Sutskever et al. 2013 ("On the importance of initialization and momentum in deep learning",
    eqs. 3 and 4) take the gradient, as in PyTorch and optax.
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
    decay: Annotated[Share, "Of the running mean square"] = 0.9,
    epsilon: Annotated[NonNegative, "Added to the mean square inside the root"] = 1.0,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 1e-4,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """RMSProp as TensorFlow has it: the mean square starts at 1, epsilon is inside the root."""
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
    """Adam, with penalties in the gradient's moments.

    Kingma, Ba 2015, arXiv:1412.6980, Algorithm 1. Its rate is 0.001.
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
    decay: Annotated[Share, "Of the running mean squares of gradients and updates"] = 0.95,
    epsilon: Annotated[NonNegative, "Added to both mean squares inside their roots"] = 1e-6,
    weight_decay: WeightDecay = 0.0,
    l1: L1 = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Adadelta, whose own rule has the rate 1: set schedule.base=1.

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
        NonNegative, "Share of a weight, times the rate, taken per step"
    ] = 0.01,
    decay_biases: DecayBiases = False,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Adam with weight decay apart from the gradient's moments.

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
      A transformation whose `update` takes the step's training error, 0 to 1, as `error`.

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
    # The extra argument is the warm-up's; optax.chain hands it to whoever takes it.
    return fence_updates(optax.with_extra_args_support(chain))


def _clip(norm: float) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(norm) if norm else optax.identity()


def _penalize(weight_decay: float, l1: float, decay_biases: bool) -> optax.GradientTransformation:
    """Adds the penalties' gradients, of biases too or of kernels alone."""

    def is_kernel(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    mask = None if decay_biases else is_kernel
    decay = optax.add_decayed_weights(weight_decay, mask)
    if not l1:  # The state stays as checkpoints have had it.
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
