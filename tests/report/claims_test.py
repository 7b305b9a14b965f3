"""Claims: values and their intervals against figures by hand."""

import numpy as np
import pytest
from helpers.report_folders import (
    read_folder,
    write_answers,
    write_run,
    write_study,
    write_training,
)
from scipy import stats

from cnn_jax.report import claims
from cnn_jax.report.claims import Contrast, Score
from cnn_jax.report.parts.tables import format_final_error

SAME = claims.subtract(Score("d", "three"), Score("d", "one"))
TRAINING = claims.subtract(Score("deep", "training"), Score("shallow", "training"))


def measure(folder, contrast):
    return claims.measure_contrast(read_folder(folder), contrast)


def test_the_interval_over_images_is_of_paired_differences(tmp_path):
    """20 of 100 images become correct and none wrong: a binomial of 100 draws at 20%."""
    write_answers(tmp_path, {("d", "three"): ["0" * 100], ("d", "one"): ["0" * 80 + "1" * 20]})
    ours = measure(tmp_path, SAME)
    low, high = stats.binom.ppf((0.025, 0.975), 100, 0.2)
    assert ours.value == pytest.approx(-20)
    assert ours.over_images == pytest.approx((-high, -low), abs=1)
    assert ours.over_seeds is None and ours.same_weights


def test_answers_are_paired_not_pooled(tmp_path):
    """Both err on the same half, except for 4 images: pooled, the interval would have 14 points."""
    base = "1" * 48 + "0" * 48
    write_answers(tmp_path, {("d", "three"): [base + "0000"], ("d", "one"): [base + "1111"]})
    low, high = measure(tmp_path, SAME).over_images
    assert -9 < low < high < 0


def test_the_interval_over_seeds_is_students(tmp_path):
    write_training(tmp_path, {"deep": (0.30, 0.34, 0.38), "shallow": (0.10, 0.12, 0.20)})
    ours = measure(tmp_path, TRAINING)
    values = np.array([20, 22, 18])  # Paired by seed.
    # Standard error 2 / sqrt(3); t of 2 degrees of freedom 4.3027.
    assert ours.value == pytest.approx(values.mean())
    assert ours.over_seeds == pytest.approx(
        (20 - 4.3027 * 2 / 3**0.5, 20 + 4.3027 * 2 / 3**0.5), abs=1e-3
    )
    assert ours.over_images is None


def test_a_difference_uses_only_seeds_that_have_all_its_runs(tmp_path):
    write_training(tmp_path, {"deep": (0.3, 0.4), "shallow": (0.1,)})
    contrast = Contrast(((1, Score("deep", "training")), (-2, Score("shallow", "training"))))
    ours = measure(tmp_path, contrast)
    assert (ours.value, ours.seeds) == (pytest.approx(10), 1)


@pytest.mark.parametrize("on_nan", ["stop", "record"])
def test_no_mean_is_of_the_seeds_that_did_not_diverge(on_nan, tmp_path):
    write_study(tmp_path, "deep", "shallow", seeds=2)
    for name, seed, last in (
        ("deep", 0, "end"),
        ("deep", 1, "end"),
        ("shallow", 0, "end"),
        ("shallow", 1, "nan"),
    ):
        fields = {"last": last, "train_fields": {"on_nan": on_nan}}
        write_run(tmp_path, name, seed, errors=(0.5,), train=(0.9, 0.3), **fields)
    results = read_folder(tmp_path)
    state = "diverged" if on_nan == "record" else "stopped by NaN"
    ours = claims.measure_contrast(results, TRAINING)
    assert (ours.value, ours.why) == (None, f"shallow seed 1 {state} at step 250")
    ours = claims.measure_seeds(results, ["shallow"], lambda own: own["shallow"].final_error)
    assert (ours.value, ours.why) == (None, f"shallow seed 1 {state} at step 250")
    shown = format_final_error(results.runs["shallow"], "top1_error")
    assert f"{shown.text} {shown.remark}" == "50.00 (1 of 2 diverged)"
