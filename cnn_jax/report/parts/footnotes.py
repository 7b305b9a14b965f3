"""Makes the notes below the tables: data, sources, and deviations from the paper."""

import re
from collections.abc import Iterable, Sequence

from cnn_jax.report.elements import Notes
from cnn_jax.report.results import Results, Run
from cnn_jax.report.rows import Row


def notes(results: Results, rows: Sequence[Row] | None = None, *more: str) -> Notes | None:
    """Makes the notes: data that are not the paper's, sources, deviations, and the study's notes.

    Args:
      results: The study's results.
      rows: The rows whose sources are listed; None: all rows of the study.
      *more: Further notes.

    Returns:
      The notes; None if there are none.
    """
    study = results.study
    items = []
    if not results.comparable:
        items.append(
            (
                "Data",
                f"the paper's errors are on {study.paper_data}, ours on {study.data}, so"
                " differences would have no meaning",
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
    """Makes notes of the deviations that all runs share, and of the others with footnote marks."""
    common, marks = mark_deviations(results)
    every = [("All runs", "; ".join(common))] if common else []
    return Notes("", (*every, *((mark, text) for text, mark in marks.items())))


def mark_deviations(results: Results) -> tuple[list[str], dict[str, str]]:
    """Returns the deviations of every started run, and {other deviation: its footnote mark}."""
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
    return list(dict.fromkeys(map(_shorten_numbers, texts)))


def _shorten_numbers(text: str) -> str:
    """Leaves out the middle of long lists of numbers, such as the steps of a schedule's drops."""

    def shorten(found: re.Match) -> str:
        numbers = found[0].split(",")
        return f"{numbers[0]},{numbers[1]},...,{numbers[-1]} ({len(numbers)} numbers)"

    return re.sub(r"\d+(?:,\d+){9,}", shorten, text)


def _make_mark(number: int) -> str:
    """Returns the mark of a number: a, b, ..., z, aa, ab, ..."""
    before = _make_mark(number // 26 - 1) if number >= 26 else ""
    return before + chr(ord("a") + number % 26)
