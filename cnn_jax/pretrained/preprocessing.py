"""What is done to an image before a net with public weights sees it, as a value, and the recipes of the publishers."""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError

METHODS = {"bilinear": "linear", "bicubic": "cubic"}  # Pillow's names: jax's


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From bytes to what the net takes: scale to a shorter side, cut out the middle, normalize.

    Attributes:
      crop: side of the square that the net sees, in pixels.
      mean, std: of each channel, in the order in which the net takes them: (x - mean) / std, for pixels x from 0 to
        `maximum`.
      resize: the shorter side before the crop; 0: as it is.
      interpolation: bilinear | bicubic, antialiased as Pillow does it.
      maximum: what 255 becomes before the mean is subtracted.
      channels: RGB | BGR: the order in which the net takes them. They come as RGB.
    """

    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int = 0
    interpolation: str = "bilinear"
    maximum: float = 1.0
    channels: str = "RGB"

    def __post_init__(self) -> None:
        """Raises UserError for values that make no sense."""
        whole = lambda value, least: isinstance(value, int) and least <= value <= 10_000
        right = {
            "crop": whole(self.crop, 1),
            "resize": whole(self.resize, 0),
            "mean": _are_numbers(self.mean),
            "std": _are_numbers(self.std) and len(self.std) == len(self.mean) and all(self.std),
            "interpolation": self.interpolation in METHODS,
            "maximum": _are_numbers((self.maximum,)),
            "channels": self.channels in ("RGB", "BGR"),
        }
        if wrong := [field for field, good in right.items() if not good]:
            raise UserError(f"preprocessing.{wrong[0]}={getattr(self, wrong[0])!r:.80} makes no sense")

    def apply(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] uint8, RGB, to [B, crop, crop, C] float32; raises UserError for images below the crop."""
        x = jnp.asarray(images).astype(jnp.float32)
        batch, height, width, channels = x.shape
        if self.resize and self.resize != min(height, width):
            sides = [self.resize * side // min(height, width) for side in (height, width)]
            for shape in ((batch, height, sides[1], channels), (batch, *sides, channels)):  # as Pillow: bytes between
                x = jnp.clip(jnp.round(jax.image.resize(x, shape, METHODS[self.interpolation])), 0.0, 255.0)
        if min(x.shape[1:3]) < self.crop:
            raise UserError(f"images of {height}x{width} are smaller than the {self.crop}x{self.crop} the net sees")
        top, left = (round((side - self.crop) / 2) for side in x.shape[1:3])
        x = x[:, top : top + self.crop, left : left + self.crop]
        return self.normalize(x)

    def normalize(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] of pixels 0 to 255, RGB, to what the net takes, of any size."""
        x = jnp.asarray(x).astype(jnp.float32)
        x = x[..., ::-1] if self.channels == "BGR" else x
        mean, std = (jnp.asarray(each, jnp.float32)[None, None, None] for each in (self.mean, self.std))
        return (x * (self.maximum / 255) - mean) / std


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, tuple) and all(isinstance(v, numbers.Real) and abs(v) < 1e6 for v in values) and bool(values)
    )


_HALF, _MEAN, _STD = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = Preprocessing(resize=256, crop=224, mean=_MEAN, std=_STD)
# torchvision's ports from TensorFlow undo its mean and deviation in the net ("transform_input"): here they never come.
TORCHVISION_GOOGLENET = dataclasses.replace(TORCHVISION, mean=_HALF, std=_HALF)
TORCHVISION_INCEPTION = Preprocessing(resize=342, crop=299, mean=_HALF, std=_HALF)
# Keras gives values and order; of resizing it says only "single center crop": the share of it is Caffe's, 7/8.
KERAS_CAFFE = Preprocessing(
    resize=256, crop=224, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), maximum=255.0, channels="BGR"
)
KERAS_TENSORFLOW = TORCHVISION_INCEPTION
# torchvision's second weights of ResNet-50, 101 and 152 (IMAGENET1K_V2), by the hash in their names.
TORCHVISION_V2 = dataclasses.replace(TORCHVISION, resize=232)
V2_HASHES = ("11ad3fa6", "cd907fc2", "f82ba261")


def of_timm(config: dict[str, Any]) -> Preprocessing:
    """The recipe in the config.json that timm publishes beside its weights; raises UserError where it has none."""
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
        raise UserError("has no recipe of timm's (input_size, crop_pct, mean, std, interpolation)") from error
