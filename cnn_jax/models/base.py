"""BaseModel, the base class of all models: their common options, and layers that use them."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax

from cnn_jax import values
from cnn_jax.errors import UserError
from cnn_jax.layers.activations import relu
from cnn_jax.layers.batch_norm import BatchNorm
from cnn_jax.layers.conv import ConvUnit, DenseAsConv
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import INITIALIZERS, Initializer, he_normal
from cnn_jax.layers.lrn import LocalResponseNorm
from cnn_jax.layers.sizes import compute_smallest_side
from cnn_jax.values import Bound

MAX_UNITS = 2**20  # largest number of units or channels of a layer
Score = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


# Types of options, with their bounds.
Width = Annotated[float, Bound(above=0, most=64)]
Norm = Literal["none", "bn", "lrn"]
Dropout = Annotated[float, Bound(0, 1)]
GroupSize = Annotated[int, Bound(0, MAX_UNITS)]
Epsilon = Annotated[float, Bound(0, 1)]
Units = Annotated[int, Bound(1, MAX_UNITS)]
LeftOut = tuple[Literal["conv3", "conv4", "fc6", "fc7"], ...]  # AlexNet's layers
LossWeight = Annotated[float, Bound(0, 100)]
if TYPE_CHECKING:
    Initialization = str  # type checkers do not accept a Literal with computed values
else:
    Initialization = Literal["paper", *INITIALIZERS]


class BaseModel(nn.Module):
    """A model with the options that all models share; their defaults are the paper's values.

    It computes in the dtype of its images, with float32 parameters and statistics.

    Attributes:
      num_classes: Number of logits.
      width: Factor of the paper's number of channels and units, for every layer except the last.
      initializer: Initializer of the kernels: paper, or a name of
        `layers.initializers.INITIALIZERS`.
      norm: none | bn: batch normalization before the nonlinearity of each convolution, and of the
        dense layers of the MLP and LeNet-5 | lrn: local response normalization with AlexNet's
        constants, where the model's paper has it, or else after the first layer's nonlinearity.
      dropout: Share of the outputs of hidden dense layers that is dropped in training. A model
        without hidden dense layers drops inputs of the last layer. Kept values are scaled up.
      bn_group: Number of images in a group of batch statistics; 0: the whole batch.
      bn_epsilon: Added to the variances.
      axis: Name of the pmapped axis over which the batch is split; None: it is not split.
      fully_convolutional: Whether dense layers run as convolutions and there is no global pooling,
        for images larger than in training (see `cnn_jax.evaluation.dense_views`).
    """

    # Fields that are not options of `create`. Subclasses list only their additional ones.
    not_options: ClassVar[tuple[str, ...]] = (
        "num_classes",
        "axis",
        "fully_convolutional",
        "parent",
        "name",
    )
    # (outputs, images, labels) -> (loss [B], error [B]); None: softmax cross-entropy, top-1 error.
    # Its type lists no arguments, because type checkers would take the first one for self.
    score: ClassVar[Callable[..., tuple[jax.Array, jax.Array]] | None] = None
    # Name of the error that `score` returns.
    error_name: ClassVar[str] = "top1_error"

    num_classes: int
    width: Width = 1.0
    initializer: Initialization = "paper"
    norm: Norm = "none"
    dropout: Dropout = 0.0
    bn_group: GroupSize = 0
    bn_epsilon: Epsilon = 1e-5
    axis: str | None = None
    fully_convolutional: bool = False

    def __post_init__(self) -> None:
        """Raises UserError if an option has an invalid value."""
        # mypy wrongly reports that a class is not hashable if its instances are not.
        wanted_types = get_option_types(type(self))  # type: ignore[arg-type]
        for option, wanted in wanted_types.items():
            value = values.convert(f"model.{option}", getattr(self, option), wanted)
            object.__setattr__(self, option, value)
        classes = values.convert("num_classes", self.num_classes, Units)
        object.__setattr__(self, "num_classes", classes)
        super().__post_init__()

    def check_size(
        self, images: jax.Array, windows: Sequence[tuple[int, int, int]], side: int = 1
    ) -> None:
        """Checks that images are large enough for a chain of convolutions and poolings.

        Args:
          images: Images [B, H, W, C].
          windows: A `sizes.Window` of each layer, or its values, in order.
          side: Pixels that must be left along each axis.

        Raises:
          UserError: If the images are too small; the message states the smallest size.
        """
        side = compute_smallest_side(windows, side)
        height, width = images.shape[1:3]
        if min(height, width) < side:
            name = self.name or type(self).__name__
            raise UserError(f"{name}: images of {height}x{width}; the smallest are {side}x{side}")

    def scale_channels(self, channels: int, towers: int = 1) -> int:
        """Multiplies the paper's channels or units by the width; at least one is left per tower.

        Args:
          channels: The paper's number of channels or units.
          towers: Number of towers among which they are divided.
        """
        return towers * max(1, round(channels / towers * self.width))

    def get_kernel_init(self, paper: Initializer = he_normal) -> Initializer:
        """Returns the initializer that the options name; `paper` is that of the model's paper."""
        return paper if self.initializer == "paper" else INITIALIZERS[self.initializer]

    def get_norm_layer(self) -> Callable[..., BatchNorm] | None:
        """Returns a function that makes a batch norm layer from name=...; None without one."""
        if self.norm != "bn":
            return None
        return functools.partial(
            BatchNorm, group=self.bn_group, axis=self.axis, epsilon=self.bn_epsilon
        )

    def get_conv_unit(self, paper: Initializer = he_normal) -> Callable[..., ConvUnit]:
        """Returns a function that makes a `ConvUnit` from channels, kernel and name=..."""
        return functools.partial(
            ConvUnit, norm=self.get_norm_layer(), kernel_init=self.get_kernel_init(paper)
        )

    def apply_norm(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """Applies batch norm to [B, ..., C] if norm is bn; `name` is the layer's name.

        Args:
          x: Array [B, ..., C].
          name: Name of the layer.
          train: Whether to use the batch's statistics.
        """
        norm = self.get_norm_layer()
        return norm(name=name)(x, train) if norm else x

    def apply_lrn(self, x: jax.Array, name: str = "lrn", towers: int = 1) -> jax.Array:
        """Applies local response normalization to [B, ..., C] if norm is lrn.

        Args:
          x: Array [B, ..., C].
          name: Name of the layer.
          towers: Number of groups of channels; neighbors are of one group.
        """
        return LocalResponseNorm(towers, name=name)(x) if self.norm == "lrn" else x

    def apply_dropout(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies dropout if `train`."""
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    def classify(
        self,
        x: jax.Array,
        kernel_init: Initializer,
        train: bool,
        bias_init: Initializer = nn.initializers.zeros,
        units: int = 4096,
        left_out: Sequence[str] = (),
    ) -> jax.Array:
        """Applies the three dense layers of AlexNet, ZFNet and VGG.

        Args:
          x: Feature maps [B, H, W, C].
          kernel_init: Initializer of the three kernels.
          train: Whether to apply dropout.
          bias_init: Initializer of the biases of fc6 and fc7.
          units: Number of units of fc6 and fc7.
          left_out: Layers to leave out; fc6 and fc7 are possible.

        Returns:
          Logits, [B, num_classes]; of a fully convolutional model [B, H', W', num_classes].
        """
        hidden = [name for name in ("fc6", "fc7") if name not in left_out]
        if self.fully_convolutional:
            for name in hidden:
                x = relu(DenseAsConv(name=name)(x))
            return DenseAsConv(name="fc8")(x)
        x = x.reshape(x.shape[0], -1)
        units = self.scale_channels(units)
        for name in hidden:
            x = Dense(units, kernel_init=kernel_init, bias_init=bias_init, name=name)(x)
            x = self.apply_dropout(self.capture(name, relu(x)), train)
        return Dense(self.num_classes, kernel_init=kernel_init, name="fc8")(x)

    def capture(self, name: str, x: jax.Array) -> jax.Array:
        """Records x as a feature of this name, which `Model.features` then returns.

        Continue with the return value, not with x: `cnn_jax.visualize` adds an offset to it, to
        compute gradients with respect to the feature.

        Args:
          name: Name of the feature.
          x: Activations [B, ...].
        """
        # All features are in one variable, because a flax variable cannot have the name of a layer.
        self.sow(
            "features", "stages", {name: x}, reduce_fn=lambda old, new: old | new, init_fn=dict
        )
        return x


@functools.cache
def get_option_types(module: type[BaseModel]) -> dict[str, Any]:
    """Returns {option: type} of a model's class, in the order of its fields."""
    fixed = {name for cls in module.__mro__ for name in vars(cls).get("not_options", ())}
    types = typing.get_type_hints(module, include_extras=True)
    names = [field.name for field in dataclasses.fields(module)]
    return {name: types[name] for name in names if name not in fixed}
