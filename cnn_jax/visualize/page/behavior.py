"""What the model says of changed images: ZFNet's Figure 5 (invariance) and Figure 7 (occlusion)."""

from matplotlib.figure import Figure

from cnn_jax import visualize
from cnn_jax.report.elements import Part
from cnn_jax.report.figures import spread_colors
from cnn_jax.visualize.draw import MapRow, draw_maps
from cnn_jax.visualize.invariance import Invariance
from cnn_jax.visualize.page.context import Context, make_figure, name_images

MAX_LINES = 5  # Images in the figure of invariance, as in the paper's.


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
            "Invariance", caption, "invariance.png", lambda: _draw_lines(found, ends, labels)
        )
    ]


def _draw_lines(found: list[Invariance], layers: tuple[str, ...], labels: list[str]) -> Figure:
    figure = Figure((9, 7), layout="constrained")
    grid = figure.subplots(len(found), len(layers) + 1, squeeze=False)
    colors = spread_colors(len(labels))
    for line, change in zip(grid, found, strict=True):
        panels = [(f"distance, {layer}", change.distances[layer]) for layer in layers]
        panels.append(("probability", change.probability))
        for axes, (name, values) in zip(line, panels, strict=True):
            for row, label, color in zip(values, labels, colors, strict=True):
                axes.plot(change.values, row, color=color, lw=1.5, label=label)
            axes.set_xlabel(change.name, fontsize=8)
            axes.set_ylabel(name, fontsize=8)
            axes.set_ylim(bottom=0)
            axes.tick_params(length=0, labelsize=7)
    grid[0][-1].legend(frameon=False, fontsize=7)
    return figure


def draw_occlusion(context: Context) -> list[Part]:
    """Draws what the model says while a gray square covers a part of the image."""
    context.require_classes()
    found = visualize.occlude(*context.given, context.x, context.labels, context.last)
    rows = [
        MapRow(f"activity of\n{context.last}", found.activity),
        MapRow("probability", found.probability),
        MapRow("likeliest\nclass", found.likeliest, classes=context.subject.num_classes),
    ]
    caption = (
        f"A gray square of {found.side} pixels covers the image at each place. Rows: the activity"
        f" of the map of {context.last} that is strongest for the whole image (Figure 7b), the"
        " probability of the explained class (7d), and the likeliest class (7e) (Zeiler, Fergus"
        " 2013)."
    )
    pixels = context.images.pixels
    return [
        make_figure(
            "Occlusion",
            caption,
            "occlusion.png",
            lambda: draw_maps(pixels, name_images(context), rows, overlay=False),
        )
    ]
