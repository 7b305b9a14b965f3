"""Verdicts on claims, by the rule that reports print."""

import math

import pytest
from helpers.report_folders import (
    make_experiment,
    make_row,
    read_folder,
    write_answers,
    write_study,
    write_training,
)

from cnn_jax.report import claims, verdicts
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Measured, Score
from cnn_jax.report.elements import Page
from cnn_jax.report.parts import claims_table
from cnn_jax.report.render_text import render_text
from cnn_jax.report.rows import describe_setting

SAME = claims.subtract(Score("d", "three"), Score("d", "one"))
OTHER = claims.subtract(Score("d", "one"), Score("c", "one"))
TRAINING = claims.subtract(Score("deep", "training"), Score("shallow", "training"))


def judge(folder, check, expected=BELOW_ZERO, **fields):
    return verdicts.judge(read_folder(folder), Claim("a claim", check, expected, **fields))


@pytest.mark.parametrize(
    "expected, three, one, verdict",
    [
        (BELOW_ZERO, "0" * 100, "0" * 80 + "1" * 20, "agrees"),
        (BELOW_ZERO, "0" * 80 + "1" * 20, "0" * 100, "disagrees"),
        (ABOVE_ZERO, "0" * 80 + "1" * 20, "0" * 100, "agrees"),
        (BELOW_ZERO, "01" * 50, "10" * 50, "undecided"),
        ((-math.inf, 30), "01" * 50, "10" * 50, "agrees"),
        ((-math.inf, 5), "01" * 50, "10" * 50, "undecided"),
        (BELOW_ZERO, "01" * 50, "01" * 50, "undecided"),
        ((-math.inf, 30), "01" * 50, "01" * 50, "undecided"),
    ],
)
def test_evaluations_of_one_model_are_compared_over_test_images(
    tmp_path, expected, three, one, verdict
):
    write_answers(tmp_path, {("d", "three"): [three], ("d", "one"): [one]})
    assert judge(tmp_path, SAME, expected).verdict == verdict


def test_two_trained_models_need_several_seeds(tmp_path):
    answers = {("d", "one"): ["0" * 100], ("c", "one"): ["0" * 80 + "1" * 20]}
    write_answers(tmp_path, answers)
    found = judge(tmp_path, OTHER)
    assert found.verdict == "undecided"
    assert found.why == "one seed: the interval over seeds is unknown"
    assert found.ours.over_images[1] < 0, "the images alone would say that it agrees"


def test_differing_seeds_make_a_claim_undecided(tmp_path):
    won, lost = "0" * 100, "0" * 80 + "1" * 20
    write_answers(
        tmp_path,
        {("d", "one"): [won, won], ("c", "one"): [lost, lost[:79] + "0" * 20 + "1"]},
        seeds=2,
    )
    found = judge(tmp_path, OTHER)
    assert found.ours.over_images[1] < 0 < found.ours.over_seeds[1]
    assert found.verdict == "undecided"


def test_intervals_over_seeds_are_compared_with_the_range(tmp_path):
    # 20, 22 and 18 points, paired by seed: the interval goes from 15.0 to 25.0.
    write_training(tmp_path, {"deep": (0.30, 0.34, 0.38), "shallow": (0.10, 0.12, 0.20)})
    assert judge(tmp_path, TRAINING, ABOVE_ZERO).verdict == "agrees"
    assert judge(tmp_path, TRAINING, BELOW_ZERO).verdict == "disagrees"
    assert judge(tmp_path, TRAINING, (21, math.inf)).verdict == "undecided"


@pytest.mark.parametrize("seeds", [2, 3])
def test_identical_seeds_have_an_unknown_spread(tmp_path, seeds):
    write_training(tmp_path, {"deep": (0.25,) * seeds, "shallow": (0.125,) * seeds})
    found = judge(tmp_path, TRAINING, ABOVE_ZERO)
    assert found.ours.over_seeds is None and found.verdict == "undecided"
    assert found.why == "all seeds gave the same value: the interval over seeds is unknown"


