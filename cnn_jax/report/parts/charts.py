"""Figures of any content as parts of a report."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.report.figures import Bar, LineChart
from cnn_jax.report.results import Results
from cnn_jax.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


def figure(
    draw: Callable[[], "Drawing"],
    caption: str,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Returns any matplotlib figure as a part.

    Args:
      draw: Makes the figure; it is called under the reports' style.
      caption: Below it.
      title: Above it.
      file: Its PNG file in the study's folder; different figures of a page need different files.
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
    """Returns a picture that lies in the study's folder, such as crops.png; None if it does not.

    Args:
      results: The study's results.
      file: The PNG file.
      caption: Below it.
      title: Above it.
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
    """Returns horizontal bars, a panel a group."""
    clean = [
        dataclasses.replace(
            bar, group=printable(bar.group), label=printable(bar.label), words=printable(bar.words)
        )
        for bar in values
    ]
    head = printable(results.study.title)
    return figure(lambda: figures.draw_bars(head, clean), caption, title, file)


def line_charts(
    results: Results,
    charts: Sequence[LineChart],
    caption: str,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Returns lines with bands, in charts beside one another, or below on a narrow screen."""
    head = printable(results.study.title)
    drawn = figure(lambda: figures.draw_lines(head, charts), caption, title, file)

    def draw_svgs() -> list[str]:
        stem = Path(file).stem
        return [
            figures.write_svg(functools.partial(figures.draw_chart, charts, n), f"{stem}{n}-")
            for n in range(len(charts))
        ]

    return dataclasses.replace(drawn, svgs=draw_svgs)
