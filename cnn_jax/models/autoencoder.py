"""Convolutional denoising autoencoders, which reconstruct images from noisy ones.

The idea is from Vincent, Larochelle, Bengio, Manzagol 2008, "Extracting and Composing Robust
Features with Denoising Autoencoders". The encoder uses convolution and max pooling, the decoder
convolution and upsampling. There are three models: a small one, one that lectures on image
retrieval use on MNIST, and a deeper one for color images of 32x32.
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
# Lower bound of a probability before its logarithm is taken, as in Keras (`keras.backend.epsilon`).
SMALLEST_PROBABILITY = 1e-7


class DenoisingAutoencoder(BaseModel):
    """Base class of the autoencoders.

    In training, noise is added to the images, and the loss compares the output with the clean
    images. The feature "code" is the output of the encoder. There are no classes: num_classes is
    not used.

    Attributes:
      input_noise_std: Standard deviation of the Gaussian noise, in the units of the pixels.
      norm: lrn is applied after the first pooling.
      dropout: Share of the code that is dropped in training.
    """

    error_name: ClassVar[str] = "reconstruction_error"

    input_noise_std: NoiseStd = 0.5

    def add_noise(self, images: jax.Array, train: bool, clip: bool) -> jax.Array:
        """Adds Gaussian noise to [B, H, W, C] in training, and clips it to [0, 1] if `clip`.

        Args:
          images: Images [B, H, W, C].
          train: Whether to add noise.
          clip: Whether to clip the result to [0, 1].
        """
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
        """Applies a 3x3 convolution, batch norm if norm is bn, and ReLU to [B, H, W, C].

        Args:
          x: Feature maps [B, H, W, C].
          channels: The paper's number of output channels.
          name: Name of the layer.
          train: Whether batch norm uses the batch's statistics.
          kernel_init: Initializer of the kernel in the paper.
          padding: Padding of the convolution.
        """
        init = self.get_kernel_init(kernel_init)
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
    """3x3 convolutions with 2x2 pooling, then the same in reverse order with 2x2 upsampling.

    Attributes:
      channels: Number of channels of each convolution of the encoder.
    """

    not_options: ClassVar[tuple[str, ...]] = ("channels",)

    channels: tuple[int, ...] = (16, 8)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, H, W, C]; sides must be multiples of 4."""
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
        return Conv(channels, (3, 3), kernel_init=self.get_kernel_init(), name="image")(x)

    @staticmethod
    def score(
        rebuilt: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Compares reconstructed images with the clean ones, both [B, H, W, C].

        Args:
          rebuilt: Reconstructed images [B, H, W, C].
          images: Clean images [B, H, W, C].
          labels: Not used.

        Returns:
          The loss [B], the mean squared error over pixels; and the error [B] of
          `compute_unexplained_variance`.
        """
        return _average_pixels(jnp.square(rebuilt - images)), compute_unexplained_variance(
            rebuilt, images
        )


def compute_binary_cross_entropy(rebuilt: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the mean over pixels of -x log(p) - (1 - x) log(1 - p), [B], in nats.

    Args:
      rebuilt: Probabilities p, [B, H, W, C] from 0 to 1. As in Keras they are clipped to
        SMALLEST_PROBABILITY and 1 - SMALLEST_PROBABILITY.
      images: Pixels x, [B, H, W, C] from 0 to 1.
    """
    p = jnp.clip(rebuilt, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return -_average_pixels(images * jnp.log(p) + (1 - images) * jnp.log1p(-p))


def compute_unexplained_variance(rebuilt: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the squared error divided by the variance of each image's pixels, [B].

    For an image without variance it is 0 if the reconstruction is exact, else 1.

    Args:
      rebuilt: Reconstructed images [B, H, W, C].
      images: Clean images [B, H, W, C].
    """
    loss = _average_pixels(jnp.square(rebuilt - images))
    variance = _average_pixels(jnp.square(images - images.mean((1, 2, 3), keepdims=True)))
    flat = variance == 0
    return jnp.where(flat, jnp.sign(loss), loss / jnp.where(flat, 1.0, variance))


def _average_pixels(x: jax.Array) -> jax.Array:
    return jnp.mean(x, (1, 2, 3))


def score_by_cross_entropy(
    rebuilt: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compares reconstructed images with the clean ones, both [B, H, W, C]; ignores labels.

    Args:
      rebuilt: Reconstructed images [B, H, W, C], from 0 to 1.
      images: Clean images [B, H, W, C], from 0 to 1.
      labels: Not used.

    Returns:
      The loss [B], the mean binary cross-entropy over pixels in nats; and the error [B] of
      `compute_unexplained_variance`.
    """
    return compute_binary_cross_entropy(rebuilt, images), compute_unexplained_variance(
        rebuilt, images
    )


class LecturesAutoencoder(DenoisingAutoencoder):
    """The autoencoder with which lectures on image retrieval encode MNIST: 128 values per image.

    3x3 convolutions of 16, 8 and 8 channels, each with 2x2 pooling, give a code of 4x4x8.
    Convolutions of 8, 8 and 16 channels, each with 2x2 upsampling, reconstruct the image. The third
    of these has no padding: it maps 16x16 to 14x14, so that the output is 28x28. Pixels are from 0
    to 1 (data.subtract_mean=none); noisy images are clipped to that range.
    Source: Sicara 2017, "Keras Tutorial: Content Based Image Retrieval Using a Convolutional
    Denoising Autoencoder", and its published training script.

    Attributes:
      initializer: paper: Keras's default, Glorot's uniform distribution.
    """

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, H, W, C] from 0 to 1; sides must be multiples of 4."""
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
        # If a side is not a multiple of 8, such as 28, a pooling rounded it up. A convolution
        # without padding removes the two surplus pixels.
        pads = tuple(((0, 0) if side % 8 else (1, 1)) for side in images.shape[1:3])
        x = upsample(conv(x, 16, "decoder3", padding=pads), 2)  # [B, 28, 28, 16]
        init = self.get_kernel_init(xavier_uniform)
        return nn.sigmoid(Conv(images.shape[-1], (3, 3), kernel_init=init, name="image")(x))

    score = staticmethod(score_by_cross_entropy)


class DeepAutoencoder(DenoisingAutoencoder):
    """Two 3x3 convolutions at each of three sizes; encodes color images of 32x32 in 256 values.

    Pixels are from 0 to 1 (data.subtract_mean=none); noisy images are clipped to that range.

    Attributes:
      channels: Number of channels of the convolutions at each size; 2x2 pooling follows each size.
      code_channels: Number of channels of the code, whose sides are an eighth of the image's.
    """

    not_options: ClassVar[tuple[str, ...]] = ("channels",)

    channels: tuple[int, ...] = (32, 64, 128)
    code_channels: Annotated[int, Bound(1, 1024)] = 16
    input_noise_std: NoiseStd = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images to [B, H, W, C] from 0 to 1; sides must be multiples of 8."""
        self.check_multiple(images, 2 ** len(self.channels))
        x = self.add_noise(images, train, clip=True)
        for i, channels in enumerate(self.channels, start=1):
            for part in ("a", "b"):
                x = self.conv(x, channels, f"encoder{i}{part}", train)
            x = MaxPool(2, 2, name=f"pool{i}")(x)  # sides of 16, 8, 4
            x = self.apply_lrn(x) if i == 1 else x
        init = self.get_kernel_init()
        x = Conv(self.code_channels, (3, 3), kernel_init=init, name="to_code")(x)
        x = self.apply_dropout(self.capture("code", relu(x)), train)  # [B, 4, 4, 16]
        for i, channels in enumerate(self.channels[::-1], start=1):
            for part in ("a", "b"):
                x = self.conv(x, channels, f"decoder{i}{part}", train)
            x = upsample(x, 2)  # sides of 8, 16, 32
        return nn.sigmoid(Conv(images.shape[-1], (3, 3), kernel_init=init, name="image")(x))

    score = staticmethod(score_by_cross_entropy)


def upsample(x: jax.Array, times: int) -> jax.Array:
    """Repeats each pixel of [B, H, W, C] `times` along H and W: nearest-neighbor upsampling.

    Args:
      x: Feature maps [B, H, W, C].
      times: Factor of H and W.
    """
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)


MODELS = {
    # 160 + 1,160 of the encoder, 584 + 1,168 + 145 of the decoder.
    "autoencoder": ModelSpec(
        Autoencoder,
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=3_217,
        deviations=(Deviation("we chose the numbers of channels"),),
    ),
    # 160 + 1,160 + 584 of the encoder, 584 + 584 + 1,168 + 145 of the decoder.
    "autoencoder_lectures": ModelSpec(
        LecturesAutoencoder,
        input_shape=(28, 28, 1),
        num_classes=10,
        parameters=4_385,
        deviations=(
            Deviation(
                "noise is drawn each time an image is seen; the published script draws it once"
            ),
        ),
    ),
    # Convolutions: 287,008 of the encoder, 18,448 of the code, 304,576 of the decoder, 867 of the
    # image. Scales and shifts of batch norm: 2 x 2 x 448.
    "autoencoder_deep": ModelSpec(
        DeepAutoencoder,
        {"norm": "bn"},
        input_shape=(32, 32, 3),
        num_classes=10,
        parameters=612_691,
        deviations=(Deviation("we chose the architecture"),),
    ),
}
