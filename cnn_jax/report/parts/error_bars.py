"""Makes a figure of final errors as bars: ours, with a point for every seed, and the paper's."""

import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.report.parts.charts import figure
from cnn_jax.report.parts.words import format_mean
from cnn_jax.report.results import Results
from cnn_jax.report.rows import Row
from cnn_jax.text import escape_unprintable

BARS_CAPTION = (
    "Test error of each row: the bar is the mean over seeds, and points are single seeds. The gray"
    " bar above it is the paper's error, if it prints one."
)
_HEIGHT = 0.36  # height of a bar, as a share of the row's height
_WORDS = 0.25  # width of a bar's words, as a share of the longest bar


def error_bars(
    results: Results,
    rows: Sequence[Row] | None = None,
    caption: str = BARS_CAPTION,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Makes a figure of final test errors as bars, with the paper's errors above ours.

    Args:
      results: The study's results.
      rows: The rows from top to bottom; groups have different colors. None: all rows of the study.
      caption: Text below the figure.
      title: Heading above the figure.
      file: Name of its PNG file.
    """
    rows = results.rows if rows is None else rows
    ours = {row.run: _find_errors(results, row.run) for row in rows}

    def draw() -> Drawing:
        drawn = Drawing((8.5, 1.1 + 0.5 * len(rows)), layout="constrained")
        figures.set_title(drawn, escape_unprintable(results.study.title))
        axes = drawn.subplots()
        groups = list(dict.fromkeys(row.group for row in rows))
        colors = dict(zip(groups, figures.spread_colors(len(groups)), strict=True))
        own_errors = (100 * share for own in ours.values() for share in own)
        longest = max([*own_errors, *_find_printed(rows), 0.01])
        for place, row in enumerate(rows):
            printed, shares = row.paper.get("top1_error"), ours[row.run]
            errors = [100 * share for share in shares]
            if printed is not None:
                axes.barh(place - _HEIGHT / 2, printed, _HEIGHT, color=figures.PALETTE[6])
                words = f"{printed:g}"
                axes.text(printed + 0.01 * longest, place - _HEIGHT / 2, words, va="center")
            own = place + _HEIGHT / 2 if printed is not None else place
            if errors:
                mean = statistics.mean(errors)
                axes.barh(own, mean, _HEIGHT, color=colors[row.group])
                axes.plot(errors, [own] * len(errors), "o", ms=3.5, color=figures.INK, mfc="none")
                words = format_mean("top1_error", shares)  # As in the table.
                # The words are at the end of the bar, unless they would cover a seed's point.
                end = mean
                for error in sorted(errors):
                    if end < error < end + _WORDS * longest:
                        end = error
                axes.text(end + 0.015 * longest, own, words, va="center")
            else:
                axes.text(0, own, " not finished", va="center")
        axes.set_yticks(range(len(rows)), [escape_unprintable(row.label) for row in rows])
        axes.set(xlim=(0, 1.22 * longest), xlabel="test error (%)")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        return drawn

    return figure(draw, caption, title, file)


def _find_errors(results: Results, run: str) -> list[float]:
    """Returns the final error, 0 to 1, of each finished seed."""
    return [error for one in results.runs.get(run, ()) if (error := one.final_error) is not None]


def _find_printed(rows: Sequence[Row]) -> list[float]:
    return [row.paper["top1_error"] for row in rows if "top1_error" in row.paper]
