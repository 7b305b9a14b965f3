"""Optimizers: each is a function in `OPTIMIZERS` that returns an optax transformation.

An optimizer takes the schedule's transformation, which multiplies by minus the learning rate, and
places it where its paper does; its keyword-only parameters are the options of `optimizer.*`. To add
one, write a function and put it into `OPTIMIZERS`.

SGD is that of the papers, v := m v - lr (g + wd w); w := w + v (Krizhevsky et al. 2012, Sec. 5;
Caffe, and so VGG and ResNet): the rate is inside the velocity, which differs from a rate outside of
it in the steps after the rate changes.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import optax

from cnn_jax import registry
from cnn_jax.config import Choice
from cnn_jax.cpu.barriers import fence_updates
from cnn_jax.optim.schedules import make_schedule
from cnn_jax.optim.transformations import renormalize_filters
from cnn_jax.values import Bound, NonNegative

Share = Annotated[float, Bound(0, below=1)]
Momentum = Annotated[Share, "Share of the last update that is kept"]
WeightDecay = Annotated[NonNegative, "Factor of the L2 penalty's gradient"]
DecayBiases = Annotated[bool, "Decay biases and batch norm's scale and shift too"]
ClipNorm = Annotated[NonNegative, "Scale gradients of a larger norm back to it; 0: do not"]
FilterRms = Annotated[
    NonNegative, "Scale filters of a larger RMS back to it (ZFNet: 0.1); 0: do not"
]


def sgd(
    schedule: optax.GradientTransformation,
    *,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 1e-4,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum on the scaled gradient and coupled L2."""
    return optax.chain(
        _clip(clip_norm),
        _decay(weight_decay, decay_biases),
        schedule,
        optax.trace(decay=momentum),
        _limit(max_filter_rms),
    )


def rmsprop(
    schedule: optax.GradientTransformation,
    *,
    decay: Annotated[Share, "Of the running mean square"] = 0.9,
    epsilon: Annotated[NonNegative, "Added to the mean square inside the root"] = 1.0,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 1e-4,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """RMSProp as TensorFlow has it: the mean square starts at 1, epsilon is inside the root."""
    return optax.chain(
        _clip(clip_norm),
        _decay(weight_decay, decay_biases),
        optax.scale_by_rms(decay, epsilon, initial_scale=1.0),
        schedule,
        optax.trace(decay=momentum),
        _limit(max_filter_rms),
    )


def adamw(
    schedule: optax.GradientTransformation,
    *,
    beta1: Annotated[Share, "Of the running mean of gradients"] = 0.9,
    beta2: Annotated[Share, "Of the running mean of squared gradients"] = 0.999,
    epsilon: Annotated[NonNegative, "Added to the root of the mean square"] = 1e-8,
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
        _decay(weight_decay, decay_biases),
        schedule,
        _limit(max_filter_rms),
    )


def adadelta(
    schedule: optax.GradientTransformation,
    *,
    decay: Annotated[Share, "Of the running mean squares"] = 0.95,
    epsilon: Annotated[NonNegative, "Added to both mean squares inside the roots"] = 1e-6,
    weight_decay: WeightDecay = 0.0,
    decay_biases: DecayBiases = True,
    clip_norm: ClipNorm = 0.0,
    max_filter_rms: FilterRms = 0.0,
) -> optax.GradientTransformation:
    """Adadelta: steps as large as the last ones were; its paper's rate is 1.

    Zeiler 2012, arXiv:1212.5701, Algorithm 1 (decay is its rho), with a rate as Keras has it.
    """
    return optax.chain(
        _clip(clip_norm),
        _decay(weight_decay, decay_biases),
        optax.scale_by_adadelta(decay, epsilon),
        schedule,
        _limit(max_filter_rms),
    )


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "rmsprop": rmsprop,
    "adamw": adamw,
    "adadelta": adadelta,
}


def make_optimizer(
    optimizer: Choice, schedule: Choice, total_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Returns the whole transformation of a run.

    Args:
      optimizer: A name of `OPTIMIZERS` and its arguments.
      schedule: A name of `cnn_jax.optim.SCHEDULES` and its arguments.
      total_steps: The run's steps.

    Returns:
      A transformation whose `update` takes the step's training error, 0 to 1, as `error`.

    Raises:
      UserError: If a name or an argument is wrong.
    """
    rate = make_schedule(schedule, total_steps)
    chain = registry.build("optimizer", optimizer, OPTIMIZERS, rate)
    # The extra argument is the warm-up's; optax.chain hands it to whoever takes it.
    return fence_updates(optax.with_extra_args_support(chain))


def _clip(norm: float) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(norm) if norm else optax.identity()


def _decay(weight_decay: float, decay_biases: bool) -> optax.GradientTransformation:
    def is_kernel(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return optax.add_decayed_weights(weight_decay, None if decay_biases else is_kernel)


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
