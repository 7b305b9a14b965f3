"""Presets: the sizes in which a study comes, such as laptop, paper and smoke."""

from collections.abc import Iterable
from dataclasses import replace

from cnn_jax.config import Experiment, choose
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.tuning import Tuning

SMALL_CNN_RATES = (0.02, 0.05, 0.1, 0.2, 0.4)
# Steps of warm-up in the 600 steps of kernel_size and pooling on digits. Without a warm-up, seeds
# end at chance at the rates that the trials choose.
LAPTOP_WARMUP_STEPS = 30


def check_preset(study: str, preset: str, presets: Iterable[str]) -> None:
    """Checks that a study has a preset.

    Args:
      study: The study's name.
      preset: Name of the preset.
      presets: The presets that the study has.

    Raises:
      UserError: If the study has no such preset. The message names the nearest one.
    """
    presets = tuple(presets)
    if preset not in presets:
        raise UserError(
            f"preset={preset}: {study} has no such preset; {suggest_names(preset, presets)}"
        )


def keep_run(run: Experiment) -> Experiment:
    """Returns the run unchanged, for a preset that changes nothing."""
    return run


def shorten_run(
    run: Experiment, batch_size: int = 8, fake: bool = False, eval_every: int = 2
) -> Experiment:
    """Returns the run with two steps, for the preset smoke, which tests train in seconds.

    Args:
      run: The run of another preset, such as laptop.
      batch_size: Images per step.
      fake: Whether to replace the run's data set with `fake`, which needs no files.
      eval_every: Steps between evaluations.
    """
    data = replace(run.data, batch_size=batch_size)
    if fake:
        data = replace(data, dataset=choose("fake"), eval_batch_size=40)
    train = replace(run.train, steps=2, log_every=1, eval_every=eval_every, save_every=2)
    return replace(run, data=data, train=train)


def tune_small_cnn(preset: str) -> Tuning:
    """Returns how studies of small CNNs choose the learning rate: each model by the same trials.

    Each rate is tried with three seeds, because a model may learn with one seed and stay at chance
    with another.

    Args:
      preset: The study's preset. A trial of laptop takes half the steps of a run on digits, one of
        smoke two steps, and one of any other preset 469 steps, an epoch of MNIST.
    """
    if preset == "smoke":
        return Tuning(SMALL_CNN_RATES[:2], validation_images=32)
    if preset == "laptop":
        return Tuning(SMALL_CNN_RATES, validation_images=360, seeds=3, steps=300)
    return Tuning(SMALL_CNN_RATES, validation_images=5_000, seeds=3, steps=469)
