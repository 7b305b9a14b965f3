"""Builds a page with the claims of all studies, from the claims.json files of their reports."""

import collections
import json
import os
from pathlib import Path
from typing import Any, get_args

from cnn_jax import file_names
from cnn_jax.errors import UserError, describe_os_error
from cnn_jax.files import find_files
from cnn_jax.report.build import write_page
from cnn_jax.report.elements import Claims, Missing, Page, Prose, Report
from cnn_jax.report.parts import CLAIM_COLUMNS, TEXT_COLUMNS, make_claim_row
from cnn_jax.report.verdicts import RULE, VerdictName

VERDICTS = get_args(VerdictName)


def build(folder: str | os.PathLike) -> Report:
    """Writes claims.md and claims.html: a table of claims for each claims.json below a folder.

    Args:
      folder: A folder such as docs/results.

    Returns:
      The paths of the files that were written.

    Raises:
      UserError: If there is no claims.json below the folder.
    """
    place = Path(folder)
    return write_page(make_page(place), place, "claims")


def make_page(place: Path) -> Page:
    """Returns the page of all claims below a folder."""
    paths = find_files(place, file_names.CLAIMS)
    if not paths:
        raise UserError(
            f"{place}: no claims.json below it; the report of a study with claims writes one"
        )
    tables: list[Claims] = []
    damaged: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    for path in paths:
        name = path.relative_to(place).as_posix()
        try:
            words = json.loads(path.read_bytes())
            tables.append(_make_table(words, path.parent.relative_to(place).as_posix()))
            counts.update(claim["verdict"] for claim in words["claims"])
        except OSError as error:
            damaged.append(f"{name}: cannot be read ({describe_os_error(error, str(path))})")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            damaged.append(f"{name}: is damaged; build that study's report again")
    total = sum(counts.values())
    summary = ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS)
    return Page(
        "The papers' claims and our results",
        (
            Prose("", (f"{total} claims in {len(tables)} reports: {summary}.", RULE)),
            Missing("Damaged files", tuple(damaged), "") if damaged else None,
            *tables,
        ),
    )


def _make_table(words: dict[str, Any], where: str) -> Claims:
    data = f", {words['data']}" if words["data"] else ""
    preset = f", preset {words['preset']}" if words["data"] else ""
    if unknown := {claim["verdict"] for claim in words["claims"]} - set(VERDICTS):
        raise ValueError(unknown)
    link = f"{where}/{file_names.REPORT}.md"
    rows = tuple(make_claim_row(claim, link) for claim in words["claims"])
    title = f"{words['title']} ({words['study']}{preset}{data})"
    return Claims(title, CLAIM_COLUMNS, rows, words["paper"], left=TEXT_COLUMNS)
