"""Defines the look of all figures (colors, sizes, titles), and writes figures as PNG or SVG."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.optional_packages import explain_missing

try:
    import matplotlib
    from cycler import cycler
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
except ModuleNotFoundError:
    raise UserError(explain_missing("matplotlib")) from None

# Okabe and Ito's colors, which color-blind people can distinguish, without those that are hard to
# see on black or white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c")
INK, GRID = "#24292f", "#8c959f"
DASHES = (0, (3, 1.5))
DOTS_PER_INCH = 200
TITLE_LETTER = 0.115  # Greatest mean width of a letter of a figure's title, in inches.
NARROW = 3  # Logarithmic axes whose ends differ by less than this factor have linear ticks.
STYLE: Any = {  # Any, because the type of rc_context's argument lists every key.
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,  # A dollar sign in a name is no mathematics.
    "svg.fonttype": "none",
    "svg.hashsalt": "cnn_jax",
}

Draw = Callable[[], Figure]


@contextmanager
def use_style() -> Iterator[None]:
    """Applies the reports' style to figures that are drawn inside the block."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # A box is drawn instead.
        yield


def write_png(draw: Draw) -> bytes:
    """Draws a figure and returns it as the bytes of a PNG file."""
    stream = io.BytesIO()
    with use_style():
        draw().savefig(stream, format="png", dpi=DOTS_PER_INCH)
    return stream.getvalue()


def write_svg(draw: Draw, prefix: str) -> str:
    """Draws a figure and returns it as an <svg> element.

    The background is transparent, and text has the page's text color.

    Args:
      draw: Draws the figure.
      prefix: Prefix of the element's ids, which must be unique on a page.
    """
    stream = io.StringIO()
    with use_style():
        draw().savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)


def set_title(figure: Figure, title: str) -> None:
    """Sets a figure's title, split into lines of about equal length that fit the figure's width."""
    most = int(figure.get_figwidth() / TITLE_LETTER)
    lines = textwrap.wrap(title, most)
    for letters in range(-(-len(title) // max(len(lines), 1)), most):
        if len(narrower := textwrap.wrap(title, max(letters, 1))) <= len(lines):
            lines = narrower
            break
    figure.suptitle("\n".join(lines), fontsize=13, fontweight="bold")


def make_grid(
    title: str, count: int, panel: tuple[float, float], margin: float, layout: Any
) -> tuple[Figure, list[Axes]]:
    """Makes a figure of panels, at most three in a row.

    Args:
      title: Title of the figure.
      count: Number of panels.
      panel: Width and height of a panel in inches.
      margin: Height in inches of what stands above and below the panels.
      layout: Layout of matplotlib's Figure.

    Returns:
      The figure, and the axes of the panels.
    """
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure((max(6.5, panel[0] * columns), panel[1] * rows + margin), layout=layout)
    set_title(figure, title)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def choose_colors(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Chooses a color for each label of each group.

    Models of the same depth get the same color. The depth is the first number in a label. If a
    label has no number, or two labels of a group have the same one, the position in the group is
    used instead.
    """
    depths: dict[str, list] = {}
    for group, labels in groups.items():
        found = [re.search(r"\d+", label) for label in labels]
        depths[group] = [int(match[0]) if match else None for match in found]
    if any(None in each or len(set(each)) < len(each) for each in depths.values()):
        depths = {group: list(range(len(labels))) for group, labels in groups.items()}
    order = sorted({depth for each in depths.values() for depth in each})
    shade = dict(zip(order, spread_colors(len(order)), strict=True))
    return {group: [shade[depth] for depth in each] for group, each in depths.items()}


def spread_colors(number: int) -> list[str]:
    """Returns `number` different colors."""
    if number <= len(PALETTE):
        return list(PALETTE[:number])
    sample = matplotlib.colormaps["viridis"]
    places = [0.1 + 0.8 * i / (number - 1) for i in range(number)]
    return [matplotlib.colors.to_hex(sample(place)) for place in places]


def set_log_scale(axes: Axes) -> None:
    """Gives the vertical axis a logarithmic scale, labeled with plain numbers."""
    axes.set_yscale("log")
    # The default labels are math text, which STYLE does not parse.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if high < NARROW * low:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    elif high < 100 * low:  # Powers of ten alone would be one tick or none.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
