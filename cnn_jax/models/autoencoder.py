"""Convolutional denoising autoencoders: images rebuilt from noisy ones through a small code.

After Vincent, Larochelle, Bengio, Manzagol 2008, "Extracting and Composing Robust Features with
Denoising Autoencoders", with convolution and max pooling in the encoder, convolution and
upsampling in the decoder. There are three: a small one, the one that lectures on image retrieval
use on MNIST, and a deeper one for color images of 32x32.
"""

from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.initializers import Initializer, he_normal, xavier_uniform
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel
from cnn_jax.models.spec import Deviation, ModelSpec
from cnn_jax.values import Bound

NoiseStd = Annotated[float, Bound(0, 100)]
# Keras bounds probabilities by it before it takes their logarithms (`keras.backend.epsilon`).
SMALLEST_PROBABILITY = 1e-7


class DenoisingAutoencoder(BaseModel):
    """What the autoencoders share: the noise, the layers, and what they are scored by.

    In training the images are made noisy, and the loss is against the clean ones. The feature
    "code" lies between encoder and decoder. There are no classes: num_classes is not used.

    Attributes:
      input_noise_std: Standard deviation of the Gaussian noise, in units of the pixels.
      norm: lrn comes after the first pooling.
      dropout: Share of the code dropped in training.
    """

    error_name: ClassVar[str] = "reconstruction_error"

    input_noise_std: NoiseStd = 0.5

    def add_noise(self, images: jax.Array, train: bool, clip: bool) -> jax.Array:
        """Returns [B, H, W, C] with Gaussian noise in training, clipped to [0, 1] if `clip`."""
        if not train or not self.input_noise_std:
            return images
        noise = jax.random.normal(self.make_rng("dropout"), images.shape, images.dtype)
        noisy = images + self.input_noise_std * noise
        return jnp.clip(noisy, 0.0, 1.0) if clip else noisy

    def conv(
        self,
        x: jax.Array,
        channels: int,
        name: str,
        train: bool,
        kernel_init: Initializer = he_normal,
        padding: str | tuple[tuple[int, int], ...] = "SAME",
    ) -> jax.Array:
        """Returns ReLU of a 3x3 convolution of [B, H, W, C], with batch norm if norm is bn."""
        init = self.kernel_init(kernel_init)
        channels = self.scale_channels(channels)
        x = Conv(channels, (3, 3), padding=padding, kernel_init=init, name=name)(x)
        return relu(self.apply_norm(x, f"{name}_norm", train))

    def check_multiple(self, images: jax.Array, multiple: int) -> None:
        """Raises UserError if the sides of images [B, H, W, C] are not multiples of `multiple`."""
        height, width = images.shape[1:3]
        if height % multiple or width % multiple or not images.size:
            raise UserError(
                f"{self.name or 'autoencoder'}: images of {height}x{width}; sides must be multiples"
                f" of {multiple}, so that its poolings can be undone; the smallest are"
                f" {multiple}x{multiple}"
            )


