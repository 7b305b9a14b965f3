"""Figure 7: the responses of layers, compared between residual and plain models."""

from types import SimpleNamespace

import pytest

from cnn_jax.report import intervals
from experiments import resnet_degradation


def make_run(seed, *stds):
    kinds = ("Conv", *["BatchNorm"] * (len(stds) - 1))
    layers = [
        SimpleNamespace(kind=kind, values=SimpleNamespace(std=std))
        for kind, std in zip(kinds, stds, strict=True)
    ]
    return SimpleNamespace(
        seed=seed,
        steps=300,
        finished=True,
        diverged=None,
        failed_at=None,
        layers={0: (), 300: layers},
        experiment=None,
    )


def compare(**runs):
    named = {name.replace("_", "-"): tuple(own) for name, own in runs.items()}
    results = SimpleNamespace(runs=named, study=SimpleNamespace(paper_runs={}))
    return resnet_degradation._compare_responses(("resnet-20", "plain-20"), results)


def test_responses_are_those_after_batch_norm_at_the_last_step():
    found = compare(
        # The convolution's own output, the first, does not count: means 0.3 and 0.5.
        resnet_20=[make_run(0, 9.0, 0.2, 0.4), make_run(1, 9.0, 0.3, 0.5)],
        plain_20=[make_run(0, 0.0, 1.0, 1.2), make_run(1, 0.0, 1.2, 1.4)],
    )
    assert found.value == pytest.approx((0.3 - 1.1 + 0.4 - 1.3) / 2) and found.seeds == 2
    assert found.over_seeds == pytest.approx(intervals.compute_student_interval([-0.8, -0.9]))


def test_without_measured_layers_the_claim_says_so():
    nothing = make_run(0, 9.0)
    found = compare(resnet_20=[nothing], plain_20=[make_run(0, 0.0, 1.0)])
    assert found.value is None and found.why == "no layers were measured"
