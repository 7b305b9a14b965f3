"""A convolutional denoising autoencoder: images rebuilt from noisy ones through a small code.

After Vincent, Larochelle, Bengio, Manzagol 2008, "Extracting and Composing Robust Features with Denoising
Autoencoders", with convolution and max pooling in the encoder, convolution and upsampling in the decoder.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import Net


class Autoencoder(Net):
    """3x3 convolutions of `channels`, each pooled 2x2; then their mirror, each upsampled 2x2; then an image.

    In training the images are made noisy, and the loss is against the clean ones. The feature "code" is what lies
    between encoder and decoder. It has no classes: num_classes is not used.

    Attributes:
      channels: of the encoder's convolutions; `create` leaves them as they are, and takes a width.
      noise: standard deviation of the Gaussian noise, in units of the pixels.
      norm: lrn comes after the first pooling.
      dropout: the share of the code dropped in training.
    """

    channels: tuple[int, ...] = (16, 8)
    noise: float = 0.5
    error_name = "reconstruction_error"  # of `score`; no annotation, so no option

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images, sides multiples of 2 to the number of poolings (28 and 32 are), to [B, H, W, C]."""
        times = 2 ** len(self.channels)
        if images.shape[1] % times or images.shape[2] % times or not images.size:
            raise UserError(
                f"autoencoder: images of {images.shape[1]}x{images.shape[2]}; sides must be multiples of {times}, so"
                f" that {len(self.channels)} poolings can be undone; the smallest are {times}x{times}"
            )

        def conv(x: jax.Array, maps: int, name: str) -> jax.Array:
            x = Conv(self.maps(maps), (3, 3), kernel_init=self.weights(), name=name)(x)
            return nn.relu(self.normalised(x, f"{name}_norm", train))

        x = images
        if train and self.noise:
            x = x + self.noise * jax.random.normal(self.make_rng("dropout"), x.shape, x.dtype)
        for i, maps in enumerate(self.channels, start=1):  # [B, 14, 14, 16], [B, 7, 7, 8] from 28x28
            x = MaxPool(2, 2, name=f"pool{i}")(conv(x, maps, f"encoder{i}"))
            x = self.lrn(x) if i == 1 else x
        x = self.dropped(self.keep("code", x), train)
        for i, maps in enumerate(self.channels[::-1], start=1):  # [B, 14, 14, 8], [B, 28, 28, 16]
            x = upsampled(conv(x, maps, f"decoder{i}"), 2)
        return Conv(images.shape[-1], (3, 3), kernel_init=self.weights(), name="image")(x)

    @staticmethod
    def score(rebuilt: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Loss [B], the mean squared error of a pixel; and error [B], the share of the image's variance not rebuilt.

        An image of one value has no variance: its error is 0 where it is rebuilt exactly, else 1.
        """
        square = lambda x: jnp.mean(jnp.square(x), (1, 2, 3))
        loss = square(rebuilt - images)
        variance = square(images - images.mean((1, 2, 3), keepdims=True))
        flat = variance == 0
        return loss, jnp.where(flat, jnp.sign(loss), loss / jnp.where(flat, 1.0, variance))


def upsampled(x: jax.Array, times: int) -> jax.Array:
    """[B, H, W, C] with each pixel repeated `times` down and across: nearest-neighbour upsampling."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)
