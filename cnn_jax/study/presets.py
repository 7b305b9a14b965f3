"""Presets: the sizes in which a study comes, such as laptop, paper and smoke."""

from collections.abc import Iterable

from cnn_jax.config import Experiment
from cnn_jax.errors import UserError, nearest


def check_preset(study: str, preset: str, presets: Iterable[str]) -> None:
    """Raises UserError, naming the nearest preset, if the study has none of this name.

    Args:
      study: The study's name.
      preset: The preset that was asked for.
      presets: The presets that the study has.
    """
    presets = tuple(presets)
    if preset not in presets:
        raise UserError(f"preset={preset}: {study} has no such preset; {nearest(preset, presets)}")


def keep_run(run: Experiment) -> Experiment:
    """Returns the run as it is: the preset that changes nothing."""
    return run
