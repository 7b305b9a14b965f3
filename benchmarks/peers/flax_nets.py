"""Plain Flax models with the names of our parameters: ResNets, VGG, AlexNet, LeNets, small ones."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ModuleDef = Any
SAME3 = [(1, 1), (1, 1)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut that changes size is padded with zeros (option A)."""

    filters: int
    strides: tuple[int, int]
    conv: ModuleDef
    norm: ModuleDef
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, filters]."""
        y = self.conv(self.filters, (3, 3), self.strides, padding=SAME3, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.filters, (3, 3), padding=SAME3, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        if not self.shortcut:
            return nn.relu(y)
        if x.shape != y.shape:
            x = x[:, :: self.strides[0], :: self.strides[1]]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.filters - x.shape[-1])))
        return nn.relu(x + y)


class BottleneckBlock(nn.Module):
    """1x1 with the stride, 3x3, 1x1; a shortcut that changes size is projected (option B)."""

    filters: int
    strides: tuple[int, int]
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 filters]."""
        y = self.conv(self.filters, (1, 1), self.strides, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.filters, (3, 3), padding=SAME3, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.filters, (1, 1), name="conv3")(y)
        y = self.norm(name="norm3")(y)
        if x.shape != y.shape:
            x = self.conv(4 * self.filters, (1, 1), self.strides, name="projection")(x)
            x = self.norm(name="projection_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet for CIFAR (basic blocks) or ImageNet (bottleneck blocks)."""

    stage_sizes: tuple[int, ...]
    filters: int
    block: ModuleDef
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 3] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        if self.block is BottleneckBlock:
            x = conv(self.filters, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name="stem")(x)
            x = nn.relu(norm(name="stem_norm")(x))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        else:
            x = nn.relu(
                norm(name="stem_norm")(conv(self.filters, (3, 3), padding=SAME3, name="stem")(x))
            )
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                strides = (2, 2) if i > 0 and j == 0 else (1, 1)
                name = f"stage{i + 1}_block{j + 1}"
                x = self.block(
                    self.filters * 2**i, strides=strides, conv=conv, norm=norm, name=name
                )(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x)


class Vgg(nn.Module):
    """VGG's column D, 16 layers."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 3] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        for i, filters in enumerate(
            ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1
        ):
            for j, features in enumerate(filters, start=1):
                x = nn.relu(conv(features, name=f"conv{i}_{j}")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="fc6")(x))
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="fc7")(x))
        return nn.Dense(self.classes, dtype=self.dtype, name="fc8")(x)


class Lenet(nn.Module):
    """LeNet-5's widths with max pooling and ReLU."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 1] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, kernel_size=(5, 5), dtype=self.dtype)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        x = nn.relu(conv(6, padding="SAME" if x.shape[1] <= 28 else "VALID")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(conv(16, padding="VALID")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(dense(120)(x))
        x = nn.relu(dense(84)(x))
        return dense(self.classes)(x)


class Mlp(nn.Module):
    """Dense layers with the scaled tanh between them."""

    hidden: tuple[int, ...]
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 1] to logits [B, classes]."""
        x = x.reshape((x.shape[0], -1))
        for units in self.hidden:
            x = scaled_tanh(nn.Dense(units, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x)


class SmallCnn(nn.Module):
    """Two 5x5 convolutions of 16 and 32 channels with 2x2 max pooling, and a hidden dense layer."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, C], of sides that 4 divides, to logits [B, classes]."""
        for stage, features in enumerate((16, 32), start=1):
            x = nn.relu(nn.Conv(features, (5, 5), dtype=self.dtype, name=f"conv{stage}_1")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(64, dtype=self.dtype, name="dense1")(x))
        return nn.Dense(self.classes, dtype=self.dtype, name="output")(x)


class Subsampling(nn.Module):
    """LeCun et al. 1998, Sec. II-B: four pixels' sum times a coefficient, plus a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / 2, W / 2, C]."""
        coefficient = self.param("coefficient", nn.initializers.ones, (x.shape[-1],), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), x.dtype)
        return 4 * nn.avg_pool(x, (2, 2), strides=(2, 2)) * coefficient + bias


class TableConv(nn.Module):
    """LeCun et al. 1998, Table I: a kernel for each connection, scattered into a dense one."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, 6] to [B, H - 4, W - 4, 16]."""
        inputs, outputs = zip(*((i, o) for o, row in enumerate(C3) for i in row), strict=True)
        kernel = self.param("kernel", nn.initializers.zeros, (5, 5, len(inputs)), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (16,), x.dtype)
        dense = jnp.zeros((5, 5, 6, 16), x.dtype).at[:, :, inputs, outputs].set(kernel)
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, dense, (1, 1), "VALID", dimension_numbers=numbers)
        return y + bias


class Lenet5(nn.Module):
    """LeCun et al. 1998, Sec. II-B. Its logits are negative squared distances to codes."""

    codes: Any  # [classes, 84]
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images of 0 to 1 [B, 28, 28, 1] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, kernel_size=(5, 5), padding="VALID", dtype=self.dtype)
        x = 1.275 * jnp.pad(x.astype(self.dtype), ((0, 0), (2, 2), (2, 2), (0, 0))) - 0.1
        x = scaled_tanh(conv(6, name="c1")(x))
        x = scaled_tanh(Subsampling(name="s2")(x))
        x = scaled_tanh(TableConv(name="c3")(x))
        x = scaled_tanh(Subsampling(name="s4")(x))
        x = scaled_tanh(conv(120, name="c5")(x)).reshape((x.shape[0], -1))
        x = scaled_tanh(nn.Dense(84, dtype=self.dtype, name="f6")(x)).astype(jnp.float32)
        return -jnp.sum((x[:, None] - self.codes) ** 2, axis=-1)


class AlexNet(nn.Module):
    """Krizhevsky et al. 2012, Fig. 2: two towers, as groups of channels."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 3] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, dtype=self.dtype)
        x = nn.relu(conv(96, (11, 11), strides=4, padding="VALID", name="conv1")(x))
        x = nn.max_pool(local_response_norm(x, towers=2), (3, 3), strides=(2, 2))
        x = nn.relu(conv(256, (5, 5), feature_group_count=2, name="conv2")(x))
        x = nn.max_pool(local_response_norm(x, towers=2), (3, 3), strides=(2, 2))
        x = nn.relu(conv(384, (3, 3), name="conv3")(x))
        x = nn.relu(conv(384, (3, 3), feature_group_count=2, name="conv4")(x))
        x = nn.relu(conv(256, (3, 3), feature_group_count=2, name="conv5")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2)).reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="fc6")(x))
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="fc7")(x))
        return nn.Dense(self.classes, dtype=self.dtype, name="fc8")(x)


# LeCun et al. 1998, Table I: the channels of S2 that each channel of C3 is connected to.
C3 = (
    *(tuple((start + step) % 6 for step in range(3)) for start in range(6)),
    *(tuple((start + step) % 6 for step in range(4)) for start in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Returns 1.7159 tanh(2x / 3) (LeCun et al. 1998, App. A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def local_response_norm(x: jax.Array, towers: int = 1) -> jax.Array:
    """Normalizes over five neighboring channels of a tower (Krizhevsky et al. 2012, Sec. 3.3)."""
    split = x.reshape((*x.shape[:-1], towers, -1))
    window, strides = (1, 1, 1, 1, 5), (1,) * 5
    sums = jax.lax.reduce_window(split**2, 0.0, jax.lax.add, window, strides, "SAME")
    return (split / (2 + 1e-4 * sums) ** 0.75).reshape(x.shape)
