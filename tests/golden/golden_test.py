"""Models, runs, protocols and studies give the numbers that `record.py` recorded.

Tolerances. On the machine that recorded them, all numbers were equal to the bit. On another
processor a convolution sums its products in another order. Running the cases with other compiler
options, on one device instead of eight, and with XLA's own convolutions changed them by 1e-8 to
1e-6 of the largest logit, score or loss, and by up to 3e-4 for losses of runs with batch norm or
many layers, which multiply rounding errors at each step. The tolerances are at least ten times
that, and less than the effect of scaling a kernel by 1.001 in a model without batch norm. A
tolerance is relative to the number itself plus the largest number of its kind, because a logit near
0 has the error of its large neighbors.

Batch norm has since become more accurate, because it sums x - shift. That changes the last digits
of models that contain it, within the tolerances, so the recorded values stay.

The tables of errors and counts in the studies' reports are compared cell by cell, by the meaning of
row and column: titles, rows, the paper's figures, ours, differences, training errors, seeds and
steps. Not compared are

- wording: titles of reports, notes, captions, lists of deviations, settings and missing runs, and
  the names of columns;
- intervals over test images: their method may change, and other tests check it;
- the table of claims, which are sentences about the errors and losses that are compared.

The reports were recorded again when their wording changed. All figures stayed the same except one
of conv_arithmetic: the printed figure for a 1x1 and a 5x5 is 204,800 weights, not 208,896.

By default, one or two models of each family, a run with batch norm and two without, two protocols
and the study without training are computed, in about 90 s on one core. The others are marked slow.
"""

import re

import numpy as np
import pytest

from golden import cases as golden

TOLERANCE = {"models": 1e-4, "runs": 1e-5, "protocols": 3e-5, "studies": 1e-5}
# For cases that multiply rounding errors.
LOOSE = {
    "resnet20 with batch norm groups": 3e-3,
    "googlenet with auxiliary heads": 3e-3,
    "resnet_degradation": 3e-3,
}
OF_QUANTITY = {
    "init": 1e-5,  # Random numbers that pass through no layers: nearly the same on every machine.
    "train_loss": 1e-3,  # Batch norm over four images changes it by up to 4e-5.
    "grad_norm": 1e-3,
}
# Meaningless numbers: 110 layers with batch norm over four images and without shortcuts are
# chaotic. Scaling images by 1 + 1e-7 changes this loss from 2.04 to 2.28, and by 1 - 1e-7 to 2.18.
# Its logits, and the losses of plain models of up to 56 layers, are compared.
CHAOTIC = {("plain110", "train_loss")}
# Errors in % of a smoke report change by 12.5 if one more of 8 training images is correct, and by
# 2.5 for one of 40 test images. A tie makes that happen on another processor. So a run's losses are
# compared exactly, and these figures only roughly.
POINTS = 12.5

# {part of a column's name: the column's meaning}
MEANINGS = (
    ("training error", "training error"),
    ("multiply-adds", "multiply-adds"),
    ("receptive field", "receptive field"),
    ("alternatives", "alternatives"),
    ("difference", "difference"),
    ("printed", "paper"),
    ("paper, ", "paper"),
    ("ours", "ours"),
    ("share", "share"),
    ("seeds", "seeds"),
    ("steps", "steps"),
)
WORDS = ("not the paper's", "deviations")  # Columns of words.
INTERVAL = re.compile(r" \\\[.*?\\\]")


def check(group, name, found):
    recorded = golden.read_stored(group)[name]
    print(group, name, golden.summary(*golden.pair_numbers(recorded, found)))
    for quantity, numbers in recorded.items():
        if (name, quantity) in CHAOTIC:
            assert np.isfinite(found[quantity]).all()
            continue
        old, new = np.asarray(numbers, np.float64), np.asarray(found[quantity], np.float64)
        share = OF_QUANTITY.get(quantity, LOOSE.get(name, TOLERANCE[group]))
        largest = np.abs(old).max(initial=0)
        where = f"{name}: {quantity}"
        np.testing.assert_allclose(new, old, share, share * largest, err_msg=where)


def meaning(column):
    """Returns the meaning of a column of a report's table; None if it is not compared."""
    if column in WORDS:
        return None
    return next(what for part, what in MEANINGS if part in column)


def read_table(lines):
    """Returns the rows of a table, [(label, {meaning: text})], with top-5 errors separate."""
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines]
    names, top_5 = [], False
    for column in header[1:]:
        top_5 = (top_5 or "top-5" in column) and meaning(column) in ("paper", "ours", "difference")
        names.append(meaning(column) and ("top-5 " if top_5 else "") + meaning(column))
    found = []
    for label, *cells in rows:
        texts = (INTERVAL.sub("", cell) for cell in cells)
        row = {name: text for name, text in zip(names, texts, strict=True) if name}
        assert len(row) == sum(name is not None for name in names), f"{header}: a meaning twice"
        found.append((label, row))
    return found


