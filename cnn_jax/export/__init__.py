"""Trained models for others: a StableHLO program, files of weights and a model card.

    python -m cnn_jax.export runs/mine/resnet-20/seed0 --out=exported

`make_program`, `save_program` and `load_program` are for any function of a batch. The names are
imported when they are first used, so that Ctrl-C ends the command in one line from its start.
"""

import importlib
from typing import Any

_PUBLIC = {
    "export_run": "cnn_jax.export.run",
    "load_program": "cnn_jax.export.program",
    "make_program": "cnn_jax.export.program",
    "save_program": "cnn_jax.export.program",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'cnn_jax.export' has no attribute {name!r}")
