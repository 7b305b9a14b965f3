"""Forward parity: with equal weights our models give the logits of the papers' models in torch.nn.

PyTorch's values are in tests/testdata/torch, written by make_torch_references.py. If PyTorch is
installed, they are also computed again.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from parity import torch_cases as cases

REFERENCES = json.loads((Path(__file__).parents[1] / "testdata/torch/forward.json").read_text())
TOLERANCE = 1e-5  # Relative to the largest logit. The largest measured difference is 1.7e-6.
by_id = pytest.mark.parametrize("case", cases.FORWARD, ids=[case.id for case in cases.FORWARD])


@functools.lru_cache(maxsize=4)  # For the two tests of a case.
def ours(position):
    case = cases.FORWARD[position]
    model = case.model()

    def run(params, stats, images):
        return model.apply(params, stats, images)[0]

    # Residual models repeat few layers, and compiling each of them once is faster.
    if not case.name.startswith(("resnet", "plain")):
        run = jax.jit(run, compiler_options=cases.QUICKLY)
    return np.asarray(run(*cases.weights(case), cases.images(case)))


def test_every_case_has_a_reference():
    assert REFERENCES.keys() - {"made with"} == {case.id for case in cases.FORWARD}
    assert len(cases.FORWARD) == len({case.id for case in cases.FORWARD})


@by_id
def test_logits_are_the_references(case):
    theirs = np.float32(REFERENCES[case.id]["logits"])
    # Logits must differ between images and classes; otherwise parity would mean little.
    assert min(np.ptp(theirs, axis).max() for axis in (0, 1)) > 0.02 * np.abs(theirs).max()
    assert cases.difference(ours(cases.FORWARD.index(case)), theirs) < TOLERANCE


@by_id
def test_logits_are_those_of_the_torch_net(case):
    pytest.importorskip("torch")
    from parity.make_torch_references import forward

    theirs = np.float32(forward(case)["logits"])
    assert cases.difference(ours(cases.FORWARD.index(case)), theirs) < TOLERANCE
    assert cases.difference(theirs, REFERENCES[case.id]["logits"]) < TOLERANCE
