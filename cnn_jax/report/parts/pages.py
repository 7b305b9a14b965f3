"""Composes the page of a study from its parts."""

from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.report.elements import Figure, Page, Part
from cnn_jax.report.parts.claims import claims_table
from cnn_jax.report.parts.curves import error_curves
from cnn_jax.report.parts.evaluations import evaluation_figure
from cnn_jax.report.parts.footnotes import notes
from cnn_jax.report.parts.overview import facts, missing, problems, run_states, settings
from cnn_jax.report.parts.tables import has_evaluations, paper_tables
from cnn_jax.report.results import Results
from cnn_jax.report.rows import Row


def page(results: Results, *parts: Part | None) -> Page:
    """Returns a page with the facts, run states and missing runs of a study, then `parts`."""
    before = (facts(results), run_states(results), missing(results), problems(results))
    return Page(results.study.title, (*before, *parts))


def standard(results: Results) -> Page:
    """Returns the standard page: tables, a figure, notes, settings and claims."""
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
    """Returns a row for each run and each of its protocols, without the paper's values."""
    rows = []
    for name, runs in results.runs.items():
        rows.append(Row(name, name, "runs", ""))
        protocols = dict.fromkeys(protocol for run in runs for protocol in run.protocols)
        rows += [Row(name, f"{name}, {p}", "runs", "", protocol=p) for p in protocols]
    return tuple(rows)


def check_files(made: Page) -> None:
    """Raises UserError if two figures of a page would be written to one file."""
    names = [part.file for part in made.find(Figure)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the report has two figures named {name}: pass another file= to one")
        if Path(name).name != name or not name.endswith(".png"):
            raise UserError(f"the report's figure {name!r} is not the name of a PNG file")
