"""Makes parts with bars, with line charts, or with a figure that a study draws itself."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.report.figures import Bar, LineChart
from cnn_jax.report.results import Results
from cnn_jax.text import escape_unprintable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


def figure(
    draw: Callable[[], "Drawing"],
    caption: str,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Makes a part from any matplotlib figure.

    Args:
      draw: Draws the figure; it is called in the reports' style.
      caption: Text below the figure.
      title: Heading above the figure.
      file: Name of the PNG file in the study's folder. Two figures of a page need different names.
    """
    prefix = f"{Path(file).stem}-"
    return Figure(
        title,
        caption,
        file,
        png=lambda: figures.write_png(draw),
        svgs=lambda: [figures.write_svg(draw, prefix)],
    )


def image_grid(results: Results, file: str, caption: str, title: str = "Images") -> Figure | None:
    """Makes a part from a picture in the study's folder, such as crops.png; None if it is missing.

    Args:
      results: The study's results.
      file: Name of the PNG file.
      caption: Text below the picture.
      title: Heading above the picture.
    """
    path = results.folder / file
    if not path.is_file():
        return None
    return Figure(title, caption, file, png=path.read_bytes)


def bars(
    results: Results,
    values: Sequence[Bar],
    caption: str,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Makes a figure of horizontal bars, with one panel for each group.

    Args:
      results: The study's results.
      values: The bars.
      caption: Text below the figure.
      title: Heading above the figure.
      file: Name of its PNG file.
    """
    clean = [
        dataclasses.replace(
            bar,
            group=escape_unprintable(bar.group),
            label=escape_unprintable(bar.label),
            words=escape_unprintable(bar.words),
        )
        for bar in values
    ]
    head = escape_unprintable(results.study.title)
    return figure(lambda: figures.draw_bars(head, clean), caption, title, file)


def line_charts(
    results: Results,
    charts: Sequence[LineChart],
    caption: str,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Makes a figure of charts with lines and bands.

    Args:
      results: The study's results.
      charts: The charts, which are placed side by side if there is room.
      caption: Text below the figure.
      title: Heading above the figure.
      file: Name of its PNG file.
    """
    head = escape_unprintable(results.study.title)
    drawn = figure(lambda: figures.draw_lines(head, charts), caption, title, file)

    def draw_svgs() -> list[str]:
        stem = Path(file).stem
        return [
            figures.write_svg(functools.partial(figures.draw_chart, charts, n), f"{stem}{n}-")
            for n in range(len(charts))
        ]

    return dataclasses.replace(drawn, svgs=draw_svgs)
