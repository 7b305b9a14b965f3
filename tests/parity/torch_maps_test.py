"""Maps: ours against those that PyTorch's autograd gives on the same weights.

What PyTorch gave is in tests/testdata/torch/maps.json, which make_torch_maps.py wrote; where
PyTorch is installed it is asked again.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, visualize
from parity import torch_cases as cases

REFERENCES = json.loads((Path(__file__).parents[1] / "testdata/torch/maps.json").read_text())
LAYERS = {
    "lenet5_modern-28x28": "pool2",
    "vgg_a-32x65-norm=bn": "pool5",
    "resnet20-33x25": "stage3",
    "zfnet-65x97": "pool5",
}
TOLERANCE = 2e-4  # in norms of each map; one unit at a ReLU's kink would be a difference
LABELS = jnp.array([3, 1])
STEPS = 8  # of the integral, as in make_torch_maps.py


def compute_maps(case):
    model = case.model()
    given = (model, *cases.weights(case), jnp.asarray(cases.images(case)), LABELS)
    maps = {
        rule: visualize.compute_gradients(*given, rule=rule).gradients
        for rule in ("backprop", "deconvnet", "guided")
    }
    maps["integrated"] = visualize.integrate_gradients(*given, steps=STEPS).attributions
    return maps, visualize.compute_grad_cam(*given)


@pytest.mark.parametrize("id", LAYERS)
def test_maps_are_those_of_pytorch(id):
    case = next(case for case in cases.FORWARD if case.id == id)
    theirs = dict(REFERENCES[id])
    cam = np.float32(theirs.pop("grad_cam"))
    maps, ours = compute_maps(case)
    assert not cases.apart(cases.measures(maps), theirs, TOLERANCE)
    assert ours.layer == LAYERS[id] and cam.max() > 0
    assert cases.difference(ours.coarse, cam) < TOLERANCE
    # The three rules differ, or parity would say little.
    norms = [theirs[rule][0] for rule in ("backprop", "deconvnet", "guided")]
    assert len({round(norm, 3) for norm in norms}) == 3


def test_every_case_is_referenced():
    assert REFERENCES.keys() - {"made with"} == set(LAYERS)
    assert all(name.split("-")[0] in models.MODELS for name in LAYERS)


@pytest.mark.parametrize("id", LAYERS)
def test_pytorch_gives_the_references(id):
    pytest.importorskip("torch")
    from parity import make_torch_maps

    place = next(place for place in make_torch_maps.PLACES if place.case == id)
    found, theirs = make_torch_maps.compute(place), dict(REFERENCES[id])
    assert cases.difference(found.pop("grad_cam"), np.float32(theirs.pop("grad_cam"))) < TOLERANCE
    assert not cases.apart(found, theirs, TOLERANCE)
