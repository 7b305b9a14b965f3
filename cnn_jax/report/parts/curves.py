"""Makes the figure of errors against training steps."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.report.figures import Curve, Panel
from cnn_jax.report.parts.tables import find_error_names
from cnn_jax.report.parts.words import is_percent, name_metric
from cnn_jax.report.results import Logged, Results, Run
from cnn_jax.report.rows import Row
from cnn_jax.text import escape_unprintable

CURVES_CAPTION = (
    "Test error (solid) and training error (dashed) against training steps. Lines are means over"
    " seeds; bands span the smallest and largest. Large errors of the first steps are cut off."
)
STALLED_CAPTION = (
    " Seeds that did not train, while others of the same model did, are in no mean: they are faint"
    " lines of their own, which may lie above the axis."
)
MIN_STALLED_ERROR = 0.5


def error_curves(
    results: Results,
    rows: Sequence[Row] | None = None,
    caption: str = CURVES_CAPTION,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Makes a figure of errors against training steps, with one panel for each group.

    Args:
      results: The study's results.
      rows: The rows whose runs are drawn; None: all rows of the study.
      caption: Text below the figure.
      title: Heading above the figure.
      file: Name of its PNG file.
    """
    panels = make_panels(results, results.rows if rows is None else rows)
    if any(curve.stalled for panel in panels for curve in panel.curves):
        caption += STALLED_CAPTION
    head, stem = escape_unprintable(results.study.title), Path(file).stem

    def draw_svgs() -> list[str]:
        return [
            figures.write_svg(functools.partial(figures.draw_panel, panels, n), f"{stem}{n}-")
            for n in range(len(panels))
        ]

    return Figure(
        title,
        caption,
        file,
        png=lambda: figures.write_png(lambda: figures.draw_panels(head, panels)),
        svgs=draw_svgs,
    )


def make_panels(results: Results, rows: Sequence[Row]) -> list[Panel]:
    """Returns the panels of `error_curves`: one for each group and kind of error.

    Args:
      results: The study's results.
      rows: The rows whose runs are drawn.
    """
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        runs = results.runs.get(row.run, ())
        (metric, *_) = find_error_names([(row, runs)])
        groups.setdefault((row.group, metric), {}).setdefault(row.run, row)
    names = {key: [row.label for row in members.values()] for key, members in groups.items()}
    colors = figures.choose_colors({f"{g}\0{m}": labels for (g, m), labels in names.items()})
    panels = []
    for (group, metric), members in groups.items():
        curves = []
        for row, color in zip(members.values(), colors[f"{group}\0{metric}"], strict=True):
            runs = results.runs.get(row.run, ())
            stalled = find_stalled(runs)
            trained = [run for run in runs if run not in stalled]
            curves.append(
                Curve(
                    escape_unprintable(row.label) + _count_failures(runs, len(stalled)),
                    _make_curve(trained, "train", metric),
                    _make_curve(trained, "evaluations", metric),
                    color,
                    _make_remark(runs),
                    tuple(_make_curve([run], "evaluations", metric) for run in stalled),
                )
            )
        percent = is_percent(metric)
        label = "error (%)" if metric == "top1_error" else name_metric(metric)
        panels.append(Panel(escape_unprintable(group), tuple(curves), label, percent))
    return panels


def find_stalled(runs: Sequence[Run]) -> list[Run]:
    """Returns the seeds that did not train, if another seed of the same run did.

    Their training error stays above a half, and is more than twice that of the best seed.

    Args:
      runs: The seeds of a run.
    """
    errors = {run.seed: error for run in runs if (error := run.final_training_error) is not None}
    least = max(MIN_STALLED_ERROR, 2 * min(errors.values(), default=0))
    percent = [run for run in runs if is_percent(run.error_name)]
    return [run for run in percent if errors.get(run.seed, 0) > least]


def _count_failures(runs: Sequence[Run], stalled: int) -> str:
    """Says how many seeds of a model failed, if some did: means are of the other seeds."""
    diverged = sum(run.failed_at is not None for run in runs)
    words = [f"{diverged} of {len(runs)} diverged"] if 0 < diverged < len(runs) else []
    if not stalled:
        return f" ({words[0]})" if words else ""
    words.append(f"{stalled} {'' if words else f'of {len(runs)} '}did not train")
    return f"\n({', '.join(words)})"


def _make_remark(runs: Sequence[Run]) -> str:
    if any(run.finished for run in runs):
        return ""
    furthest = max(runs, key=lambda run: run.reached, default=None)
    if furthest is None or furthest.state == "not started":
        return "(not started)"
    if furthest.diverged is not None:
        return f"({furthest.state})"
    return f"({'NaN at' if 'NaN' in furthest.state else 'to'} step {furthest.reached:,})"


def _make_curve(runs: Sequence[Run], kind: str, metric: str) -> tuple[figures.Point, ...]:
    """Returns (step, mean, minimum, maximum) over the seeds that logged the step."""
    scale = 100 if is_percent(metric) else 1
    errors: dict[int, list[float]] = {}
    for run in runs:
        lines: Mapping[int, Logged] = getattr(run, kind)
        for step, line in lines.items() if run.error_name == metric else ():
            if line.error is not None:
                errors.setdefault(step, []).append(scale * line.error)
    return tuple((step, statistics.mean(e), min(e), max(e)) for step, e in sorted(errors.items()))
