"""The code gives the numbers that `record_golden.py` recorded: nets, runs, protocols, reports.

Tolerances. On the machine that recorded them the numbers come out equal to the bit. On another
processor a convolution adds its products in another order. What that does was measured by running
the cases with other compiler options, one device instead of eight, and XLA's own convolutions: 1e-8
to 1e-6 of the largest logit, score, or loss, but up to 3e-4 of losses of runs with batch norm or
many layers, which multiply rounding errors at each step. The tolerances are ten times that or more,
and yet less than what a kernel scaled by 1.001 does to a net without batch norm. A tolerance is a
share of the number itself plus the same share of the largest of its kind: a logit near 0 is as far
off as its large neighbors.
"""

import re

import golden_cases as golden
import numpy as np
import pytest

TOLERANCE = {"models": 1e-4, "runs": 1e-5, "protocols": 3e-5, "studies": 1e-5}
# Of what multiplies rounding errors.
LOOSE = {
    "resnet20 with batch norm groups": 3e-3,
    "googlenet with auxiliary heads": 3e-3,
    "resnet_degradation": 3e-3,
}
OF_QUANTITY = {
    "init": 1e-5,  # drawn, not computed through layers: nearly the same everywhere
    "train_loss": 1e-3,  # batch norm over four images: up to 4e-5 off
    "grad_norm": 1e-3,
}
# Figures in % of a smoke report move by 12.5 if one more of 8 training images is seen as right, by
# 2.5 if one of 40 test images is, which a tie makes happen on another processor. What a run
# computes is held to its losses; these figures, to their place and about their size. Nothing else
# in a report may differ.
POINTS = 12.5
MEASURED = ("ours", "difference", "training error", "over images", "over seeds")  # columns of such figures
DECIMAL = re.compile(r"[+−]?\d+\.\d+")


def check(group, name, found):
    recorded = golden.stored(group)[name]
    print(group, name, golden.summary(*golden.pairs(recorded, found)))
    for quantity, numbers in recorded.items():
        old, new = np.asarray(numbers, np.float64), np.asarray(found[quantity], np.float64)
        share = OF_QUANTITY.get(quantity, LOOSE.get(name, TOLERANCE[group]))
        largest = np.abs(old).max(initial=0)
        where = f"{name}: {quantity}"
        np.testing.assert_allclose(new, old, share, share * largest, err_msg=where)


def parted(report):
    """(the report with a mark for each measured figure of its tables, these figures)."""
    lines, figures, header = [], [], None
    for line in report.splitlines():
        cells = line.split(" | ")
        if not line.startswith("|"):
            header = None
        elif header is None:
            header = cells
        else:
            for i, column in enumerate(header):
                if any(word in column for word in MEASURED):
                    figures += [float(x.replace("−", "-")) for x in DECIMAL.findall(cells[i])]
                    cells[i] = DECIMAL.sub("#", cells[i])
        lines.append(" | ".join(cells))
    return lines, figures


def test_every_case_is_recorded():
    assert {group: list(golden.stored(group)) for group in golden.GROUPS} == {
        group: list(names()) for group, (names, _) in golden.GROUPS.items()
    }


# A quarter of the nets' time: variants of others that are always compared, or the deepest of all.
HEAVY = ("googlenet_bn", "bn_inception", "inception_v2", "resnet152", "resnet1202")
SLOW = pytest.mark.slow
NETS = [pytest.param(n, marks=SLOW) if n in HEAVY else n for n in golden.model_names()]


@pytest.mark.parametrize("name", NETS)
def test_a_net_computes_what_it_did(name):
    check("models", name, golden.model_values(name))


@pytest.mark.parametrize("name", golden.RUNS)
def test_a_run_s_losses_are_what_they_were(name):
    check("runs", name, golden.run_values(name))


@pytest.mark.parametrize("views", golden.VIEWS)
def test_a_protocol_gives_the_scores_it_did(views):
    check("protocols", views, golden.protocol_values(views))


@pytest.mark.parametrize("study", golden.STUDIES)
def test_a_study_s_report_is_what_it_was(study):
    report, found = golden.study_values(study)
    recorded = golden.stored_report(study).read_text()
    if not found:  # nothing is trained
        assert report == recorded
        return
    (lines, figures), (old_lines, old_figures) = parted(report), parted(recorded)
    assert lines == old_lines
    np.testing.assert_allclose(figures, old_figures, rtol=0, atol=POINTS)
    check("studies", study, found)
