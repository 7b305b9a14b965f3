"""The report of a study: the paper's table with ours beside it and its figure, made from run folders alone."""

import os
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.files import write_whole
from cnn_jax.report import counts, evaluations, figures, render
from cnn_jax.report.figures import Curve, Panel
from cnn_jax.report.read import Net, Run, read
from cnn_jax.report.render import Sheet, Table

DASH = "—"
CAPTION = (
    "Test error (solid) and training error (dashed) against iterations; the line is the mean over seeds, the band "
    "their least and largest. The axis leaves out errors that only the first steps reach."
)
EXPLAINED = (
    "Errors in %, mean ± sample standard deviation over the finished seeds at their last evaluation; the difference "
    "is ours minus the paper's in percentage points, — where the paper prints no figure, no run has finished, or the "
    "data are not the paper's; the training error is the last one logged."
)

CROPS = "Training images as the nets see them, a row for each S."


@dataclass(frozen=True)
class Report:
    """Where a report was written, and its table as text for a terminal."""

    markdown: Path
    png: Path
    html: Path
    text: str


def build(workdir: str | os.PathLike) -> Report:
    """Write report.md, report.png and report.html into a study's folder, from what its runs left there.

    The same folder gives the same files, byte for byte. Runs that are missing or unfinished are named. Raises
    UserError where the folder holds no study or a file of it is broken.
    """
    folder = Path(workdir)
    study, nets = read(folder)
    if study.get("counts"):
        sheet, picture, svgs = counts.sheet(study), counts.png(study), [counts.svg(study)]
    elif any(net.test for net in nets):
        crops = [("crops.png", CROPS)] if (folder / "crops.png").is_file() else []
        sheet = _tested(study, nets, crops)
        picture, svgs = evaluations.png(sheet.title, nets), [evaluations.svg(sheet.title, nets)]
    else:
        sheet, panels = _sheet(study, nets), _panels(nets)
        picture, svgs = figures.png(sheet.title, panels), figures.svgs(panels)
    report = Report(folder / "report.md", folder / "report.png", folder / "report.html", render.text(sheet))
    try:
        write_whole(report.markdown, render.markdown(sheet))
        write_whole(report.png, picture)
        pictures = [(folder / file).read_bytes() for file, _ in sheet.pictures]
        write_whole(report.html, render.page(sheet, svgs, pictures))
    except OSError as e:
        raise UserError(f"cannot write the report to {e.filename or folder} ({e.strerror}): make room for it") from None
    return report


def _sheet(study: dict, nets: list[Net]) -> Sheet:
    runs = [run for net in nets for run in net.runs]
    done = sum(run.finished for run in runs)
    metrics = list(dict.fromkeys(metric for net in nets for metric in net.paper)) or [_error_name(nets)]
    common, marks = _deviations(nets)
    data, printed_on = study.get("data", ""), study.get("paper_data") or study.get("data", "")
    columns = _columns(metrics, *(("", "") if data == printed_on else (f", {printed_on}", f", {data}")))
    notes = []
    if data != printed_on:  # two measurements of different things have no difference
        notes = [("Data", f"the paper's figures are of {printed_on}, ours of {data}: no difference can be taken")]
    notes += [("Sources", text)] if (text := _sources(nets)) else []
    notes += [("All runs", "; ".join(common))] if common else []
    notes += [(mark, deviation) for deviation, mark in marks.items()]
    notes += [("Note", str(note)) for note in study.get("notes", ())]
    return Sheet(
        title=study["title"],
        facts=_facts(study, [start for run in runs for start in run.starts]),
        progress=f"{done} of {len(runs)} runs finished",
        states=tuple((net.label, _kind(net), _state(net.runs, net)) for net in nets),
        tables=(Table("Table", columns, tuple(_cells(net, metrics, marks, data == printed_on) for net in nets)),),
        notes=tuple(notes),
        missing=tuple(
            f"{net.run}: {_state(rest, net)}" for net in nets if (rest := [run for run in net.runs if not run.finished])
        ),
        command=study["command"],
        configs=tuple(
            (net.label, tuple((f"{run.path}/config.json", run.config) for run in net.runs if run.config))
            for net in nets
        ),
        explained=EXPLAINED,
        caption=CAPTION,
    )


def _tested(study: dict, nets: list[Net], pictures: Sequence[tuple[str, str]]) -> Sheet:
    """The sheet of a study of test protocols: as any other's, but for the tables and the figure."""
    once = list({net.run: replace(net, label=net.run) for net in nets}.values())
    return replace(
        _sheet(study, once),
        tables=evaluations.tables(study, nets),
        explained=f"{evaluations.EXPLAINED} {evaluations.CLAIMED}" if study.get("claims") else evaluations.EXPLAINED,
        caption=evaluations.CAPTION if evaluations.by_side(nets) else evaluations.BY_ROW,
        pictures=tuple(pictures),
    )


def _facts(study: dict, starts: list[dict]) -> tuple[tuple[str, str], ...]:
    days = sorted({start["time"][:10] for start in starts if "time" in start})
    versions = (", ".join(f"{name} {v}" for name, v in start.get("versions", {}).items()) for start in starts)
    return (
        ("paper", study.get("paper", "")),
        ("preset", study.get("preset", "")),
        ("data", study.get("data", "")),
        ("command", study["command"]),
        ("date", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""),
        ("hardware", _listed(start.get("hardware", "") for start in starts)),
        ("commit", _listed(start.get("commit", "") for start in starts)),
        ("versions", _listed(versions)),
    )


def _listed(values: Iterable[str]) -> str:
    return "; ".join(value for value in dict.fromkeys(values) if value)


