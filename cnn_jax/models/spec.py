"""ModelSpec, the definition of a model in MODELS, and Deviation, a difference from its paper."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.models.base import BaseModel, get_option_types

Shape = tuple[int, int, int]


def _always(_: BaseModel) -> bool:
    return True


class Deviation(NamedTuple):
    """One difference between a model and its paper.

    Attributes:
      text: Describes it. {field} is replaced by a field of the flax module, as in
        "dropout {dropout}".
      applies: Returns whether a flax module has this difference.
    """

    text: str
    applies: Callable[[Any], bool] = _always

    def describe(self, module: BaseModel) -> str:
        """Returns the text with the module's values filled in."""
        fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
        return self.text.format_map({name: _format(value) for name, value in fields.items()})


def _format(value: Any) -> str:
    # Without an exponent: 0.00001, not 1e-05.
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return str(value)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The definition of a model in MODELS.

    Attributes:
      module: The class of the flax module.
      defaults: Values of the fields that differ from the class's defaults.
      not_options: Fields that are not options of this model, in addition to the class's.
      input_shape: Shape (H, W, C) of the paper's images.
      num_classes: Number of classes in the paper.
      parameters: Number of trained parameters of the default model, including auxiliary heads. The
        model's file states the source.
      deviations: Differences from the paper.
      max_rate: Largest learning rate of SGD with momentum 0.9 at which the model was observed to
        train without batch norm. Runs with a larger one warn at their start.
    """

    module: type[BaseModel]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    not_options: tuple[str, ...] = ()
    input_shape: Shape = (224, 224, 3)
    num_classes: int = 1000
    parameters: int | None = None
    deviations: tuple[Deviation, ...] = ()
    max_rate: float = math.inf

    def build(self, num_classes: int | None = None, **fields: Any) -> BaseModel:
        """Constructs the flax module.

        Args:
          num_classes: Number of classes; None: the paper's.
          **fields: Fields of the module, including `axis` and `name`.

        Raises:
          UserError: If an option has an invalid value.
        """
        num_classes = self.num_classes if num_classes is None else num_classes
        return self.module(num_classes=num_classes, **{**self.defaults, **fields})

    def options(self) -> dict[str, Any]:
        """Returns {option: type}, in the order of the module's fields."""
        wanted = get_option_types(self.module)  # type: ignore[arg-type] # as in BaseModel
        return {name: kind for name, kind in wanted.items() if name not in self.not_options}
