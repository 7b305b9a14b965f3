"""Makes the table of the paper's claims with their verdicts."""

from collections.abc import Sequence

from cnn_jax.report.claims import Claim
from cnn_jax.report.elements import Cell, Claims
from cnn_jax.report.parts.words import (
    DASH,
    describe_range,
    explain_verdict,
    show_quantity,
    show_range,
)
from cnn_jax.report.results import Results
from cnn_jax.report.verdicts import RULE, Verdict, judge


def claims_table(results: Results, claims: Sequence[Claim]) -> Claims | None:
    """Makes the table of claims with their verdicts and the rule; None if there are no claims.

    Args:
      results: The study's results.
      claims: The claims.
    """
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
