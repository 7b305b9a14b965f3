"""Parts of a report, made from a study's results. A study composes its page from them.

def report(results):
    from cnn_jax.report import parts
    return parts.page(
        results,
        parts.paper_table(results, results.rows),
        parts.error_curves(results, results.rows),
        parts.notes(results),
        parts.claims_table(results, results.claims),
    )
"""

import dataclasses
import functools
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure as Drawing

from cnn_jax.errors import UserError
from cnn_jax.report import figures
from cnn_jax.report.claims import RULE, Claim, Verdict, judge
from cnn_jax.report.elements import (
    Cell,
    Claims,
    Facts,
    Figure,
    Missing,
    Notes,
    Page,
    Part,
    Settings,
    States,
    Table,
)
from cnn_jax.report.figures import Bar, Curve, Interval, LineChart, Panel, Series
from cnn_jax.report.read import Evaluation, Logged, Results, Run
from cnn_jax.report.rows import Row, describe_setting, find_other_settings
from cnn_jax.text import printable

DASH = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"
DENSE = r"dense@(\d+)"  # Dense evaluation at one scale.


def page(results: Results, *parts: Part | None) -> Page:
    """Returns a study's page: facts, states of the runs and what is missing, then its own parts."""
    before = (facts(results), run_states(results), missing(results), problems(results))
    return Page(results.study.title, (*before, *parts))


def standard(results: Results) -> Page:
    """Returns the page of a study that composes none: tables, a figure, notes, claims."""
    rows = results.rows or make_rows(results)
    return page(
        results,
        *paper_tables(results, rows),
        evaluation_figure(results, rows) if has_evaluations(rows) else error_curves(results, rows),
        notes(results, rows),
        settings(results),
        claims_table(results, results.claims),
    )


def make_rows(results: Results) -> tuple[Row, ...]:
    """Returns a row for each run and each evaluation protocol of it, with no printed figures."""
    rows = []
    for name, runs in results.runs.items():
        rows.append(Row(name, name, "runs", ""))
        protocols = dict.fromkeys(protocol for run in runs for protocol in run.protocols)
        rows += [Row(name, f"{name}, {p}", "runs", "", protocol=p) for p in protocols]
    return tuple(rows)


# Above the tables.


def facts(results: Results) -> Facts:
    """Returns what made the results: paper, command, date, hardware, commit, versions."""
    study = results.study
    starts = [start for run in results.every_run for start in run.starts]
    days = sorted({start.time[:10] for start in starts if start.time})
    versions = [", ".join(f"{k} {v}" for k, v in start.versions.items()) for start in starts]
    return Facts(
        (
            ("paper", study.paper),
            ("preset", study.preset if study.runs else ""),
            ("data", study.data),
            ("command", study.command),
            ("date", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""),
            ("hardware", _join_distinct(start.hardware for start in starts)),
            ("commit", _join_distinct([study.commit, *(start.commit for start in starts)])),
            ("versions", _join_distinct(versions)),
        )
    )


def run_states(results: Results) -> States | None:
    """Returns how far each run came; None for a study that trains nothing."""
    every = results.every_run
    if not every:
        return None
    finished = sum(run.finished for run in every)
    diverged = sum(run.diverged is not None for run in every)
    items = [
        (_label_run(results, name), _grade(runs), describe_states(runs))
        for name, runs in results.runs.items()
    ]
    words = f"{finished} of {len(every)} runs finished"
    return States(f"{words}, {diverged} diverged" if diverged else words, tuple(items))


def missing(results: Results) -> Missing | None:
    """Returns the runs that have come to no end; None if all have."""
    lines = []
    for name, runs in results.runs.items():
        if rest := [run for run in runs if not run.finished and run.diverged is None]:
            lines.append(f"{name}: {describe_states(rest, several=len(runs) > 1)}")
    return Missing("Missing", tuple(lines), results.study.command) if lines else None


def problems(results: Results) -> Missing | None:
    """Returns the damaged files; None if there are none."""
    if not results.problems:
        return None
    return Missing("Damaged files", results.problems, "")


def settings(results: Results) -> Settings | None:
    """Returns every run's config.json; None for a study that trains nothing."""
    items = [
        (
            _label_run(results, name),
            tuple((f"{run.folder}/config.json", run.config) for run in runs if run.config),
        )
        for name, runs in results.runs.items()
    ]
    return Settings(tuple(items), linked=not results.compact) if items else None


