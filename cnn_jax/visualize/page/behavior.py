"""Outputs for changed images: ZFNet's Figure 5 (invariance) and Figure 7 (occlusion)."""

import numpy as np

from cnn_jax import visualize
from cnn_jax.report.elements import Part
from cnn_jax.visualize import plot
from cnn_jax.visualize.page.context import Context, make_figure, name_images, shorten

MAX_LINES = 5  # Images in the figure of invariance, as in the paper's.
GRAY = 128  # Of 255: the color of the square that covers images.


def draw_invariance(context: Context) -> list[Part]:
    """Draws how features and probability change with shift, scale and rotation."""
    context.require_classes()
    names = list(context.layers)
    ends = tuple(dict.fromkeys((names[0], names[-1])))
    count = min(MAX_LINES, len(context.x))
    found = visualize.measure_invariance(
        *context.given, context.x[:count], context.labels[:count], ends
    )
    caption = (
        f"Rows: vertical shift, scale, rotation of {count} images, a line each. Columns: the"
        f" Euclidean distance of the features of {' and of '.join(ends)} from those of the"
        " unchanged image, and the probability of the explained class (Zeiler, Fergus 2013, Figure"
        " 5)."
    )
    labels = [context.name_class(int(label)) for label in context.labels[:count]]
    return [
        make_figure(
            "Invariance", caption, "invariance.png", lambda: plot.plot_invariance(found, labels)
        )
    ]


def draw_occlusion(context: Context) -> list[Part]:
    """Draws the model's outputs while a gray square covers a part of the image."""
    context.require_classes()
    gray = context.subject.prepare(np.full_like(context.images.pixels[:1], GRAY))[0]
    found = visualize.occlude(*context.given, context.x, context.labels, context.last, gray=gray)
    classes = range(context.subject.num_classes)
    names = [shorten(context.name_class(number)) for number in classes]
    caption = (
        f"A gray square of {found.side} pixels covers the image at each place. Rows: the activity"
        f" of the map of {context.last} that is strongest for the whole image (Figure 7b), the"
        " probability of the explained class (7d), and the likeliest class (7e) (Zeiler, Fergus"
        " 2013)."
    )
    return [
        make_figure(
            "Occlusion",
            caption,
            "occlusion.png",
            lambda: plot.plot_occlusion(context.images.pixels, found, name_images(context), names),
        )
    ]
