"""Formulas compiled into MLPs: each agrees with Python's own value on its whole truth table."""

import itertools

import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.models.formulas import compile_formula, evaluate_formula, list_inputs

FORMULAS = {
    "(A and not X and Z) or (A and not Y)": 2,
    "(X and Y) or not (X and Z)": 3,
    "A and B and C": 1,
    "not (A or B)": 1,
    "X ^ Y": 2,
    "A ^ B ^ C": 4,
    "A or not A": 2,
    "A and not A": 1,
    "A or True": 1,
    "False or A": 1,
    "not (A ^ (B and not (C or D)))": 4,
}


def answers(mlp):
    model = models.create("mlp", 2, hidden=(mlp.units,))
    inputs = list_inputs(len(mlp.variables))
    logits, _ = model.apply(mlp.params, {}, inputs.reshape(len(inputs), 1, inputs.shape[1], 1))
    return np.asarray(logits[:, 1] > logits[:, 0])


@pytest.mark.parametrize("text", FORMULAS)
def test_the_net_has_python_s_own_truth_table(text):
    mlp = compile_formula(text)
    rows = itertools.product((False, True), repeat=len(mlp.variables))
    code = compile(text, "formula", "eval")
    expected = [bool(eval(code, dict(zip(mlp.variables, row, strict=True)))) for row in rows]
    assert evaluate_formula(text).tolist() == expected
    assert answers(mlp).tolist() == expected
    assert mlp.units == FORMULAS[text]


def test_a_hidden_unit_is_exactly_one_or_zero():
    mlp = compile_formula("A and not B and C")
    hidden = mlp.params["Dense_0"]
    values = np.maximum(list_inputs(3) @ hidden["kernel"] + hidden["bias"], 0)
    assert set(values.ravel()) == {0.0, 1.0} and values.sum() == 1


@pytest.mark.parametrize(
    "text", ["A and", "A + B", "f(A)", "1", "A if B else C", "", "A & B", "True"]
)
def test_what_is_no_formula_is_one_line(text):
    with pytest.raises(UserError, match=r"formula .*: "):
        compile_formula(text)