class Autoencoder(DenoisingAutoencoder):
    """3x3 convolutions, each pooled 2x2; then their mirror, each upsampled 2x2; then an image.

    Attributes:
      channels: Of the encoder's convolutions.
    """

    not_options: ClassVar[tuple[str, ...]] = ("channels",)

    channels: tuple[int, ...] = (16, 8)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, H, W, C]; sides are multiples of 4, 2 for each pooling."""
        self.check_multiple(images, 2 ** len(self.channels))
        x = self.add_noise(images, train, clip=False)
        for i, channels in enumerate(self.channels, start=1):
            x = MaxPool(2, 2, name=f"pool{i}")(self.conv(x, channels, f"encoder{i}", train))
            x = self.apply_lrn(x) if i == 1 else x  # [B, 14, 14, 16], [B, 7, 7, 8] from 28x28
        x = self.apply_dropout(self.capture("code", x), train)
        for i, channels in enumerate(self.channels[::-1], start=1):
            # [B, 14, 14, 8], [B, 28, 28, 16]
            x = upsample(self.conv(x, channels, f"decoder{i}", train), 2)
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
        return _mean(jnp.square(rebuilt - images)), unexplained_variance(rebuilt, images)


def binary_cross_entropy(rebuilt: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the mean over pixels of -x log(p) - (1 - x) log(1 - p), [B], in nats.

    Args:
      rebuilt: p, [B, H, W, C] from 0 to 1; as in Keras they are kept SMALLEST_PROBABILITY away
        from either end.
      images: x, [B, H, W, C] from 0 to 1.
    """
    p = jnp.clip(rebuilt, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return -_mean(images * jnp.log(p) + (1 - images) * jnp.log1p(-p))


def unexplained_variance(rebuilt: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the share of each image's variance that is not rebuilt, [B].

    An image of one value has no variance: its share is 0 if it is rebuilt exactly, else 1.
    """
    loss = _mean(jnp.square(rebuilt - images))
    variance = _mean(jnp.square(images - images.mean((1, 2, 3), keepdims=True)))
    flat = variance == 0
    return jnp.where(flat, jnp.sign(loss), loss / jnp.where(flat, 1.0, variance))


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, (1, 2, 3))


def score_by_cross_entropy(
    rebuilt: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scores rebuilt images against the clean ones; labels are not used.

    Returns:
      loss [B], the binary cross-entropy of a pixel in nats; and error [B], as `Autoencoder`'s.
    """
    return binary_cross_entropy(rebuilt, images), unexplained_variance(rebuilt, images)


class LecturesAutoencoder(DenoisingAutoencoder):
    """The autoencoder by which lectures on image retrieval encode MNIST: 128 numbers an image.

    3x3 convolutions of 16, 8 and 8 maps, each pooled 2x2, give a code of 4x4x8; convolutions of
    8, 8 and 16 maps, each upsampled 2x2, rebuild the image. The third of these has no padding,
    which makes 14x14 of 16x16, as 28x28 needs. It takes pixels from 0 to 1
    (data.subtract_mean=none); the noise is clipped to that range.
    Source: Sicara 2017, "Keras Tutorial: Content Based Image Retrieval Using a Convolutional
    Denoising Autoencoder", and its published training script.

    Attributes:
      initializer: paper: Keras's default, Glorot's uniform distribution.
    """

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, H, W, C] from 0 to 1; sides are multiples of 4."""
        self.check_multiple(images, 4)

        def conv(x: jax.Array, channels: int, name: str, **options: tuple) -> jax.Array:
            return self.conv(x, channels, name, train, xavier_uniform, **options)

        x = self.add_noise(images, train, clip=True)
        for i, channels in enumerate((16, 8, 8), start=1):
            x = MaxPool(2, 2, "SAME", name=f"pool{i}")(conv(x, channels, f"encoder{i}"))
            x = self.apply_lrn(x) if i == 1 else x  # from 28x28: sides of 14, 7, 4
        x = self.apply_dropout(self.capture("code", x), train)  # [B, 4, 4, 8]
        x = upsample(conv(x, 8, "decoder1"), 2)  # [B, 8, 8, 8]
        x = upsample(conv(x, 8, "decoder2"), 2)  # [B, 16, 16, 8]
        # A side that is no multiple of 8, such as 28, was rounded up by the pooling: here the
        # convolution loses its two pixels too much.
        pads = tuple(((0, 0) if side % 8 else (1, 1)) for side in images.shape[1:3])
        x = upsample(conv(x, 16, "decoder3", padding=pads), 2)  # [B, 28, 28, 16]
        init = self.kernel_init(xavier_uniform)
        return nn.sigmoid(Conv(images.shape[-1], (3, 3), kernel_init=init, name="image")(x))

    score = staticmethod(score_by_cross_entropy)


class DeepAutoencoder(DenoisingAutoencoder):
    """Two 3x3 convolutions at each of three sizes, for color images of 32x32: 256 numbers each.

    It takes pixels from 0 to 1 (data.subtract_mean=none); the noise is clipped to that range.

    Attributes:
      channels: Of both convolutions at each size, each of which is pooled 2x2.
      code_channels: Of the code, which has an eighth of the image's sides.
    """

    not_options: ClassVar[tuple[str, ...]] = ("channels",)

    channels: tuple[int, ...] = (32, 64, 128)
    code_channels: Annotated[int, Bound(1, 1024)] = 16
    input_noise_std: NoiseStd = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images to [B, H, W, C] from 0 to 1; sides are multiples of 8."""
        self.check_multiple(images, 2 ** len(self.channels))
        x = self.add_noise(images, train, clip=True)
        for i, channels in enumerate(self.channels, start=1):
            for part in ("a", "b"):
                x = self.conv(x, channels, f"encoder{i}{part}", train)
            x = MaxPool(2, 2, name=f"pool{i}")(x)  # sides of 16, 8, 4
            x = self.apply_lrn(x) if i == 1 else x
        init = self.kernel_init()
        x = Conv(self.code_channels, (3, 3), kernel_init=init, name="to_code")(x)
        x = self.apply_dropout(self.capture("code", relu(x)), train)  # [B, 4, 4, 16]
        for i, channels in enumerate(self.channels[::-1], start=1):
            for part in ("a", "b"):
                x = self.conv(x, channels, f"decoder{i}{part}", train)
            x = upsample(x, 2)  # sides of 8, 16, 32
        return nn.sigmoid(Conv(images.shape[-1], (3, 3), kernel_init=init, name="image")(x))

    score = staticmethod(score_by_cross_entropy)


def upsample(x: jax.Array, times: int) -> jax.Array:
    """Repeats each pixel of [B, H, W, C] `times` down and across: nearest-neighbor upsampling."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)


MODELS = {
    # 160 + 1,160 of the encoder, 584 + 1,168 + 145 of the decoder.
    "autoencoder": ModelSpec(
        Autoencoder,
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=3_217,
        deviations=(Deviation("its widths are ours"),),
    ),
    # 160 + 1,160 + 584 of the encoder, 584 + 584 + 1,168 + 145 of the decoder.
    "autoencoder_lectures": ModelSpec(
        LecturesAutoencoder,
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=4_385,
        deviations=(
            Deviation(
                "noise is drawn anew each time an image is seen; the published script draws it once"
            ),
        ),
    ),
    # Convolutions: 287,008 of the encoder, 18,448 to the code, 304,576 of the decoder, 867 to the
    # image. Scales and shifts of batch norm: 2 x 2 x 448.
    "autoencoder_deep": ModelSpec(
        DeepAutoencoder,
        {"norm": "bn"},
        input_shape=(32, 32, 3),
        num_classes=10,
        parameters=612_691,
        deviations=(Deviation("its architecture is ours"),),
    ),
}
