"""Claims: values, intervals and verdicts against figures by hand."""

import math

import numpy as np
import pytest
from helpers.report_folders import (
    make_experiment,
    make_row,
    read_folder,
    write_evaluation,
    write_run,
    write_study,
)
from scipy import stats

from cnn_jax.report import claims
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Contrast, Measured, Score
from cnn_jax.report.parts import claims_table
from cnn_jax.report.rows import describe_setting

SAME = claims.subtract(Score("d", "three"), Score("d", "one"))
OTHER = claims.subtract(Score("d", "one"), Score("c", "one"))
TRAINING = claims.subtract(Score("deep", "training"), Score("shallow", "training"))


def write_answers(folder, answers, seeds=1):
    """Writes a study's evaluations. answers: {(run, protocol): wrong of each seed}."""
    write_study(folder, *dict.fromkeys(run for run, _ in answers), seeds=seeds)
    for (run, protocol), each in answers.items():
        for seed, wrong in enumerate(each):
            place = folder / run / f"seed{seed}"
            if not place.exists():
                write_run(folder, run, seed, errors=(0.2,))
            write_evaluation(place, protocol, wrong)


def write_training(folder, errors, **fields):
    """Writes a study's training. errors: {run: final training error of each seed}."""
    seeds = max(map(len, errors.values()))
    write_study(folder, *errors, seeds=seeds, **fields)
    for run, each in errors.items():
        for seed, error in enumerate(each):
            write_run(folder, run, seed, errors=(0.5,), train=(0.9, error))


def judge(folder, check, expected=BELOW_ZERO, **fields):
    return claims.judge(read_folder(folder), Claim("a claim", check, expected, **fields))


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


def test_the_interval_over_images_is_of_paired_differences(tmp_path):
    """20 of 100 images become correct and none wrong: a binomial of 100 draws at 20%."""
    write_answers(tmp_path, {("d", "three"): ["0" * 100], ("d", "one"): ["0" * 80 + "1" * 20]})
    ours = judge(tmp_path, SAME).ours
    low, high = stats.binom.ppf((0.025, 0.975), 100, 0.2)
    assert ours.value == pytest.approx(-20)
    assert ours.over_images == pytest.approx((-high, -low), abs=1)
    assert ours.over_seeds is None and ours.same_weights


def test_the_bootstrap_is_deterministic(tmp_path):
    rng = np.random.default_rng(1)
    three, one = ("".join(map(str, rng.integers(0, 2, 997))) for _ in range(2))
    write_answers(tmp_path, {("d", "three"): [three], ("d", "one"): [one]})
    assert len({judge(tmp_path, SAME).ours.over_images for _ in range(3)}) == 1


def test_answers_are_paired_not_pooled(tmp_path):
    """Both err on the same half, except for 4 images: pooled, the interval would have 14 points."""
    base = "1" * 48 + "0" * 48
    write_answers(tmp_path, {("d", "three"): [base + "0000"], ("d", "one"): [base + "1111"]})
    low, high = judge(tmp_path, SAME).ours.over_images
    assert -9 < low < high < 0


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


def test_the_interval_over_seeds_is_students(tmp_path):
    write_training(tmp_path, {"deep": (0.30, 0.34, 0.38), "shallow": (0.10, 0.12, 0.20)})
    found = judge(tmp_path, TRAINING, ABOVE_ZERO)
    values = np.array([20, 22, 18])  # Paired by seed.
    # Standard error 2 / sqrt(3); t of 2 degrees of freedom 4.3027.
    assert found.ours.value == pytest.approx(values.mean())
    assert found.ours.over_seeds == pytest.approx(
        (20 - 4.3027 * 2 / 3**0.5, 20 + 4.3027 * 2 / 3**0.5), abs=1e-3
    )
    assert found.ours.over_images is None
    assert found.verdict == "agrees"
    assert judge(tmp_path, TRAINING, BELOW_ZERO).verdict == "disagrees"
    assert judge(tmp_path, TRAINING, (21, math.inf)).verdict == "undecided"


def test_identical_seeds_have_an_unknown_spread(tmp_path):
    write_training(tmp_path, {"deep": (0.25, 0.25, 0.25), "shallow": (0.125, 0.125, 0.125)})
    found = judge(tmp_path, TRAINING, ABOVE_ZERO)
    assert found.ours.over_seeds is None and found.verdict == "undecided"
    assert found.why == "all seeds gave the same value: the interval over seeds is unknown"


def test_a_difference_uses_only_seeds_that_have_all_its_runs(tmp_path):
    write_training(tmp_path, {"deep": (0.3, 0.4), "shallow": (0.1,)})
    contrast = Contrast(((1, Score("deep", "training")), (-2, Score("shallow", "training"))))
    ours = judge(tmp_path, contrast).ours
    assert (ours.value, ours.seeds) == (pytest.approx(10), 1)


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
    assert cells[2:4] == ("−1.20", "−20.00") and cells[6] == "below 0"
    assert table.footnote == claims.RULE
