"""Parity in training: gradients, steps, statistics and auxiliary logits are those of torch.nn.

PyTorch's values are in tests/testdata/torch, written by make_torch_references.py. If PyTorch is
installed, they are also computed again.
"""

import functools
import json
import types
from pathlib import Path

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.config import choose
from cnn_jax.evaluation.losses import compute_cross_entropy
from cnn_jax.optim import make_optimizer
from cnn_jax.training import train_step
from cnn_jax.training.state import State, make_zero_sums
from parity import torch_cases as cases

REFERENCES = {
    kind: json.loads((Path(__file__).parents[1] / f"testdata/torch/{kind}.json").read_text())
    for kind in ("gradients", "auxiliary")
}
STEPS, STEPPED = 5, ("lenet5", "resnet20")  # Without and with batch norm.
kinds = {"gradients": cases.GRADIENTS, "auxiliary": cases.AUXILIARY}
gradient_cases, auxiliary_cases = (
    pytest.mark.parametrize("case", rows, ids=[case.id for case in rows]) for rows in kinds.values()
)


@pytest.mark.parametrize("kind", kinds)
def test_every_case_has_a_reference(kind):
    assert REFERENCES[kind].keys() - {"made with"} == {case.id for case in kinds[kind]}


# The bounds are about ten times the largest measured differences: 4e-6 of a gradient, 2e-6 of a
# statistic, 6e-7 of a model's logits and 3e-5 of an auxiliary head's.
def check_measures(found, expected, tolerances):
    for name, tolerance in tolerances.items():
        assert cases.apart(found[name], expected[name], tolerance) == {}, name


@functools.lru_cache(maxsize=2)  # For the two tests of a case.
def first_step(position):
    """Returns our loss, logits, gradients and updated statistics of one step."""
    case = cases.GRADIENTS[position]
    model, x = case.model(), cases.images(case)
    params, stats = cases.weights(case)

    def loss(params):
        logits, after = model.apply(params, stats, x, train=True)
        return compute_cross_entropy(logits, cases.LABELS).mean(), (logits, after)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=cases.QUICKLY)
    (value, (logits, after)), gradients = run(params)
    return {
        "loss": float(value),
        "logits": np.asarray(logits),
        "gradients": cases.measures(cases.as_torch(gradients)),
        "stats": cases.measures(cases.as_torch(after)),
    }


def check_first_step(found, expected):
    assert found["loss"] == pytest.approx(expected["losses"][0], rel=1e-5)
    assert cases.difference(found["logits"], np.float32(expected["logits"])) < 1e-5
    check_measures(found, expected, {"gradients": 1e-4, "stats": 1e-5})


@gradient_cases
def test_gradients_are_the_references(case):
    check_first_step(first_step(cases.GRADIENTS.index(case)), REFERENCES["gradients"][case.id])


@pytest.mark.parametrize(
    "case", [case for case in cases.GRADIENTS if case.id in STEPPED], ids=STEPPED
)
def test_steps_of_sgd_are_the_references(case):
    """With momentum and weight decay, by the training step that runs use."""
    expected = REFERENCES["gradients"][case.id]
    assert len(expected["losses"]) == STEPS
    assert max(expected["losses"]) > 1.01 * min(expected["losses"])  # The steps have an effect.
    params, stats = cases.weights(case)
    rate = cases.RATES[case.id]
    sgd = choose("sgd", momentum=0.9, weight_decay=0.5)
    optimizer = make_optimizer(sgd, choose("constant", base=rate), STEPS)
    opt = optimizer.init(params)
    state = State(jnp.int32(0), params, stats, opt, make_zero_sums(), jnp.int32(-1))
    # The loader changes neither batch nor images.
    loader = types.SimpleNamespace(
        fetch=lambda arrays, item: item, preprocess=lambda arrays, images, key, rows: images
    )
    batch = {"image": jnp.asarray(cases.images(case)), "label": jnp.asarray(cases.LABELS)}
    parts = train_step.StepParts(case.model(), optimizer, loader, jax.random.key(0))
    step = functools.partial(train_step.train_step, parts)
    one = jax.jit(step, compiler_options=cases.QUICKLY)
    sums = [0.0]
    for _ in range(STEPS):
        state = one(state, None, batch)
        sums.append(float(state.sums["loss"]))
    np.testing.assert_allclose(np.diff(sums), expected["losses"], rtol=1e-4)
    assert cases.apart(cases.measures(cases.as_torch(state.params)), expected["params"], 1e-4) == {}


@gradient_cases
def test_gradients_are_those_of_the_torch_net(case):
    pytest.importorskip("torch")
    from parity.make_torch_references import gradients

    theirs, kept = gradients(case), REFERENCES["gradients"][case.id]
    check_first_step(first_step(cases.GRADIENTS.index(case)), theirs)
    np.testing.assert_allclose(theirs["losses"], kept["losses"], rtol=1e-4)
    check_measures(theirs, kept, {"gradients": 1e-4, "stats": 1e-5, "params": 1e-4})


def undropped(call, args, kwargs, context):
    """Disables dropout, also in auxiliary heads, where no option does."""
    return args[0] if isinstance(context.module, flax.linen.Dropout) else call(*args, **kwargs)


@functools.lru_cache(maxsize=2)
def in_training(position):
    """Returns our logits in training, the main ones first, and the updated statistics."""
    case = cases.AUXILIARY[position]
    run = functools.partial(case.model().apply, train=True)
    with flax.linen.intercept_methods(undropped):
        logits, after = jax.jit(run, compiler_options=cases.QUICKLY)(
            *cases.weights(case), cases.images(case)
        )
    return {
        "logits": [np.asarray(head) for head in logits],
        "stats": cases.measures(cases.as_torch(after)),
    }


def check_in_training(found, expected):
    heads = [np.float32(head) for head in expected["logits"]]
    for logits, their_logits in zip(found["logits"], heads, strict=True):
        assert np.ptp(their_logits, 0).max() > 0.02 * np.abs(their_logits).max()
        assert cases.difference(logits, their_logits) < 2e-4
    check_measures(found, expected, {"stats": 1e-5})


@auxiliary_cases
def test_auxiliary_logits_are_the_references(case):
    expected = REFERENCES["auxiliary"][case.id]
    assert len(expected["logits"]) == (3 if case.name.startswith("googlenet") else 2)
    check_in_training(in_training(cases.AUXILIARY.index(case)), expected)


@auxiliary_cases
def test_auxiliary_logits_are_those_of_the_torch_net(case):
    pytest.importorskip("torch")
    from parity.make_torch_references import auxiliary

    theirs = auxiliary(case)
    check_in_training(in_training(cases.AUXILIARY.index(case)), theirs)
    check_in_training(theirs, REFERENCES["auxiliary"][case.id])
