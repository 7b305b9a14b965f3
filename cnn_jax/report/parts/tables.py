"""Makes the paper's table, with our errors beside the paper's."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from cnn_jax.report.elements import Cell, Table
from cnn_jax.report.parts.footnotes import list_deviations, mark_deviations
from cnn_jax.report.parts.words import (
    DASH,
    format_error,
    format_mean,
    format_points,
    format_span,
    is_percent,
    join_distinct,
    name_metric,
)
from cnn_jax.report.results import Logged, Results, Run
from cnn_jax.report.rows import Row, describe_setting, find_other_settings


def paper_tables(results: Results, rows: Sequence[Row]) -> list[Table]:
    """Makes a table for each `table` that the rows name.

    Args:
      results: The study's results.
      rows: The rows of all tables.
    """
    titles = dict.fromkeys(row.table for row in rows)
    return [
        paper_table(results, [row for row in rows if row.table == title], title or "Table")
        for title in titles
    ]


def paper_table(results: Results, rows: Sequence[Row], title: str = "Table") -> Table:
    """Makes the paper's table, with our errors beside the paper's.

    If a run's model, data set or number of steps is not the paper's, its row states so and has no
    difference from the paper. Other deviations have footnote marks, which `deviations` explains.

    Args:
      results: The study's results.
      rows: The table's rows.
      title: Heading above the table.
    """
    own = [(row, results.runs.get(row.run, ())) for row in rows]
    metrics = _find_metrics(own)
    protocols = has_evaluations(rows)
    training = [] if protocols else list(dict.fromkeys(find_error_names(own)))
    marks = mark_deviations(results)[1]
    cells = []
    for row, runs in own:
        other = find_differing(results, row.run)
        line: list[Cell | str] = [row.label]
        for metric in metrics:
            line += _compare(row, runs, metric, comparable=not other and results.comparable)
        line += [format_training_error(runs, metric) for metric in training]
        done = [
            run
            for run in runs
            if row.protocol in run.protocols or (not row.protocol and run.finished)
        ]
        line.append(f"{len(done)}" if len(done) == len(runs) else f"{len(done)} of {len(runs)}")
        line.append(join_distinct(f"{run.steps:,}" for run in runs if run.steps) or DASH)
        line.append("; ".join(other) or DASH)
        listed = list_deviations(runs)
        line.append(", ".join(mark for text, mark in marks.items() if text in listed) or DASH)
        cells.append(tuple(line))
    columns = ["model", *(name for metric in metrics for name in _name_columns(results, metric))]
    columns += [_name_training(metric, metrics) for metric in training]
    columns += ["seeds", "steps", "not the paper's", "deviations"]
    last = len(columns) - 1
    unprinted = not results.study.paper_data and not any(row.paper for row in rows)
    comparing = {i for i, head in enumerate(columns) if ": paper" in head or "difference" in head}
    keep = [
        i
        for i in range(len(columns))
        if (i < last - 1 or any(c[i] != DASH for c in cells)) and not (unprinted and i in comparing)
    ]
    return Table(
        title,
        tuple(columns[i] for i in keep),
        tuple(tuple(line[i] for i in keep) for line in cells),
        footnote=_explain_table(protocols, bool(training), not unprinted),
        left=tuple(new for new, old in enumerate(keep) if old == 0 or old >= last - 1),
    )


def _explain_table(protocols: bool, training: bool, printed: bool) -> str:
    words = [
        "Errors are in %." if not protocols else "Errors are in %, by the protocol of each row."
    ]
    if protocols:
        words.append(
            "Ours has Wilson's 95% interval over test images with one seed, and the sample standard"
            " deviation with several."
        )
    else:
        words.append(
            "Ours is the mean ± sample standard deviation over the finished seeds at their last"
            " evaluation."
        )
    if printed:
        words.append(
            "The difference is ours minus the paper's in percentage points. It is left out (—) if"
            " the paper prints no error, if no run has finished, and if the model, data set or"
            " number of steps is not the paper's."
        )
    if training:
        words.append(
            "The training error is the last one logged, a mean over the last log interval."
        )
    return " ".join(words)


def find_differing(results: Results, name: str) -> tuple[str, ...]:
    """Describes how a run's model, data and steps differ from the paper's.

    Args:
      results: The study's results.
      name: Name of the run.
    """
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
    """Returns whether any row names an evaluation protocol."""
    return any(row.protocol for row in rows)


def find_error_names(own: Sequence[tuple[Row, Sequence[Run]]]) -> list[str]:
    """Returns the name of the error of each started run; top1_error if no run has started."""
    names = [run.error_name for _, runs in own for run in runs if run.evaluations or run.train]
    return names or ["top1_error"]


def _find_metrics(own: Sequence[tuple[Row, Sequence[Run]]]) -> list[str]:
    printed = [metric for row, _ in own for metric in row.paper]
    measured = [
        name for row, runs in own if not row.protocol for name in find_error_names([(row, runs)])
    ]
    at_protocols = [
        metric
        for row, runs in own
        for run in runs
        if row.protocol in run.protocols
        for metric in run.protocols[row.protocol].errors
    ]
    return list(dict.fromkeys([*printed, *at_protocols, *measured])) or ["top1_error"]


def _name_training(metric: str, metrics: Sequence[str]) -> str:
    alone = list(metrics) == ["top1_error"] == [metric]
    return "training error (%)" if alone else f"training {name_metric(metric)}"


def _name_columns(results: Results, metric: str) -> list[str]:
    name = name_metric(metric).removesuffix(" (%)")
    unit = " (%)" if is_percent(metric) else ""
    study = results.study
    ours, paper = ("", "") if results.comparable else (f", {study.data}", f", {study.paper_data}")
    heads = [f"{name}: paper{paper}{unit}", f"{name}: ours{ours}{unit}"]
    return [*heads, "difference (points)"] if is_percent(metric) else [heads[1]]


def _compare(row: Row, runs: Sequence[Run], metric: str, comparable: bool) -> list[Cell | str]:
    printed = row.paper.get(metric)
    values = _find_values(row, runs, metric)
    ours = (
        _format_protocol_error(row, runs, metric)
        if row.protocol
        else format_final_error(runs, metric)
    )
    if not is_percent(metric):
        return [ours]
    difference = DASH
    if values and printed is not None and comparable:
        difference = format_points(100 * statistics.mean(values) - printed)
    return [DASH if printed is None else str(printed), ours, difference]


def _find_values(row: Row, runs: Sequence[Run], metric: str) -> list[float]:
    """Returns the metric of each seed that has it, from 0 to 1."""
    if row.protocol:
        found = [
            run.protocols[row.protocol].errors.get(metric)
            for run in runs
            if row.protocol in run.protocols
        ]
    else:
        found = [run.final_error for run in runs if run.error_name == metric]
    return [value for value in found if value is not None]


def _format_protocol_error(row: Row, runs: Sequence[Run], metric: str) -> Cell | str:
    values = _find_values(row, runs, metric)
    if len(values) != 1:
        return format_mean(metric, values)
    done = next(run.protocols[row.protocol] for run in runs if row.protocol in run.protocols)
    interval = done.intervals.get(metric)
    words = format_error(metric, values[0])
    if interval is None:
        return words
    low, high = (f"{100 * end:.1f}" if is_percent(metric) else f"{end:.3g}" for end in interval)
    return f"{words} [{low}; {high}]"


def format_final_error(runs: Sequence[Run], metric: str) -> Cell | str:
    """Returns the mean last evaluation of the finished seeds, or that of the most advanced one.

    Args:
      runs: The seeds of a run.
      metric: Name of the error.
    """
    own = [run for run in runs if run.error_name == metric]
    failed = sum(run.failed_at is not None for run in own)
    if finals := [run.final_error for run in own if run.final_error is not None]:
        mean = format_mean(metric, finals)
        return Cell(mean, f"({failed} of {len(own)} diverged)") if failed else mean
    diverged = [run.diverged for run in own if run.diverged is not None]
    if diverged and len(diverged) == len(own):
        return f"diverged at step {format_span(diverged)}"
    return _format_furthest_error(own, metric, "evaluations")


def format_training_error(runs: Sequence[Run], metric: str) -> Cell | str:
    """Returns the mean last training error of the finished seeds, or of the most advanced one.

    Args:
      runs: The seeds of a run.
      metric: Name of the error.
    """
    own = [run for run in runs if run.error_name == metric]
    finals = [e for run in own if (e := run.final_training_error) is not None]
    return format_mean(metric, finals) if finals else _format_furthest_error(own, metric, "train")


def _format_furthest_error(runs: Sequence[Run], metric: str, kind: str) -> Cell | str:
    """Returns the error of the most advanced seed with its step, if no seed has finished."""
    if not runs or any(run.finished for run in runs):
        return DASH
    furthest = max(runs, key=lambda run: max(getattr(run, kind), default=-1))
    lines: Mapping[int, Logged] = getattr(furthest, kind)
    error = lines[max(lines)].error if lines else None
    if error is None:
        return DASH
    until = f" of {furthest.steps:,}" if furthest.steps else ""
    return Cell(format_error(metric, error), f"(at step {max(lines):,}{until})")
