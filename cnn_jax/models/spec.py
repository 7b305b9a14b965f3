"""ModelSpec: what a name in MODELS stands for; Deviation: in what a model is not its paper's."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.models.base import BaseModel, option_types

Shape = tuple[int, int, int]


def _always(_: BaseModel) -> bool:
    return True


class Deviation(NamedTuple):
    """In what a model is not its paper's, in words.

    Attributes:
      text: The words. A field of the module in braces stands for its value: "dropout {dropout}".
      applies: Whether the words are true of a constructed module.
    """

    text: str
    applies: Callable[[Any], bool] = _always

    def describe(self, module: BaseModel) -> str:
        """The words with the module's values filled in."""
        fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
        return self.text.format_map({name: _show(value) for name, value in fields.items()})


def _show(value: Any) -> str:
    # 1e-05 is written 0.00001.
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return str(value)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a name in MODELS stands for.

    Attributes:
      module: The model's class.
      defaults: Values of its fields in which this model differs from the class's defaults.
      not_options: Fields that cannot be chosen, beside those that the class lists.
      input_shape: Of the paper's images, (H, W, C).
      num_classes: The paper's.
      parameters: Trained numbers of the model as it is created by default, auxiliary heads
        included; the model's file states the source.
      deviations: In what the model is not its paper's.
      max_rate: The largest learning rate of SGD with momentum 0.9 at which it was seen to train
        without batch norm; a run with a larger one says so at its start.
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
          num_classes: None: the paper's.
          **fields: Values of the module's fields, among them `axis` and `name`.

        Raises:
          UserError: if an option has an invalid value.
        """
        num_classes = self.num_classes if num_classes is None else num_classes
        return self.module(num_classes=num_classes, **{**self.defaults, **fields})

    def options(self) -> dict[str, Any]:
        """The types of the fields that can be chosen, in their order."""
        wanted = option_types(self.module)  # type: ignore[arg-type] # as in BaseModel
        return {name: kind for name, kind in wanted.items() if name not in self.not_options}
