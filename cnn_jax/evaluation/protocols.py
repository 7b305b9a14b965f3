"""Evaluation protocols: which views of a test image are scored and averaged.

A protocol is a function that returns its kinds of views and the scales at which they are taken; its
keyword arguments are the options of a choice, as in `choose("dense", scales=(256, 384))`. To add
one, write the function and its line in `PROTOCOLS`. What a protocol costs and what its help says
follow from the function.

A scale is the length in pixels to which an image's shorter side is resized. Scores of all views at
all scales are averaged.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

from cnn_jax import data, models, registry
from cnn_jax.config import Choice, Experiment, check_choice, name_protocol
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.values import Bound

Size = tuple[int, int]
Offsets = list[tuple[int, int]]

# The scales at which a protocol scores an image; empty: the run's own evaluation size.
Scales = Annotated[
    tuple[Annotated[int, Bound(1, 2**14)], ...],
    "Shorter sides to which images are resized; their scores are averaged",
]


# Which images of the data set are scored. With data.validation_images a run is evaluated on these,
# and not on the test images, in training and by its protocols.
Split = Annotated[
    Literal["", "train", "test"],
    "Score the training images or the test images; empty: those of evaluations in training",
]


class Views(NamedTuple):
    """One kind of views of an image, whose scores are averaged.

    Attributes:
      crop_offsets: (size (H, W), side of a crop) -> the (y, x) of each crop's upper left corner.
      square_offsets: (size (H, W)) -> the (y, x) of squares as large as the shorter side, each of
        which is resized to a crop.
      dense: Whether the model is applied to the whole image, as a convolution.
      mirror: Whether each view's mirror image is scored too, where the data may be mirrored.
      shift: Pixels by which crops are moved to the right; zeros come in from the left.
    """

    crop_offsets: Callable[[Size, int], Offsets] | None = None
    square_offsets: Callable[[Size], Offsets] | None = None
    dense: bool = False
    mirror: bool = True
    shift: int = 0


class Protocol(NamedTuple):
    """Kinds of views, each taken at each scale; all scores are averaged.

    Attributes:
      views: The kinds.
      scales: The scales.
      split: Which images are scored, as `Split` says.
    """

    views: tuple[Views, ...]
    scales: tuple[int, ...]
    split: str = ""


def offset_center(size: Size, crop: int) -> Offsets:
    """Returns the offset of the center crop.

    Args:
      size: (H, W) of the image in pixels.
      crop: Side of a crop in pixels.

    Returns:
      The (y, x) of its upper left corner, in a list.

    Example:
      >>> offset_center((256, 341), 224)
      [(16, 58)]
    """
    return [((size[0] - crop) // 2, (size[1] - crop) // 2)]


def offset_corners(size: Size, crop: int) -> Offsets:
    """Returns the offsets of the crops in the four corners, and of the center crop.

    Args:
      size: (H, W) of the image in pixels.
      crop: Side of a crop in pixels.
    """
    down, across = size[0] - crop, size[1] - crop
    return [(0, 0), (0, across), (down, 0), (down, across), *offset_center(size, crop)]


def offset_central_corners(size: Size, crop: int) -> Offsets:
    """Returns the offsets of the crops in the corners and the center of the central square.

    Args:
      size: (H, W) of the image in pixels.
      crop: Side of a crop in pixels.

    Example:
      >>> offset_central_corners((256, 341), 227)[:2]
      [(0, 42), (0, 71)]
    """
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return [(top + y, left + x) for y, x in offset_corners((side, side), crop)]


def offset_grid(size: Size, crop: int) -> Offsets:
    """Returns the offsets of 5x5 crops, evenly spread from edge to edge.

    Args:
      size: (H, W) of the image in pixels.
      crop: Side of a crop in pixels.
    """
    down, across = ([round(i * (side - crop) / 4) for i in range(5)] for side in size)
    return [(y, x) for y in down for x in across]


def offset_squares(size: Size) -> Offsets:
    """Returns the offsets of the squares at either end of an image, and in its center."""
    side = min(size)
    return [
        (0, 0),
        ((size[0] - side) // 2, (size[1] - side) // 2),
        (size[0] - side, size[1] - side),
    ]


def offset_square_corners(size: Size, crop: int) -> Offsets:
    """Returns the offsets of the crops in the corners and the center of each of the squares.

    Args:
      size: (H, W) of the image in pixels.
      crop: Side of a crop in pixels.
    """
    side = min(size)
    corners = offset_corners((side, side), crop)
    return [(y + v, x + u) for y, x in offset_squares(size) for v, u in corners]


CENTER = Views(offset_center, mirror=False)
CORNERS = Views(offset_corners)
CENTRAL_CORNERS = Views(offset_central_corners)
GRID = Views(offset_grid)
SQUARES = Views(offset_square_corners, offset_squares)
DENSE = Views(dense=True)


def single(*, scales: Scales = (), split: Split = "") -> Protocol:
    """The center crop."""
    return Protocol((CENTER,), scales, split)


def ten_crop(
    *,
    central_square: Annotated[
        bool, "Of the image's central square, as AlexNet and ZFNet; else of the whole image"
    ] = False,
    scales: Scales = (),
) -> Protocol:
    """The four corners and the center, and their mirror images.

    Krizhevsky et al. 2012, Sec. 4.1. They (Sec. 2) and Zeiler, Fergus 2013 (arXiv:1311.2901), Sec.
    3, cut the central square out of the scaled image first: `central_square`.
    """
    return Protocol((CENTRAL_CORNERS if central_square else CORNERS,), scales)


def grid(*, scales: Scales = ()) -> Protocol:
    """5x5 crops evenly spread and their mirror images: 50 views a scale.

    Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 3.2.
    """
    return Protocol((GRID,), scales)


def googlenet144(*, scales: Scales = ()) -> Protocol:
    """Three squares, each as its corners, center and whole, mirrored too: 36 views a scale.

    144 over the four scales 256, 288, 320 and 352: Szegedy et al. 2014 (arXiv:1409.4842), Sec. 7.
    """
    return Protocol((SQUARES,), scales)


def dense(*, scales: Scales = ()) -> Protocol:
    """The model as a convolution over the whole image and over its mirror image.

    Class scores are averaged over all positions before the softmax: Simonyan, Zisserman 2014
    (arXiv:1409.1556), Sec. 3.2.
    """
    return Protocol((DENSE,), scales)


def dense_and_grid(*, scales: Scales = ()) -> Protocol:
    """The average of dense and grid.

    Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 4.3.
    """
    return Protocol((DENSE, GRID), scales)


def shift(
    *,
    pixels: Annotated[int, Bound(1, 1024), "How far each image is moved to the right"] = 1,
    scales: Scales = (),
) -> Protocol:
    """The center crop shifted to the right, and how often that changes the predicted class.

    Background, pixels of 0, fills the rest. Source of the measure: Zhang 2019
    (arXiv:1904.11486), "classification consistency", which moves images diagonally too.
    """
    return Protocol((CENTER._replace(shift=pixels),), scales)


PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "single": single,
    "ten_crop": ten_crop,
    "grid": grid,
    "googlenet144": googlenet144,
    "dense": dense,
    "dense+grid": dense_and_grid,
    "shift": shift,
}


def make_protocol(choice: Choice, crop: int, default_scale: int) -> Protocol:
    """Returns the protocol that a choice names.

    Args:
      choice: A name of `PROTOCOLS` and its options.
      crop: Side in pixels of the images that the model takes.
      default_scale: The scale of a choice that names none.

    Raises:
      UserError: If there is no such protocol or option, or a scale is smaller than the crop.

    Example:
      >>> from cnn_jax.config import choose
      >>> make_protocol(choose("dense", scales=(256, 384)), crop=224, default_scale=256).scales
      (256, 384)
    """
    protocol = _build(choice)
    protocol = protocol._replace(scales=protocol.scales or (default_scale,))
    for scale in protocol.scales:
        if scale < crop:
            raise UserError(
                f"protocols.scales={scale}: {name_protocol(choice)} takes crops of {crop} pixels,"
                f" so a scale must be at least {crop}"
            )
    return protocol


def check_protocols(experiment: Experiment) -> None:
    """Checks the evaluation protocols of a run without its data.

    Raises:
      UserError: If there is no such protocol or option, a scale is smaller than the crop, or the
        model has no classes.
    """
    spec = models.MODELS.get(experiment.model.name)
    if experiment.protocols and spec and spec.module.error_name != "top1_error":
        raise UserError(
            f"protocols={name_protocol(experiment.protocols[0])}: measures errors of classes, and"
            f" {experiment.model.name} has none; training measures its {spec.module.error_name}"
        )
    crop = experiment.data.image_size
    if not crop and experiment.data.name in data.DATASET_INFO:
        crop = data.find_image_shape(experiment.data)[0][0]
    for choice in experiment.protocols:
        make_protocol(choice, crop, default_scale=crop)


def describe_protocols() -> list[tuple[str, str]]:
    """Returns (name, one line of help) of every protocol.

    Example:
      >>> [name for name, _ in describe_protocols()][:2]
      ['single', 'ten_crop']
    """
    return [
        (name, (inspect.getdoc(make) or "").partition("\n")[0]) for name, make in PROTOCOLS.items()
    ]


def count_forward_passes(views: Views, size: Size, crop: int, mirror: bool) -> float:
    """Returns what one kind of views of an image costs, in forward passes of one crop.

    Args:
      views: The kind.
      size: (H, W) of the image in pixels.
      crop: Side of a crop in pixels.
      mirror: Whether images of the data set may be mirrored.
    """
    passes = 0.0
    if views.crop_offsets:
        passes += len(views.crop_offsets(size, crop))
    if views.square_offsets:
        passes += len(views.square_offsets(size))
    if views.dense:
        passes += size[0] * size[1] / crop**2
    return 2 * passes if views.mirror and mirror else passes


def _build(choice: Choice) -> Protocol:
    check_choice("protocols", choice)
    if choice.name not in PROTOCOLS:
        near = suggest_names(choice.name, PROTOCOLS)
        raise UserError(f"protocols={choice.name!r}: no such evaluation protocol; {near}")
    return registry.build("protocols", choice, PROTOCOLS)
