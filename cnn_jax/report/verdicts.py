"""Decides by `RULE` whether the value that was measured for a claim agrees with the claim."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cnn_jax.report.claims import Claim, Contrast, Measured, Range, measure_contrast

if TYPE_CHECKING:
    from cnn_jax.report.results import Results

VerdictName = Literal["agrees", "disagrees", "undecided", "not comparable"]

ONE_SEED = "one seed"  # Begins the reason of a verdict that more seeds may change.
RULE = (
    "Each claim states the range in which a value that we measure must lie. It agrees if every 95%"
    " interval of our value lies inside that range, disagrees if every interval lies outside, and"
    " is undecided otherwise. A value that compares several trained models has an interval over"
    " seeds (Student's t of the paired differences). With one seed that interval is unknown, and"
    " the claim is undecided. A value that compares evaluations of one trained model needs only one"
    " seed; the verdict then holds for that model. The interval over test images is a bootstrap of"
    " the paired answers, averaged over seeds. A count is exact and has no interval. Claims about"
    " the direction of a difference are also checked on other data and with fewer steps, which are"
    " stated below the verdict. A claim is not comparable if a run's model is not the paper's, or"
    " if it states a value that depends on the paper's data and recipe and ours are different."
)


@dataclass(frozen=True)
class Verdict:
    """The result of checking a claim.

    Attributes:
      claim: The claim.
      ours: Our value.
      verdict: agrees | disagrees | undecided | not comparable.
      why: The reason, if the intervals alone do not show it.
    """

    claim: Claim
    ours: Measured
    verdict: VerdictName
    why: str


def judge(results: "Results", claim: Claim) -> Verdict:
    """Checks a claim against a study's results, by `RULE`.

    Args:
      results: The study's results.
      claim: The claim.
    """
    if isinstance(claim.check, Contrast):
        measured = measure_contrast(results, claim.check)
    else:
        measured = claim.check(results)
    verdict, why = _decide(results, claim, measured)
    return Verdict(claim, measured, verdict, why)


def _decide(results: "Results", claim: Claim, measured: Measured) -> tuple[VerdictName, str]:
    if models := _find_other_models(results, measured.runs):
        return "not comparable", "; ".join(models)
    if claim.is_figure and measured.setting:
        return "not comparable", "the paper's value is for its own data, model and steps"
    if measured.value is None:
        return "undecided", measured.why
    low, high = claim.expected
    if measured.exact:
        return ("agrees" if low <= measured.value <= high else "disagrees"), measured.why
    if not measured.same_weights and measured.over_seeds is None:
        seeds = ONE_SEED if measured.seeds < 2 else "all seeds gave the same value"
        return "undecided", f"{seeds}: the interval over seeds is unknown"
    if measured.over_images and measured.over_images[0] == measured.over_images[1]:
        return "undecided", "both are right and wrong on the same test images"
    intervals = [i for i in (measured.over_images, measured.over_seeds) if i]
    if not intervals:
        return "undecided", f"{ONE_SEED}, and the answers to each test image are not known"
    if all(_is_inside(interval, claim.expected) for interval in intervals):
        return "agrees", measured.why
    if all(interval[1] < low or interval[0] > high for interval in intervals):
        return "disagrees", measured.why
    return "undecided", "an interval lies partly inside the range"


def _is_inside(interval: Range, expected: Range) -> bool:
    low, high = expected
    return (low == -math.inf or interval[0] > low) and (high == math.inf or interval[1] < high)


def _find_other_models(results: "Results", names: Sequence[str]) -> list[str]:
    from cnn_jax.report.rows import describe_setting

    found = []
    for name in names:
        paper = results.study.paper_runs.get(name)
        for run in results.runs.get(name, ()):
            if paper and run.experiment:
                ours = describe_setting(run.experiment).model
                if ours != paper.model:
                    found.append(f"the model of {name} is {ours}, not {paper.model}")
    return list(dict.fromkeys(found))