def _join_distinct(values: Iterable[str]) -> str:
    return "; ".join(value for value in dict.fromkeys(values) if value)


def _label_run(results: Results, name: str) -> str:
    labels = {row.label for row in results.rows if row.run == name}
    return labels.pop() if len(labels) == 1 else name


def describe_states(runs: Sequence[Run], several: bool | None = None) -> str:
    """Returns 'finished', or 'seeds 0, 1: finished; seed 2: not started' for several seeds."""
    if not (len(runs) > 1 if several is None else several):
        return runs[0].state
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.state, []).append(run.seed)
    return "; ".join(
        f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {state}"
        for state, own in seeds.items()
    )


def _grade(runs: Sequence[Run]) -> str:
    if all(run.finished for run in runs):
        return "ok"
    if all(run.finished or run.diverged is not None for run in runs):
        return "part"
    if any(run.state.startswith(("stopped", "unreadable", "damaged")) for run in runs):
        return "bad"
    return "none" if all(run.state == "not started" for run in runs) else "part"


# Tables.


def paper_tables(results: Results, rows: Sequence[Row]) -> list[Table]:
    """Returns a table for each of the paper's, as the rows name them."""
    titles = dict.fromkeys(row.table for row in rows)
    return [
        paper_table(results, [row for row in rows if row.table == title], title or "Table")
        for title in titles
    ]


def paper_table(results: Results, rows: Sequence[Row], title: str = "Table") -> Table:
    """Returns the paper's table with our figures beside the paper's.

    A row whose run has another model, data set or number of steps than the paper's says so, and
    no difference from the paper is taken. Other deviations have footnote marks, which `deviations`
    explains.

    Args:
      results: The study's results.
      rows: The table's lines.
      title: Above the table.
    """
    own = [(row, results.runs.get(row.run, ())) for row in rows]
    metrics = _find_metrics(own)
    protocols = has_evaluations(rows)
    training = [] if protocols else list(dict.fromkeys(_error_names(own)))
    marks = deviation_marks(results)[1]
    cells = []
    for row, runs in own:
        other = find_differing(results, row.run)
        line: list[Cell | str] = [row.label]
        for metric in metrics:
            line += _compare(row, runs, metric, comparable=not other and results.comparable)
        line += [show_training(runs, metric) for metric in training]
        done = [
            run
            for run in runs
            if row.protocol in run.protocols or (not row.protocol and run.finished)
        ]
        line.append(f"{len(done)}" if len(done) == len(runs) else f"{len(done)} of {len(runs)}")
        line.append(_join_distinct(f"{run.steps:,}" for run in runs if run.steps) or DASH)
        line.append("; ".join(other) or DASH)
        listed = list_deviations(runs)
        line.append(", ".join(mark for text, mark in marks.items() if text in listed) or DASH)
        cells.append(tuple(line))
    columns = ["model", *(head for metric in metrics for head in _heads(results, metric))]
    columns += [_name_training(metric, metrics) for metric in training]
    columns += ["seeds", "steps", "not the paper's", "deviations"]
    last = len(columns) - 1
    keep = [i for i in range(len(columns)) if i < last - 1 or any(c[i] != DASH for c in cells)]
    return Table(
        title,
        tuple(columns[i] for i in keep),
        tuple(tuple(line[i] for i in keep) for line in cells),
        footnote=_explain_table(protocols, bool(training)),
        left=tuple(new for new, old in enumerate(keep) if old == 0 or old >= last - 1),
    )


def _explain_table(protocols: bool, training: bool) -> str:
    words = [
        "Errors are in %." if not protocols else "Errors are in %, by the protocol of each row."
    ]
    if protocols:
        words.append(
            "With one seed Wilson's 95% interval over test images stands beside ours, with several"
            " the sample standard deviation."
        )
    else:
        words.append(
            "Ours is the mean ± sample standard deviation over the finished seeds at their last"
            " evaluation."
        )
    words.append(
        "The difference is ours minus the paper's in percentage points. It is left out (—) where"
        " the paper prints no figure, where no run has finished, and where model, data set or"
        " number of steps are not the paper's."
    )
    if training:
        words.append("The training error is the last one logged, a mean over the last interval.")
    return " ".join(words)


