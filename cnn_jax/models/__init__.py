"""The models of the papers: `create` makes a model by its name, and MODELS lists the names."""

from cnn_jax.models.base import BaseModel
from cnn_jax.models.registry import (
    DTYPES,
    MODELS,
    Model,
    create,
    describe_deviations,
    find_spec,
    get_defaults,
    get_option_types,
    get_paper_input,
    list_options,
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
    "describe_deviations",
    "find_spec",
    "get_defaults",
    "get_option_types",
    "get_paper_input",
    "list_options",
]
