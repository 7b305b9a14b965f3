"""Imports the studies of the folder `experiments`, which is installed as `cnn_jax.experiments`."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

MODULES = ("cnn_jax.experiments", "experiments")  # Installed, or in a checkout.

Studies = Mapping[str, Callable[[str], Any]]
Costs = Mapping[str, Mapping[str, str]]


def import_studies() -> tuple[Studies, Costs]:
    """Returns ({name: function (preset) -> Study}, {name: {preset: what it costs, in words}}).

    Both are empty if no studies are installed.
    """
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        else:
            return module.STUDIES, module.COSTS
    return {}, {}