def find_differing(results: Results, name: str) -> tuple[str, ...]:
    """Returns what of a run's model, data and steps is not the paper's."""
    paper = results.study.paper_runs.get(name)
    if not paper:
        return ()
    words = [
        word
        for run in results.runs.get(name, ())
        if run.experiment
        for word in find_other_settings(describe_setting(run.experiment), paper)
    ]
    return tuple(dict.fromkeys(words))


def has_evaluations(rows: Iterable[Row]) -> bool:
    """Returns whether rows are of evaluation protocols."""
    return any(row.protocol for row in rows)


def _error_names(own: Sequence[tuple[Row, Sequence[Run]]]) -> list[str]:
    names = [run.error_name for _, runs in own for run in runs if run.evaluations or run.train]
    return names or ["top1_error"]


def _find_metrics(own: Sequence[tuple[Row, Sequence[Run]]]) -> list[str]:
    printed = [metric for row, _ in own for metric in row.paper]
    measured = [
        name for row, runs in own if not row.protocol for name in _error_names([(row, runs)])
    ]
    at_protocols = [
        metric
        for row, runs in own
        for run in runs
        if row.protocol in run.protocols
        for metric in run.protocols[row.protocol].errors
    ]
    return list(dict.fromkeys([*printed, *at_protocols, *measured])) or ["top1_error"]


def is_percent(metric: str) -> bool:
    """Returns whether a metric is a share of images, and shown in %."""
    return bool(re.fullmatch(r"top\d+_error", metric))


def name_metric(metric: str) -> str:
    """Returns a metric's name for people: 'top-1 error (%)', 'reconstruction error'."""
    top = re.fullmatch(r"top(\d+)_error", metric)
    return f"top-{top[1]} error (%)" if top else metric.replace("_", " ")


def show_error(metric: str, value: float) -> str:
    """Returns an error as a table shows it: '8.75' (%), or '0.1234'."""
    return f"{100 * value:.2f}" if is_percent(metric) else f"{value:.4g}"


def _name_training(metric: str, metrics: Sequence[str]) -> str:
    alone = list(metrics) == ["top1_error"] == [metric]
    return "training error (%)" if alone else f"training {name_metric(metric)}"


def _heads(results: Results, metric: str) -> list[str]:
    name = name_metric(metric).removesuffix(" (%)")
    unit = " (%)" if is_percent(metric) else ""
    study = results.study
    ours, paper = ("", "") if results.comparable else (f", {study.data}", f", {study.paper_data}")
    heads = [f"{name}: paper{paper}{unit}", f"{name}: ours{ours}{unit}"]
    return [*heads, "difference (points)"] if is_percent(metric) else [heads[1]]


def _compare(row: Row, runs: Sequence[Run], metric: str, comparable: bool) -> list[Cell | str]:
    printed = row.paper.get(metric)
    values = _find_values(row, runs, metric)
    ours = _show_protocol(row, runs, metric) if row.protocol else show_final(runs, metric)
    if not is_percent(metric):
        return [ours]
    difference = DASH
    if values and printed is not None and comparable:
        difference = show_points(100 * statistics.mean(values) - printed)
    return [DASH if printed is None else str(printed), ours, difference]


def _find_values(row: Row, runs: Sequence[Run], metric: str) -> list[float]:
    """Returns the metric of each seed that has it, 0 to 1."""
    if row.protocol:
        found = [
            run.protocols[row.protocol].errors.get(metric)
            for run in runs
            if row.protocol in run.protocols
        ]
    else:
        found = [run.final_error for run in runs if run.error_name == metric]
    return [value for value in found if value is not None]


def _show_protocol(row: Row, runs: Sequence[Run], metric: str) -> Cell | str:
    values = _find_values(row, runs, metric)
    if len(values) != 1:
        return _show_mean(metric, values)
    done = next(run.protocols[row.protocol] for run in runs if row.protocol in run.protocols)
    interval = done.intervals.get(metric)
    words = show_error(metric, values[0])
    if interval is None:
        return words
    low, high = (f"{100 * end:.1f}" if is_percent(metric) else f"{end:.3g}" for end in interval)
    return f"{words} [{low}; {high}]"


