"""Presets: the sizes in which a study comes, such as laptop, paper and smoke."""

from collections.abc import Iterable
from dataclasses import replace

from cnn_jax.config import Experiment, choose
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.tuning import Tuning

SMALL_CNN_RATES = (0.02, 0.05, 0.1, 0.2, 0.4)
# Of the 600 steps of kernel_size and pooling on digits. Without a warm-up, seeds end at chance at
# the rates that the trials choose.
LAPTOP_WARMUP_STEPS = 30


def check_preset(study: str, preset: str, presets: Iterable[str]) -> None:
    """Raises UserError, naming the nearest preset, if the study has none of this name.

    Args:
      study: The study's name.
      preset: The preset that was asked for.
      presets: The presets that the study has.
    """
    presets = tuple(presets)
    if preset not in presets:
        raise UserError(
            f"preset={preset}: {study} has no such preset; {suggest_names(preset, presets)}"
        )


def keep_run(run: Experiment) -> Experiment:
    """Returns the run as it is: the preset that changes nothing."""
    return run


def shorten_run(
    run: Experiment, batch_size: int = 8, fake: bool = False, eval_every: int = 2
) -> Experiment:
    """Returns the run with two steps: the preset smoke, which tests train in seconds.

    Args:
      run: The run, such as that of the preset laptop.
      batch_size: Images per step.
      fake: Whether it is trained on fake data, which has no files, in place of its own data.
      eval_every: Steps between evaluations.
    """
    data = replace(run.data, batch_size=batch_size)
    if fake:
        data = replace(data, dataset=choose("fake"), eval_batch_size=40)
    train = replace(run.train, steps=2, log_every=1, eval_every=eval_every, save_every=2)
    return replace(run, data=data, train=train)


def tune_small_cnn(preset: str) -> Tuning:
    """Returns how the studies of small CNNs choose each model's learning rate: with one budget.

    Each rate has three seeds, because a model may learn with one and stay at chance with another.

    Args:
      preset: laptop trains a trial for half a run on digits, smoke for two steps, and every other
        one for 469 steps, an epoch of MNIST.
    """
    if preset == "smoke":
        return Tuning(SMALL_CNN_RATES[:2], validation_images=32)
    if preset == "laptop":
        return Tuning(SMALL_CNN_RATES, validation_images=360, seeds=3, steps=300)
    return Tuning(SMALL_CNN_RATES, validation_images=5_000, seeds=3, steps=469)
