"""The backward rules of ReLU: by hand, wherever the ReLU stands, and in every model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.smallest import create_smallest

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.visualize.relu import (
    RULES,
    _count,
    _find_bodies,
    _is_relu,
    apply_relu_rule,
    count_relus,
    relu,
)

X = jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0])
SIGNAL = jnp.array([1.0, -1.0, 1.0, -3.0, 4.0])
PASSED = {
    "backprop": [0, 0, 0, -3, 4],  # where x > 0
    "deconvnet": [1, 0, 1, 0, 4],  # where the signal > 0
    "guided": [0, 0, 0, 0, 4],  # where both are
}


def scanned(x):
    return jax.lax.scan(lambda carry, row: (carry + 1.0, nn.relu(row)), 0.0, x[:, None])[1][:, 0]


# The ways in which a model may write a ReLU.
FORMS = {
    "flax": nn.relu,
    "jax": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "maximum, zero first": lambda x: jnp.maximum(0, x),
    "jit": jax.jit(lambda x: jnp.maximum(x, 0.0)),
    "remat": jax.checkpoint(nn.relu),
    "scan": scanned,
    "lambda": lambda x: (lambda y: nn.relu(y))(x),
}


def pull_back(function, x, signal):
    return jax.vjp(function, x)[1](signal)[0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrap", [jax.jit, lambda function: function], ids=["jit", "plain"])
def test_each_rule_reaches_each_form_of_relu(form, rule, wrap):
    changed = wrap(apply_relu_rule(FORMS[form], rule))
    np.testing.assert_array_equal(changed(X), jnp.maximum(X, 0))
    np.testing.assert_array_equal(pull_back(changed, X, SIGNAL), PASSED[rule])
    assert count_relus(FORMS[form], X) == 1


def test_bfloat16_keeps_its_dtype():
    pulled = pull_back(
        apply_relu_rule(nn.relu, "guided"), X.astype(jnp.bfloat16), SIGNAL.astype(jnp.bfloat16)
    )
    assert pulled.dtype == jnp.bfloat16
    np.testing.assert_array_equal(pulled.astype(jnp.float32), PASSED["guided"])


def test_other_maxima_keep_their_gradient():
    """Max pooling, the maximum of two arrays and of a number other than zero are no ReLUs."""

    def function(x):
        pooled = nn.max_pool(x.reshape(1, 1, 4, 1), (1, 2), (1, 2)).sum()
        return pooled + jnp.maximum(x, 0.5).sum() + jnp.maximum(x, x[::-1]).sum()

    x = jnp.array([-1.0, 0.25, 2.0, 1.0])
    assert count_relus(function, x) == 0
    guided = jax.grad(apply_relu_rule(function, "guided"))(x)
    np.testing.assert_array_equal(guided, jax.grad(function)(x))


def test_a_relu_that_cannot_be_replaced_is_refused():
    def function(x):
        return jax.lax.while_loop(lambda y: y.sum() > 100, nn.relu, x)

    with pytest.raises(UserError, match="a ReLU inside while keeps its own gradient"):
        apply_relu_rule(function, "guided")(X)


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match="rule=zeiler: choose backprop, deconvnet, guided"):
        apply_relu_rule(nn.relu, "zeiler")


# Each program runs once, which is not worth compiling it well.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
WITHOUT = ("perceptron", "lenet1", "lenet4", "lenet5")  # no hidden layer; the scaled tanh


def find_maxima(jaxpr):
    """(ReLUs with a rule, ReLUs without) of a program and of the programs inside it."""
    ruled = plain = 0
    for equation in jaxpr.eqns:
        if "bwd" in equation.params:  # A custom gradient.
            ruled += sum(_count(body) for body in _find_bodies(equation))
            continue
        plain += _is_relu(equation)
        for body in _find_bodies(equation):
            inside = find_maxima(body)
            ruled, plain = ruled + inside[0], plain + inside[1]
    return ruled, plain


@pytest.mark.parametrize("name", models.MODELS)
def test_no_relu_of_any_model_is_missed(name):
    """After the change no ReLU of the model is left without the rule."""
    model, params, stats, images = create_smallest(name)

    def run(x):
        return model.apply(params, stats, x)[0]

    total = count_relus(run, images)
    assert find_maxima(jax.make_jaxpr(run)(images).jaxpr) == (0, total)
    changed = jax.make_jaxpr(apply_relu_rule(run, "guided"))(images)
    assert find_maxima(changed.jaxpr) == (total, 0)
    assert (total == 0) == (name in WITHOUT)


# One of each file's; the others take minutes to compile, together.
FAMILIES = ("mlp", "small_cnn", "lenet5_modern", "autoencoder", "alexnet", "zfnet", "vgg_a",
            "googlenet", "bn_inception", "resnet20")  # fmt: skip
NUMERIC = [
    name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow)
    for name in models.MODELS
    if name not in WITHOUT
]


@pytest.mark.parametrize("name", NUMERIC)
def test_guided_differs_from_plain_in_every_model(name):
    """The same outputs, and gradients that differ."""
    model, params, stats, images = create_smallest(name)

    def run(x):
        return model.apply(params, stats, x)[0]

    def compute(x):
        pulled = {}
        for rule in ("backprop", "guided"):
            values, pull = jax.vjp(apply_relu_rule(run, rule), x)
            pulled[rule] = pull(jnp.ones_like(values))[0]
        return run(x), values, pulled

    outputs, values, pulled = jax.jit(compute).lower(images).compile(QUICKLY)(images)
    np.testing.assert_allclose(values, outputs, rtol=1e-4, atol=1e-5)
    plain, guided = (np.asarray(pulled[rule]) for rule in ("backprop", "guided"))
    assert np.isfinite(guided).all() and np.abs(guided).max() > 0
    assert np.abs(guided - plain).max() > 0.1 * np.abs(plain).max()


# Layers with a ReLU, by the papers' tables: convolutions and hidden dense layers.
COUNTS = {
    "mlp": 1,
    "lenet5_modern": 4,
    "alexnet": 7,
    "zfnet": 7,
    "vgg_a": 10,
    "vgg_d": 15,
    "resnet20": 1 + 3 * 2 + 3 * 2,  # The repeated blocks of a stage count once.
    "plain20": 1 + 3 * 2 + 3 * 2,
    "resnet50": 1 + 4 * 3 + 4 * 3,
    "googlenet": 57,
    "autoencoder": 4,
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_relu_of_a_model_is_found(name):
    model, params, stats, images = create_smallest(name)
    run = functools.partial(model.apply, params, stats)
    assert count_relus(lambda x: run(x)[0], images) == COUNTS[name]


def test_the_rule_is_a_function_of_its_own():
    np.testing.assert_array_equal(
        pull_back(functools.partial(relu, "guided"), X, SIGNAL), PASSED["guided"]
    )