def show_final(runs: Sequence[Run], metric: str) -> Cell | str:
    """Returns the last evaluation: the mean over the finished seeds, or how far the best came."""
    own = [run for run in runs if run.error_name == metric]
    diverged = [run.diverged for run in own if run.diverged is not None]
    if finals := [run.final_error for run in own if run.final_error is not None]:
        mean = _show_mean(metric, finals)
        return Cell(mean, f"({len(diverged)} of {len(own)} diverged)") if diverged else mean
    if diverged and len(diverged) == len(own):
        return f"diverged at step {join_range(diverged)}"
    return _show_furthest(own, metric, "evaluations")


def show_training(runs: Sequence[Run], metric: str) -> Cell | str:
    """Returns the training error logged last, as `show_final` does the last evaluation."""
    own = [run for run in runs if run.error_name == metric]
    finals = [e for run in own if (e := run.final_training_error) is not None]
    return _show_mean(metric, finals) if finals else _show_furthest(own, metric, "train")


def _show_mean(metric: str, values: Sequence[float]) -> str:
    """Returns '8.75 ± 0.16'."""
    if not values:
        return DASH
    mean = show_error(metric, statistics.mean(values))
    return f"{mean} ± {show_error(metric, statistics.stdev(values))}" if len(values) > 1 else mean


def _show_furthest(runs: Sequence[Run], metric: str, kind: str) -> Cell | str:
    """Returns the error of the seed that came furthest, with its step, while none has finished."""
    if not runs or any(run.finished for run in runs):
        return DASH
    furthest = max(runs, key=lambda run: max(getattr(run, kind), default=-1))
    lines: Mapping[int, Logged] = getattr(furthest, kind)
    error = lines[max(lines)].error if lines else None
    if error is None:
        return DASH
    until = f" of {furthest.steps:,}" if furthest.steps else ""
    return Cell(show_error(metric, error), f"(at step {max(lines):,}{until})")


def join_range(numbers: Sequence[int]) -> str:
    """Returns '120', or '120 to 1,240' of several."""
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(f"{end:,}" for end in ends)


def show_points(points: float) -> str:
    """Returns a difference with its sign: '+1.25', '−0.75'."""
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", MINUS)


# Notes.


def notes(results: Results, rows: Sequence[Row] | None = None, *more: str) -> Notes | None:
    """Returns what a reader must know: other data than the paper's, sources, deviations, notes.

    Args:
      results: The study's results.
      rows: Whose sources are named; None: the study's.
      *more: Further notes.
    """
    study = results.study
    items = []
    if not results.comparable:  # Figures of different things have no difference.
        items.append(
            (
                "Data",
                f"the paper's figures are of {study.paper_data}, ours of {study.data}:"
                " no difference can be taken",
            )
        )
    if sources := _list_sources(results.rows if rows is None else rows):
        items.append(("Sources", sources))
    items += deviations(results).items
    items += [("Note", note) for note in (*study.notes, *more)]
    return Notes("", tuple(items)) if items else None


def _list_sources(rows: Iterable[Row]) -> str:
    labels: dict[str, list[str]] = {}
    for row in rows:
        if row.source and row.source != row.table:
            labels.setdefault(row.source, []).append(row.label)
    return "; ".join(f"{', '.join(own)}: {source}" for source, own in labels.items())


def deviations(results: Results) -> Notes:
    """Returns the deviations of all runs, then each other with its mark."""
    common, marks = deviation_marks(results)
    every = [("All runs", "; ".join(common))] if common else []
    return Notes("", (*every, *((mark, text) for text, mark in marks.items())))


def deviation_marks(results: Results) -> tuple[list[str], dict[str, str]]:
    """Returns the deviations that every started run has, and a footnote mark for each other."""
    each = [
        list_deviations(runs) for runs in results.runs.values() if any(r.experiment for r in runs)
    ]
    every = list(dict.fromkeys(text for own in each for text in own))
    common = [text for text in every if all(text in own for own in each)]
    others = [text for text in every if text not in common]
    return common, {text: _make_mark(number) for number, text in enumerate(others)}


def list_deviations(runs: Iterable[Run]) -> list[str]:
    """Returns the deviations of a run's seeds from the paper."""
    texts = [text for run in runs if run.experiment for text in run.experiment.deviations]
    return list(dict.fromkeys(texts))


