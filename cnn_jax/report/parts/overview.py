"""Makes the parts above a report's tables, and the settings at the report's end."""

from collections.abc import Sequence

from cnn_jax import file_names
from cnn_jax.report.elements import Facts, Missing, Settings, States
from cnn_jax.report.parts.words import describe_states, join_distinct
from cnn_jax.report.results import Results, Run


def facts(results: Results) -> Facts:
    """Lists the paper, command, date, hardware, commit and versions of the results."""
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
            ("hardware", join_distinct(start.hardware for start in starts)),
            ("commit", join_distinct([study.commit, *(start.commit for start in starts)])),
            ("versions", join_distinct(versions)),
        )
    )


def run_states(results: Results) -> States | None:
    """Lists the state of each run; None for a study that trains nothing."""
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
    """Lists the runs that are not finished; None if all are finished or have diverged."""
    lines = []
    for name, runs in results.runs.items():
        if rest := [run for run in runs if not run.finished and run.diverged is None]:
            lines.append(f"{name}: {describe_states(rest, several=len(runs) > 1)}")
    return Missing("Missing", tuple(lines), results.study.command) if lines else None


def problems(results: Results) -> Missing | None:
    """Lists files that are damaged and seeds that are left out; None if there are none."""
    if not results.problems:
        return None
    return Missing("Damaged or left out", results.problems, "")


def settings(results: Results) -> Settings | None:
    """Lists the config.json of every run; None for a study that trains nothing."""
    items = [
        (
            _label_run(results, name),
            tuple((f"{run.folder}/{file_names.CONFIG}", run.config) for run in runs if run.config),
        )
        for name, runs in results.runs.items()
    ]
    return Settings(tuple(items), linked=not results.compact) if items else None


def _label_run(results: Results, name: str) -> str:
    labels = {row.label for row in results.rows if row.run == name}
    return labels.pop() if len(labels) == 1 else name


def _grade(runs: Sequence[Run]) -> str:
    if all(run.finished for run in runs):
        return "ok"
    if any(run.state.startswith(("stopped", "unreadable", "damaged")) for run in runs):
        return "bad"
    return "none" if all(run.state == "not started" for run in runs) else "part"
