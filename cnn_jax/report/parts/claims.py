"""Makes the rows of the paper's claims with their verdicts, in JSON and in tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.report.claims import Claim, Contrast, Range
from cnn_jax.report.elements import Cell, Claims
from cnn_jax.report.parts.words import (
    DASH,
    describe_range,
    explain_verdict,
    format_quantity,
    format_range,
    format_unit,
)
from cnn_jax.report.results import Results
from cnn_jax.report.verdicts import RULE, Verdict, judge

CLAIM_COLUMNS = (
    "claim",
    "verdict",
    "unit",
    "paper",
    "ours",
    "over images",
    "over seeds",
    "agrees if",
)
TEXT_COLUMNS = (0, 1, 2)  # Places of the columns that are aligned to the left.


def claims_table(results: Results, claims: Sequence[Claim]) -> Claims | None:
    """Makes the table of claims with their verdicts and the rule; None if there are no claims.

    Args:
      results: The study's results.
      claims: The claims.
    """
    if not claims:
        return None
    verdicts = tuple(judge(results, claim) for claim in claims)
    rows = tuple(make_claim_row(describe_verdict(verdict)) for verdict in verdicts)
    return Claims("What the paper says", CLAIM_COLUMNS, rows, RULE, TEXT_COLUMNS, verdicts)


def describe_verdict(verdict: Verdict) -> dict[str, Any]:
    """Returns a claim and its verdict as claims.json has them, with every digit of the values.

    A table that is built from claims.json then rounds the same numbers as the report.

    Args:
      verdict: The verdict.
    """
    claim, ours = verdict.claim, verdict.ours
    return {
        "statement": claim.statement,
        "source": claim.source,
        "unit": _find_unit(claim),
        "is_figure": claim.is_figure,
        "expected": _list_ends(claim.expected),
        "paper": claim.paper,
        "ours": _keep_finite(ours.value),
        "over_images": _list_ends(ours.over_images),
        "over_seeds": _list_ends(ours.over_seeds),
        "seeds": ours.seeds,
        "setting": ours.setting,
        "verdict": verdict.verdict,
        "why": verdict.why,
    }


def _find_unit(claim: Claim) -> str:
    """Returns the unit of a claim's value. A single error is not a difference, and so is in %."""
    single = isinstance(claim.check, Contrast) and len(claim.check.terms) == 1
    return "%" if single and claim.unit == "points" else claim.unit


def _list_ends(ends: Range | None) -> list[float | None] | None:
    return None if ends is None else [_keep_finite(end) for end in ends]


def _keep_finite(value: float | None) -> float | None:
    """Returns None instead of an infinite value, which JSON does not have."""
    return None if value is None or math.isinf(value) else value


def make_claim_row(claim: Mapping[str, Any], link: str = "") -> tuple[Cell | str, ...]:
    """Returns the row of a claim in a table with `CLAIM_COLUMNS`.

    Args:
      claim: The result of `describe_verdict`, or the same from claims.json.
      link: The path of the report, relative to the page.
    """
    unit = claim["unit"]
    statement = claim["statement"] + (f" ({claim['source']})" if claim["source"] else "")
    words = explain_verdict(claim["why"], claim["seeds"], claim["setting"])
    low, high = claim["expected"]
    expected = (-math.inf if low is None else low, math.inf if high is None else high)

    def format_or_dash(value: float | None) -> str:
        return DASH if value is None else format_quantity(value, unit)

    return (
        Cell(statement, link=link) if link else statement,
        Cell(claim["verdict"], words),
        format_unit(unit),
        format_or_dash(claim["paper"]),
        format_or_dash(claim["ours"]),
        format_range(claim["over_images"], unit),
        format_range(claim["over_seeds"], unit),
        describe_range(expected, unit),
    )