def _make_mark(number: int) -> str:
    """Returns the mark of a number: a, b, ..., z, aa, ab, ..."""
    before = _make_mark(number // 26 - 1) if number >= 26 else ""
    return before + chr(ord("a") + number % 26)


# Figures.


def figure(
    draw: Callable[[], Drawing],
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


CURVES_CAPTION = (
    "Test error (solid) and training error (dashed) against training steps; the line is the mean"
    " over seeds, the band their least and largest. The axis leaves out errors that only the first"
    " steps reach."
)


def error_curves(
    results: Results,
    rows: Sequence[Row] | None = None,
    caption: str = CURVES_CAPTION,
    title: str = "Figure",
    file: str = "report.png",
) -> Figure:
    """Returns the errors of the rows' runs against steps, a panel a group.

    Args:
      results: The study's results.
      rows: Which runs, and their groups; None: every row of the study.
      caption: Below the figure.
      title: Above the figure.
      file: Its PNG file.
    """
    panels = make_panels(results, results.rows if rows is None else rows)
    head, stem = printable(results.study.title), Path(file).stem

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
    """Returns the panels of `error_curves`: one for each group and kind of error."""
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        runs = results.runs.get(row.run, ())
        (metric, *_) = _error_names([(row, runs)])
        groups.setdefault((row.group, metric), {}).setdefault(row.run, row)
    names = {key: [row.label for row in members.values()] for key, members in groups.items()}
    colors = figures.choose_colors({f"{g}\0{m}": labels for (g, m), labels in names.items()})
    panels = []
    for (group, metric), members in groups.items():
        curves = [
            Curve(
                printable(row.label),
                _make_curve(results.runs.get(row.run, ()), "train", metric),
                _make_curve(results.runs.get(row.run, ()), "evaluations", metric),
                color,
                _make_remark(results.runs.get(row.run, ())),
            )
            for row, color in zip(members.values(), colors[f"{group}\0{metric}"], strict=True)
        ]
        percent = is_percent(metric)
        label = "error (%)" if metric == "top1_error" else name_metric(metric)
        panels.append(Panel(printable(group), tuple(curves), label, percent))
    return panels


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
    """Returns (step, mean, least, largest) over the seeds that were there."""
    scale = 100 if is_percent(metric) else 1
    errors: dict[int, list[float]] = {}
    for run in runs:
        lines: Mapping[int, Logged] = getattr(run, kind)
        for step, line in lines.items() if run.error_name == metric else ():
            if line.error is not None:
                errors.setdefault(step, []).append(scale * line.error)
    return tuple((step, statistics.mean(e), min(e), max(e)) for step, e in sorted(errors.items()))


INTERVALS_CAPTION = "Top-1 error of each row, with Wilson's 95% interval over test images."
SCALES_CAPTION = (
    "Top-1 error of dense evaluation against the shorter side Q of the test images, a line for each"
    " training scale S; bands are Wilson's 95% intervals over test images."
)


def evaluation_figure(results: Results, rows: Sequence[Row] | None = None) -> Figure:
    """Returns dense evaluation against the test scale, where there is any; else a row a point."""
    rows = results.rows if rows is None else rows
    if any(re.fullmatch(DENSE, p) for run in results.every_run for p in run.protocols):
        return errors_by_scale(results, rows)
    return evaluation_intervals(results, rows)


def evaluation_intervals(
    results: Results,
    rows: Sequence[Row],
    caption: str = INTERVALS_CAPTION,
    file: str = "report.png",
) -> Figure:
    """Returns each row's top-1 error with its interval, a point a seed."""
    intervals = []
    for row in rows:
        for run in results.runs.get(row.run, ()):
            found = run.protocols.get(row.protocol)
            if found and "top1_error" in found.errors:
                value, low, high = _find_interval(found)
                intervals.append(Interval(printable(row.label), value, low, high))
    head = printable(results.study.title)
    axis = "top-1 error (%), with its 95% interval"
    return figure(lambda: figures.draw_intervals(head, axis, intervals), caption, file=file)


def _find_interval(found: Evaluation) -> tuple[float, float, float]:
    value = found.errors["top1_error"]
    low, high = found.intervals.get("top1_error", (value, value))
    return 100 * value, 100 * low, 100 * high


def errors_by_scale(
    results: Results, rows: Sequence[Row], caption: str = SCALES_CAPTION, file: str = "report.png"
) -> Figure:
    """Returns the error of dense evaluation against the test scale, a panel a group."""
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        groups.setdefault(row.group, {}).setdefault(row.run)
    trained = {name: _describe_training_scale(runs) for name, runs in results.runs.items()}
    words = list(dict.fromkeys(trained[name] for own in groups.values() for name in own))
    colors = dict(zip(words, figures.spread_colors(len(words)), strict=True))
    charts = []
    for group, names in groups.items():
        lines = []
        for name in names:
            if points := _find_dense_points(results.runs[name]):
                lines.append(Series(trained[name], points, colors[trained[name]]))
        axis = "shorter side Q of test images (pixels)"
        charts.append(LineChart(printable(group), tuple(lines), axis, "top-1 error (%)"))
    return line_charts(results, charts, caption, file=file)


def _describe_training_scale(runs: Sequence[Run]) -> str:
    sides = next((run.experiment.data.train_resize for run in runs if run.experiment), ())
    if not sides:
        return "not started"
    return f"S {sides[0]}" if len(sides) == 1 else f"S in [{sides[0]}; {sides[1]}]"


def _find_dense_points(runs: Sequence[Run]) -> tuple[tuple[float, float, float, float], ...]:
    found: dict[int, list[tuple[float, float, float]]] = {}
    for run in runs:
        for protocol, evaluation in run.protocols.items():
            match = re.fullmatch(DENSE, protocol)
            if match and "top1_error" in evaluation.errors:
                found.setdefault(int(match[1]), []).append(_find_interval(evaluation))
    return tuple(
        (side, *(statistics.mean(column) for column in zip(*own, strict=True)))
        for side, own in sorted(found.items())
    )


# Claims.


def claims_table(results: Results, claims: Sequence[Claim]) -> Claims | None:
    """Returns the verdict of each claim, with the rule; None if there are no claims."""
    if not claims:
        return None
    verdicts = tuple(judge(results, claim) for claim in claims)
    columns = ("claim", "verdict", "paper", "ours", "over images", "over seeds", "agrees if")
    rows = tuple(_show_verdict(verdict) for verdict in verdicts)
    return Claims("What the paper says", columns, rows, RULE, (0, 1), verdicts)


def _show_verdict(verdict: Verdict) -> tuple[Cell | str, ...]:
    claim, ours = verdict.claim, verdict.ours
    signed = claim.unit == "points" and not claim.is_figure
    source = f" ({claim.source})" if claim.source else ""
    words = explain_verdict(verdict.why, ours.seeds, ours.setting)
    return (
        f"{claim.statement}{source}",
        Cell(verdict.verdict, words),
        DASH if claim.paper is None else show_quantity(claim.paper, claim.unit, signed),
        DASH if ours.value is None else show_quantity(ours.value, claim.unit, signed),
        show_range(ours.over_images, claim.unit, signed),
        show_range(ours.over_seeds, claim.unit, signed),
        describe_range(claim.expected, claim.unit),
    )


def explain_verdict(why: str, seeds: int, setting: str) -> str:
    """Returns what stands below a verdict: its reason, the number of seeds, the setting."""
    number = f"{seeds} seed{'s' * (seeds != 1)}" if seeds and "seed" not in why else ""
    words = "; ".join(text for text in (why, number, setting) if text)
    return f"({words})" if words else ""


def show_quantity(value: float, unit: str, signed: bool) -> str:
    """Returns a claim's figure with its unit: '+1.25', '6.97%', '204,800'."""
    if unit != "points":
        return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"
    return show_points(value) if signed else f"{value:.2f}".replace("-", MINUS)


def show_range(interval: Sequence[float] | None, unit: str, signed: bool) -> str:
    """Returns an interval with its unit: '[−0.10; +1.25]'."""
    if interval is None:
        return DASH
    low, high = (show_quantity(end, unit, signed) for end in interval)
    return f"[{low}; {high}]"


def describe_range(expected: tuple[float, float], unit: str) -> str:
    """Returns the range of a claim in words: 'below 0', 'above 0.5', '204,800'."""
    low, high = (f"{end:,.10g}".replace("-", MINUS) for end in expected)
    if expected[0] == expected[1]:
        return low
    if expected[0] == float("-inf"):
        return f"below {high}"
    if expected[1] == float("inf"):
        return f"above {low}"
    return f"{low} to {high}"


def check_files(made: Page) -> None:
    """Raises UserError if two figures of a page would be written to one file."""
    names = [part.file for part in made.find(Figure)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the report has two figures named {name}: give one another file=")
        if Path(name).name != name or not name.endswith(".png"):
            raise UserError(f"the report's figure {name!r} is no name of a PNG file")
