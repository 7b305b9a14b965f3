"""The studies: the papers' figures in them, and rows and claims that name measured runs."""

import pytest

from cnn_jax.config import name_protocol
from cnn_jax.report.claims import Contrast
from experiments import COSTS, STUDIES

# Copied independently from the papers a second time: errors in %, top-1 (and top-5).
RESNET_TABLE_6 = {"resnet-20": 8.75, "resnet-32": 7.51, "resnet-44": 7.17, "resnet-56": 6.97}
RESNET_TABLE_6 |= {"resnet-110": 6.61, "resnet-1202": 7.93}
RESNET_TABLE_2 = {"plain-18": 27.94, "plain-34": 28.54, "resnet-18": 27.88, "resnet-34": 25.03}
VGG = {
    "Table 3": {
        "a-256": (29.6, 10.4),
        "a-lrn-256": (29.7, 10.5),
        "b-256": (28.7, 9.9),
        "c-256": (28.1, 9.4),
        "c-384": (28.1, 9.3),
        "c-jitter": (27.3, 8.8),
        "d-256": (27.0, 8.8),
        "d-384": (26.8, 8.7),
        "d-jitter": (25.6, 8.1),
        "e-256": (27.3, 9.0),
        "e-384": (26.9, 8.7),
        "e-jitter": (25.5, 8.0),
    },
    "Table 4": {
        "b-256": (28.2, 9.6),
        "c-256": (27.7, 9.2),
        "c-384": (27.8, 9.2),
        "c-jitter": (26.3, 8.2),
        "d-256": (26.6, 8.6),
        "d-384": (26.5, 8.6),
        "d-jitter": (24.8, 7.5),
        "e-256": (26.9, 8.7),
        "e-384": (26.7, 8.6),
        "e-jitter": (24.8, 7.5),
    },
}
VGG_TABLE_5 = {
    "D, dense": (24.8, 7.5),
    "D, multi-crop": (24.6, 7.5),
    "D, multi-crop & dense": (24.4, 7.2),
    "E, dense": (24.8, 7.5),
    "E, multi-crop": (24.6, 7.4),
    "E, multi-crop & dense": (24.4, 7.1),
}
CASES = [(name, preset) for name, presets in COSTS.items() for preset in presets]


def printed(rows):
    return {row.run: row.paper["top1_error"] for row in rows if row.paper}


@pytest.mark.parametrize("name, preset", CASES)
def test_rows_and_claims_name_measured_runs(name, preset):
    study = STUDIES[name](preset)
    assert (study.name, study.preset) == (name, preset)
    assert set(study.paper_runs) >= set(study.runs)
    has = {run: set(map(name_protocol, e.protocols)) for run, e in study.runs.items()}
    asked = {(row.run, row.protocol) for row in study.rows if row.protocol}
    for claim in study.claims:
        if isinstance(claim.check, Contrast):
            asked |= {(term.run, term.source) for _, term in claim.check.terms}
    assert all(p in has[run] | {"test", "training"} for run, p in asked)
    assert {row.run for row in study.rows} == set(study.runs)
    assert study.claims, "each study says what it checks"
    starts = {run.train.start_from for run in study.runs.values()} - {""}
    order = list(study.runs)
    assert all(
        order.index(run.train.start_from) < order.index(run.name)
        for run in study.runs.values()
        if run.train.start_from in starts
    )


def test_resnet_s_tables_are_the_paper_s():
    assert printed(STUDIES["resnet_degradation"]("paper").rows) == RESNET_TABLE_6
    assert printed(STUDIES["resnet_degradation_imagenet"]("paper").rows) == RESNET_TABLE_2


def test_vgg_s_tables_are_the_paper_s():
    rows = STUDIES["vgg_scale_jitter"]("paper").rows
    for table, figures in VGG.items():
        own = {r.run: tuple(r.paper.values()) for r in rows if r.table == table and r.paper}
        assert own == figures
    own = {row.label: tuple(row.paper.values()) for row in rows if row.table == "Table 5"}
    assert own == VGG_TABLE_5


def test_alexnet_s_row_is_the_paper_s():
    ten = STUDIES["ten_crop"]("paper").rows[1]
    assert ten.paper == {"top1_error": 40.7, "top5_error": 18.2}
    for name in ("ten_crop", "alexnet_towers", "zfnet_ablation"):
        for run in STUDIES[name]("paper").runs.values():
            assert run.protocols[-1].args == {"scales": (256,), "central_square": True}


def test_counts_are_the_papers():
    """The lectures print 204,800 for the 1x1 and the 5x5 after it, which is the 5x5 alone."""
    from experiments.conv_arithmetic import CHAINS

    own = {(c.group, c.label): c.paper["weights"] for c in CHAINS if c.paper}
    one = "a 1x1 before a 5x5, 128 to 256 maps"
    assert own == {
        (one, "5x5"): 819_200,
        (one, "1x1 to 32 maps, 5x5"): 204_800,
        ("for a 5x5", "5x5"): 25 * 128**2,
        ("for a 5x5", "3x3, 3x3"): 18 * 128**2,
        ("for a 7x7", "7x7"): 49 * 128**2,
        ("for a 7x7", "3x3, 3x3, 3x3"): 27 * 128**2,
    }


def test_claims_have_the_papers_differences():
    claims = {c.statement: c for c in STUDIES["vgg_scale_jitter"]("paper").claims}
    # Table 3: 25.6 - 26.8, 25.6 - 27.0; Table 4 and 3: 24.8 - 25.6; Table 5: 24.4 - 24.8.
    assert claims["D: S jittered errs less than S 384, at one test scale"].paper == -1.2
    assert claims["D: S jittered errs less than S 256, at one test scale"].paper == -1.4
    assert claims["D: three test scales err less than one, S jittered"].paper == -0.8
    fused = "D: multi-crop and dense evaluation fused err less than dense alone"
    assert claims[fused].paper == -0.4
    resnet = {c.statement: c for c in STUDIES["resnet_degradation"]("paper").claims}
    deeper = "Depth helps residual models: the test error of ResNet-56 is below ResNet-20's"
    assert resnet[deeper].paper == -1.78
