"""What all sections of the page share: the model, the images, the classes, the control."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.models import Model
from cnn_jax.report.elements import Figure
from cnn_jax.report.figures import write_png
from cnn_jax.text import escape_unprintable
from cnn_jax.trained import TrainedModel
from cnn_jax.visualize.controls import compute_probabilities, randomize
from cnn_jax.visualize.images import Images, Source
from cnn_jax.visualize.layers import Shape, choose_layer, find_spatial_layers, list_layers
from cnn_jax.visualize.scores import ScoreName, has_classes


class Context(NamedTuple):
    """The page's subject and images.

    Attributes:
      subject: The trained model that is looked into.
      images: As the user knows them.
      x: As the model takes them, [B, H, W, C].
      labels: The class that is explained of each image, [B] int32: its own where it is known, else
        the likeliest.
      probabilities: Probabilities of all classes, [B, classes]; None: the model has no classes.
      layers: The result of `list_layers`.
      layer: The layer that was asked for; None: none was.
      score: The class score whose gradient is taken.
      key: Draws what is random.
      control: Parameters and statistics with random weights.
      source: Where the images are from.
    """

    subject: TrainedModel
    images: Images
    x: jax.Array
    labels: jax.Array
    probabilities: np.ndarray | None
    layers: dict[str, Shape]
    layer: str | None
    score: ScoreName
    key: jax.Array
    control: tuple[Any, Any]
    source: Source

    @property
    def model(self) -> Model:
        """The model."""
        return self.subject.model

    @property
    def trained(self) -> tuple[Any, Any]:
        """The trained parameters and statistics."""
        return self.subject.params, self.subject.stats

    @property
    def given(self) -> tuple[Model, Any, Any]:
        """What every function of `visualize` takes first."""
        return self.model, *self.trained

    @property
    def spatial(self) -> list[str]:
        """The layers with a spatial map.

        Raises:
          UserError: If there are none.
        """
        choose_layer(str(self.model.module.name), self.layers)
        return find_spatial_layers(self.layers)

    @property
    def last(self) -> str:
        """The requested layer, or the last one with a spatial map.

        Raises:
          UserError: If it has none.
        """
        return choose_layer(str(self.model.module.name), self.layers, self.layer)

    def name_class(self, number: int) -> str:
        """Returns a class's name, safe to show, or its number."""
        names = self.subject.class_names
        return escape_unprintable(names[number]) if names else str(number)

    def require_classes(self) -> None:
        """Raises UserError if the model has no classes."""
        if self.probabilities is None:
            raise UserError(f"{self.model.module.name} has no classes to look for")


def make_context(
    subject: TrainedModel,
    images: Images,
    layer: str | None,
    score: ScoreName,
    seed: int,
    source: Source,
) -> Context:
    """Composes what the sections share.

    Raises:
      UserError: If there is no such layer, or the images do not fit the model.
    """
    x = subject.prepare(images.pixels)
    outputs = jax.eval_shape(lambda x: subject.model.apply(subject.params, subject.stats, x)[0], x)
    layers = list_layers(subject.model, subject.params, subject.stats, subject.image_shape)
    if layer is not None:
        choose_layer(str(subject.model.module.name), layers, layer)
    key = jax.random.key(seed)
    first, key = jax.random.split(key)
    probabilities = None
    labels = np.maximum(images.labels, 0)
    if has_classes(outputs):
        probabilities = np.asarray(
            compute_probabilities(subject.model, subject.params, subject.stats, x)
        )
        labels = np.where(images.labels < 0, probabilities.argmax(1), images.labels)
    return Context(
        subject,
        images,
        x,
        jnp.asarray(labels, jnp.int32),
        probabilities,
        layers,
        layer,
        score,
        key,
        randomize(subject.model, first, subject.image_shape),
        source,
    )


def name_images(context: Context) -> list[str]:
    """Returns the title of each image: its class, and the model's prediction."""
    titles = []
    for number, label in enumerate(context.images.labels):
        if context.probabilities is None:
            titles.append(f"image {number}")
            continue
        row = context.probabilities[number]
        says = f"{shorten(context.name_class(int(row.argmax())))} {row.max():.0%}"
        is_one = f"is {shorten(context.name_class(int(label)))}, " if label >= 0 else ""
        titles.append(f"{is_one}says {says}")
    return [title.replace(", ", "\n") for title in titles]


def shorten(text: str, most: int = 14) -> str:
    """Returns the text, cut off if it is long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def make_figure(title: str, caption: str, file: str, draw: Callable[[], Any]) -> Figure:
    """Returns a figure that is drawn once, as PNG."""
    png = write_png(draw)
    return Figure(title, caption, file, png=lambda: png)