def read_tables(report):
    """Returns {title: rows} of a report's tables except that of the claims."""
    sections = re.split(r"^## (.*)$", report, flags=re.MULTILINE)[1:]
    found = {}
    for title, text in zip(sections[::2], sections[1::2], strict=True):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        if lines and title != "What the paper says":
            found[title] = read_table(lines)
    return found


def check_report(study, recorded, now):
    """Checks that every recorded number is in the report, in a table and row of the same name."""
    old_tables, new_tables = read_tables(recorded), read_tables(now)
    assert old_tables and old_tables.keys() == new_tables.keys()
    for title, old_rows in old_tables.items():
        new_rows = new_tables[title]
        assert [label for label, _ in old_rows] == [label for label, _ in new_rows], title
        for (label, old), (_, new) in zip(old_rows, new_rows, strict=True):
            assert old.keys() <= new.keys(), (
                f"{title}: {old.keys() - new.keys()} is no longer there"
            )
            for what, text in old.items():
                where = f"{study}, {title}, {label}: {what}"
                is_measured = what.removeprefix("top-5 ") in ("ours", "training error")
                if is_measured and study != "conv_arithmetic" and text != "—":
                    assert float(new[what]) == pytest.approx(float(text), abs=POINTS), where
                else:
                    assert new[what] == text, where


def test_every_case_is_recorded():
    assert {group: list(golden.read_stored(group)) for group in golden.GROUPS} == {
        group: list(names()) for group, (names, _) in golden.GROUPS.items()
    }


def test_every_cell_of_numbers_is_compared():
    """The number of cells is that of the recorded tables, without words and claims."""
    counts = {
        study: sum(
            len(row)
            for rows in read_tables(golden.get_report_path(study).read_text()).values()
            for _, row in rows
        )
        for study in golden.STUDIES
    }
    assert counts == {
        "resnet_degradation": 11 * 6,
        "vgg_scale_jitter": (12 + 10 + 6) * 8,
        "lrn": 2 * 8,
        "ten_crop": 2 * 8,
        "conv_arithmetic": 16 * 7,
    }


@pytest.mark.parametrize(
    "old, new",
    [
        ("| 29.6 |", "| 29.7 |"),  # The paper's figure.
        ("87.50", "57.50"),  # Ours.
        ("| A, S 74, Q 74 |", "| A, S 74 |"),  # A row's name.
        ("| 10.4 | 50.00", "| 10.4 | —"),  # A measured figure is lost.
        ("top-5 error: paper", "top-1 error: paper"),  # A column occurs twice, another not at all.
    ],
)
def test_a_change_of_a_report_is_detected(old, new):
    recorded = golden.get_report_path("lrn").read_text()
    check_report("lrn", recorded, recorded)
    assert old in recorded
    with pytest.raises((AssertionError, ValueError)):
        check_report("lrn", recorded, recorded.replace(old, new))


# By default: one model of each family, the cheaper ones.
MODELS = {
    *("perceptron", "mlp", "lenet5", "lenet5_modern", "autoencoder"),
    *("alexnet_owt", "zfnet", "vgg_b", "googlenet", "resnet32", "plain34"),
}
RUNS = {"resnet20 with batch norm groups", "autoencoder", "mlp on a plateau"}
PROTOCOLS = {"single", "dense"}
STUDIES = {"conv_arithmetic"}


def slow_but(chosen, names):
    """Returns the names as parameters, and marks those that are not chosen as slow."""
    assert chosen <= set(names)
    return [n if n in chosen else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", slow_but(MODELS, golden.model_names()))
def test_models_compute_their_recorded_values(name):
    check("models", name, golden.model_values(name))


@pytest.mark.parametrize("name", slow_but(RUNS, golden.RUNS))
def test_runs_have_their_recorded_losses(name):
    check("runs", name, golden.run_values(name))


@pytest.mark.parametrize("views", slow_but(PROTOCOLS, golden.VIEWS))
def test_protocols_give_their_recorded_scores(views):
    check("protocols", views, golden.protocol_values(views))


@pytest.mark.parametrize("study", slow_but(STUDIES, golden.STUDIES))
def test_studies_report_their_recorded_numbers(study):
    report, found = golden.study_values(study)
    check_report(study, golden.get_report_path(study).read_text(), report)
    check("studies", study, found)
