"""A convolutional denoising autoencoder: images rebuilt from noisy ones through a small code.

After Vincent, Larochelle, Bengio, Manzagol 2008, "Extracting and Composing Robust Features with Denoising
Autoencoders", with convolution and max pooling in the encoder, convolution and upsampling in the decoder. It has
no classes and its output is images, which the training step's loss and error are not for: not one of MODELS.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.config import UserError
from cnn_jax.models.layers import Conv, he_normal

Params = Any


class Autoencoder(NamedTuple):
    """A net as pure functions; images are [B, H, W, C], codes [B, H / 2^n, W / 2^n, maps of the last of n layers]."""

    init: Callable[[jax.Array, jax.Array], Params]  # (key, images)
    encode: Callable[[Params, jax.Array], jax.Array]  # (params, images) -> codes
    decode: Callable[[Params, jax.Array], jax.Array]  # (params, codes) -> images
    apply: Callable[..., jax.Array]  # (params, images, key=None) -> images; with a key, rebuilt from noisy ones
    loss: Callable[[Params, jax.Array, jax.Array], jax.Array]  # (params, images, key) -> []: of the rebuilt images


class _Net(nn.Module):
    maps: tuple[int, ...]
    channels: int

    def setup(self) -> None:
        conv = lambda maps, name: Conv(maps, (3, 3), padding="SAME", kernel_init=he_normal, name=name)
        self.down = [conv(maps, f"encoder{i}") for i, maps in enumerate(self.maps, start=1)]
        self.up = [conv(maps, f"decoder{i}") for i, maps in enumerate(self.maps[::-1], start=1)]
        self.last = conv(self.channels, "image")

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.decode(self.encode(images))

    def encode(self, x: jax.Array) -> jax.Array:
        times = 2 ** len(self.maps)
        if x.shape[1] % times or x.shape[2] % times or not x.size:
            raise UserError(
                f"autoencoder: images of {x.shape[1]}x{x.shape[2]}; sides must be multiples of {times}, so that"
                f" {len(self.maps)} poolings can be undone; the smallest are {times}x{times}"
            )
        for conv in self.down:
            x = nn.max_pool(nn.relu(conv(x)), (2, 2), (2, 2))  # [B, 14, 14, 16], [B, 7, 7, 8] from 28x28
        return x

    def decode(self, x: jax.Array) -> jax.Array:
        for conv in self.up:
            x = upsampled(nn.relu(conv(x)), 2)  # [B, 14, 14, 8], [B, 28, 28, 16]
        return self.last(x)


def create(maps: tuple[int, ...] = (16, 8), channels: int = 1, noise: float = 0.5) -> Autoencoder:
    """An autoencoder whose encoder has 3x3 convolutions of `maps`, each pooled 2x2, and whose decoder mirrors it.

    Sides must be multiples of 2^n (28 and 32 are, for two layers); others raise UserError.
    channels: of the images; noise: standard deviation of the Gaussian noise, in units of the pixels.
    """
    net = _Net(maps, channels)

    def init(key: jax.Array, images: jax.Array) -> Params:
        return net.lazy_init(key, jax.ShapeDtypeStruct(images.shape, images.dtype))["params"]

    def encode(params: Params, images: jax.Array) -> jax.Array:
        return net.apply({"params": params}, images, method=net.encode)

    def decode(params: Params, codes: jax.Array) -> jax.Array:
        return net.apply({"params": params}, codes, method=net.decode)

    def apply(params: Params, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        if key is not None:
            images = images + noise * jax.random.normal(key, images.shape, images.dtype)
        return net.apply({"params": params}, images)

    def loss(params: Params, images: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(apply(params, images, key) - images))

    return Autoencoder(init, encode, decode, apply, loss)


def upsampled(x: jax.Array, times: int) -> jax.Array:
    """[B, H, W, C] with each pixel repeated `times` down and across: nearest-neighbour upsampling."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)
