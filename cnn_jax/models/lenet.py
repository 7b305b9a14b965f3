"""LeNet-1, LeNet-4 and LeNet-5, and a modern variant of LeNet-5.

The paper is LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document
Recognition": LeNet-5 is in Sec. II-B, LeNet-1 and LeNet-4 are in Sec. III-C. LeNet-1's tables are
in LeCun et al. 1990, "Handwritten Digit Recognition with a Back-Propagation Network" (NIPS 2). The
modern variant has LeNet-5's widths. Differs: C3 sees all six channels, pooling has no parameters,
ReLU instead of the scaled tanh, a dense softmax instead of the RBF output.
"""

import functools
import math
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers.activations import Activation, relu, scaled_tanh
from cnn_jax.layers.conv import Conv, TableConv
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.pooling import MaxPool, Subsampling
from cnn_jax.layers.rbf import Rbf, compute_map_loss, draw_bitmaps
from cnn_jax.models.base import BaseModel
from cnn_jax.models.spec import Deviation, ModelSpec
from cnn_jax.values import Bound

# Table I: the channels of S2 that each channel of C3 sees; 60 kernels in all.
C3_TABLE = (
    *(tuple((i + step) % 6 for step in range(3)) for i in range(6)),
    *(tuple((i + step) % 6 for step in range(4)) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

# LeNet-1: LeCun et al. 1990, Table 1: the channels of H2 that each channel of H3 sees; 20 kernels.
LENET1_TABLE = (
    *((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1)),
    *((2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3)),
)
# LeNet-4: each channel sees three of eight. Differs: the table is ours, as the paper prints none;
# its 48 kernels give the paper's "about 260,000 connections".
LENET4_TABLE = (
    *(tuple(sorted((i + step) % 8 for step in (0, 1, 2))) for i in range(8)),
    *(tuple(sorted((i + step) % 8 for step in (0, 2, 5))) for i in range(8)),
)


def scale_pixels(images: jax.Array) -> jax.Array:
    """Maps pixels from 0 (background) to 1 (ink) to the paper's -0.1 to 1.175 (Sec. II-B).

    The pixels of digits then have a mean of about 0 and a variance of about 1.
    """
    return 1.275 * images - 0.1


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draws uniformly from -2.4 / fan-in to 2.4 / fan-in (App. A).

    Args:
      key: A random key.
      shape: Shape [..., in, out] of the kernel.
      dtype: Dtype of the kernel.
    """
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * (2.4 / math.prod(shape[:-1]))


class Lenet5(BaseModel):
    """Layers C1 to F6 and ten Euclidean RBF units: 60,000 parameters, on images of 32x32.

    Pixels are from 0 (background) to 1 (ink): data.subtract_mean=none; `scale_pixels` is applied to
    them. Logits are minus the squared distances between F6 and the codes of `draw_bitmaps`. SGD
    with momentum 0.9 trains it at rates of 0.003 to 0.01, but not at 0.03.

    Attributes:
      initializer: paper: uniform from -2.4 / fan-in to 2.4 / fan-in.
      norm: none | bn: before each nonlinearity | lrn: after the nonlinearity of C1.
      dropout: Share of the inputs of F6 and of the output layer that is dropped in training.
      c3: table: connected as in Table I | full: each channel sees all six of S2, which gives
        60,900 parameters.
      rubbish: The constant j of the MAP criterion, the squared distance of a rubbish class; None:
        there is no such class.
    """

    not_options: ClassVar[tuple[str, ...]] = ("width",)  # Table I fixes the channels

    c3: Literal["table", "full"] = "table"
    rubbish: Annotated[float, Bound(above=0, most=1e6)] | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits.

        Images smaller than 32x32 are padded with two pixels of background on each side.
        """
        if self.num_classes > 10:
            raise UserError(
                f"lenet5: {self.num_classes} classes; its bitmaps are of ten digits: choose"
                " lenet5_modern"
            )
        border = 2 if min(images.shape[1:3]) < 32 else 0
        self.check_size(images, [(5, 1, 2 * border), (2, 2, 0), (5, 1, 0), (2, 2, 0), (5, 1, 0)])
        init = self.get_kernel_init(uniform)

        def activate(name: str, x: jax.Array) -> jax.Array:
            return self.capture(
                name, Activation(scaled_tanh)(self.apply_norm(x, f"{name}_norm", train))
            )

        x = scale_pixels(jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0))))
        x = Conv(6, (5, 5), padding="VALID", kernel_init=init, name="c1")(x)
        x = self.apply_lrn(activate("c1", x))
        x = activate("s2", Subsampling(name="s2")(x))  # [B, 14, 14, 6]
        if self.c3 == "table":
            c3: nn.Module = TableConv(C3_TABLE, (5, 5), kernel_init=init, name="c3")
        else:
            c3 = Conv(16, (5, 5), padding="VALID", kernel_init=init, name="c3")
        x = activate("c3", c3(x))
        x = activate("s4", Subsampling(name="s4")(x))  # [B, 5, 5, 16]
        x = Conv(120, (5, 5), padding="VALID", kernel_init=init, name="c5")(x)
        x = self.apply_dropout(activate("c5", x).reshape(x.shape[0], -1), train)
        x = activate("f6", Dense(84, kernel_init=init, name="f6")(x))
        codes = tuple(map(tuple, draw_bitmaps()[: self.num_classes].tolist()))
        return Rbf(codes, name="output")(self.apply_dropout(x, train))

    def score(
        self, logits: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Compares logits [B, classes] with labels [B]; images are not used.

        Args:
          logits: Logits [B, classes].
          images: Not used.
          labels: Labels [B] int.

        Returns:
          The loss [B] of `compute_map_loss`, and the top-1 error [B] bool.
        """
        loss = compute_map_loss(-logits, labels, jnp.inf if self.rubbish is None else self.rubbish)
        return loss, jnp.argmax(logits, -1) != labels


class EarlyLenet(BaseModel):
    """LeNet-1 and LeNet-4: two 5x5 convolutions with subsampling, and dense layers.

    Pixels are from 0 (background) to 1 (ink): data.subtract_mean=none; `scale_pixels` is applied to
    them. The nonlinearity is the scaled tanh.

    Attributes:
      first_channels: Number of channels of the first convolution.
      copies: Number of subsampling maps for each of these channels. Each map has its own
        coefficient and bias.
      table: The channels that each channel of the second convolution sees.
      hidden: Number of units of the hidden layer; 0: none.
      side: Image side that the first convolution needs, in pixels. Smaller images are padded with
        two pixels of background on each side.
      initializer: paper: uniform from -2.4 / fan-in to 2.4 / fan-in.
      dropout: Share of the inputs of the dense layers that is dropped in training.
    """

    not_options: ClassVar[tuple[str, ...]] = (
        *("width", "first_channels", "copies", "table", "hidden", "side"),  # The paper fixes them.
    )

    first_channels: int = 4
    copies: int = 1
    table: tuple[tuple[int, ...], ...] = LENET1_TABLE
    hidden: int = 0
    side: int = 28

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits."""
        border = 2 if min(images.shape[1:3]) < self.side else 0
        self.check_size(images, [(5, 1, 2 * border), (2, 2, 0), (5, 1, 0), (2, 2, 0)], 4)
        init = self.get_kernel_init(uniform)

        def activate(name: str, x: jax.Array) -> jax.Array:
            return self.capture(name, scaled_tanh(self.apply_norm(x, f"{name}_norm", train)))

        x = scale_pixels(jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0))))
        x = Conv(self.first_channels, (5, 5), padding="VALID", kernel_init=init, name="c1")(x)
        x = self.apply_lrn(activate("c1", x))  # [B, 24, 24, 4] from 28x28
        x = activate("s2", Subsampling(name="s2")(jnp.repeat(x, self.copies, axis=-1)))
        x = activate("c3", TableConv(self.table, (5, 5), kernel_init=init, name="c3")(x))
        x = activate("s4", Subsampling(name="s4")(x))  # [B, 4, 4, 12] of LeNet-1
        x = self.apply_dropout(x.reshape(x.shape[0], -1), train)
        if self.hidden:
            x = activate("f5", Dense(self.hidden, kernel_init=init, name="f5")(x))
            x = self.apply_dropout(x, train)
        return Dense(self.num_classes, kernel_init=init, name="output")(x)


