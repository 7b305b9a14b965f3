"""The paper's figure: error against iterations, a panel a group of nets, as PNG or as SVG for a page."""

import io
import re
import textwrap
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Okabe and Ito's colours for every kind of colour vision, less those that vanish on black or on white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c")
INK, GRID = "#24292f", "#8c959f"
DASHES = (0, (3, 1.5))
STYLE = {
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
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,  # a label is a name, whatever dollars it holds
    "svg.fonttype": "none",
    "svg.hashsalt": "cnn_jax",
}


def styled() -> AbstractContextManager:
    """Under it every figure has the reports' style."""
    return matplotlib.rc_context(STYLE)


@dataclass(frozen=True)
class Curve:
    """A net's errors in %: points are (iteration, mean, least, largest) over its seeds."""

    label: str
    train: tuple[tuple[int, float, float, float], ...]
    test: tuple[tuple[int, float, float, float], ...]
    colour: str = PALETTE[0]
    remark: str = ""  # what the legend adds for an unfinished run


@dataclass(frozen=True)
class Panel:
    """A group of nets drawn in one set of axes."""

    title: str
    curves: tuple[Curve, ...]


def colours(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    """A colour for each label of each group: nets of the same depth share a colour, or else those in the same place.

    The depth is the first number in a label; it decides only where each net has one and no two in a group share it.
    """
    depths = {g: [int(m[0]) if (m := re.search(r"\d+", n)) else None for n in names] for g, names in groups.items()}
    if any(None in d or len(set(d)) < len(d) for d in depths.values()):
        depths = {g: list(range(len(names))) for g, names in groups.items()}
    order = sorted({d for ds in depths.values() for d in ds})
    shades = PALETTE[: len(order)]
    if len(order) > len(PALETTE):
        sample = matplotlib.colormaps["viridis"]
        shades = [matplotlib.colors.to_hex(sample(0.1 + 0.8 * i / (len(order) - 1))) for i in range(len(order))]
    shade = dict(zip(order, shades, strict=True))
    return {group: [shade[d] for d in ds] for group, ds in depths.items()}


def png(title: str, panels: list[Panel]) -> bytes:
    """The whole figure, at most three panels beside one another, as PNG at 200 dots an inch."""
    with styled():
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        size = (max(6.5, 5.2 * columns), rows * _height(panels) + 0.7)
        figure = Figure(size, dpi=200, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
        figure.suptitle(textwrap.fill(title, max(60, 48 * columns)), fontsize=13, fontweight="bold")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for i, axes in enumerate(grid):
            _draw(axes, panels[i], _limits(panels)) if i < len(panels) else axes.set_visible(False)
            axes.set_ylabel("error (%)" if i % columns == 0 else "")
        figure.legend(handles=_styles(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def svgs(panels: list[Panel]) -> list[str]:
    """A <svg> element a panel on the same scales, without a background and in the page's text colour."""
    size = (5.2, _height(panels))
    return [_svg(panel, _limits(panels), size, f"panel{i}-") for i, panel in enumerate(panels)]


def _height(panels: list[Panel]) -> float:
    """Inches a panel takes with its legend of two columns below it."""
    return 3.9 + 0.22 * max(-(-len(panel.curves) // 2) for panel in panels)


def _svg(panel: Panel, limits: tuple[float, float], size: tuple[float, float], prefix: str) -> str:
    with styled():
        figure = Figure(size, layout="constrained")
        axes = figure.subplots()
        _draw(axes, panel, limits)
        axes.set_ylabel("error (%)")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)  # ids are the page's, not the panel's


def _limits(panels: list[Panel]) -> tuple[float, float]:
    """The last iteration and the largest error shown: as the paper, cut off what only the first steps reach."""
    curves = [c for p in panels for c in p.curves if c.train or c.test]
    last = max((point[0] for c in curves for point in c.train + c.test), default=1)
    largest = max((point[3] for c in curves for point in c.train + c.test), default=100)
    lines = [(line, c.remark) for c in curves for line in (c.train, c.test) if line]
    finals = [line[-1][3] for line, remark in lines if not remark]
    unfinished = [min(point[3] for point in line) for line, remark in lines if remark]  # each stays in sight
    top = min(largest, max([5, 2.5 * max(finals), *(1.1 * least for least in unfinished)])) if finals else largest
    return max(last, 1), min(100, 1.04 * max(top, 1))


def _draw(axes: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    for c in panel.curves:
        for points, line in ((c.train, {"lw": 1, "ls": DASHES, "alpha": 0.85}), (c.test, {"lw": 2.4})):
            if not points:
                continue
            steps, mean, least, largest = zip(*points, strict=True)
            axes.plot(steps, mean, color=c.colour, marker="o" if len(points) == 1 else None, **line)
            if least != largest:
                axes.fill_between(steps, least, largest, color=c.colour, alpha=0.18, lw=0)
    axes.set(title=panel.title, xlabel="iterations", xlim=(0, 1.01 * limits[0]), ylim=(0, limits[1]))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(length=0, labelleft=True)
    handles = [Line2D([], [], color=c.colour, lw=2.4) for c in panel.curves]
    names = [f"{c.label} {c.remark}".strip() for c in panel.curves]
    axes.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, fontsize=9)


def _styles() -> list[Line2D]:
    test = Line2D([], [], color=INK, lw=2.4, label="test error")
    return [test, Line2D([], [], color=INK, lw=1, ls=DASHES, label="training error")]
