"""The models of the papers: `create` makes a model by its name, and MODELS lists the names."""

from cnn_jax.models.base import BaseModel
from cnn_jax.models.registry import (
    DTYPES,
    MODELS,
    Model,
    create,
    deviations,
    find_spec,
    list_options,
    option_types,
    paper_input,
)
from cnn_jax.models.spec import Deviation, ModelSpec

__all__ = [
    "DTYPES",
    "MODELS",
    "BaseModel",
    "Deviation",
    "Model",
    "ModelSpec",
    "create",
    "deviations",
    "find_spec",
    "list_options",
    "option_types",
    "paper_input",
]
