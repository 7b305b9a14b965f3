"""Trained models for others: a StableHLO program, files of weights and a model card.

    python -m cnn_jax.export runs/mine/resnet-20/seed0 --out=exported

`make_program`, `save_program` and `load_program` are for any function of a batch.
"""

from cnn_jax.export.program import load_program, make_program, save_program
from cnn_jax.export.run import export_run

__all__ = ["export_run", "load_program", "make_program", "save_program"]
