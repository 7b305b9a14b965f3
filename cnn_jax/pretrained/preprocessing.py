"""How images are prepared for a model with public weights: a type, and the publishers' values."""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.data import preprocess
from cnn_jax.data.decode import Interpolation
from cnn_jax.errors import UserError

METHODS = {"bilinear": "linear", "bicubic": "cubic"}  # Pillow's names: JAX's.


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From bytes to what the model takes: resize, center crop, normalize.

    Attributes:
      crop: Side in pixels of the square that the model sees.
      mean: Mean of each channel, in the order in which the model takes them, on the scale of
        `maximum`.
      std: Standard deviation of each channel: (x - mean) / std.
      resize: The shorter side before the crop in pixels; 0: images stay as they are.
      interpolation: bilinear or bicubic, antialiased as Pillow does it.
      maximum: What 255 becomes before the mean is subtracted.
      channels: RGB or BGR: the order in which the model takes them. They come as RGB.
    """

    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int = 0
    interpolation: Interpolation = "bilinear"
    maximum: float = 1.0
    channels: str = "RGB"

    def __post_init__(self) -> None:
        """Raises UserError if a field has an invalid value."""
        valid = {
            "crop": _is_size(self.crop) and self.crop > 0,
            "resize": _is_size(self.resize),
            "mean": _are_numbers(self.mean),
            "std": _are_numbers(self.std) and len(self.std) == len(self.mean) and all(self.std),
            "interpolation": self.interpolation in METHODS,
            "maximum": _are_numbers((self.maximum,)),
            "channels": self.channels in ("RGB", "BGR"),
        }
        for field, is_valid in valid.items():
            if not is_valid:
                raise UserError(f"preprocessing.{field}={getattr(self, field)!r:.80} is invalid")

    def apply(self, images: jax.Array) -> jax.Array:
        """Returns images as the model takes them, [B, crop, crop, C] float32.

        Args:
          images: [B, H, W, C] uint8, RGB.

        Raises:
          UserError: If they are smaller than the crop.
        """
        x = jnp.asarray(images).astype(jnp.float32)
        batch, height, width, channels = x.shape
        if self.resize and self.resize != min(height, width):
            sides = [self.resize * side // min(height, width) for side in (height, width)]
            # As Pillow, one axis after the other with bytes between.
            for shape in ((batch, height, sides[1], channels), (batch, *sides, channels)):
                resized = jax.image.resize(x, shape, METHODS[self.interpolation])
                x = jnp.clip(jnp.round(resized), 0.0, 255.0)
        if min(x.shape[1:3]) < self.crop:
            raise UserError(
                f"images of {height}x{width} are smaller than the {self.crop}x{self.crop} that the"
                " model sees"
            )
        top, left = (round((side - self.crop) / 2) for side in x.shape[1:3])
        x = x[:, top : top + self.crop, left : left + self.crop]
        return self.normalize(x)

    def normalize(self, x: jax.Array) -> jax.Array:
        """Returns images of any size as the model takes them, float32.

        Args:
          x: [B, H, W, C], pixels 0 to 255, RGB.
        """
        x = jnp.asarray(x).astype(jnp.float32)
        x = x[..., ::-1] if self.channels == "BGR" else x
        mean, std = (
            jnp.asarray(each, jnp.float32)[None, None, None] for each in (self.mean, self.std)
        )
        return preprocess.normalize(x * (self.maximum / 255), mean, std)

    def undo(self, x: jax.Array) -> jax.Array:
        """Returns the pixels of which `normalize` makes x, [B, H, W, C] RGB, float32.

        Args:
          x: As the model takes it, [B, H, W, C].
        """
        mean, std = (
            jnp.asarray(each, jnp.float32)[None, None, None] for each in (self.mean, self.std)
        )
        pixels = (x * std + mean) * (255 / self.maximum)
        return pixels[..., ::-1] if self.channels == "BGR" else pixels


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 10_000


def _are_numbers(values: Any) -> bool:
    if not isinstance(values, tuple) or not values:
        return False
    # typeshed's abs of a Real has no order.
    return all(
        isinstance(value, numbers.Real) and abs(value) < 1e6  # type: ignore[operator]
        for value in values
    )


_HALF, _MEAN, _STD = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = Preprocessing(resize=256, crop=224, mean=_MEAN, std=_STD)
# torchvision's ports from TensorFlow undo its mean and deviation inside the model
# ("transform_input"); here they are not applied.
TORCHVISION_GOOGLENET = dataclasses.replace(TORCHVISION, mean=_HALF, std=_HALF)
TORCHVISION_INCEPTION = Preprocessing(resize=342, crop=299, mean=_HALF, std=_HALF)
# Keras gives values and order. Of resizing it says only "single center crop": the share is Caffe's,
# 7/8.
KERAS_CAFFE = Preprocessing(
    resize=256,
    crop=224,
    mean=(103.939, 116.779, 123.68),
    std=(1.0, 1.0, 1.0),
    maximum=255.0,
    channels="BGR",
)
KERAS_TENSORFLOW = TORCHVISION_INCEPTION
# torchvision's second weights of ResNet-50, 101 and 152 (IMAGENET1K_V2), by the hash in their
# names.
TORCHVISION_V2 = dataclasses.replace(TORCHVISION, resize=232)
V2_HASHES = ("11ad3fa6", "cd907fc2", "f82ba261")


def from_timm(config: dict[str, Any]) -> Preprocessing:
    """Returns the preprocessing of the config.json that timm publishes beside its weights.

    Raises:
      UserError: If it holds none.
    """
    try:
        given = config.get("pretrained_cfg", config)
        crop = given["input_size"][1]
        return Preprocessing(
            resize=int(crop / given["crop_pct"]),
            crop=crop,
            mean=tuple(given["mean"]),
            std=tuple(given["std"]),
            interpolation=given["interpolation"],
        )
    except (AttributeError, KeyError, IndexError, TypeError, ArithmeticError) as error:
        raise UserError(
            "has no preprocessing of timm's (input_size, crop_pct, mean, std, interpolation)"
        ) from error
