"""The classic CNN papers, reproduced on your own machine.

Importing this package imports no JAX and changes no flag and no environment variable. The names
below are imported when they are first used. Only `python -m cnn_jax` and `python -m cnn_jax.MODULE`
handle Ctrl-C from here on.
"""

import importlib
from typing import Any

from cnn_jax import interrupts

__version__ = "0.2.0"

# {public name: its module}; None if the name is itself a module of `cnn_jax`.
_PUBLIC = {
    "Choice": "cnn_jax.config",
    "Data": "cnn_jax.config",
    "Experiment": "cnn_jax.config",
    "Train": "cnn_jax.config",
    "choose": "cnn_jax.config",
    "Study": "cnn_jax.study",
    "UserError": "cnn_jax.errors",
    "create": "cnn_jax.models",
    "load_pretrained": "cnn_jax.pretrained",
}
_MODULES = {
    "train": "cnn_jax.training.train",
    "study": "cnn_jax.study",
    "models": "cnn_jax.models",
    "pretrained": "cnn_jax.pretrained",
}

__all__ = [*_PUBLIC, *_MODULES, "__version__"]


interrupts.catch_if_run(__name__)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        attribute = name.removesuffix("_pretrained")
        return getattr(importlib.import_module(_PUBLIC[name]), attribute)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'cnn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