def _state(runs: Sequence[Run], net: Net) -> str:
    """'finished', or 'seeds 0, 1: finished; seed 2: not started' where the net has several seeds."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.state, []).append(run.seed)
    if len(net.runs) == 1:
        return runs[0].state
    return "; ".join(f"seed{'s' * (len(s) > 1)} {', '.join(map(str, s))}: {state}" for state, s in seeds.items())


def _kind(net: Net) -> str:
    if any("NaN" in run.state for run in net.runs):
        return "bad"
    if all(run.finished for run in net.runs):
        return "ok"
    return "none" if all(run.state == "not started" for run in net.runs) else "part"


def _columns(metrics: list[str], printed_on: str, data: str) -> tuple[str, ...]:
    columns = ["net"]
    for metric in metrics:
        top = re.fullmatch(r"top(\d+)_error", metric)
        name = f"top-{top[1]} error: " if top else f"{metric.replace('_', ' ')}: "
        name = "" if metrics == ["top1_error"] else name
        columns += [f"{name}paper{printed_on} (%)", f"{name}ours{data} (%)", f"{name}difference (points)"]
    return (*columns, "training error (%)", "seeds", "iterations", "deviations")


def _cells(net: Net, metrics: list[str], marks: dict[str, str], comparable: bool) -> tuple[str, ...]:
    cells = [net.label]
    finished = [run for run in net.runs if run.finished]
    for metric in metrics:
        printed, finals = net.paper.get(metric), _finals(net, "evals", metric)
        cells += [DASH if printed is None else str(printed), _ours(net, "evals", metric)]
        difference = finals and printed is not None and comparable
        cells.append(_signed(statistics.mean(finals) - printed) if difference else DASH)
    seeds = f"{len(finished)}" if len(finished) == len(net.runs) else f"{len(finished)} of {len(net.runs)}"
    steps = _listed(f"{run.steps:,}" for run in net.runs if run.steps)
    own = [mark for deviation, mark in marks.items() if deviation in _deviating(net)]
    return (*cells, _ours(net, "train", _error_name([net])), seeds, steps or DASH, ", ".join(own) or DASH)


def _ours(net: Net, kind: str, metric: str) -> str:
    """'8.75 ± 0.16' over the finished seeds; where none is, the one furthest along, with its step."""
    values = _finals(net, kind, metric)
    if len(values) > 1:
        return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    if values:
        return f"{values[0]:.2f}"
    if any(run.finished for run in net.runs):
        return DASH
    furthest = max(net.runs, key=lambda run: max(getattr(run, kind), default=-1))
    events, value = getattr(furthest, kind), _last(getattr(furthest, kind), metric)
    if value is None:
        return DASH
    return f"{value:.2f} (at step {max(events):,}" + (f" of {furthest.steps:,})" if furthest.steps else ")")


def _error_name(nets: Iterable[Net]) -> str:
    """Returns what the runs' lines call their error."""
    events = [event for net in nets for run in net.runs for event in run.evals.values()]
    return next((key for event in events for key in event if key.endswith("_error")), "top1_error")


def _last(events: dict[int, dict], metric: str) -> float | None:
    """The last event's figure in %."""
    value = events[max(events)].get(metric) if events else None
    return None if value is None else 100 * value


def _finals(net: Net, kind: str, metric: str) -> list[float]:
    """The last figure of each finished seed, in %."""
    lasts = [_last(getattr(run, kind), metric) for run in net.runs if run.finished]
    return [value for value in lasts if value is not None]


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", "−")


def _deviating(net: Net) -> list[str]:
    return list(dict.fromkeys(d for run in net.runs for d in run.settings.get("deviations", ())))


def _deviations(nets: list[Net]) -> tuple[list[str], dict[str, str]]:
    """Those that every net with a config has, and a footnote mark for each of the others."""
    each = [_deviating(net) for net in nets if any(run.config for run in net.runs)]
    every = list(dict.fromkeys(d for deviations in each for d in deviations))
    common = [d for d in every if all(d in deviations for deviations in each)]
    return common, {d: _mark(i) for i, d in enumerate(d for d in every if d not in common)}


def _mark(i: int) -> str:
    """The i-th of a, b, ..., z, aa, ab, ..."""
    return (_mark(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def _sources(nets: list[Net]) -> str:
    rows: dict[str, list[str]] = {}
    for net in nets:
        if net.source:
            rows.setdefault(net.source, []).append(net.label)
    return "; ".join(f"{', '.join(labels)}: {source}" for source, labels in rows.items())


def _panels(nets: list[Net]) -> list[Panel]:
    groups: dict[str, list[Net]] = {}
    for net in nets:
        groups.setdefault(net.group, []).append(net)
    shades = figures.colours({group: [net.label for net in members] for group, members in groups.items()})
    return [
        Panel(
            group,
            tuple(
                Curve(n.label, _curve(n, "train"), _curve(n, "evals"), colour, _remark(n.runs))
                for n, colour in zip(members, shades[group], strict=True)
            ),
        )
        for group, members in groups.items()
    ]


def _remark(runs: Sequence[Run]) -> str:
    if any(run.finished for run in runs):
        return ""
    furthest = max(runs, key=lambda run: run.reached)
    if furthest.state == "not started":
        return "(not started)"
    return f"({'NaN at' if 'NaN' in furthest.state else 'to'} step {furthest.reached:,})"


def _curve(net: Net, kind: str) -> tuple[tuple[int, float, float, float], ...]:
    """(iteration, mean, least, largest) in % over the seeds that were there."""
    errors: dict[int, list[float]] = {}
    name = _error_name([net])
    for run in net.runs:
        for step, event in getattr(run, kind).items():
            if event.get(name) is not None:
                errors.setdefault(step, []).append(100 * event[name])
    return tuple((step, statistics.mean(e), min(e), max(e)) for step, e in sorted(errors.items()))
