"""A convolutional denoising autoencoder: images rebuilt from noisy ones through a small code.

After Vincent, Larochelle, Bengio, Manzagol 2008, "Extracting and Composing Robust Features with
Denoising Autoencoders", with convolution and max pooling in the encoder, convolution and
upsampling in the decoder.
"""

from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel
from cnn_jax.models.spec import Deviation, ModelSpec
from cnn_jax.values import Bound


class Autoencoder(BaseModel):
    """3x3 convolutions, each pooled 2x2; then their mirror, each upsampled 2x2; then an image.

    In training the images are made noisy, and the loss is against the clean ones. The feature
    "code" lies between encoder and decoder. There are no classes: num_classes is not used.

    Attributes:
      channels: Of the encoder's convolutions.
      input_noise_std: Standard deviation of the Gaussian noise, in units of the pixels.
      norm: lrn comes after the first pooling.
      dropout: Share of the code dropped in training.
    """

    not_options: ClassVar[tuple[str, ...]] = ("channels",)
    error_name: ClassVar[str] = "reconstruction_error"

    channels: tuple[int, ...] = (16, 8)
    input_noise_std: Annotated[float, Bound(0, 100)] = 0.5

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, H, W, C]; sides are multiples of 4, 2 for each pooling."""
        height, width = images.shape[1:3]
        times = 2 ** len(self.channels)
        if height % times or width % times or not images.size:
            raise UserError(
                f"autoencoder: images of {height}x{width}; sides must be multiples of {times}, so"
                f" that {len(self.channels)} poolings can be undone; the smallest are"
                f" {times}x{times}"
            )

        def conv(x: jax.Array, channels: int, name: str) -> jax.Array:
            channels = self.scale_channels(channels)
            x = Conv(channels, (3, 3), kernel_init=self.kernel_init(), name=name)(x)
            return relu(self.apply_norm(x, f"{name}_norm", train))

        x = images
        if train and self.input_noise_std:
            noise = jax.random.normal(self.make_rng("dropout"), x.shape, x.dtype)
            x = x + self.input_noise_std * noise
        for i, channels in enumerate(self.channels, start=1):
            x = MaxPool(2, 2, name=f"pool{i}")(conv(x, channels, f"encoder{i}"))
            x = self.apply_lrn(x) if i == 1 else x  # [B, 14, 14, 16], [B, 7, 7, 8] from 28x28
        x = self.apply_dropout(self.capture("code", x), train)
        for i, channels in enumerate(self.channels[::-1], start=1):
            x = upsample(conv(x, channels, f"decoder{i}"), 2)  # [B, 14, 14, 8], [B, 28, 28, 16]
        channels = images.shape[-1]
        return Conv(channels, (3, 3), kernel_init=self.kernel_init(), name="image")(x)

    @staticmethod
    def score(
        rebuilt: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Scores rebuilt images against the clean ones; labels are not used.

        Returns:
          loss [B], the mean squared error of a pixel; and error [B], the share of the image's
          variance that is not rebuilt. An image of one value has no variance: its error is 0 if
          it is rebuilt exactly, else 1.
        """

        def mean_square(x: jax.Array) -> jax.Array:
            return jnp.mean(jnp.square(x), (1, 2, 3))

        loss = mean_square(rebuilt - images)
        variance = mean_square(images - images.mean((1, 2, 3), keepdims=True))
        flat = variance == 0
        return loss, jnp.where(flat, jnp.sign(loss), loss / jnp.where(flat, 1.0, variance))


def upsample(x: jax.Array, times: int) -> jax.Array:
    """Repeats each pixel of [B, H, W, C] `times` down and across: nearest-neighbor upsampling."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)


# Parameters: 160 + 1,160 of the encoder, 584 + 1,168 + 145 of the decoder.
MODELS = {
    "autoencoder": ModelSpec(
        Autoencoder,
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=3_217,
        deviations=(Deviation("its widths are ours"),),
    )
}