@pytest.mark.parametrize(
    "score, why",
    [
        (Score("never", "training"), "never is not finished"),
        (Score("deep", "dense@5"), "deep has no dense@5 error"),
        (Score("deep", "test", "reconstruction_error"), "deep has no test error"),
        (Score("absent"), "this study has no run absent"),
    ],
)
def test_a_claim_that_cannot_be_checked_states_the_reason(tmp_path, score, why):
    write_training(tmp_path, {"deep": (0.3,), "never": ()})
    found = judge(tmp_path, claims.score(score))
    assert (found.verdict, found.why, found.ours.value) == ("undecided", why, None)


def test_another_model_is_not_comparable_but_other_data_are(tmp_path):
    paper = describe_setting(make_experiment(steps=64_000, data="cifar10"))
    runs = {"deep": vars(paper), "shallow": vars(paper)}
    write_training(tmp_path, {"deep": (0.30, 0.34), "shallow": (0.10, 0.14)}, paper_runs=runs)
    found = judge(tmp_path, TRAINING, ABOVE_ZERO)
    assert found.ours.setting == "data digits, 300 of 64,000 steps"
    figure = judge(tmp_path, claims.score(Score("deep", "training")), (29, 31), is_figure=True)
    assert figure.verdict == "not comparable"
    runs["deep"] = vars(paper) | {"model": "mlp"}
    write_study(tmp_path, "deep", "shallow", seeds=2, paper_runs=runs)
    found = judge(tmp_path, TRAINING, ABOVE_ZERO)
    assert (found.verdict, found.why) == (
        "not comparable",
        "the model of deep is resnet20, not mlp",
    )


@pytest.mark.parametrize(
    "value, verdict", [(204_800, "agrees"), (208_896, "disagrees"), (None, "undecided")]
)
def test_a_count_is_exact(tmp_path, value, verdict):
    write_study(tmp_path, "run")
    found = judge(tmp_path, lambda results: Measured(value, exact=True), (204_800, 204_800))
    assert found.verdict == verdict


def test_the_table_shows_the_rule_and_both_intervals(tmp_path):
    write_answers(
        tmp_path,
        {("d", "three"): ["0" * 100] * 2, ("d", "one"): ["0" * 80 + "1" * 20] * 2},
        seeds=2,
    )
    table = claims_table(
        read_folder(tmp_path, make_row("d")), [Claim("better", SAME, BELOW_ZERO, -1.2, "Table 4")]
    )
    cells = table.rows[0]
    assert cells[0] == "better (Table 4)" and cells[1].text == "agrees"
    assert cells[2:5] == ("percentage points", "−1.20", "−20.00") and cells[7] == "below 0"
    assert table.footnote == verdicts.RULE


def test_each_claim_names_the_unit_of_its_values(tmp_path):
    write_training(tmp_path, {"deep": (0.30, 0.34), "shallow": (0.10, 0.14)})
    measured = Measured(2.5, exact=True)
    found = claims_table(
        read_folder(tmp_path),
        [
            Claim("deeper errs more", TRAINING, ABOVE_ZERO),
            Claim("deep errs", claims.score(Score("deep", "training")), ABOVE_ZERO, 30.0),
            Claim("it is faster", lambda results: measured, ABOVE_ZERO, unit="ratio"),
            Claim("it is so", lambda results: measured, ABOVE_ZERO, unit=""),
        ],
    )
    shown = [row[2:5] for row in found.rows]
    assert shown == [
        ("percentage points", "—", "+20.00"),
        ("%", "30.00", "32.00"),
        ("ratio", "—", "2.5"),
        ("—", "—", "2.5"),
    ]
    text = render_text(Page("title", (found,)), 100)
    assert "unit percentage points, ours +20.00, " in text
    assert "unit %, paper 30.00, ours 32.00, " in text