class LenetModern(BaseModel):
    """Conv 5x5 6, pool, conv 5x5 16, pool, dense 120, dense 84, dense classes, with ReLU.

    Attributes:
      initializer: paper: he.
    """

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, num_classes] logits.

        Images are at least 12x12; those of 28x28 are padded to the paper's 32x32.
        """
        same = min(images.shape[1:3]) <= 28
        self.check_size(images, [(5, 1, 4 * same), (2, 2, 0), (5, 1, 0), (2, 2, 0)])
        conv = functools.partial(Conv, kernel_size=(5, 5), kernel_init=self.get_kernel_init())
        dense = functools.partial(Dense, kernel_init=self.get_kernel_init())
        scale, padding = self.scale_channels, "SAME" if same else "VALID"

        x = conv(scale(6), padding=padding, name="Conv_0")(images)
        x = self.capture("conv1", relu(self.apply_norm(x, "norm1", train)))
        x = MaxPool(2, 2, name="pool1")(self.apply_lrn(x))
        x = self.capture("pool1", x)  # [B, 14, 14, 6] from 28x28 or 32x32
        x = conv(scale(16), padding="VALID", name="Conv_1")(x)
        x = self.capture("conv2", relu(self.apply_norm(x, "norm2", train)))
        x = self.capture("pool2", MaxPool(2, 2, name="pool2")(x))  # [B, 5, 5, 16]
        x = x.reshape(x.shape[0], -1)
        for number, units in enumerate((120, 84), start=1):
            x = self.apply_dropout(x, train)
            x = dense(scale(units), name=f"Dense_{number - 1}")(x)
            x = relu(self.apply_norm(x, f"dense_norm{number}", train))
            x = self.capture(f"dense{number}", x)
        return dense(self.num_classes, name="Dense_2")(self.apply_dropout(x, train))


_SUBSAMPLING = Deviation("subsampling's initial coefficients are 1/4, which makes it an average")
_SOFTMAX = Deviation(
    "the output is a softmax with cross-entropy; the paper has ten scaled tanh units"
)

MODELS = {
    "lenet1": ModelSpec(
        EarlyLenet,
        input_shape=(28, 28, 1),
        num_classes=10,
        # LeCun et al. 1990: "2578 independent parameters"; 1998, Sec. III-C: "about 2600".
        parameters=2_578,
        deviations=(
            _SOFTMAX,
            _SUBSAMPLING,
            Deviation(
                "digits have the data set's size; the paper scaled them down to 16x16 pixels first"
            ),
        ),
    ),
    "lenet4": ModelSpec(
        EarlyLenet,
        {"copies": 2, "table": LENET4_TABLE, "hidden": 120, "side": 32},
        input_shape=(32, 32, 1),
        num_classes=10,
        # 104 + 16 + 1,216 + 32 + 48,120 + 1,210. Sec. III-C states "about 17,000 free parameters",
        # fewer than the 120 units that see 16 maps of 5x5 have alone.
        parameters=50_698,
        deviations=(
            _SOFTMAX,
            _SUBSAMPLING,
            Deviation("each map of C3 sees three of S2; the paper prints no table"),
            Deviation(
                "50,698 parameters; the paper states about 17,000, but the 120 units that it"
                " connects to all of 16 maps of 5x5 have 48,120 alone"
            ),
        ),
    ),
    "lenet5": ModelSpec(
        Lenet5,
        input_shape=(32, 32, 1),
        num_classes=10,
        parameters=60_000,  # "60,000 trainable free parameters" (Sec. II-B)
        deviations=(
            Deviation("the ten bitmaps of the output are our drawings, not the paper's"),
            Deviation(
                "trained with the MAP criterion without its rubbish class (softmax cross-entropy of"
                " minus the distances)",
                lambda model: model.rubbish is None,
            ),
            _SUBSAMPLING,
            Deviation("C3 sees all six channels", lambda model: model.c3 == "full"),
        ),
        # Measured on MNIST, batches of 64, pixels 0 to 1, 600 steps: an error of 7% at 0.01 and of
        # 90% at 0.03. Gradients are large, because the loss sums squares over codes of 84 pixels.
        max_rate=0.01,
    ),
    "lenet5_modern": ModelSpec(
        LenetModern,
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=61_706,  # 156 + 2,416 + 48,120 + 10,164 + 850
        deviations=(
            Deviation("C3 sees all six channels"),
            Deviation("max pooling, without parameters"),
            Deviation("ReLU instead of the scaled tanh"),
            Deviation("a dense softmax instead of the RBF output"),
        ),
    ),
}
