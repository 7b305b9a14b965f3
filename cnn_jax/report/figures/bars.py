"""Draws bars of errors, the paper's beside ours, and intervals of errors."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from cnn_jax.report.figures.style import PALETTE, set_title

SEED_SHIFT = 0.15  # distance between the intervals of a row's seeds, as a share of the row's height


@dataclass(frozen=True)
class Bar:
    """A bar of a bar chart: its group, its label, its length, and the text at its end."""

    group: str
    label: str
    value: float
    words: str = ""


def draw_bars(title: str, bars: Sequence[Bar]) -> Figure:
    """Draws horizontal bars, one panel for each group; the first bar of a group is gray.

    Args:
      title: Title of the figure.
      bars: The bars, from top to bottom.
    """
    groups: dict[str, list[Bar]] = {}
    for bar in bars:
        groups.setdefault(bar.group, []).append(bar)
    height = 0.42 * len(bars) + 0.5 * len(groups) + 0.9
    figure = Figure((8.5, height), layout="constrained")
    set_title(figure, title)
    ratios = [len(members) + 0.6 for members in groups.values()]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=ratios).flat
    longest = max((bar.value for bar in bars), default=1.0) or 1.0
    for axes, (group, members) in zip(panels, groups.items(), strict=True):
        places = range(len(members))
        colors = [PALETTE[6], *[PALETTE[0]] * (len(members) - 1)]
        axes.barh(places, [bar.value for bar in members], color=colors, height=0.7)
        axes.set_yticks(places, [bar.label for bar in members])
        for place, bar in enumerate(members):
            end = bar.value + 0.01 * longest
            axes.text(end, place, bar.words, va="center", fontsize=9)
        axes.set_title(group, loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.5 * longest), xticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(visible=False)
    return figure


@dataclass(frozen=True)
class Interval:
    """A value with an interval, and the label of its row."""

    label: str
    value: float
    low: float
    high: float


def draw_intervals(title: str, x_label: str, intervals: Sequence[Interval]) -> Figure:
    """Draws values with intervals, one row for each label; equal labels share a row.

    Args:
      title: Title of the figure.
      x_label: Label of the horizontal axis.
      intervals: The intervals, from top to bottom.
    """
    labels = list(dict.fromkeys(one.label for one in intervals))
    figure = Figure((7, 1.4 + 0.4 * len(labels)), layout="constrained")
    set_title(figure, title)
    axes = figure.subplots()
    drawn: dict[str, int] = {}
    for one in intervals:
        of_label = sum(other.label == one.label for other in intervals)
        drawn[one.label] = drawn.get(one.label, 0) + 1
        shift = SEED_SHIFT * (drawn[one.label] - (of_label + 1) / 2)
        place = labels.index(one.label) + max(-0.4, min(0.4, shift))
        axes.plot([one.low, one.high], [place, place], color=PALETTE[0], lw=2)
        axes.plot([one.value], [place], color=PALETTE[0], marker="o")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel=x_label, ylim=(max(len(labels), 1) - 0.5, -0.5))
    axes.tick_params(length=0)
    return figure
